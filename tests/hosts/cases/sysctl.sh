# alone Settings of hosts that keep ordinary users, or everybody, from something: it works or says what to set.
. /usr/local/lib/library.sh
for scope in 1 2 3; do
    sysctl -q -w kernel.yama.ptrace_scope=$scope
    same "Yama $scope" "$(moat do echo hi)" hi
    same "Yama $scope of a user" "$(login user moat do echo hi)" hi
done
says "kernel.yama.ptrace_scope" moat --platform ptrace do echo hi
if [ -e /proc/sys/kernel/unprivileged_userns_clone ]; then
    sysctl -q -w kernel.unprivileged_userns_clone=0
    says "kernel.unprivileged_userns_clone=1" login user moat do echo hi
    same "root" "$(moat do echo hi)" hi
    sysctl -q -w kernel.unprivileged_userns_clone=1
fi
if [ -e /proc/sys/kernel/apparmor_restrict_unprivileged_userns ]; then
    sysctl -q -w kernel.apparmor_restrict_unprivileged_userns=1
    says "kernel.apparmor_restrict_unprivileged_userns" login user moat do echo hi
    sysctl -q -w kernel.apparmor_restrict_unprivileged_userns=0
fi
count=$(sysctl -n user.max_user_namespaces)
sysctl -q -w user.max_user_namespaces=0
says "user.max_user_namespaces" moat do echo hi
says "user.max_user_namespaces" login user moat do echo hi
sysctl -q -w user.max_user_namespaces="$count"
mount -o remount,hidepid=2 /proc
same "hidepid" "$(login user moat do echo hi)" hi
same "hidepid of root" "$(moat do echo hi)" hi
mount -o remount,hidepid=0 /proc
mount -t tmpfs -o noexec,nosuid,nodev none /tmp
same "/tmp noexec" "$(login user moat do echo hi)" hi
mount -o remount,bind,nosuid /
same "nosuid" "$(login user moat do echo hi)" hi
mount -o remount,bind,ro /
same "read-only /" "$(moat do echo hi)" hi
same "read-only / of a user" "$(login user moat do echo hi)" hi
mount -o remount,bind,rw /
mv /usr/bin/newuidmap /usr/bin/newuidmap.away
same "without newuidmap" "$(login user moat do echo hi)" hi
mv /usr/bin/newuidmap.away /usr/bin/newuidmap
same "one CPU" "$(taskset -c 0 moat do echo hi)" hi
