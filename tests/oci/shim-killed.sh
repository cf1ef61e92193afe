# needs: containerd
# oracle: none

# A shim that is killed, or whose sandbox is: containerd is told, and nothing is left. (runc's shim leaves its socket.)

set -e
image=docker.io/library/deb:1
run() { ctr run -d --runtime io.containerd.moat.v1 $image box "$@"; }
state() { ctr tasks ls | awk '$1 == "box" { print $3 }'; }
stopped() { test "$(state)" = STOPPED; }
gone() { ! ctr tasks ls -q | grep -q box && ! test -e /run/containerd/moat/default/box && ! pgrep -x moat-sandbox; }
shim() { pgrep -f '^containerd-shim-moat-v1 '; }
run sleep 1000
test "$(shim | wc -l)" = 1
socket=$(find /run/containerd/s -type s)
ctr tasks exec --exec-id more box sleep 1000 & attached=$!
eventually sh -c 'test $(ctr tasks ps box | tail -n +2 | wc -l) = 2'
kill -KILL "$(shim)"
eventually gone
code=0; wait $attached || code=$?
test $code != 0
eventually test ! -e "$socket"
ctr containers rm box
# The sandbox: an end of the container like others.
run sleep 1000
ctr tasks exec --exec-id more box sleep 1000 & attached=$!
eventually sh -c 'test $(ctr tasks ps box | tail -n +2 | wc -l) = 2'
kill -KILL "$(pgrep -x moat-sandbox)"
code=0; wait $attached || code=$?
test $code = 137
eventually stopped
ctr tasks delete box 2>&1 | grep -q 'exit code 137'
eventually sh -c '! pgrep -f "^containerd-shim-moat-v1 "'
ctr containers rm box
# And anew.
run sh -c 'exit 5'
eventually stopped
ctr tasks delete box 2>&1 | grep -q 'exit code 5'
ctr containers rm box
# One that can't be made leaves nothing.
code=0; ctr run --rm --runtime io.containerd.moat.v1 $image box /no/such/command 2> error || code=$?
test $code != 0
grep -q 'OCI runtime create failed.*no such file or directory' error
test -z "$(ctr tasks ls -q)$(ctr containers ls -q)"
