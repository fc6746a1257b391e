curl -s "$URL/v1/completions" -H "Content-Type: application/json" -d '{
  "prompt": [[1, 300, 301], [1, 300]], "max_tokens": 4, "temperature": 0, "protocol": "recgen"}'
