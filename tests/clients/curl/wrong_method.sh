curl -si -X DELETE "$URL/v1/completions"
