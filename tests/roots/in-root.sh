#!/bin/sh
# Runs a command in a root directory on the host, under the conditions that the sandbox gives it:
# in-root.sh ROOT SCRATCH VARIABLE=VALUE... XTASK enter-root COMMAND ARGUMENT...
#
# Started by unshare(1) with new mount, pid, ipc, uts and network namespaces, all of which vanish with
# the command, which is process 1. ROOT stays as it is: an overlay takes the writes.
set -eu
root=$1 scratch=$2
shift 2

ip link set lo up
hostname moat
mount -t tmpfs tmpfs "$scratch"
mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
mount -t overlay -o "lowerdir=$root,upperdir=$scratch/upper,workdir=$scratch/work" overlay "$scratch/root"
cd "$scratch/root"
mount -t proc proc proc
mount -t sysfs -o ro,nosuid,noexec,nodev sysfs sys
mount -t tmpfs -o nosuid,mode=755,size=64m tmpfs dev
mkdir dev/pts dev/shm
mount -t devpts -o nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5 devpts dev/pts
mount -t tmpfs -o nosuid,noexec,nodev,mode=1777,size=1g shm dev/shm
mount -t tmpfs -o nosuid,mode=1777 tmpfs tmp
while read -r name major minor; do
    mknod -m 666 "dev/$name" c "$major" "$minor"
done <<END
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
END
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
ulimit -S -n 1024
ulimit -H -n 4096
umask 022
exec env -i "$@"
