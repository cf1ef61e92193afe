# needs: docker
# timeout: 120

# A network with IPv6: addresses, names, the way out, and what comes from the host.
docker network create --ipv6 --subnet 10.211.1.0/24 --subnet fd00:211::/64 six > /dev/null || exit
docker network create --ipv6 --subnet 10.211.2.0/24 --subnet fd00:212::/64 other > /dev/null
serve='
import socket
s = socket.create_server(("::", 7000), family=socket.AF_INET6)
while True: c, a = s.accept(); c.sendall(a[0].encode() + b"\n"); c.close()'
docker run -d --name server --runtime "$RUNTIME" --network six --ip6 fd00:211::5 deb:1 python3 -c "$serve" > /dev/null
docker run -d --name guest --runtime "$RUNTIME" --network six --ip6 fd00:211::6 deb:1 sleep 600 > /dev/null
cat > ask.py <<'EOF'
import socket, sys, time
for _ in range(100):
    try:
        ip = socket.getaddrinfo(sys.argv[1], 7000, socket.AF_INET6)[0][4]
        s = socket.create_connection(ip[:2], 5)
        print(ip[0], "knows", s.recv(100).decode(), end="")
        break
    except OSError as e: last = e; time.sleep(0.1)
else: print(last)
EOF
docker exec guest python3 -c "$(cat ask.py)" server
# From the host, and in fragments.
python3 ask.py fd00:211::5 | sed 's/knows.*/answers the host/'
docker exec guest ping -6 -c 1 -s 3000 fd00:211::5 | grep -o '1 received'
# The gateway of another network, which only the own one knows the way to.
docker exec guest ping -6 -c 1 fd00:212::1 | grep -o '1 received'
docker network connect other guest && echo connected
docker exec guest python3 -c '
import time
for _ in range(100):
    have = sorted(l.split()[0][:8] for l in open("/proc/net/if_inet6") if l.startswith("fd"))
    if len(have) == 2: break
    time.sleep(0.1)
print(*have)'
docker network disconnect six guest && echo disconnected
for _ in $(seq 50); do
    docker exec guest ping -6 -c 1 -w 1 fd00:211::1 > out && break
    sleep 0.1
done
grep -o '1 received' out
docker kill server guest > /dev/null
docker rm server guest > /dev/null
docker network rm six other > /dev/null
