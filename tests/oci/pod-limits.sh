# timeout: 90

# Limits, figures and ends are a container's own, also where its pod is one sandbox.

sandbox() { echo "{\"annotations\": {\"io.kubernetes.cri.container-type\": \"sandbox\", \"io.kubernetes.cri.sandbox-id\": \"$1\"}}"; }
member() {
    echo "{\"hostname\": null, \"annotations\": {\"io.kubernetes.cri.container-type\": \"container\", \"io.kubernetes.cri.sandbox-id\": \"pause\"},
      \"linux\": {\"resources\": $1, \"namespaces\": [{\"type\": \"pid\"}, {\"type\": \"mount\"}, {\"type\": \"network\", \"path\": \"/proc/$pid/ns/net\"},
      {\"type\": \"ipc\", \"path\": \"/proc/$pid/ns/ipc\"}, {\"type\": \"uts\", \"path\": \"/proc/$pid/ns/uts\"}]}}"
}
group() { for at in /sys/fs/cgroup/$1/$2 /sys/fs/cgroup/$2; do [ ! -d "$at" ] || { echo "$at"; break; }; done; }
# Microseconds of CPU time that a container's cgroup has used.
used() {
    at=$(group cpuacct "$1")
    if [ -e "$at/cpuacct.usage" ]; then echo $(($(cat "$at/cpuacct.usage") / 1000)); else awk '/^usage_usec/ {print $2}' "$at/cpu.stat"; fi
}
allocate() { oci exec "$1" perl -e '$x = "x" x ($ARGV[0] << 20); print length($x) >> 20, "\n"' "$2" 2>/dev/null; }

bundle pause "$(sandbox pause)" sleep 100000
oci create --bundle pause --pid-file pid pause >/dev/null && oci start pause
pid=$(cat pid)
bundle box "$(member '{"memory": {"limit": 67108864, "swap": 67108864}, "cpu": {"quota": 20000, "period": 100000, "shares": 512}}')" \
    perl -e '$SIG{TERM} = sub { exit 6 }; sleep 1 while 1'
python3 -c 'import json; c = json.load(open("box/config.json")); c["process"]["oomScoreAdj"] = 500; json.dump(c, open("box/config.json", "w"))'
bundle free "$(member '{}')" perl -e '$| = 1; open(F, ">", "/tmp/beat"); for (;;) { syswrite(F, "."); select(undef, undef, undef, 0.02) }'
for id in box free; do oci create --bundle $id --pid-file $id.pid $id >/dev/null && oci start $id; done
for id in box free; do test -n "$(cat "$(group memory $id)/cgroup.procs")" && echo "$id has processes"; done
scores() { for at in $(cat "$(group memory "$1")/cgroup.procs"); do cat "/proc/$at/oom_score_adj"; done | sort -n | tail -1; }
scores box; scores free

# CPU time is limited, and counted, where it is used.
before=$(used box) others=$(used free)
throttled() { awk '/^nr_throttled/ { print $2 > 0 ? "slowed down" : "not slowed down" }' "$(group cpu "$1")/cpu.stat"; }
oci exec box perl -e '$i++ while (times)[0] < 0.4'
throttled box
spent=$(($(used box) - before))
[ $spent -gt 300000 ] && echo 'counted' || echo "$spent us"
[ $(($(used free) - others)) -lt 1000000 ] && echo 'not by others'
oci exec free perl -e '$i++ while (times)[0] < 0.4'
throttled free

# So is memory.
"$OCI" events box > events &
watcher=$!
sleep 0.3
status allocate box 200
state box; state free; state pause
status allocate box 20
status allocate free 200
eventually grep -q '"type":"oom"' events && echo 'out of memory'
oci events --stats box > stats
oci events --stats free > others
python3 - <<'PY'
import json
box, free = (json.load(open(name))["data"] for name in ("stats", "others"))
print("limit", box["memory"]["usage"]["limit"], "free", free["memory"]["usage"]["limit"] > 67108864)
print("in use", 0 < box["memory"]["usage"]["usage"] <= 67108864, "cpu", box["cpu"]["usage"]["total"] > 2e8)
PY
oci update --memory 268435456 --memory-swap 268435456 box
status allocate box 120

# The init itself.
bundle hungry "$(member '{"memory": {"limit": 67108864, "swap": 67108864}}')" perl -e '$x = "x" x (200 << 20); sleep 1000'
status oci run --bundle hungry hungry
state box; state free

# Pause, signals and the end concern one container.
beats() { oci exec free stat -c %s /tmp/beat; }
oci pause box; state box; state free
before=$(beats); sleep 0.3; [ "$(beats)" -gt "$before" ] && echo 'goes on'
oci resume box
oci kill box TERM; eventually is box stopped; state free
before=$(beats); sleep 0.3; [ "$(beats)" -gt "$before" ] && echo 'goes on'
kill $watcher 2>/dev/null; wait $watcher 2>/dev/null
status oci delete box
status oci delete --force free
for id in box free hungry; do [ -z "$(group memory $id)" ] && echo 'no group left'; done
state pause
oci kill pause KILL; eventually is pause stopped; status oci delete pause
oci list -q
