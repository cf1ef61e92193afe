# needs: docker

# Output, input, and the exit status of the command.
docker_run --rm deb:1 echo hello
docker_run --rm deb:1 sh -c 'echo out; echo err >&2; exit 7' 2>/dev/null
echo "status $?"
docker_run --rm deb:1 sh -c 'echo err >&2' 2>&1 >/dev/null
printf 'one\ntwo\n' | docker_run --rm -i deb:1 tac
seq 100000 | docker_run --rm -i deb:1 cksum
docker_run --rm deb:1 seq 100000 | cksum
status docker_run --rm deb:1 sh -c 'kill -TERM $$'
status docker_run --rm deb:1 sh -c 'sleep 100 & kill -KILL $!; wait $!'
status docker_run --rm --entrypoint /usr/bin/env deb:1 echo entry
# What is in the container, and what is not.
docker_run --rm deb:1 sh -c 'cat /proc/1/comm; set -- /proc/[0-9]*; echo $#; ls /; ls /dev; tty'
docker_run --rm deb:1 sh -c 'cat /proc/net/dev | tail -n +3 | cut -d : -f 1; umask; pwd; id'
docker ps -aq
