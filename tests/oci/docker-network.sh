# needs: docker

# none: only loopback. host: the host's interfaces and ports.
docker_run --rm deb:1 sh -c 'cut -d : -f 1 /proc/net/dev | tail -n +3; cat /etc/hosts | grep -c localhost; cat /proc/net/tcp | wc -l'
host=$RUNTIME
[ "$RUNTIME" = moat ] && host=moat-host
python3 -c '
import socket
s = socket.create_server(("127.0.0.1", 5005))
for i in range(2):
    c, _ = s.accept()
    c.sendall(b"from the host: " + c.recv(100))
    c.close()' &
sleep 0.3
client='exec 3<>/dev/tcp/127.0.0.1/5005; echo $0 >&3; cat <&3'
docker run --rm --runtime "$host" --network host deb:1 bash -c "$client" question
docker_run --rm deb:1 bash -c "$client" question 2>&1 | grep -o 'Connection refused' | head -n 1
# A server in the container, its client on the host.
docker run -d --name box --runtime "$host" --network host deb:1 perl -e '
    use Socket; socket(S, PF_INET, SOCK_STREAM, 0); setsockopt(S, SOL_SOCKET, SO_REUSEADDR, 1);
    bind(S, sockaddr_in(5006, INADDR_ANY)) or die; listen(S, 5); accept(C, S); syswrite(C, "from the container\n");' >/dev/null
answer() { bash -c 'exec 3<>/dev/tcp/127.0.0.1/5006; cat <&3' 2>/dev/null; }
eventually answer
docker wait box
docker rm box
bash -c "$client" last
wait
docker run --rm --runtime "$host" --network host deb:1 hostname
