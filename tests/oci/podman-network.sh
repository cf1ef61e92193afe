# needs: podman
# timeout: 120

# Networks of Podman: one that a container begins with, one that is connected while it runs, and taken away again.
podman network create --subnet 10.212.1.0/24 one > /dev/null || exit
podman network create --subnet 10.212.2.0/24 two > /dev/null || exit
serve='
import socket
s = socket.create_server(("", 7000))
while True: c, _ = s.accept(); c.sendall(b"hello\n"); c.close()'
podman --runtime "$OCI" run -d --name server --network two --ip 10.212.2.9 deb:1 python3 -c "$serve" > /dev/null
podman --runtime "$OCI" run -d --name guest --network one deb:1 sleep 600 > /dev/null
cat > look.py <<'EOF'
import os, socket, struct, sys, time
want = sys.argv[1].split(",")
for _ in range(100):
    have = sorted(n for n in os.listdir("/sys/class/net") if n.startswith("eth"))
    if have == want: break
    time.sleep(0.1)
print("interfaces", ",".join(have))
# The ways out in their order: of two of one metric the first one counts, which an engine may have put before the other.
def ways():
    fields = [l.split() for l in open("/proc/net/route")]
    return [socket.inet_ntoa(struct.pack("=I", int(f[2], 16))) for f in fields if f[1] == "00000000"]
for _ in range(100):
    out = ways()
    if out == sys.argv[2].split(","): break
    time.sleep(0.1)
print("by", *out)
for _ in range(50):
    try: s = socket.create_connection(("10.212.2.9", 7000), 2); print(s.recv(100).decode(), end=""); break
    except OSError as e: last = e; time.sleep(0.1)
else: print(last)
EOF
look() {
    podman exec guest python3 -c "$(cat look.py)" "$@"
}
podman network connect two guest && echo connected
look eth0,eth1 10.212.2.1,10.212.1.1
podman network disconnect two guest && echo disconnected
podman exec guest sh -c 'for _ in $(seq 100); do [ -e /sys/class/net/eth1 ] || break; sleep 0.1; done; ls /sys/class/net'
podman network connect --ip 10.212.2.44 two guest && echo connected
look eth0,eth1 10.212.2.1,10.212.1.1
podman rm -f -t 0 server guest > /dev/null
podman network rm one two > /dev/null
