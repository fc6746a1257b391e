curl -si "$URL/health"
