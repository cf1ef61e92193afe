# needs: podman

# Podman as root: run, exec, ps, logs, kill, rm.
. "$HERE/podman.sh"
