#!/bin/sh
# Process 1 of the world: inside.sh SCRATCH MOAT ROOT SERVICE...
#
# Mounts what the clients need to work with their default paths, starts the services (containerd, docker, podman,
# rootless) and loads the image `deb:1` into each. Then it reaps orphans for ever.
# Says on stdout: `init PID`, for each service `SERVICE ok` or `SERVICE REASON`, and `done`.
scratch=$1 moat=$2 root=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
# The old procfs still tells the pid outside.
read -r pid _ < /proc/self/stat
echo "init $pid"

fail() { echo "world $*"; exit 1; }

mount -t proc proc /proc || fail "cannot mount proc"
# Once more, for the view of the cgroup namespace.
while read -r directory options; do
    umount "$directory"
    if [ "$options" = unified ]; then
        mount -t cgroup2 cgroup "$directory" || fail "cannot mount $directory"
        # Only a group without processes can have groups below it with controllers.
        mkdir "$directory/processes"
        while read -r p; do echo "$p" > "$directory/processes/cgroup.procs"; done < "$directory/cgroup.procs"
        sed 's/^/+/; s/ / +/g' "$directory/cgroup.controllers" > "$directory/cgroup.subtree_control"
    elif [ "$options" = hybrid ]; then
        mount -t cgroup2 cgroup "$directory" || fail "cannot mount $directory"
    else
        mount -t cgroup -o "$options" cgroup "$directory" || fail "cannot mount $directory"
    fi
done < "$scratch/hierarchies"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p -m 755 /run/lock /run/w/etc /run/w/home /run/user/7777
mkdir "$scratch/log" "$scratch/lib" "$scratch/home"
mount --bind "$scratch/lib" /var/lib
mount --bind "$scratch/home" /run/w/home
hostname world
ip link set lo up
# The program where everybody can execute it, and under a short name.
[ -z "$moat" ] || install -m 755 "$moat" /run/w/moat || fail "cannot copy $moat"

# Files of /etc are replaced in the world only: the user of rootless Podman is not known outside.
for file in passwd group subuid subgid; do cp "/etc/$file" /run/w/etc/ 2>/dev/null; done
echo "tester:x:7777:7777::/run/w/home:/bin/sh" >> /run/w/etc/passwd
echo "tester:x:7777:" >> /run/w/etc/group
echo "tester:700000:65536" | tee /run/w/etc/subuid > /run/w/etc/subgid
for file in passwd group subuid subgid; do
    ! [ -e "/etc/$file" ] || mount --bind "/run/w/etc/$file" "/etc/$file"
done
chown 7777:7777 /run/w/home /run/user/7777
chmod 700 /run/user/7777

# The image in the form of `docker save`, which every client reads: the root without what no case needs.
make_image() {
    mkdir "$scratch/image" && cd "$scratch/image" || return
    tar -C "$root" --exclude=./usr/share/doc --exclude=./usr/share/locale --exclude=./usr/share/man \
        --exclude=./usr/share/perl --exclude=./usr/lib/python3* -cf layer.tar .
    layer=$(sha256sum layer.tar | cut -d ' ' -f 1)
    cat > config.json <<END
{ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [ "sha256:$layer" ] },
  "config": { "Env": [ "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" ], "Cmd": [ "sh" ] } }
END
    echo '[{"Config":"config.json","RepoTags":["docker.io/library/deb:1"],"Layers":["layer.tar"]}]' > manifest.json
    tar -cf "$scratch/image.tar" manifest.json config.json layer.tar
    cd / && rm -r "$scratch/image"
    chmod 755 "$scratch" && chmod 644 "$scratch/image.tar"
}

# Each service in a file of this directory's name; what it says on its last line is why it is not there.
programs() {
    for program in "$@"; do
        command -v "$program" >/dev/null || { echo "$program is not installed"; return 1; }
    done
}

# Waits until a check succeeds; fails with the daemon's last words if that ends or does not answer.
answers() {
    name=$1 daemon=$2
    shift 2
    for _ in $(seq 300); do
        "$@" >/dev/null 2>&1 && return
        kill -0 "$daemon" 2>/dev/null || break
        sleep 0.05
    done
    echo "$name does not answer: $(tail -n 1 "$scratch/log/$name" | cut -c 1-300)"
    return 1
}

load() {
    "$@" > "$scratch/log/load" 2>&1 || { echo "cannot load the image: $(tail -n 1 "$scratch/log/load")"; return 1; }
}

start_containerd() {
    programs containerd ctr runc || return
    # Its default configuration but for the CRI plugin, which wants a network configuration.
    printf 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n' > /run/w/containerd.toml
    containerd --config /run/w/containerd.toml > "$scratch/log/containerd" 2>&1 &
    answers containerd $! ctr version && load ctr images import "$scratch/image.tar"
}

start_docker() {
    programs docker dockerd runc || return
    # Docker itself looks at the root file systems of running containers and keeps them for the next start.
    cat > /run/w/daemon.json <<END
{ "runtimes": {
    "moat": { "path": "/run/w/moat", "runtimeArgs": ["--overlay2=none", "--file-access=shared"] },
    "moat-host": { "path": "/run/w/moat", "runtimeArgs": ["--network=host"] },
    "runsc": { "path": "runsc", "runtimeArgs": ["--network=none", "--ignore-cgroups"] } },
  "storage-driver": "overlay2", "iptables": false, "ip6tables": false }
END
    dockerd --config-file /run/w/daemon.json --containerd /run/containerd/containerd.sock > "$scratch/log/docker" 2>&1 &
    answers docker $! docker version && load docker load --input "$scratch/image.tar"
}

# Settings for both kinds of Podman: no systemd, and no limits that need CAP_SYS_RESOURCE.
configure_podman() {
    cat > /run/w/etc/containers.conf <<END
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[engine.runtimes]
runc = ["$(command -v runc)"]
moat = ["/run/w/moat"]
END
    export CONTAINERS_CONF=/run/w/etc/containers.conf
}

start_podman() {
    programs podman conmon runc || return
    configure_podman
    load podman load --input "$scratch/image.tar"
}

start_rootless() {
    programs podman conmon runc newuidmap setpriv || return
    configure_podman
    load "$here/as-tester.sh" podman load --input "$scratch/image.tar"
}

make_image
for service in "$@"; do
    # A service with a daemon is started by this shell, so that it can wait for it.
    "start_$service" > "$scratch/log/reason" && reason=ok || reason=$(tail -n 1 "$scratch/log/reason")
    echo "$service $reason"
done
echo "done"
exec >&-
while :; do
    sleep 1000 &
    wait $!
done
