# oracle: none

# The end of a pod's first container is the end of the others: they live in its sandbox.
bundle pause '{"annotations": {"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-id": "pause"}}' sleep 100000
for id in one two; do
    bundle $id '{"annotations": {"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "pause"}}' sleep 100000
done
set -e
for id in pause one two; do oci create --bundle $id --pid-file $id.pid $id >/dev/null; oci start $id; done
# One sandbox: one process of that name.
test "$(ps -eo comm= | grep -c '^moat-sandbox')" = 1
oci exec one sh -c 'exit 0'
oci exec two sleep 1000 & attached=$!
eventually oci exec two sh -c 'test $(ps -eo comm= | grep -c sleep) = 2'
oci kill pause KILL
eventually is pause stopped
for id in one two; do
    eventually is $id stopped
    ! kill -0 "$(cat $id.pid)" 2>/dev/null
done
code=0; wait $attached || code=$?
test $code = 137
# The order of the removals is free.
oci delete pause; oci delete one; oci delete two
# CRI-O's names; and a delete of the first with all of them running.
bundle pause '{"annotations": {"io.kubernetes.cri-o.ContainerType": "sandbox", "io.kubernetes.cri-o.SandboxID": "pause"}}' sleep 100000
bundle one '{"annotations": {"io.kubernetes.cri-o.ContainerType": "container", "io.kubernetes.cri-o.SandboxID": "pause"}}' sleep 100000
for id in pause one; do oci create --bundle $id $id >/dev/null; oci start $id; done
oci delete --force pause
eventually is one stopped
oci delete one
# A container whose sandbox is not there.
code=0; oci create --bundle one one 2> error || code=$?
test $code != 0
cat error
grep -q pause error
test -z "$(oci list -q)"
