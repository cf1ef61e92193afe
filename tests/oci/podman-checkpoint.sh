# needs: podman
# oracle: none

# podman container checkpoint and restore, into its own storage and into an archive. (runc needs criu for it.)

set -e
# Podman asks for CRIU's version before it asks the runtime, and for nothing else of it: `criu swrk DESCRIPTOR`, a criu_resp
# with type VERSION, success, and the version 3.17.
cat > criu <<'END'
#!/usr/bin/env python3
import socket, sys
with socket.socket(fileno=int(sys.argv[2])) as asked:
    asked.recv(4096)
    asked.send(bytes([8, 10, 16, 1, 82, 4, 8, 3, 16, 17]))
END
chmod +x criu
PATH=$WORK:$PATH
trap 'podman rm -f -t 0 box copy >/dev/null 2>&1 || true' EXIT
expect() { test "$2" = "$3" || { echo "$1: $2, not $3"; exit 1; }; }
# With --export Podman packs the container's root when the checkpoint is done and a box that is left running goes on: what that writes
# there in between is the archive's and not the image's. (CRIU, too, refuses a file that was open and has another size.) So it counts
# in memory, which is in the image, and what it has open in its root stays as it is.
count='echo fixed > /kept; exec 3< /kept
i=0; while :; do i=$((i + 1)); echo $i > /memory/new; mv /memory/new /memory/count; sleep 0.02; done'
shown() { podman exec "$1" cat /memory/count; }
reached() { test "$(shown "$1" 2>/dev/null || echo 0)" -gt "$2"; }
kept() { podman exec "$1" sh -c 'cat /kept; readlink /proc/1/fd/3'; }
podman --runtime "$OCI" run -d --name box --network none --tmpfs /memory deb:1 sh -c "$count" > /dev/null
eventually reached box 3
expect checkpoint "$(podman container checkpoint box)" box
expect state "$(podman inspect -f '{{.State.Status}} {{.State.Checkpointed}}' box)" 'exited true'
expect restore "$(podman container restore box)" box
first=$(shown box)
test "$first" -gt 3
eventually reached box "$first"
expect 'its file' "$(kept box)" 'fixed
/kept'
# It goes on, and another one begins where it was.
podman container checkpoint --leave-running --export saved.tar.gz box > /dev/null 2>&1
podman container restore --import saved.tar.gz --name copy > /dev/null
second=$(shown copy)
test "$second" -ge "$first"
eventually reached copy "$second"
expect "the copy's file" "$(kept copy)" 'fixed
/kept'
eventually reached box "$(shown box)"
