# needs: docker

# --init: a small init as process 1, which reaps orphans and passes signals on.
docker_run --rm --init deb:1 sh -c 'cat /proc/1/comm; echo $$ >/dev/null; sh -c "sleep 0.1 & exec true"; sleep 0.5; ps -eo stat= | grep -c Z'
status docker_run --rm --init deb:1 sh -c 'exit 9'
docker_run -d --name box --init deb:1 sleep 1000 >/dev/null
docker exec box ps -o comm= 1
docker stop -t 20 box
docker inspect -f '{{.State.ExitCode}}' box
docker rm box
