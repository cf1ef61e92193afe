# needs: podman

# Podman's terminals.
exec python3 -B "$HERE/terminal.py" podman "$RUNTIME"
