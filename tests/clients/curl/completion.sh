curl -si "$URL/v1/completions" -H "Content-Type: application/json" -d '{
  "model": "photon-stories", "prompt": "Once upon a time, there was a", "max_tokens": 16, "temperature": 0}'
