# needs: rootless
# timeout: 120

# A pod of an ordinary user.
exec "$HERE/as-tester.sh" sh -c '. "$0"' "$HERE/pod.sh"
