curl -si "$URL/v1/completions" -H "Content-Type: application/json" -d '{"prompt": "x", "max_tokens": 4096}'
