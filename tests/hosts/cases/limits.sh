# short What is more than memory, CPU and pids on cgroup v2; what can't be had is refused by its name.
. /usr/local/lib/library.sh
make_bundle '"cgroupsPath":"/t2/c2","resources":{"cpu":{"cpus":"0","mems":"0"},"blockIO":{"throttleReadBpsDevice":[{"major":254,"minor":0,"rate":1048576}]}}' sleep 1000
cd "$bundle"
moat create --bundle . c2 >out 2>&1 || fail "$(cat out)"
dir=$cgroup/t2/c2
same cpuset.cpus "$(cat $dir/cpuset.cpus)" 0
case $(cat $dir/io.max) in *"rbps=1048576"*) ;; *) fail "io.max: $(cat $dir/io.max)" ;; esac
moat start c2
same "the processors inside" "$(moat exec c2 grep Cpus_allowed_list /proc/self/status | tr -s '\t' ' ')" "Cpus_allowed_list: 0"
moat delete --force c2
# Not all kernels have weights of io.
make_bundle '"cgroupsPath":"/t2/c5","resources":{"blockIO":{"weight":200}}' sleep 1000
if moat create --bundle . c5 >out 2>&1; then
    cat $cgroup/t2/c5/io*weight | grep -qx 'default \(200\|1920\)' || fail "$(cat $cgroup/t2/c5/io*weight)"
    moat delete --force c5
else
    grep -q 'linux.resources.blockIO.weight' out || fail "refused without a name: $(cat out)"
fi
make_bundle '"resources":{"hugepageLimits":[{"pageSize":"3MB","limit":9223372036854772000}]}' sleep 1000
says "linux.resources.hugepageLimits" moat run --bundle . c3
make_bundle '"resources":{"network":{"classID":1}}' sleep 1000
says "linux.resources.network.classID" moat run --bundle . c4
# The guest needs more than it may have.
make_bundle '"cgroupsPath":"/t2/oom","resources":{"memory":{"limit":50331648,"swap":50331648}}' sh -c 'dd if=/dev/zero of=/dev/null bs=200M count=1'
moat create --bundle . oom >out 2>&1
moat events oom >events 2>&1 &
sleep 1
moat start oom
wait_for '[ "$(moat state oom | grep -o stopped)" = stopped ]'
wait_for 'grep -q "\"oom\"" events'
moat delete --force oom
