# needs: docker
# oracle: none

# What a container shares with the host. Its processes can't be shown to a guest: refused, with the reason. IPC objects are the guest's own.
docker_run --rm --pid host deb:1 true 2>&1 | grep -o "linux.namespaces without pid.*: the host's processes can't be shown to a guest" | head -1 > out
[ -s out ] || { echo "--pid host: $(docker_run --rm --pid host deb:1 true 2>&1)"; exit 1; }
docker_run --rm --ipc host deb:1 sh -c 'ipcmk -Q >/dev/null && ipcs -q | grep -c 0x' | grep -qx 1 || { echo "--ipc host: $(docker_run --rm --ipc host deb:1 ipcs 2>&1)"; exit 1; }
docker_run --rm --uts host deb:1 hostname | grep -qx "$(hostname)" || { echo "--uts host: another name"; exit 1; }
