# needs: podman

# A pod of two containers, which share the network, and host names with it.
. "$HERE/pod.sh"
