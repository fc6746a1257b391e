curl -si "$URL/v1/completions" -H "Content-Type: text/plain" -d "{}"
