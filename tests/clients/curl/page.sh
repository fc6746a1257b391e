curl -sI "$URL/"
