# Functions for the cases; precedes each of them.
#
# RUNTIME is the runtime under test as the clients know it, runc or moat; OCI the path of its program. A case prints
# what Linux containers do, and has to print the same with both.

set -u
# Into the world's part of the cgroups, so that they look as on a machine of its own.
for file in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs; do
    { [ -e "$file" ] && echo $$ > "$file"; } 2>/dev/null
done
case $RUNTIME in
    moat) OCI=/run/w/moat ;;
    *) OCI=$(command -v "$RUNTIME") ;;
esac
# A directory of the case's own, which is the current one.
export RUNTIME OCI WORK=/run/w/case CONTAINERS_CONF=/run/w/etc/containers.conf
rm -rf "$WORK"
mkdir -m 755 "$WORK"
cd "$WORK" || exit 99

# Repeats a command until it succeeds, for ten seconds.
eventually() {
    for _ in $(seq 100); do
        "$@" && return
        sleep 0.1
    done
    echo "never came true: $*"
    return 1
}

# Runs a command, shows its exit status.
status() {
    "$@"
    echo "status $?"
}

# `docker run` without a network and with the runtime under test.
docker_run() {
    docker run --runtime "$RUNTIME" --network none "$@"
}

# The runtime's own command line.
oci() {
    "$OCI" "$@"
}

# A bundle in the directory NAME: bundle NAME PATCH ARGUMENT...
bundle() {
    name=$1
    shift
    python3 "$HERE/bundle.py" "$WORK/$name" "$@"
}

# The status of a container, as `state` tells it; and whether it is a certain one.
state() {
    oci state "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["status"])'
}
is() {
    test "$(state "$1" 2>/dev/null)" = "$2"
}

# JSON for comparisons.
show() {
    python3 "$HERE/show.py" "$@"
}
