# 400s reboots Containers run while the host goes down; afterwards their names are free, and Docker starts them again.
. /usr/local/lib/library.sh
if [ -z "${rebooted-}" ]; then
    make_bundle '"cgroupsPath":"moat-test.slice:moat:b1"' sleep 1000
    moat --systemd-cgroup run --detach --bundle "$bundle" b1 >/dev/null 2>&1 </dev/null
    same "the state" "$(moat state b1 | grep -o running)" running
    moat install --clients docker >/dev/null
    systemctl start docker
    docker import /usr/local/lib/busybox.tar busybox >/dev/null
    docker run -d --restart always --runtime moat --network none --name d1 busybox sh -c 'echo x >>/count; exec sleep 1000' >/dev/null
    same "in Docker's container" "$(docker exec d1 cat /count)" x
    sync
else
    same "the list" "$(moat list -q)" ""
    make_bundle '"cgroupsPath":"moat-test.slice:moat:b1"' echo again
    same "the name again" "$(moat --systemd-cgroup run --bundle "$bundle" b1)" again
    systemctl start docker
    wait_for '[ "$(docker inspect -f "{{.State.Running}}" d1)" = true ]'
    # Docker may have tried more than once.
    for _ in $(seq 50); do
        lines=$(docker exec d1 cat /count 2>&1) || true
        [ "$(grep -cx x <<<"$lines")" -lt 2 ] || break
        sleep 0.1
    done
    [ "$(grep -cx x <<<"$lines")" -ge 2 ] || fail "the second start: '$lines'; $(docker inspect -f '{{json .State}}' d1)"
    docker rm -f d1 >/dev/null
    systemctl stop docker docker.socket containerd
fi
