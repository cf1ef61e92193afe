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
# moat's own shim: figures of the guest's tasks, and the host's of memory and time.
ln -sf moat /usr/local/bin/containerd-shim-moat-v1
shim() { ctr run --runtime io.containerd.moat.v1 "$@"; }
same "run by the shim" "$(shim --rm "$image" s1 echo hi)" hi
shim --detach --memory-limit 67108864 "$image" s2 sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done; sleep 1000 & exec sleep 1000'
metric() { ctr task metrics s2 | awk -v name="$1" '$1 == name { print $2 }'; }
wait_for '[ "$(metric pids.current)" = 2 ]'
same "the limit of memory in the figures" "$(metric memory.usage_limit)" 67108864
[ "$(metric memory.usage)" -gt 1000000 ] || fail "use of memory: $(ctr task metrics s2)"
used=$(metric cpu.usage_usec)
[ "$used" -gt 10000 ] || fail "use of processors: $(ctr task metrics s2)"
ctr task exec --exec-id e1 s2 sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done'
[ "$(metric cpu.usage_usec)" -gt "$used" ] || fail "no more use of processors: $(ctr task metrics s2)"
ctr task kill -s KILL s2
wait_for '[ "$(ctr task ls | grep -w s2 | grep -c RUNNING)" = 0 ]'
ctr task delete s2 >/dev/null 2>&1 || true
ctr container delete s2
systemctl stop containerd
