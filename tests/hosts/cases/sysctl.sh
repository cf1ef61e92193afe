# short alone Settings of hosts that keep ordinary users, or everybody, from something: it works or says what to set.
. /usr/local/lib/library.sh
sysctl -q -w kernel.yama.ptrace_scope=1
same "Yama 1" "$(moat do echo hi)" hi
same "Yama 1 of a user" "$(login user moat do echo hi)" hi
same "Yama 1 with ptrace" "$(moat --platform ptrace do echo hi)" hi
sysctl -q -w kernel.yama.ptrace_scope=2
for command in "moat do echo hi" "login user moat do echo hi" "moat --platform ptrace do echo hi" "moat doctor"; do
    says "sysctl -w kernel.yama.ptrace_scope=1" $command
done
sysctl -q -w kernel.yama.ptrace_scope=1
if [ -e /proc/sys/kernel/unprivileged_userns_clone ]; then
    sysctl -q -w kernel.unprivileged_userns_clone=0
    says "kernel.unprivileged_userns_clone=1" login user moat do echo hi
    says "kernel.unprivileged_userns_clone=1" login user moat doctor
    same "root" "$(moat do echo hi)" hi
    sysctl -q -w kernel.unprivileged_userns_clone=1
fi
if [ -e /proc/sys/kernel/apparmor_restrict_unprivileged_userns ]; then
    sysctl -q -w kernel.apparmor_restrict_unprivileged_userns=1
    says "kernel.apparmor_restrict_unprivileged_userns" login user moat do echo hi
    says "kernel.apparmor_restrict_unprivileged_userns" login user moat doctor
    sysctl -q -w kernel.apparmor_restrict_unprivileged_userns=0
fi
count=$(sysctl -n user.max_user_namespaces)
sysctl -q -w user.max_user_namespaces=0
says "user.max_user_namespaces" moat do echo hi
says "user.max_user_namespaces" login user moat do echo hi
says "sysctl -w user.max_user_namespaces" moat doctor
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
[ ! -e /usr/bin/newuidmap ] || mv /usr/bin/newuidmap /usr/bin/newuidmap.away
same "without newuidmap" "$(login user moat do echo hi)" hi
[ ! -e /usr/bin/newuidmap.away ] || mv /usr/bin/newuidmap.away /usr/bin/newuidmap
same "one CPU" "$(taskset -c 0 moat do echo hi)" hi
# It can't be lowered again.
sysctl -q -w kernel.yama.ptrace_scope=3
for command in "moat do echo hi" "login user moat do echo hi" "moat --platform ptrace do echo hi" "moat doctor"; do
    says "boot with kernel.yama.ptrace_scope=1" $command
done
