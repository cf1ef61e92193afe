# 400s Docker with AppArmor's profile docker-default.
. /usr/local/lib/library.sh
moat install --clients docker >/dev/null
systemctl start docker || { journalctl -u docker | tail -n 20; fail "docker does not start"; }
docker import /usr/local/lib/busybox.tar busybox >/dev/null
run() { docker run --rm --runtime moat --network none "$@"; }
same "run" "$(run busybox echo hi)" hi
says docker-default cat /sys/kernel/security/apparmor/profiles
same "a limit inside" "$(run -m 64m busybox head -n 1 /proc/meminfo | tr -s ' ')" "MemTotal: 65536 kB"
status=0; run busybox sh -c 'exit 7' || status=$?
same "an exit code" "$status" 7
docker run -d --runtime moat --network none --name d1 busybox sleep 1000 >/dev/null
same "exec" "$(docker exec d1 echo there)" there
# By descriptions of their own, which a file on an overlayfs of an older host knows nothing of.
docker exec d1 sh -c 'echo a >>/appended'
docker exec d1 sh -c '(for i in $(seq 50); do echo b >>/appended; done) & for i in $(seq 50); do echo c >>/appended; done; wait'
same "what is appended" "$(docker exec d1 sort /appended | uniq -c | tr -s ' \n' ' ')" " 1 a 50 b 50 c "
docker update -m 128m --memory-swap 128m d1 >/dev/null
same "the memory inside after update" "$(docker exec d1 head -n 1 /proc/meminfo | tr -s ' ')" "MemTotal: 131072 kB"
docker pause d1 >/dev/null; docker unpause d1 >/dev/null
docker rm -f d1 >/dev/null
same "a bridge" "$(docker run --rm --runtime moat busybox sh -c 'grep -c eth0 /proc/net/dev')" 1
says "$(docker info -f '{{.CgroupDriver}}')" echo "cgroupfs systemd"
systemctl stop docker docker.socket containerd
