# needs: docker
# oracle: none

# docker checkpoint create, ls, rm and start --checkpoint, which take an experimental daemon. (runc needs criu for it.)

set -e
trap 'docker rm -f box other >/dev/null 2>&1 || true' EXIT
expect() { test "$2" = "$3" || { echo "$1: $2, not $3"; exit 1; }; }
count='i=0; while :; do i=$((i + 1)); echo $i > /new; mv /new /count; echo line $i; sleep 0.02; done'
shown() { docker exec "$1" cat /count; }
reached() { test "$(shown "$1" 2>/dev/null || echo 0)" -gt "$2"; }
ended() { docker ps -a --filter "name=$1" --format '{{.Status}}' | grep -q "^Exited (137)"; }
docker_run -d --name box deb:1 sh -c "$count" > /dev/null
docker_run -d --name other deb:1 sh -c "$count" > /dev/null
eventually reached box 3
# It goes on.
expect create "$(docker checkpoint create --leave-running box one)" one
first=$(shown box)
eventually reached box "$first"
# It ends.
eventually reached other 3
expect create "$(docker checkpoint create other two)" two
eventually ended other
last=$(docker logs other | grep -c line)
expect list "$(docker checkpoint ls box | tail -n +2) $(docker checkpoint ls other | tail -n +2)" 'one two'
# From there on, not from the start; its output goes where it went.
# Docker hands an image to containerd, which refuses one that it has from before and has yet to clean up.
start() { docker start --checkpoint "$1" "$2" 2> said; }
eventually start two other
eventually reached other "$last"
expect 'lines from the start' "$(docker logs other | grep -c 'line 1$')" 1
expect "line $last" "$(docker logs other | grep -c "line $last\$")" 1
docker stop -t 0 box > /dev/null
eventually start one box
eventually reached box "$first"
docker stop -t 0 box > /dev/null
if docker start --checkpoint three box 2> said; then echo 'it starts from a checkpoint that is not there'; exit 1; fi
grep -q three said || cat said
docker checkpoint rm box one
expect list "$(docker checkpoint ls box | tail -n +2)" ''
