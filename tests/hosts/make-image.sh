#!/bin/bash
# make-image.sh DIRECTORY MIRROR: the root disk of the virtual machines, root.img in DIRECTORY: Debian with systemd, AppArmor,
# Docker, containerd and Podman, and an agent that runs what the tests send.
set -eu
here=$(dirname "$(readlink -f "$0")")
directory=$1 mirror=$2
root=$directory/root
# debootstrap may leave these mounted, which neither rm nor the disk is to see.
unmount() {
    for mount in "$root/proc" "$root/sys"; do
        ! mountpoint -q "$mount" || umount "$mount"
    done
}
unmount
rm -rf "$root" "$directory/root.img"
packages=$(tr -s ' \n' ',,' <"$here/packages")
debootstrap --variant=minbase --include="${packages%,}" bookworm "$root" "$mirror"

echo moat-host >"$root/etc/hostname"
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
echo '/dev/vda / ext4 rw 0 1' >"$root/etc/fstab"
install -m 755 "$here/agent.sh" "$root/usr/local/sbin/agent"
cat >"$root/etc/systemd/system/agent.service" <<'UNIT'
[Unit]
Description=Runs what the tests send
After=dbus.socket systemd-tmpfiles-setup.service
[Service]
ExecStart=/usr/local/sbin/agent
KillMode=process
[Install]
WantedBy=multi-user.target
UNIT
chroot "$root" systemctl enable agent.service
# Daemons are started by the tests that need them.
chroot "$root" systemctl disable docker.service docker.socket containerd.service podman.service podman.socket \
    podman-auto-update.timer podman-restart.service podman-auto-update.service
# Without acceleration each of these takes seconds, and none is looked at.
for unit in systemd-udevd.service systemd-udev-trigger.service systemd-udevd-kernel.socket systemd-udevd-control.socket \
    apparmor.service systemd-repart.service systemd-random-seed.service modprobe@.service kmod-static-nodes.service \
    systemd-modules-load.service systemd-update-utmp.service systemd-hwdb-update.service systemd-journal-flush.service \
    systemd-journal-catalog-update.service ldconfig.service systemd-remount-fs.service systemd-tmpfiles-clean.timer \
    systemd-firstboot.service systemd-sysusers.service systemd-update-done.service systemd-pstore.service \
    sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount dev-mqueue.mount dev-hugepages.mount \
    proc-sys-fs-binfmt_misc.automount getty@tty1.service serial-getty@ttyS0.service systemd-timesyncd.service \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer; do
    chroot "$root" systemctl mask "$unit"
done

# A user with ranges of ids, and one without.
chroot "$root" useradd -m -s /bin/bash user
chroot "$root" useradd -m -s /bin/bash plain
sed -i '/^plain:/d' "$root/etc/subuid" "$root/etc/subgid"

"$here/make-container.sh" "$directory/busybox" "$root/bin/busybox" "$root/usr/local/lib/busybox.tar"

rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/* "$root/etc/resolv.conf"
mkdir -p "$root/lib/modules"
for modules in "$directory"/kernel-*/modules; do
    cp -r "$modules"/* "$root/lib/modules/"
done
unmount
mke2fs -q -t ext4 -d "$root" "$directory/root.img" 3G
rm -rf "$root"
