# What the cases have in common. They run as root in a virtual machine, each in a shell of its own.
set -eu
bundle=/run/bundle
cgroup=/sys/fs/cgroup

trap 'echo "line $LINENO: $BASH_COMMAND"' ERR
set -E
# What a case that failed has left.
for container in $(moat list -q); do
    moat delete --force "$container"
done

fail() {
    echo "FAILED: $*"
    exit 1
}

# same WHAT GOT EXPECTED
same() {
    [ "$2" = "$3" ] || fail "$1: '$2', not '$3'"
}

# says TEXT COMMAND...: the command's output, errors included, has the text, whatever its status.
says() {
    local text=$1 output
    shift
    output=$("$@" 2>&1) || true
    case $output in
    *"$text"*) ;;
    *) fail "$*: no '$text' in: $output" ;;
    esac
}

# make_bundle LINUX ARGUMENT...: a bundle in $bundle that runs the arguments; LINUX are further members of the
# configuration's object "linux", if any.
make_bundle() {
    local linux=$1 arguments="" argument
    shift
    if [ ! -d "$bundle/rootfs" ]; then
        mkdir -p "$bundle/rootfs"
        tar -C "$bundle/rootfs" -xf /usr/local/lib/busybox.tar
    fi
    for argument in "$@"; do
        arguments="$arguments${arguments:+,}\"$argument\""
    done
    cat >"$bundle/config.json" <<CONFIG
{"ociVersion":"1.0.2","hostname":"h","root":{"path":"rootfs"},
 "process":{"cwd":"/","args":[$arguments],"user":{"uid":0,"gid":0},"env":["PATH=/bin"]},
 "mounts":[{"destination":"/proc","type":"proc","source":"proc"}],
 "linux":{"namespaces":[{"type":"pid"},{"type":"mount"},{"type":"network"}]${linux:+,$linux}}}
CONFIG
}

# As somebody who has logged in; the environment is that of a session.
login() {
    local name=$1
    shift
    su -l "$name" -c "$*"
}

wait_for() {
    local try
    for try in $(seq 100); do
        ! eval "$1" || return 0
        sleep 0.1
    done
    fail "this did not become true: $1"
}
