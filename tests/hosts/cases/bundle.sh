# short The commands of a container's life, on cgroup v2 by cgroupfs.
. /usr/local/lib/library.sh
make_bundle '"cgroupsPath":"/t1/c1","resources":{"memory":{"limit":67108864},"cpu":{"quota":50000,"period":100000,"shares":512},"pids":{"limit":50},"unified":{"memory.high":"60000000"}}' sh -c 'head -n 1 /proc/meminfo; nproc; exec sleep 1000'
cd "$bundle"
moat create --bundle . c1 >out 2>&1
same state "$(moat state c1 | grep -o '"status": *"[a-z]*"' | grep -o 'created')" created
moat start c1
wait_for '[ "$(wc -l <out)" -ge 2 ]'
same "the memory inside" "$(head -n 1 out | tr -s ' ')" "MemTotal: 65536 kB"
same "CPUs inside" "$(sed -n 2p out)" 2
dir=$cgroup/t1/c1
same memory.max "$(cat $dir/memory.max)" 67108864
same memory.high "$(cat $dir/memory.high)" 59998208
same cpu.max "$(cat $dir/cpu.max)" "50000 100000"
same cpu.weight "$(cat $dir/cpu.weight)" 59
# The sentry enforces the limit of tasks; the host leaves room for its own.
[ "$(cat $dir/pids.max)" != max ] || fail "pids.max is not set"
same exec "$(moat exec c1 echo there)" there
moat update --memory 134217728 c1
same "memory.max after update" "$(cat $dir/memory.max)" 134217728
same "the memory inside after update" "$(moat exec c1 head -n 1 /proc/meminfo | tr -s ' ')" "MemTotal: 131072 kB"
moat pause c1
same "paused" "$(moat state c1 | grep -o 'paused')" paused
moat resume c1
says '"memory"' moat events --stats c1
moat kill c1 KILL
wait_for '[ "$(moat state c1 | grep -o stopped)" = stopped ]'
moat delete c1
[ ! -e "$dir" ] || fail "the cgroup is there still"
rmdir $cgroup/t1 2>/dev/null || true
