#!/bin/sh
# Keeps the world in which the real clients run: world.sh SCRATCH MOAT ROOT SERVICE...
#
# The world (inside.sh) has mount, pid, network, IPC, UTS and cgroup namespaces of its own, so that the clients use
# their default paths and nothing of theirs touches the machine or outlives the world. Cgroups are the exception: they
# are in one group of every hierarchy, which this keeper removes at the end.
#
# Started with a private mount namespace. The end is end-of-file on stdin, so it comes however the test command
# ends; signals of the terminal are ignored, because the cleaning up is still to be done then.
set -eu
trap '' HUP INT TERM
scratch=$1
here=$(cd "$(dirname "$0")" && pwd)
group=moat-oci-$$

# The hierarchies, one `DIRECTORY OPTIONS` a line: those of the machine, else all that the kernel has. For OPTIONS,
# version 2 has `unified`, or `hybrid` where it has no controllers.
hierarchies() {
    if grep -qw memory /sys/fs/cgroup/cgroup.controllers 2>/dev/null; then
        echo "/sys/fs/cgroup unified"
    elif mountpoint -q /sys/fs/cgroup/memory; then
        findmnt -rn -t cgroup -o TARGET,FS-OPTIONS | sed 's/ rw,/ /; s/ name=/ none,name=/'
        findmnt -rn -t cgroup2 -o TARGET | sed 's/$/ hybrid/'
    else
        mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
        for options in $(awk '$4 == 1 {print $1}' /proc/cgroups) none,name=systemd; do
            directory=/sys/fs/cgroup/${options#none,name=}
            mkdir "$directory"
            mount -t cgroup -o "$options" cgroup "$directory"
            echo "$directory $options"
        done
    fi
}

hierarchies > "$scratch/hierarchies"
while read -r directory options; do
    mkdir "$directory/$group"
    # A cpuset is empty at first and takes no processes then.
    for file in cpuset.cpus cpuset.mems; do
        ! [ -e "$directory/$group/$file" ] || [ "$options" = unified ] || [ "$options" = hybrid ] || cat "$directory/$file" > "$directory/$group/$file"
    done
done < "$scratch/hierarchies"

# The shell joins the groups before unshare makes them the roots of the cgroup namespace.
export group scratch
sh -c '
    while read -r directory _; do echo $$ > "$directory/$group/cgroup.procs"; done < "$scratch/hierarchies"
    exec unshare --cgroup --mount --pid --net --ipc --uts --fork --kill-child --propagation private "$@"
' sh "$here/inside.sh" "$@" </dev/null &
world=$!

# The world alone holds the output now, so that its end is seen there.
exec >&-
cat >/dev/null
# Its process 1 dies with unshare, and with that one everything in the pid namespace.
kill -KILL "$world" 2>/dev/null
wait "$world" 2>/dev/null || true

remove_groups() {
    while read -r directory _; do
        [ -d "$directory/$group" ] && find "$directory/$group" -depth -type d -exec rmdir {} +
    done < "$scratch/hierarchies"
    while read -r directory _; do ! [ -d "$directory/$group" ] || return 1; done < "$scratch/hierarchies"
}
# The kernel takes its time with dead processes.
for _ in $(seq 100); do
    remove_groups 2>/dev/null && break
    sleep 0.05
done
rm -rf --one-file-system "$scratch"
