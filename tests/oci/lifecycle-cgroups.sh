# timeout: 60

# Limits, `update` and `events`.

limits='"memory": {"limit": 104857600}, "cpu": {"quota": 150000, "period": 100000, "shares": 512}, "pids": {"limit": 300}'
bundle box "{\"linux\": {\"resources\": {$limits}}}" sleep 1000
oci create --bundle box box >/dev/null
oci start box
value() { [ ! -e "/sys/fs/cgroup/$1/box/$2" ] || echo "$2 $(cat "/sys/fs/cgroup/$1/box/$2")"; }
values() {
    value memory memory.limit_in_bytes; value cpu cpu.cfs_quota_us; value cpu cpu.cfs_period_us; value cpu cpu.shares
}
values
test -n "$(cat /sys/fs/cgroup/memory/box/cgroup.procs)" && echo 'has processes'
status oci update --memory 209715200 --cpu-quota 50000 --cpu-share 256 --pids-limit 200 box
values
echo '{ "memory": { "limit": 134217728 }, "cpu": { "quota": 75000, "period": 50000 } }' | status oci update -r - box
values
status oci update --memory nonsense box 2>/dev/null
status oci update none --memory 209715200 2>/dev/null
oci events --stats box > stats
python3 - <<'END'
import json
m = json.load(open("stats"))
print(sorted(m), m["type"], m["id"])
data = m["data"]
print(sorted(data))
print("cpu", sorted(data["cpu"]["usage"]), data["cpu"]["usage"]["total"] > 0, len(data["cpu"]["usage"].get("percpu", [])) > 0)
# "cache" is left out where it is 0.
print("memory", sorted(set(data["memory"]) - {"cache"}), data["memory"]["usage"]["limit"], data["memory"]["usage"]["usage"] > 0)
print("raw", sorted(data["memory"]["raw"])[:5], data["memory"]["raw"]["hierarchical_memory_limit"])
print("pids", sorted(data["pids"]), data["pids"]["current"] > 0, data["pids"]["limit"])
END
"$OCI" events --interval 200ms box > events &
eventually sh -c 'test $(grep -c stats events) -ge 2' && echo 'figures come in'
watcher=$!
oci kill box KILL
eventually is box stopped
status oci events --stats box 2>/dev/null
oci delete box
wait $watcher
echo "status $?"
test ! -e /sys/fs/cgroup/memory/box && echo 'no group left'
# Too little memory: the kernel ends the process, and the event says so.
bundle hungry '{"linux": {"resources": {"memory": {"limit": 67108864, "swap": 67108864}}}}' sh -c 'read x; x=x; while :; do x=$x$x; done'
mkfifo go
oci create --bundle hungry hungry <> go >/dev/null 2>&1; oci start hungry
"$OCI" events hungry > events &
watcher=$!
sleep 0.5
echo > go
eventually is hungry stopped
oci delete hungry
wait $watcher
grep -q '"type":"oom"' events && echo 'out of memory'
