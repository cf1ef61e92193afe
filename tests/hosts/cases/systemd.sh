# Units of the system's systemd: limits applied, seen inside and updated; the scope ends with the container.
. /usr/local/lib/library.sh
make_bundle '"cgroupsPath":"moat-test.slice:moat:u1","resources":{"memory":{"limit":67108864},"cpu":{"quota":50000,"period":100000,"shares":512},"pids":{"limit":50}}' sh -c 'head -n 1 /proc/meminfo; exec sleep 1000'
cd "$bundle"
moat --systemd-cgroup create --bundle . u1 >out 2>&1 || fail "$(cat out)"
moat --systemd-cgroup start u1
dir=$cgroup/moat.slice/moat-test.slice/moat-u1.scope
same "the unit" "$(systemctl is-active moat-u1.scope)" active
same memory.max "$(cat $dir/memory.max)" 67108864
same cpu.max "$(cat $dir/cpu.max)" "50000 100000"
# The sentry enforces the limit of tasks; the host leaves room for its own.
[ "$(cat $dir/pids.max)" != max ] || fail "pids.max is not set"
wait_for '[ -s out ]'
same "the memory inside" "$(head -n 1 out | tr -s ' ')" "MemTotal: 65536 kB"
moat --systemd-cgroup update --memory 134217728 u1
same "memory.max after update" "$(cat $dir/memory.max)" 134217728
same MemoryMax "$(systemctl show -p MemoryMax --value moat-u1.scope)" 134217728
systemctl daemon-reload
same "memory.max after a reload" "$(cat $dir/memory.max)" 134217728
moat --systemd-cgroup kill u1 KILL
wait_for '[ "$(moat state u1 | grep -o stopped)" = stopped ]'
moat --systemd-cgroup delete u1
wait_for '[ "$(systemctl is-active moat-u1.scope)" != active ]'
[ ! -e "$dir" ] || fail "the cgroup is there still"
# What has no words of its own in a unit's properties, or others; and what an update does not name stays.
make_bundle '"cgroupsPath":"moat-test.slice:moat:u2","resources":{"cpu":{"cpus":"0","mems":"0","quota":50000,"period":100000},"unified":{"cpu.weight":"500","memory.high":"max","memory.low":"1048576"}}' sleep 1000
moat --systemd-cgroup create --bundle . u2 >out 2>&1 || fail "$(cat out)"
dir=$cgroup/moat.slice/moat-test.slice/moat-u2.scope
property() { systemctl show -p "$1" --value moat-u2.scope; }
both() {
    same "CPUWeight $1" "$(property CPUWeight)" "$2"
    same "CPUQuotaPerSecUSec $1" "$(property CPUQuotaPerSecUSec)" 500ms
    same "AllowedCPUs $1" "$(property AllowedCPUs)" 0
    same "MemoryLow $1" "$(property MemoryLow)" 1048576
    same "cpu.weight $1" "$(cat $dir/cpu.weight)" "$2"
    same "cpu.max $1" "$(cat $dir/cpu.max)" "50000 100000"
    same "cpuset.cpus $1" "$(cat $dir/cpuset.cpus)" 0
}
both "of a unit" 500
systemctl daemon-reload
both "after a reload" 500
moat --systemd-cgroup update --cpu-share 1024 u2
both "after an update" 100
systemctl daemon-reload
both "after an update and a reload" 100
moat --systemd-cgroup delete --force u2
same "in a unit" "$(systemd-run --quiet --pipe --wait moat do echo hi)" hi
