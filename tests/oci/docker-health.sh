# needs: docker

# A health check: a command that Docker runs inside again and again.
docker_run -d --name box --health-cmd 'test -e /healthy' --health-interval 200ms --health-retries 2 deb:1 sleep 1000 >/dev/null
is() { test "$(docker inspect -f '{{.State.Health.Status}}' box)" = "$1"; }
eventually is unhealthy && echo unhealthy
docker exec box touch /healthy
eventually is healthy && echo healthy
docker inspect -f '{{(index .State.Health.Log 0).ExitCode}}' box
docker rm -f box
