curl -si "$URL/v1/complete"
