# needs: podman

# Podman's terminals.
exec python3 "$HERE/terminal.py" podman "$RUNTIME"
