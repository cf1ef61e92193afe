# needs: docker

# The same container again: its files stay, its processes do not.
docker_run -d --name box deb:1 sh -c 'echo run >> /runs; trap "exit 0" TERM; while :; do sleep 0.1; done' >/dev/null
ran() { test "$(docker exec box cat /runs 2>/dev/null | wc -l)" = "$1"; }
eventually ran 1
first=$(docker inspect -f '{{.State.Pid}}' box)
docker restart -t 20 box
eventually ran 2
test "$first" != "$(docker inspect -f '{{.State.Pid}}' box)" && echo 'another process'
docker stop -t 20 box
docker inspect -f '{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}' box
docker start box
eventually ran 3
docker exec box cat /runs
docker kill box
docker start -a box & eventually ran 4
docker stop -t 20 box; wait; docker rm box
# A restart policy.
docker_run -d --name box --restart on-failure:2 deb:1 sh -c 'echo try; exit 4' >/dev/null
tried() { test "$(docker inspect -f '{{.RestartCount}} {{.State.Status}}' box)" = "2 exited"; }
eventually tried
docker logs box
docker inspect -f '{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}' box
docker rm box
