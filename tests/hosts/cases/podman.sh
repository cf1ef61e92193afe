# 300s Podman of root, with both managers of cgroups.
. /usr/local/lib/library.sh
podman import /usr/local/lib/busybox.tar busybox >/dev/null 2>&1
for manager in cgroupfs systemd; do
    run() { podman --cgroup-manager=$manager --runtime /usr/local/bin/moat run --rm --network none "$@"; }
    same "run with $manager" "$(run busybox echo hi)" hi
    same "a limit inside with $manager" "$(run -m 64m busybox head -n 1 /proc/meminfo | tr -s ' ')" "MemTotal: 65536 kB"
done
