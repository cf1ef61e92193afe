# needs: docker
# timeout: 120

# The default route of a running container goes with the networks that it is connected to.
docker network create --subnet 10.210.1.0/24 one > /dev/null
docker network create --subnet 10.210.2.0/24 two > /dev/null
docker run -d --name guest --runtime "$RUNTIME" --network one deb:1 sleep 600 > /dev/null
cat > look.py <<'EOF'
import socket, struct, sys, time
want, other = sys.argv[1:]
for _ in range(100):
    fields = [l.split() for l in open("/proc/net/route")]
    ways = [socket.inet_ntoa(struct.pack("=I", int(f[2], 16))) for f in fields if f[1] == "00000000"]
    if ways == [want]: break
    time.sleep(0.1)
print("by", *ways)
# An address of the host that only the gateway knows the way to: nobody listens there, and the host says so.
try: socket.create_connection((other, 9), 5)
except ConnectionRefusedError: print("reached")
except OSError as e: print(e)
EOF
look() {
    docker exec guest python3 -c "$(cat look.py)" "$@"
}
look 10.210.1.1 10.210.2.1
docker network connect two guest && echo connected
look 10.210.1.1 10.210.2.1
docker network disconnect one guest && echo disconnected
look 10.210.2.1 10.210.1.1
docker network connect one guest && echo connected
look 10.210.1.1 10.210.2.1
docker network disconnect one guest && echo disconnected
look 10.210.2.1 10.210.1.1
docker kill guest > /dev/null
docker rm guest > /dev/null
docker network rm one two > /dev/null
