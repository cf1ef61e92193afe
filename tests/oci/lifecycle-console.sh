# timeout: 60

# --console-socket: the runtime sends the master of the terminal, as shims expect it.

exec python3 -B "$HERE/console.py" "$OCI" "$WORK"
