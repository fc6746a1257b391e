curl -s "$URL/detokenize" -H "Content-Type: application/json" -d '{"tokens": [1, 300, 301, 302]}'
