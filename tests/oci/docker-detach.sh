# needs: docker

# A container in the background: its state, its log, its end.
docker_run -d --name box deb:1 sh -c 'echo started; echo warn >&2; sleep 0.5; echo ended; exit 3' | wc -c
docker ps --format '{{.Names}} {{.Image}} {{.Status}}' | sed 's/Up .*/Up/'
docker wait box
docker logs box 2>/dev/null
docker logs box 2>&1 >/dev/null
docker ps -a --format '{{.Names}} {{.Status}}' | sed 's/ago//; s/) .*/)/'
docker inspect -f '{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}} {{.State.Pid}} {{.State.Error}}' box
docker rm box
# Output before the client asks for it, and while it does.
docker_run -d --name chatty deb:1 sh -c 'i=0; while [ $i -lt 5 ]; do echo line $i; i=$((i+1)); sleep 0.1; done' >/dev/null
docker logs -f chatty
docker rm -f chatty
docker_run -d --name long deb:1 sleep 1000 >/dev/null
docker rm long 2>&1 | grep -c 'cannot remove\|running container'
docker rm -f long
docker ps -aq
