# needs: docker

# kill and stop: which signals the container's first process gets, and how it then ends.
trapping='for s in HUP INT USR1 TERM; do trap "echo got $s" $s; done; trap "echo got QUIT; exit 9" QUIT; echo ready
while :; do sleep 0.1; done'
docker_run -d --name box deb:1 sh -c "$trapping" >/dev/null
ready() { docker logs box 2>&1 | grep -q "$1"; }
eventually ready ready
for signal in HUP SIGUSR1 15 INT; do
    docker kill -s "$signal" box
    name=${signal#SIG}
    eventually ready "got $(echo "$name" | sed 's/15/TERM/')"
done
docker kill -s QUIT box
docker wait box
docker logs box
docker rm box
# stop: TERM, and KILL when that is ignored.
docker_run -d --name box deb:1 sh -c 'trap "echo bye; exit 5" TERM; echo ready; while :; do sleep 0.1; done' >/dev/null
eventually ready ready
docker stop -t 20 box
docker inspect -f '{{.State.Status}} {{.State.ExitCode}}' box
docker logs box
docker rm box
docker_run -d --name box deb:1 sh -c 'trap "" TERM; echo ready; while :; do sleep 0.1; done' >/dev/null
eventually ready ready
docker stop -t 1 box
docker inspect -f '{{.State.Status}} {{.State.ExitCode}}' box
docker rm box
docker_run -d --name box deb:1 sh -c 'echo ready; sleep 1000' >/dev/null
eventually ready ready
docker kill box
docker wait box
docker inspect -f '{{.State.Status}} {{.State.ExitCode}}' box
docker kill box 2>/dev/null || echo 'not running'
docker rm box
# The client passes on what it gets itself.
docker run --rm --runtime "$RUNTIME" --network none deb:1 sh -c 'trap "echo told; exit 6" TERM; echo ready; while :; do sleep 0.1; done' > out &
client=$!
eventually grep -q ready out
kill -TERM $client
wait $client
echo "status $?"; cat out
