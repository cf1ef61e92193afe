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
count='i=0; while :; do i=$((i + 1)); echo $i > /new; mv /new /count; sleep 0.02; done'
shown() { podman exec "$1" cat /count; }
reached() { test "$(shown "$1" 2>/dev/null || echo 0)" -gt "$2"; }
podman --runtime "$OCI" run -d --name box --network none deb:1 sh -c "$count" > /dev/null
eventually reached box 3
expect checkpoint "$(podman container checkpoint box)" box
expect state "$(podman inspect -f '{{.State.Status}} {{.State.Checkpointed}}' box)" 'exited true'
expect restore "$(podman container restore box)" box
first=$(shown box)
test "$first" -gt 3
eventually reached box "$first"
# It goes on, and another one begins where it was.
podman container checkpoint --leave-running --export saved.tar.gz box > /dev/null 2>&1
podman container restore --import saved.tar.gz --name copy > /dev/null
second=$(shown copy)
test "$second" -ge "$first"
eventually reached copy "$second"
eventually reached box "$(shown box)"
