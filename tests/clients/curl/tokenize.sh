curl -s "$URL/tokenize" -H "Content-Type: application/json" -d '{"prompt": "Lily smiled. 🌻"}'
