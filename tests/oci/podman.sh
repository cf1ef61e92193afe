# Podman's commands: a part of podman-run.sh and podman-rootless.sh.
# What a container writes to both of its streams comes in any order: `exec 2>&1` makes them one.
run() { podman --runtime "$RUNTIME" run --network none "$@"; }
p() { podman --runtime "$RUNTIME" "$@"; }
eventually() { for _ in $(seq 100); do "$@" && return; sleep 0.1; done; echo "never came true: $*"; }

run --rm deb:1 echo hello
run --rm deb:1 sh -c 'echo out; echo err >&2; exit 7' 2>/dev/null; echo "status $?"
printf 'one\ntwo\n' | run --rm -i deb:1 tac
run --rm -u 1234:5678 -w /usr -e A=1 --hostname boxy deb:1 sh -c 'id; pwd; echo $A; hostname'
run --rm --read-only deb:1 sh -c 'touch /x' 2>&1
run --rm --cap-drop ALL deb:1 grep -E '^Cap(Eff|Bnd)' /proc/self/status
run --rm --tmpfs /scratch deb:1 sh -c 'touch /scratch/x; ls /scratch'
rm -rf shared; mkdir shared; echo host > shared/file
run --rm -v "$PWD/shared:/mnt" deb:1 sh -c 'cat /mnt/file; echo guest > /mnt/made'; cat shared/made
run --rm -v "$PWD/shared:/mnt:ro" deb:1 sh -c 'touch /mnt/x' 2>&1
run --rm --mount type=image,source=deb:1,destination=/image deb:1 sh -c 'cmp /etc/passwd /image/etc/passwd && touch /image/x' 2>&1
run --rm --mount type=image,source=deb:1,destination=/image,rw=true deb:1 sh -c 'touch /image/x && ls /image/x'
run --rm --mount type=tmpfs,destination=/small,tmpfs-size=65536,tmpfs-mode=1750 deb:1 sh -c \
    'exec 2>&1; stat -c %a /small; df -k /small | tail -n 1 | tr -s " " | cut -d " " -f 2; head -c 70000 /dev/zero > /small/x; stat -c %s /small/x'
run --rm -v "$PWD/shared:/mnt:O" deb:1 sh -c 'cat /mnt/file; rm /mnt/file; echo own > /mnt/own; ls /mnt'; ls shared
p volume create kept >/dev/null
run --rm --mount type=volume,source=kept,destination=/kept deb:1 sh -c 'echo volume > /kept/file'
run --rm -v kept:/kept:ro deb:1 sh -c 'exec 2>&1; cat /kept/file; touch /kept/x'
p volume rm kept
run --rm deb:1 /no/such/command 2>/dev/null; echo "status $?"
run --rm deb:1 /etc/passwd 2>/dev/null; echo "status $?"
run --rm --no-such-flag deb:1 true 2>/dev/null; echo "status $?"

run -d --name box deb:1 sh -c 'trap "echo got USR1" USR1; trap "exit 5" TERM; echo ready; while :; do sleep 0.1; done' | wc -c
ready() { p logs box 2>&1 | grep -q "$1"; }
eventually ready ready
p ps --format '{{.Names}} {{.Image}} {{.Status}}' | sed 's/Up .*/Up/'
p exec box sh -c 'echo executed; cat /proc/1/comm; exit 9'; echo "status $?"
seq 100 | p exec -i box tail -n 1
p exec -u 65534 -w /tmp -e B=2 box sh -c 'id -u; pwd; echo $B'
p exec box /no/such/command 2>/dev/null; echo "status $?"
p kill -s USR1 box; eventually ready 'got USR1'
p inspect -f '{{.State.Status}} {{.State.Running}}' box
p stop -t 20 box
p inspect -f '{{.State.Status}} {{.State.ExitCode}}' box
p start box; eventually p exec box true
p kill box; p wait box
p logs box | sort | uniq -c
p rm box
run -d --name box deb:1 sleep 1000 >/dev/null
p rm -f -t 0 box >/dev/null
p ps -aq
