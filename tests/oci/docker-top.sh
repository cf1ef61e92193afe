# needs: docker

# The container's processes as the host sees them.
docker_run -d --name box deb:1 sh -c 'sleep 1001 & sleep 1002 & wait' >/dev/null
eventually docker exec box sh -c 'test $(ps -eo comm= | grep -c sleep) = 2'
names() { docker top box -eo pid,comm | tail -n +2 | awk '{ print $2 }' | sort; }
names
# With no format given, the whole command lines.
docker top box | head -n 1 | tr -s ' '
docker exec -d box sleep 1003
three() { test "$(names | grep -c sleep)" = 3; }
eventually three
names
docker stats --no-stream --format '{{.Name}} {{.PIDs}} {{.MemUsage}}' box > stats
grep -c '^box [1-9]' stats
# A figure, not nothing.
awk '{ print ($3 ~ /^[1-9]/ ? "memory" : $0) }' stats
docker exec -d box sh -c 'while :; do :; done'
busy() { docker stats --no-stream --format '{{.CPUPerc}}' box | grep -q '^[0-9.]*[1-9]'; }
eventually busy && echo busy
docker rm -f box
