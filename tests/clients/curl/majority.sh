curl -s "$URL/v1/completions" -H "Content-Type: application/json" -d '{
  "prompt": "The dog was very", "max_tokens": 3, "temperature": 0, "n": 4, "integrate": "majority"}'
