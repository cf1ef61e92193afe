# needs: rootless
# timeout: 120

# The same as an ordinary user.
exec "$HERE/as-tester.sh" sh -c '. "$0"' "$HERE/podman.sh"
