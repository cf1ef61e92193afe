# needs: docker
# timeout: 180

# The default bridge: an interface with an address and a way out; what is said of it inside agrees.
docker run --rm --runtime "$RUNTIME" deb:1 sh -c '
    ls /sys/class/net; cat /sys/class/net/eth0/mtu
    tail -n +3 /proc/net/dev | cut -d : -f 1 | tr -d " " | sort
    awk "NR > 1 {print \$1, \$2, \$8}" /proc/net/route | sort | sed "s/[0-9A-F]\{8\} [1-9A-F][0-9A-F]* /X X /"'
# A network of the user's: names, both ways, over TCP and UDP.
docker network create net > /dev/null
serve='
import socket, threading
def tcp(family, port):
    s = socket.create_server(("", port), family=family)
    while True:
        c, _ = s.accept()
        data = b""
        while chunk := c.recv(1 << 16): data += chunk
        c.sendall(b"%d bytes, %d\n" % (len(data), sum(data) % 65521)); c.close()
threading.Thread(target=tcp, args=(socket.AF_INET, 7000), daemon=True).start()
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("", 7001))
while True:
    data, peer = u.recvfrom(65536); u.sendto(b"echo " + data, peer)'
docker run -d --name server --hostname server --runtime "$RUNTIME" --network net -p 127.0.0.1:7070:7000 deb:1 python3 -c "$serve" > /dev/null
ask='
import socket, sys, time
host, port = sys.argv[1], int(sys.argv[2])
for _ in range(100):
    try: s = socket.create_connection((host, port), 10); break
    except ConnectionRefusedError: time.sleep(0.1)
data = bytes(range(251)) * int(sys.argv[3])
s.sendall(data); s.shutdown(socket.SHUT_WR); s.settimeout(30)
print(s.recv(100).decode(), end="")
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(10)
if len(sys.argv) > 4: u.sendto(b"datagram" * 200, (host, 7001)); print(len(u.recv(65536)))'
client() {
    docker run --rm --runtime "$RUNTIME" --network net "$@"
}
client deb:1 python3 -c "$ask" server 7000 1 udp
client deb:1 python3 -c "$ask" server 7000 40000 udp
# The other is not there, or does not listen.
client deb:1 python3 -c '
import errno, socket
try: socket.getaddrinfo("nobody", 80)
except socket.gaierror as e: print(e.errno in (socket.EAI_NONAME, socket.EAI_AGAIN))
for port in 7999,:
    try: socket.create_connection(("server", port), 5)
    except OSError as e: print(errno.errorcode[e.errno])
s = socket.socket(); s.settimeout(20)
address = socket.gethostbyname("server").rsplit(".", 1)[0] + ".254"
try: s.connect((address, 1))
except OSError as e: print(errno.errorcode.get(e.errno))'
# From the host, through the published port.
python3 -c "$ask" 127.0.0.1 7070 100000
# A container in the network of another one: its addresses and its loopback device.
docker run --rm --runtime "$RUNTIME" --network container:server deb:1 python3 -c "$ask" 127.0.0.1 7000 3
docker run --rm --runtime "$RUNTIME" --network container:server deb:1 ls /sys/class/net
# What goes over its interface can be seen from outside.
if [ "$RUNTIME" = moat ]; then
    id=$(docker inspect -f '{{.Id}}' server)
    state=$(dirname "$(find /run/docker* /var/run/docker* -type d -name "$id" -path '*runtime-*' 2>/dev/null | head -1)")
    address=$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' server)
    python3 "$HERE/capture.py" "$address" "$OCI" --root "$state" debug --duration 1s --pcap capture "$id" || exit 1
fi
# A restart keeps name and port; a killed server leaves nothing behind that answers.
docker restart -t 0 server > /dev/null
client deb:1 python3 -c "$ask" server 7000 2 udp
docker kill server > /dev/null
docker rm server > /dev/null
docker network rm net > /dev/null
ip -br link | grep -c veth
# The host's network needs a runtime that was told so: moat-host in docker-network.
if [ "$RUNTIME" = moat ]; then
    docker run --rm --runtime "$RUNTIME" --network host deb:1 true 2> error && exit 1
    grep -q -e '--network=host' error || { cat error; exit 1; }
fi
