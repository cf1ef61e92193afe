# needs: containerd
# oracle: none

# ctr containers checkpoint and restore by moat's own shim. (ctr passes the flags of ctr tasks checkpoint on to runc's alone.)

set -e
image=docker.io/library/deb:1 saved=docker.io/library/saved:1
# The first: by its configuration it is in the cgroup of the other.
clean() {
    for name in back box; do
        ctr tasks kill -s KILL $name; eventually ended $name; ctr tasks delete $name; ctr containers rm $name
    done
    ctr images rm $saved
}
ended() { ! ctr tasks ls | grep "^$1 " | grep -q RUNNING; }
trap 'clean > /dev/null 2>&1 || true' EXIT
count='i=0; while :; do i=$((i + 1)); echo $i > /new; mv /new /count; sleep 0.02; done'
ctr run -d --runtime io.containerd.moat.v1 $image box sh -c "$count"
number=0
# What a container has counted to.
shown() { number=$((number + 1)); ctr tasks exec --exec-id "look$number" "$1" cat /count; }
reached() { test "$(shown "$1" 2>/dev/null || echo 0)" -gt "$2"; }
eventually reached box 3
# Into containerd's store, and as another container out of it.
ctr containers checkpoint --rw --task box $saved
before=$(shown box)
ctr tasks kill -s KILL box
eventually ended box
ctr containers restore --rw --live back $saved
after=$(shown back)
test "$after" -gt 3 && test "$((after - before))" -lt 50
eventually reached back "$after"
