curl -s "$URL/v1/completions" -H "Content-Type: application/json" -d '{
  "prompt": "Lily and", "max_tokens": 3, "temperature": 0, "echo": true, "logprobs": 2, "return_token_ids": true}'
