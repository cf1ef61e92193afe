# needs: docker
# timeout: 120

# An image is built and run. A build takes the daemon's default runtime, so there is a daemon for each.
. "$HERE/context.sh"
python3 - <<'PY'
import json
import os
config = json.load(open("/run/w/daemon.json", encoding="utf-8"))
json.dump(config | {"default-runtime": os.environ["RUNTIME"]}, open("/run/w/build.json", "w", encoding="utf-8"))
PY
builder() { docker -H unix:///run/w/build.sock "$@"; }
dockerd --config-file /run/w/build.json --host unix:///run/w/build.sock --pidfile /run/w/build.pid --bridge none \
    --data-root "$WORK/data" --exec-root "$WORK/exec" --containerd /run/containerd/containerd.sock \
    --containerd-namespace build --containerd-plugins-namespace build-plugins > dockerd.log 2>&1 &
daemon=$!
trap 'kill $daemon; wait $daemon' EXIT
eventually builder version > /dev/null 2>&1 || tail -3 dockerd.log
[ "$(builder info -f '{{.DefaultRuntime}}')" = "$RUNTIME" ] && echo 'with the default runtime'
docker save deb:1 | builder load > /dev/null
DOCKER_BUILDKIT=0 builder build -q --network none -t first --build-arg WORD=w context 2> /dev/null | cut -c 1-7
DOCKER_BUILDKIT=0 builder build --no-cache --network none -t built --build-arg WORD=w context 2> /dev/null | sed 's/[0-9a-f]\{12\}/ID/' | grep -v '^Sending'
run="builder run --network none"
$run --rm built
$run --rm -u root built 'id -un; stat -c "%U %a %N" out/*'
$run -d --name box built 'sleep 1000' > /dev/null
healthy() { test "$(builder inspect -f '{{.State.Health.Status}}' box)" = healthy; }
eventually healthy && echo healthy
builder commit -c 'CMD ["echo committed"]' box committed | cut -c 1-7
builder rm -f box
$run --rm committed
printf 'FROM built\nRUN exit 3\n' > context/Dockerfile
DOCKER_BUILDKIT=0 builder build -q --network none context 2>&1 | tail -1
builder rm -f $(builder ps -aq) > /dev/null
