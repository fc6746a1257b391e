curl -siN "$URL/v1/completions" -H "Content-Type: application/json" -d '{
  "prompt": "Once upon a time, there was a", "max_tokens": 6, "temperature": 0, "stream": true,
  "stream_options": {"include_usage": true}}'
