# needs: docker

# Terminals: what a person at one sees. Control characters, sizes and job control have to feel like at home.
exec python3 -B "$HERE/terminal.py" docker "$RUNTIME"
