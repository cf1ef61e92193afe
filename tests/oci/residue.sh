#!/bin/sh
# Lists what containers leave behind when they are not cleaned up, one thing a line: processes, mounts, cgroups,
# sockets, state. The same before a case and after it, or something stayed.

# All but the services, this script and what it starts.
ps -eo pid=,ppid=,args= | awk -v me=$$ '
    $1 == 1 || $1 == me || $2 == me { next }
    $3 ~ /(containerd|dockerd)$/ && $4 ~ /^--config/ { next }
    $3 == "sleep" && $2 == 1 && $4 == 1000 { next }
    # Keeps the namespaces of an ordinary user for all of his containers.
    $3 == "podman" && NF == 3 || $3 ~ /catatonit$/ { next }
    { $1 = $2 = ""; print "process" $0 }'
# Those that the clients make once for themselves stay.
awk '$5 != "/run/docker/netns/default" && $5 != "/var/lib/containers/storage/overlay" { print "mount", $5 }' /proc/self/mountinfo
# The groups that the clients put the containers into stay; Podman forgets those of pods where there are no controllers.
while read -r directory _; do
    find "$directory" -mindepth 1 -type d ! -path "$directory/docker" ! -path "$directory/default" \
        ! -path "$directory/libpod_parent" \
        ! -path "$directory/libpod_parent/conmon" ! -path "*/systemd/libpod_parent/*" ! -path "*/unified/libpod_parent/*" ! -path "$directory/processes"
done < "$1/hierarchies" | sed 's/^/cgroup /'
find /run -type s ! -path '/run/w/*' | sed 's/^/socket /'
# Directories of state, by client: moat's and runc's own, Docker's, containerd's, Podman's, and the ordinary user's.
for directory in /run/moat /run/runc /run/docker/runtime-*/moby /run/containerd/runc/* /run/containerd/moat/* /run/user/7777/moat /run/user/7777/runc; do
    ! [ -d "$directory" ] || find "$directory" -mindepth 1 | sed 's/^/state /'
done
