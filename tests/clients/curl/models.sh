curl -s "$URL/v1/models"
