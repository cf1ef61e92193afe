#!/bin/sh
# Makes one Debian root for the tests: make-root.sh base|full|desk DIRECTORY MIRROR [SEED]
#
# DIRECTORY appears only when it is complete: all work happens in DIRECTORY.tmp, which is renamed last.
# SEED is a finished root to start from instead of running debootstrap (full and desk start from base).
# Mounts live in a private mount namespace, so an interrupted run leaves none behind.
set -eu

kind=$1 directory=$2 mirror=$3 seed=${4:-}
here=$(cd "$(dirname "$0")" && pwd)
suite=bookworm
work=$directory.tmp
packages=$(grep -v '^#' "$here/$kind.packages" | tr '\n' ' ')

[ "$(id -u)" = 0 ] || { echo "make-root: needs root, to make device nodes and to chroot" >&2; exit 1; }

rm -rf --one-file-system "$work"
if [ -n "$seed" ]; then
    cp -a "$seed" "$work"
else
    command -v debootstrap >/dev/null || { echo "make-root: debootstrap is not installed" >&2; exit 1; }
    debootstrap --variant=minbase "$suite" "$work" "$mirror"
fi

# No service may start while packages are configured.
printf '#!/bin/sh\nexit 101\n' > "$work/usr/sbin/policy-rc.d"
chmod 755 "$work/usr/sbin/policy-rc.d"
cp /etc/resolv.conf "$work/etc/resolv.conf"
# Snapshot mirrors and machines whose clock is off would otherwise be refused.
printf 'Acquire::Check-Valid-Until "false";\nAcquire::Check-Date "false";\nAcquire::Languages "none";\nAcquire::Retries "3";\n' \
    > "$work/etc/apt/apt.conf.d/90moat-tests"

export work packages
unshare --mount --propagation private sh -eu -c '
    mount -t proc proc "$work/proc"
    mount -t devpts -o newinstance,ptmxmode=0666 devpts "$work/dev/pts"
    export DEBIAN_FRONTEND=noninteractive LC_ALL=C HOME=/root \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    chroot "$work" apt-get -q update
    # Not quoted: one argument a package.
    chroot "$work" apt-get -q -y -o Dpkg::Options::=--force-unsafe-io install --no-install-recommends $packages
    chroot "$work" apt-get clean
'

# What differs between two machines, or would let a test reach the network, goes.
rm -f "$work/usr/sbin/policy-rc.d" "$work/etc/resolv.conf"
rm -rf "$work/var/lib/apt/lists" "$work/var/log/apt" "$work/var/cache/debconf"/*-old
mkdir -p "$work/var/lib/apt/lists/partial"
echo moat > "$work/etc/hostname"
printf '127.0.0.1 localhost moat\n' > "$work/etc/hosts"

mv -T "$work" "$directory"
