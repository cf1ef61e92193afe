# 400s Podman of a user who has logged in, with the user's systemd.
. /usr/local/lib/library.sh
install -m 644 /usr/local/lib/busybox.tar /home/user/busybox.tar
login user podman import busybox.tar busybox >/dev/null 2>&1
run() { login user podman --runtime /usr/local/bin/moat "$@"; }
same "run" "$(run run --rm --network none busybox echo hi)" hi
same "the manager" "$(login user podman info -f '{{.Host.CgroupManager}}')" systemd
same "a limit inside" "$(run run --rm --network none -m 64m busybox head -n 1 /proc/meminfo | tr -s ' ')" "MemTotal: 65536 kB"
same "cgroupfs" "$(run --cgroup-manager=cgroupfs run --rm --network none busybox echo hi)" hi
same "keep-id" "$(run run --rm --network none --userns=keep-id busybox id -u)" 1000
run run -d --name r1 --network none -m 64m busybox sleep 1000 >/dev/null
unit=$(login user "systemctl --user list-units --plain --no-legend 'libpod-*.scope'" | grep -v conmon | cut -d ' ' -f 1)
case $unit in libpod-*.scope) ;; *) fail "no scope of the user's: $unit" ;; esac
same "the limit of the unit" "$(login user systemctl --user show -p MemoryMax --value "$unit")" 67108864
same exec "$(run exec r1 echo there)" there
run rm -f -t 0 r1 >/dev/null
wait_for '[ -z "$(login user "systemctl --user list-units --plain --no-legend libpod-*.scope")" ]'
