# needs: docker

# 125: Docker itself failed; 126: the command cannot be run; 127: it is not there.
status docker_run --rm --no-such-flag deb:1 true 2>/dev/null
status docker_run --rm deb:1 /etc/passwd 2>/dev/null
status docker_run --rm deb:1 /usr 2>/dev/null
status docker_run --rm deb:1 /no/such/command 2>/dev/null
status docker_run --rm deb:1 no-such-command 2>/dev/null
status docker_run --rm -u no-such-user deb:1 true 2>/dev/null
status docker_run --rm -w /etc/passwd deb:1 true 2>/dev/null
# A script without an interpreter line, and one whose interpreter is missing: runc says 1 for both, when it has started.
printf 'echo script\n' > bare; printf '#!/no/such/interpreter\n' > missing; chmod 755 bare missing
docker_run --rm -v "$PWD:/s" deb:1 /s/bare 2>/dev/null || echo 'no format'
docker_run --rm -v "$PWD:/s" deb:1 /s/missing 2>/dev/null || echo 'no interpreter'
# None of these leaves a container, and a container that could not start can be removed.
docker ps -aq
docker create --runtime "$RUNTIME" --network none --name box deb:1 /no/such/command | wc -c
status docker start box 2>/dev/null
docker inspect -f '{{.State.Status}} {{.State.ExitCode}}' box
docker rm box
