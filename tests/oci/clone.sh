# timeout: 60
# oracle: none

# Clones of a running container go on from where it was, each for itself, in a cgroup of its own beside the original's; they come and go without the
# original, and it without them.

set -e
trap 'for id in box one many-1 many-2; do oci delete --force "$id" > /dev/null 2>&1 || true; done' EXIT
group=/moat-clones-$$
bundle box "{\"linux\": {\"cgroupsPath\": \"$group/box\", \"resources\": {\"pids\": {\"limit\": 50}}}}" \
    sh -c 'i=0; while :; do i=$((i + 1)); echo $i > /tmp/new; mv /tmp/new /tmp/count; sleep 0.01; done'
expect() { test "$2" = "$3" || { echo "$1: $2, not $3"; exit 1; }; }
count() { oci exec "$1" cat /tmp/count; }
reached() { test "0$(count "$1" 2> /dev/null)" -gt "$2"; }
# Where the host has a cgroup of that name, in whichever hierarchies.
groups() { find /sys/fs/cgroup -maxdepth 3 -path "*$group/$1" -type d | wc -l; }
oci run --detach --bundle box box > /dev/null < /dev/null
eventually reached box 5
there=$(groups box)
test "$there" -gt 0 || { echo 'the container has no cgroup'; exit 1; }

before=$(count box)
oci clone box one
oci clone --count 2 box many
after=$(count box)
for id in one many-1 many-2; do
    expect "state of $id" "$(state $id)" running
    at=$(count $id)
    test "$at" -ge "$before" || { echo "$id began anew: $at, the original was at $before"; exit 1; }
    eventually reached $id "$at"
    expect "cgroups of $id" "$(groups $id)" "$there"
done
test "$after" -ge "$before"
# What one writes no other one sees.
oci exec one sh -c 'echo mine > /tmp/mine'
if oci exec box test -e /tmp/mine || oci exec many-1 test -e /tmp/mine; then echo 'files are shared'; exit 1; fi

# A clone of a clone, and one that outlives all before it.
oci delete --force one > said 2>&1 || { echo "a clone could not be deleted: $(cat said)"; exit 1; }
expect 'what was said of it' "$(cat said)" ''
expect 'cgroups of a deleted clone' "$(groups one)" 0
at=$(count box)
eventually reached box "$at"
oci delete --force box
expect 'cgroups of the original' "$(groups box)" 0
oci clone many-1 one
oci delete --force many-1
for id in one many-2; do
    at=$(count $id)
    eventually reached $id "$at"
    oci delete --force $id
done
expect 'cgroups that are left' "$(find /sys/fs/cgroup -maxdepth 3 -path "*$group/*" -type d | wc -l)" 0
find /sys/fs/cgroup -maxdepth 2 -path "*$group" -type d -delete
