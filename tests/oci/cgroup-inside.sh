# oracle: none

# What a container sees of its own limits, also when they are changed, and a limit that leaves room for itself alone.

check() { test "$2" = "$3" && return; echo "$1: $2, not $3"; exit 1; }
mounts='"mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/sys", "type": "sysfs", "source": "sysfs"},
    {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}]'
limits() { echo "{\"memory\": {\"limit\": $1, \"swap\": $1}, \"cpu\": {\"quota\": $2, \"period\": 100000}, \"pids\": {\"limit\": $3}}"; }
see() { oci exec box cat "/sys/fs/cgroup/$1"; }
total() { oci exec box awk '/^MemTotal/ {print $2}' /proc/meminfo; }

bundle box "{$mounts, \"linux\": {\"resources\": $(limits 134217728 150000 20)}}" sleep 1000
oci create --bundle box box >/dev/null && oci start box
check memory "$(see memory.max)" 134217728
check cpu "$(see cpu.max)" '150000 100000'
check pids "$(see pids.max)" 20
check total "$(total)" 131072
check current "$(see pids.current)" 2
check procs "$(see cgroup.procs | head -1)" 1
oci update --memory 268435456 --memory-swap 268435456 --cpu-quota 50000 --pids-limit 10 box
check memory "$(see memory.max)" 268435456
check cpu "$(see cpu.max)" '50000 100000'
check pids "$(see pids.max)" 10
check total "$(total)" 262144
check forks "$(oci exec box perl -e '$| = 1; while (defined($p = fork)) { if (!$p) { sleep 9; exit } $n++ } print $n; kill 9, -getpgrp' 2>/dev/null)" 8
check refused "$(see pids.events)" 'max 1'
oci update --pids-limit -1 box
check unlimited "$(see pids.max)" max
oci kill box KILL; eventually is box stopped; oci delete box

# As docker run --pids-limit 5: the sandbox's own threads do not count.
bundle box "{$mounts, \"linux\": {\"resources\": {\"pids\": {\"limit\": 5}}}}" sh -c 'cat /sys/fs/cgroup/pids.max; cat /sys/fs/cgroup/pids.current; :'
check five "$(oci run --bundle box box | tr '\n' ' ')" '5 2 '

# In a pod each sees its own; the pod's size is a limit for all.
bundle pause '{"annotations": {"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-id": "pause",
    "io.kubernetes.cri.sandbox-memory": "536870912"}}' sleep 1000
oci create --bundle pause pause >/dev/null && oci start pause
for id in one two; do
    case $id in one) resources=$(limits 134217728 50000 20) ;; two) resources='{}' ;; esac
    bundle $id "{$mounts, \"annotations\": {\"io.kubernetes.cri.container-type\": \"container\", \"io.kubernetes.cri.sandbox-id\": \"pause\"},
        \"linux\": {\"resources\": $resources}}" sleep 1000
    oci create --bundle $id $id >/dev/null && oci start $id
done
see_in() { oci exec "$1" cat "/sys/fs/cgroup/$2"; }
check one "$(see_in one memory.max) $(see_in one pids.max) $(see_in one pids.current)" '134217728 20 2'
check two "$(see_in two memory.max) $(see_in two pids.max) $(see_in two pids.current)" '536870912 max 2'
oci update --pids-limit 7 two
check two "$(see_in two pids.max) $(see_in one pids.max)" '7 20'
oci kill pause KILL; eventually is pause stopped
for id in one two pause; do oci delete $id; done
