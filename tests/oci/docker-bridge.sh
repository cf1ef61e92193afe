# needs: docker
# oracle: none
# timeout: 30

# Bridge networks are not there yet: that has to be said clearly, at once, and to leave nothing.
docker run --rm --runtime "$RUNTIME" deb:1 true 2> error
code=$?
cat error
[ "$code" = 125 ] || { echo "status $code"; exit 1; }
grep -q 'network interface eth0: moat has no bridge networking yet; use network mode none or host' error || exit 1
docker run -d --runtime "$RUNTIME" --name box deb:1 sleep 1000 2>/dev/null && exit 1
docker rm box
# A container of the host's network needs a runtime that was told so: moat-host in docker-network.
docker run --rm --runtime "$RUNTIME" --network host deb:1 true 2> error && exit 1
cat error
grep -q 'network' error
