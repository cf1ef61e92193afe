# 400s alone A user's containers without a session: with a systemd of the user's that lingers, and with none.
. /usr/local/lib/library.sh
# As a service or a cron job is: no session, no bus but what is said.
bare() {
    setpriv --reuid=user --regid=user --init-groups env -i PATH="$PATH" HOME=/home/user USER=user "$@"
}
cd /home/user
same "moat do without a session" "$(bare moat do echo hi)" hi
make_bundle '"cgroupsPath":"user.slice:moat:l1","resources":{"memory":{"limit":67108864}}' echo hi
chmod 755 /run/bundle
says "systemd" bare moat --root /tmp/l1 --systemd-cgroup run --bundle "$bundle" l1
install -m 644 /usr/local/lib/busybox.tar /home/user/busybox.tar
loginctl enable-linger user
wait_for 'systemctl is-active -q user@1000.service'
lingering() { bare XDG_RUNTIME_DIR=/run/user/1000 "$@"; }
lingering podman import busybox.tar busybox >/dev/null 2>&1
run() { lingering podman --runtime /usr/local/bin/moat run --network none "$@"; }
same "the manager" "$(lingering podman info -f '{{.Host.CgroupManager}}')" systemd
same "a limit inside" "$(run --rm -m 64m busybox head -n 1 /proc/meminfo | tr -s ' ')" "MemTotal: 65536 kB"
run -d --name r1 busybox sleep 1000 >/dev/null
# A session comes and goes.
login user true
sleep 2
same "exec" "$(lingering podman --runtime /usr/local/bin/moat exec r1 echo there)" there
lingering podman rm -f -t 0 r1 >/dev/null
loginctl disable-linger user
