# timeout: 120
# oracle: none

# A container that is saved again and again while others have to do with it: processes are started in it, it is paused and goes on, it
# is saved by two at once. Each of them gets what it asked for, and each image is one that goes on.

set -e
trap 'touch stop; oci delete --force box >/dev/null 2>&1 || true' EXIT
bundle box '{}' sh -c 'i=0; while :; do i=$((i + 1)); echo $i > /tmp/new; mv /tmp/new /tmp/count; (exit 3); test $? = 3 || exit 9; sleep 0.01; done'
expect() { test "$2" = "$3" || { echo "$1: $2, not $3"; exit 1; }; }
count() { oci exec box cat /tmp/count; }
reached() { test "0$(count 2> /dev/null)" -gt "$1"; }
oci run --detach --bundle box box > /dev/null < /dev/null
eventually reached 0

# Processes that come and go.
executing() {
    while ! test -e stop; do
        said=$(oci exec box sh -c 'echo started; (exit 5); echo $?' 2>&1 | tr '\n' ' ')
        test "$said" = 'started 5 ' || echo "$said" >> failed
        echo x >> executed
    done
}
executing &
one=$!
executing &
two=$!
for n in $(seq 8); do
    oci checkpoint --leave-running --image-path "images/$n" box
done
# Two at once.
oci checkpoint --leave-running --image-path images/9 box &
other=$!
oci checkpoint --leave-running --image-path images/10 box
wait $other
touch stop
wait $one $two
rm stop
test ! -e failed || { echo "executed: $(sort failed | uniq -c)"; exit 1; }
test "$(wc -l < executed)" -gt 8

# Somebody who pauses it: it stays paused when it has been saved, and is not let go on before.
pausing() {
    while ! test -e stop; do
        oci pause box && oci resume box || echo failed >> failed
    done
}
pausing &
one=$!
for n in $(seq 11 18); do
    oci checkpoint --leave-running --image-path "images/$n" box
done
touch stop
wait $one
test ! -e failed
expect state "$(state box)" running
reached=$(count)
eventually reached "$reached"
oci pause box
oci checkpoint --leave-running --image-path images/19 box
expect 'state of a paused one' "$(state box)" paused
if oci exec box true 2> said; then echo 'a process was started in a paused container'; exit 1; fi
oci checkpoint --image-path images/20 box
if state box > /dev/null 2>&1; then echo 'it is still there'; exit 1; fi

for n in $(seq 20); do
    expect "image $n" "$(oci image verify "images/$n")" "the image is sound"
    oci restore --detach --bundle box --image-path "images/$n" box > /dev/null < /dev/null
    expect "state after image $n" "$(state box)" running
    reached=$(count)
    eventually reached "$reached"
    oci delete --force box
done
