curl -si "$URL/v1/chat/completions" -H "Content-Type: application/json" -d '{
  "model": "photon-stories", "messages": [{"role": "user", "content": "Hello"}]}'
