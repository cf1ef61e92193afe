# needs: containerd

# Terminals of ctr by each runtime's own shim.
case $RUNTIME in moat) shim=io.containerd.moat.v1 ;; *) shim=io.containerd.runc.v2 ;; esac
exec python3 -B "$HERE/terminal.py" ctr $shim
