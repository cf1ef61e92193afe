#!/bin/bash
# make-small-image.sh DIRECTORY ROOT: the root disk of the short form, small.img in DIRECTORY: a copy of the programs' Debian root,
# without systemd and daemons, whose first process mounts what a system has and runs the agent.
set -eu
here=$(dirname "$(readlink -f "$0")")
directory=$1 base=$2
root=$directory/small
rm -rf "$root" "$directory/small.img"
cp -a "$base" "$root"
echo moat-host >"$root/etc/hostname"
install -m 755 "$here/agent.sh" "$root/usr/local/sbin/agent"
rm -f "$root/sbin/init"
cat >"$root/sbin/init" <<'INIT'
#!/bin/bash
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t securityfs security /sys/kernel/security
mount -t tmpfs run /run
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
hostname -F /etc/hostname
while :; do /usr/local/sbin/agent; done
INIT
chmod 755 "$root/sbin/init"
# A user with ranges of ids but no newuidmap(1), and one without.
chroot "$root" useradd -m -s /bin/bash user
chroot "$root" useradd -m -s /bin/bash plain
sed -i '/^plain:/d' "$root/etc/subuid" "$root/etc/subgid"
"$here/make-container.sh" "$directory/busybox-small" "$directory"/kernel-*/busybox "$root/usr/local/lib/busybox.tar"
mke2fs -q -t ext4 -d "$root" "$directory/small.img" 1G
rm -rf "$root"
