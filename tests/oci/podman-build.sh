# needs: podman
# timeout: 120

# An image is built and run.
. "$HERE/context.sh"
build() { podman --runtime "$RUNTIME" build --isolation oci --network none --format docker "$@"; }
run() { podman --runtime "$RUNTIME" run --network none "$@"; }
build --no-cache -t localhost/built --build-arg WORD=w context 2>&1 | grep -v -E '^(Getting|Copying|Writing|Storing|-->|[0-9a-f]{64})'
# Timers for the health check would be systemd's.
quietly() { "$@" 2>&1 | grep -v 'unable to get systemd connection'; }
quietly run --rm localhost/built
quietly run --rm -u root localhost/built 'id -un; stat -c "%U %a %N" out/*'
quietly run -d --name box localhost/built 'sleep 1000' > /dev/null
status podman healthcheck run box
podman exec box sh -c 'id -un; rm out/file'
status podman healthcheck run box
podman kill box > /dev/null
exited() { test "$(podman inspect -f '{{.State.Status}}' box)" = exited; }
eventually exited
echo new > new; podman cp new box:/srv/out/new; podman cp box:/srv/out/new copy && cat copy
quietly podman rm -f -t 0 box > /dev/null
printf 'FROM localhost/built\nRUN exit 3\n' > context/Dockerfile
build context 2>&1 | tail -1 | sed 's/.*: //'
podman rmi -f localhost/built > /dev/null; podman image prune -f > /dev/null
