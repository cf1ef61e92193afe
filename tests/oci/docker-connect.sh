# needs: docker
# timeout: 120

# Networks that are connected to a running container, and taken away again.
docker network create one > /dev/null
docker network create two > /dev/null
serve='
import socket
s = socket.create_server(("", 7000))
while True: c, _ = s.accept(); c.sendall(b"hello\n"); c.close()'
docker run -d --name server --runtime "$RUNTIME" --network two deb:1 python3 -c "$serve" > /dev/null
docker run -d --name guest --runtime "$RUNTIME" --network one deb:1 sleep 600 > /dev/null
# What a container has is told when it has changed: an interface is looked for a while.
cat > look.py <<'EOF'
import os, socket, sys, time
want = sys.argv[1].split(",")
for _ in range(100):
    have = sorted(n for n in os.listdir("/sys/class/net") if n.startswith("eth"))
    if have == [n for n in want if n]: break
    time.sleep(0.1)
print("interfaces", ",".join(have))
for _ in range(50):
    try: s = socket.create_connection(("server", 7000), 5); print(s.recv(100).decode(), end=""); break
    except OSError as e: last = e; time.sleep(0.1)
    if len(sys.argv) > 2: print("unreachable"); break
else: print(last)
EOF
look() {
    docker exec guest python3 -c "$(cat look.py)" "$@"
}
look eth0 alone
docker network connect two guest && echo connected
look eth0,eth1
# What was there before goes on, and the way out as well.
docker exec guest awk '$2 == "00000000" {n++} END {print n, "way out"}' /proc/net/route
docker network disconnect two guest && echo disconnected
look eth0 alone
docker network connect two guest && echo connected
look eth0,eth2
docker network disconnect one guest && echo disconnected
look eth2
# From the default network, which has no resolver, to one that has.
docker run -d --name late --runtime "$RUNTIME" deb:1 sleep 600 > /dev/null
docker network connect two late && echo connected
docker exec late python3 -c "$(cat look.py)" eth0,eth1
docker kill server guest late > /dev/null
docker rm server guest late > /dev/null
docker network rm one two > /dev/null
if [ "$RUNTIME" = moat ]; then
    # Nobody is left who watches.
    for _ in $(seq 50); do pgrep -x moat-links > /dev/null || break; sleep 0.1; done
fi
ip -br link | grep -c veth || true
