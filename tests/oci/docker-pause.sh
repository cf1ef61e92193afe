# needs: docker

# A paused container does nothing, but can be ended.
docker_run -d --name box deb:1 sh -c 'i=0; while :; do i=$((i+1)); echo $i > /count; sleep 0.05; done' >/dev/null
eventually docker exec box test -e /count
docker cp box:/count before
docker pause box
docker inspect -f '{{.State.Status}} {{.State.Paused}} {{.State.Running}}' box
docker ps --format '{{.Status}}' | grep -o '(Paused)'
docker cp box:/count one; sleep 0.5; docker cp box:/count two
cmp one two && echo 'stands still'
docker exec box true 2>/dev/null || echo 'no exec'
docker unpause box
docker inspect -f '{{.State.Status}} {{.State.Paused}}' box
moved() { docker cp box:/count now; ! cmp -s now two; }
eventually moved && echo 'moves again'
docker unpause box 2>/dev/null || echo 'is not paused'
docker pause box
docker rm -f box
