# needs: docker

# More processes in a running container.
docker_run -d --name box -e FROM=run -w /usr deb:1 sleep 1000 >/dev/null
docker exec box sh -c 'echo hello; pwd; echo $FROM; id -u; cat /proc/1/comm'
docker exec -e FROM=exec -w /tmp -u 65534:7 box sh -c 'echo $FROM; pwd; id'
docker exec -u nobody box id
seq 1000 | docker exec -i box tail -n 1
status docker exec box sh -c 'exit 42'
status docker exec box sh -c 'kill -KILL $$'
docker exec box /no/such/program >/dev/null 2>&1; echo "status $?"
docker exec box /etc/passwd >/dev/null 2>&1; echo "status $?"
docker exec -w /no/such/directory box true >/dev/null 2>&1; echo "status $?"
# Processes of an exec see those of the container, and what they make stays.
docker exec box sh -c 'set -- /proc/[0-9]*; echo $#; ps -o comm= 1; echo made > /made'
docker exec box cat /made
docker exec -d box sh -c 'echo detached > /detached; sleep 1000'
eventually docker exec box grep -q detached /detached
docker exec box sh -c 'ps -eo comm= | sort' | grep -v -x -e ps -e sort
# Many at a time.
for i in 1 2 3 4 5 6 7 8; do docker exec box sh -c "echo exec $i; exit $i" & done | sort
wait
docker rm -f box
status docker exec box true 2>/dev/null
