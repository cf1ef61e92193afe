#!/bin/sh
# What `cargo x dist --verify` asks of the packages: package.sh PACKAGE ROOT SCRATCH [RPM], in mount and pid namespaces of its own.
#
# Each is installed in a fresh copy of a Debian root, works there, and goes without a trace.
set -eu
package=$1 root=$2 scratch=$3 rpm=${4-}
mount -t tmpfs tmpfs "$scratch"
mkdir "$scratch/changes" "$scratch/work" "$scratch/root"
mount -t overlay -o "lowerdir=$root,upperdir=$scratch/changes,workdir=$scratch/work" overlay "$scratch/root"
mount -t proc proc "$scratch/root/proc"
mount --rbind /dev "$scratch/root/dev"
# The other format's database is of no use there: its own is another.
if [ -n "$rpm" ]; then
    database=/root/rpm
    names() { find "$scratch/root" -xdev -name '*moat*' ! -path '*/proc/*' ! -path "$scratch/root/root/*"; }
    before=$(names)
    mkdir -p "$scratch/root/etc/apparmor.d/abi"
    touch "$scratch/root/etc/apparmor.d/abi/4.0"
    manager() { rpm --root "$scratch/root" --dbpath "$database" "$@"; }
    manager -i --nodeps "$rpm"
    chroot "$scratch/root" moat --version
    cmp "$scratch/root/etc/apparmor.d/moat" "$scratch/root/usr/share/moat/apparmor"
    manager -V --nodeps moat
    manager -e --nodeps moat
    test "$(names)" = "$before"
    rm -r "$scratch/root/etc/apparmor.d" "$scratch/root$database"
fi
cp "$package" "$scratch/root/root/moat.deb"
cd "$scratch/root"
# A root by chroot(2) may have no user namespaces.
mkdir -p mnt/old
pivot_root . mnt/old
umount -l /mnt/old
cat > /root/script <<'EOF'
set -eux
names() { find / -xdev -name '*moat*' ! -path '/root/*' ! -path '/proc/*'; }
before=$(names)
dpkg -i /root/moat.deb
moat --version
moat do -- /bin/true
test "$(moat do -- sh -c 'cat /proc/1/comm')" = sh
code=0; moat do -- sh -c 'exit 7' || code=$?; test $code = 7
containerd-shim-moat-v1 -v | grep 'Version:'
# No dynamic linker.
! ldd /usr/bin/moat
zcat /usr/share/man/man1/moat.1.gz | grep -E '^\.TH moat 1  "moat [0-9.]+" $'
for command in run exec do install; do zcat /usr/share/man/man1/moat-$command.1.gz | grep -q '^\.SH SYNOPSIS'; done
bash -c '. /usr/share/bash-completion/completions/moat; complete -p moat; COMP_WORDS=(moat che) COMP_CWORD=1; _moat moat che moat; test "${COMPREPLY[*]}" = checkpoint'
test -s /usr/share/zsh/vendor-completions/_moat && test -s /usr/share/fish/vendor_completions.d/moat.fish
# What the clients are told is taken back, to the byte.
mkdir -p /etc/docker /etc/containerd /etc/containers
printf '{ "debug": true,\n\t"bip": "10.0.0.1/8" }' > /etc/docker/daemon.json
state() { find /etc -printf '%y %m %p\n' | sort; find /etc -type f -exec sha256sum {} + | sort; }
state > /root/before
moat install --dry-run; state | cmp - /root/before
test "$(moat install | grep -c 'Made the link')" = 0
for file in docker/daemon.json containerd/conf.d/moat.toml containers/containers.conf.d/moat.conf; do grep -qE '/usr/bin/(containerd-shim-)?moat' "/etc/$file"; done
moat uninstall --dry-run; moat uninstall; state | cmp - /root/before
test -L /usr/bin/containerd-shim-moat-v1
# A program of its own is given the link, and loses it.
cp /usr/bin/moat /usr/local/bin/moat
/usr/local/bin/moat install; containerd-shim-moat-v1 -v; test -L /usr/local/bin/containerd-shim-moat-v1
/usr/local/bin/moat uninstall; state | cmp - /root/before; test ! -e /usr/local/bin/containerd-shim-moat-v1
rm /usr/local/bin/moat
dpkg -V moat
# There is no AppArmor here that could read the profile.
test ! -e /etc/apparmor.d/moat
dpkg -r moat
test "$(names)" = "$before"
mkdir -p /etc/apparmor.d/abi
touch /etc/apparmor.d/abi/4.0
dpkg -i /root/moat.deb
grep -q '^ *userns,' /etc/apparmor.d/moat
# An upgrade keeps it.
dpkg -i /root/moat.deb
test -e /etc/apparmor.d/moat
dpkg -r moat
test "$(names)" = "$before"
EOF
exec bash /root/script
