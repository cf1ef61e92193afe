#!/bin/sh
# Process 1 of the world: inside.sh SCRATCH MOAT ROOT SERVICE...
#
# Mounts what the clients need to work with their default paths, starts the services (containerd, cri, docker, compose, podman,
# rootless) and loads the images `deb:1` and `pause:1` into each. Then it reaps orphans for ever.
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
# Its link as a shim, and what containerd is told; ctr finds the link by the path.
mkdir /run/w/etc/containerd
[ -z "$moat" ] || /run/w/moat install --clients containerd --etc /run/w/etc --runtime moat-shim > "$scratch/log/install" || fail "moat install fails"
PATH=$PATH:/run/w

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

# The images in the form of `docker save`, which every client reads: `deb:1`, the root without what no case needs, and
# `pause:1`, the same with a command that waits, for pods.
make_image() {
    mkdir "$scratch/image" && cd "$scratch/image" || return
    tar -C "$root" --exclude=./usr/share/doc --exclude=./usr/share/locale --exclude=./usr/share/man \
        --exclude=./usr/share/perl --exclude=__pycache__ -cf layer.tar .
    layer=$(sha256sum layer.tar | cut -d ' ' -f 1)
    for name in deb pause; do
        case $name in deb) command='"sh"' ;; pause) command='"sleep", "infinity"' ;; esac
        # Podman builds on what has a history only.
        cat > $name.json <<END
{ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [ "sha256:$layer" ] },
  "history": [ { "created": "2020-01-01T00:00:00Z", "created_by": "debootstrap" } ],
  "config": { "Env": [ "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" ], "Cmd": [ $command ] } }
END
        echo "{\"Config\":\"$name.json\",\"RepoTags\":[\"docker.io/library/$name:1\"],\"Layers\":[\"layer.tar\"]}"
    done | paste -s -d , | sed 's/.*/[&]/' > manifest.json
    tar -cf "$scratch/image.tar" manifest.json deb.json pause.json layer.tar
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

# A containerd of its own with the plugin for Kubernetes, both runtimes, and a bridge network with mapped ports.
start_cri() {
    programs containerd ctr runc iptables || return
    # The one that the cases find.
    env -i PATH=/usr/local/bin:/usr/bin:/bin python3 -c 'import grpc' 2>/dev/null || { echo "python3-grpcio is not installed"; return 1; }
    for plugin in bridge host-local portmap loopback; do
        [ -x "/usr/lib/cni/$plugin" ] || { echo "containernetworking-plugins is not installed"; return 1; }
    done
    mkdir /run/w/cni
    cat > /run/w/cni/pods.conflist <<END
{ "cniVersion": "0.4.0", "name": "pods", "plugins": [
  { "type": "bridge", "bridge": "pods0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
    "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.88.7.0/24" }]], "routes": [{ "dst": "0.0.0.0/0" }] } },
  { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true } ] }
END
    # A score below the caller's own takes CAP_SYS_RESOURCE.
    cat > /run/w/cri.toml <<END
version = 2
root = "/var/lib/cri"
state = "/run/w/cri"
[grpc]
address = "/run/w/cri.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "/var/lib/cri/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/library/pause:1"
restrict_oom_score_adj = true
stats_collect_period = 1
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "/run/w/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.moat]
runtime_type = "io.containerd.runc.v2"
privileged_without_host_devices = false
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.moat.options]
BinaryName = "/run/w/moat"
END
    # A file that is imported would replace all of the plugin's settings here.
    grep -v '^version' /run/w/etc/containerd/conf.d/moat-shim.toml >> /run/w/cri.toml
    containerd --config /run/w/cri.toml > "$scratch/log/cri" 2>&1 &
    answers cri $! ctr -a /run/w/cri.sock version && load ctr -a /run/w/cri.sock -n k8s.io images import "$scratch/image.tar"
}

start_docker() {
    programs docker dockerd runc || return
    # Docker itself looks at the root file systems of running containers and keeps them for the next start.
    cat > /run/w/daemon.json <<END
{ "runtimes": {
    "moat": { "path": "/run/w/moat" },
    "moat-host": { "path": "/run/w/moat", "runtimeArgs": ["--network=host"] },
    "runsc": { "path": "runsc", "runtimeArgs": ["--network=none", "--ignore-cgroups"] } },
  "experimental": true, "storage-driver": "overlay2", "iptables": false, "ip6tables": false }
END
    dockerd --config-file /run/w/daemon.json --containerd /run/containerd/containerd.sock > "$scratch/log/docker" 2>&1 &
    answers docker $! docker version && load docker load --input "$scratch/image.tar"
}

start_compose() {
    programs docker-compose
}

# Settings for both kinds of Podman: no systemd, and no limits that need CAP_SYS_RESOURCE.
configure_podman() {
    # Without root it is somebody else who keeps networks there.
    mkdir -p -m 1777 /run/w/networks
    cat > /run/w/etc/containers.conf <<END
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_config_dir = "/run/w/networks"
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
