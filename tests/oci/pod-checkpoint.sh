# timeout: 120
# oracle: none

# A pod is saved as a whole, and its containers come back one after the other: none goes on before all are there. What they have in
# common (connections, pid and IPC namespaces) is as it was, and each is bounded by its own configuration.

set -e
trap 'for id in client server pause other box; do oci delete --force $id >/dev/null 2>&1 || true; done' EXIT
expect() { test "$2" = "$3" || { echo "$1: $2, not $3"; exit 1; }; }
fails() {
    what=$1 said=$2
    shift 2
    if timeout 30 "$OCI" ${flags:-} "$@" > out 2>&1 < /dev/null; then echo "$what: it works"; exit 1; fi
    grep -qF -- "$said" out || { echo "$what: $(cat out)"; exit 1; }
}
# member SANDBOX NAME PID-NAMESPACE [MORE-OF-LINUX]
member() {
    echo "{\"hostname\": null, \"annotations\": {\"io.kubernetes.cri.container-type\": \"container\", \"io.kubernetes.cri.sandbox-id\": \"$1\",
      \"io.kubernetes.cri.container-name\": \"$2\"}, \"linux\": {${4:-} \"namespaces\": [$3, {\"type\": \"mount\"},
      {\"type\": \"network\", \"path\": \"/proc/1/ns/net\"}, {\"type\": \"ipc\", \"path\": \"/proc/1/ns/ipc\"}, {\"type\": \"uts\", \"path\": \"/proc/1/ns/uts\"}]}}"
}
own='{"type": "pid"}'
shared='{"type": "pid", "path": "/proc/1/ns/pid"}'
sandbox() { echo "{\"annotations\": {\"io.kubernetes.cri.container-type\": \"sandbox\", \"io.kubernetes.cri.sandbox-id\": \"$1\"}}"; }
# What it is made with counts for a sandbox, and so for all of a pod.
platform=systrap
oci() { "$OCI" ${flags:-} --platform "$platform" "$@"; }
begin() { oci create --bundle "$1" "$1" > /dev/null < /dev/null; oci start "$1"; }
count() { oci exec "$1" cat /tmp/count 2> /dev/null; }
beyond() { test "0$(count client)" -gt "$1"; }
again() { oci restore --detach --image-path "${2:-image}" --bundle "$1" "$1" > /dev/null < /dev/null; }

bundle pause "$(sandbox pause)" sh -c 'trap "exit 4" TERM; while :; do sleep 0.1; done'
begin pause
bundle server "$(member pause server "$own" '"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chroot"], "action": "SCMP_ACT_ERRNO"}]},')" perl -e '
    use Socket; $SIG{TERM} = sub { exit 6 };
    shmwrite(shmget(42, 4096, 01666), "in common", 0, 9) or die;
    socket(S, PF_INET, SOCK_STREAM, 0); bind(S, sockaddr_in(5007, INADDR_LOOPBACK)) or die; listen(S, 5);
    accept(C, S); while ($n = <C>) { $sum += $n; syswrite(C, "$sum\n") }'
begin server
bundle client "$(member pause client "$shared")" perl -e '
    use Socket; use IO::Handle; $SIG{TERM} = sub { exit 7 };
    do { select(undef, undef, undef, 0.05); socket(S, PF_INET, SOCK_STREAM, 0) } until connect(S, sockaddr_in(5007, INADDR_LOOPBACK));
    for (;;) {
        syswrite(S, ++$n . "\n"); $sum = <S>; $sum == $n * ($n + 1) / 2 or exit 9;
        open(F, ">", "/tmp/new"); print F $n; close(F); rename("/tmp/new", "/tmp/count"); select(undef, undef, undef, 0.01);
    }'
begin client
eventually beyond 3
# One that has ended is nothing that could come back.
bundle other "$(member pause other "$own")" true
begin other
eventually is other stopped
oci exec -d client sleep 100000 > /dev/null 2>&1 < /dev/null

fails 'a later container' 'in the sandbox of another one' checkpoint --image-path image client
fails 'a clone' 'of a pod' clone pause another
oci checkpoint --leave-running --image-path before pause
at=$(count client)
eventually beyond "$at"
oci checkpoint --image-path image pause
expect containers "$(oci image inspect image | python3 -c '
import json, sys
print(*sorted(c["name"] or c["id"] for c in json.load(sys.stdin)["containers"]))')" 'client pause server'
expect 'the image' "$(oci image verify image)" 'the image is sound'
for id in client server other; do expect "$id" "$(state $id)" stopped; oci delete $id; done
fails pause 'does not exist' state pause

# None goes on before all are there.
fails 'a container without its sandbox' 'does not exist' restore --detach --image-path image --bundle client client
again pause
expect pause "$(state pause)" running
fails exec 'pause' exec pause true
fails pausing 'pause' pause pause
fails 'one that is not of the image' 'none of the containers of the image that are missing' restore --detach --image-path image --bundle other other
fails 'a new one' 'waits for the containers of its image' create --bundle other other
fails 'another image' 'from another image' restore --detach --image-path before --bundle server server
fails 'it waits' 'it cannot be saved' checkpoint --image-path none pause
# By its name: its id may be another one.
again client
expect client "$(state client)" running
expect 'no process' "$(oci ps client --format json)" null
oci kill client KILL
eventually is client stopped
oci delete client
again client
again server
eventually beyond "$at"
oci exec server chroot / true 2> /dev/null && { echo 'the profile is gone'; exit 1; }
oci exec client chroot / true
expect 'what they share' "$(oci exec client perl -e 'shmread(shmget(42, 4096, 0), $x, 0, 9); print $x')" 'in common'
expect 'the numbers of pause' "$(oci exec pause ps -eo comm= | grep -c perl)" 1
expect 'the numbers of server' "$(oci exec server cat /proc/1/comm)" perl
expect executed "$(oci ps client | grep -c 'sleep 100000')" 1
fails 'later than all' 'not one that waits' restore --detach --image-path image --bundle other other
# And once more, as they are now, on the other platform; and from there.
oci checkpoint --image-path second pause
for id in client server; do oci delete $id; done
platform=ptrace
again pause second; again server second; again client second
at=$(count client)
eventually beyond "$at"
oci checkpoint --image-path third pause
for id in client server; do oci delete $id; done
again pause third; again server third; again client third
at=$(count client)
eventually beyond "$at"
oci exec server kill -TERM 1
eventually is server stopped
platform=systrap
oci delete --force pause
for id in client server; do oci delete --force $id; done

# What does not fit ends all of it, and the last one is told why; nothing is left.
unfit() {
    again pause
    again client
    bundle server "$2" true
    fails "$1" "$3" restore --detach --image-path image --bundle server server
    eventually is pause stopped
    for id in pause client; do oci delete --force $id; done
}
unfit 'another pid namespace' "$(member pause server "$shared")" 'in common with the first one'
# What the others may do counts for them alone.
bounded=$(member pause server "$own" | sed '1s/{/{"process": {"user": {"uid": 5, "gid": 5}, "capabilities": null},/')
unfit 'another user' "$bounded" 'a process of user 0, which the configuration does not let it become'
unfit 'other mounts' "$(member pause server "$own" | sed '1s/{/{"mounts": [],/')" 'mounts, and this configuration makes'
again pause
oci kill pause TERM
eventually is pause stopped
oci delete pause
