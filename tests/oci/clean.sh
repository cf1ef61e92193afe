#!/bin/sh
# Removes every container of every client, after a case that failed or was cut short.
command -v docker >/dev/null && docker ps -aq | xargs -r docker rm -fv
command -v ctr >/dev/null && {
    ctr tasks ls -q | xargs -r -n 1 ctr tasks rm -f
    ctr containers ls -q | xargs -r -n 1 ctr containers rm
}
CONTAINERS_CONF=/run/w/etc/containers.conf
export CONTAINERS_CONF
command -v podman >/dev/null && [ -e "$CONTAINERS_CONF" ] && {
    podman pod rm -fa -t 0
    podman rm -fa -t 0
    "$(dirname "$0")/as-tester.sh" podman pod rm -fa -t 0
    "$(dirname "$0")/as-tester.sh" podman rm -fa -t 0
}
[ -S /run/w/cri.sock ] && PYTHONDONTWRITEBYTECODE=1 python3 - "$(dirname "$0")" <<'END'
import sys
sys.path.insert(0, sys.argv[1])
import cri
client = cri.Client("/run/w/cri.sock")
for pod in client.ListPodSandbox()["items"]:
    client.StopPodSandbox(pod_sandbox_id=pod["id"])
    client.RemovePodSandbox(pod_sandbox_id=pod["id"])
END
for runtime in runc /run/w/moat; do
    "$runtime" list --quiet | xargs -r -n 1 "$runtime" delete --force
done
true
