curl -si "$URL/photon.svg" -H "If-None-Match: $(curl -sI "$URL/photon.svg" | tr -d "\r" | sed -n "s/^etag: //Ip")"
