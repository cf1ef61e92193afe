# 300s containerd's own client, through the shim of runc.
. /usr/local/lib/library.sh
systemctl start containerd
docker_image=/run/image
if ! ctr image ls | grep -q busybox; then
    mkdir -p $docker_image
    podman import /usr/local/lib/busybox.tar localhost/busybox:1 >/dev/null 2>&1
    podman save --format docker-archive -o $docker_image/busybox.tar localhost/busybox:1 >/dev/null 2>&1
    ctr image import $docker_image/busybox.tar >/dev/null
fi
image=$(ctr image ls -q | head -n 1)
run() { ctr run --rm --runc-binary /usr/local/bin/moat "$@"; }
same "run" "$(run "$image" c1 echo hi)" hi
same "a limit inside" "$(run --memory-limit 67108864 "$image" c2 head -n 1 /proc/meminfo | tr -s ' ')" "MemTotal: 65536 kB"
same "a limit by systemd" "$(run --runc-systemd-cgroup --cgroup system.slice:ctr:c3 --memory-limit 67108864 "$image" c3 head -n 1 /proc/meminfo | tr -s ' ')" "MemTotal: 65536 kB"
systemctl stop containerd
