# needs: containerd
# oracle: none

# ctr tasks checkpoint, ctr containers checkpoint and restore. (runc needs criu for them.)

set -e
image=docker.io/library/deb:1 saved=docker.io/library/saved:1
clean() {
    for name in box back; do
        ctr tasks kill -s KILL $name; eventually ended $name; ctr tasks delete $name; ctr containers rm $name
    done
    ctr images rm $saved
}
ended() { ! ctr tasks ls | grep "^$1 " | grep -q RUNNING; }
trap 'clean > /dev/null 2>&1 || true' EXIT
count='i=0; while :; do i=$((i + 1)); echo $i > /new; mv /new /count; sleep 0.02; done'
ctr run -d --runc-binary "$OCI" --runtime io.containerd.runc.v2 $image box sh -c "$count"
number=0
# What a container has counted to.
shown() { number=$((number + 1)); ctr tasks exec --exec-id "look$number" "$1" cat /count; }
reached() { test "$(shown "$1" 2>/dev/null || echo 0)" -gt "$2"; }
eventually reached box 3
# Into a directory, going on.
ctr tasks checkpoint --image-path "$WORK/image" box
test "$(oci image verify "$WORK/image")" = 'the image is sound'
before=$(shown box)
eventually reached box "$before"
# Into containerd's store, and as another container out of it.
ctr containers checkpoint --rw --task box $saved
before=$(shown box)
ctr tasks kill -s KILL box
eventually ended box
ctr containers restore --rw --live back $saved
after=$(shown back)
test "$after" -gt 3 && test "$((after - before))" -lt 50
eventually reached back "$after"
# Into a directory, ended.
ctr tasks checkpoint --exit --image-path "$WORK/last" back
eventually ended back
test "$(oci image verify "$WORK/last")" = 'the image is sound'
