# needs: rootless
# timeout: 120

# An ordinary user who is the same user inside, with the maps of that, and whose files in a volume stay its own; and as root inside.
cat > rows.sh <<'END'
cd "$(mktemp -d)"
mkdir volume && echo mine > volume/file
run() { podman --runtime "$RUNTIME" run --rm --network none "$@"; }
run --userns keep-id -v "$PWD/volume:/v" docker.io/library/deb:1 sh -c 'id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map
    stat -c %u:%g /v/file /etc/passwd; echo more >> /v/file; touch /v/made; touch /root/x 2>&1 | grep -o "Permission denied"; cat /v/file'
stat -c '%n %u:%g' volume/*
run -v "$PWD/volume:/v" docker.io/library/deb:1 sh -c 'id -u; cat /proc/self/uid_map; stat -c %u:%g /v/made; chown 5:6 /v/made; chown 99999 /v/made 2>&1 | grep -o "Invalid argument"'
stat -c '%n %u:%g' volume/*
run --userns keep-id -u 0 docker.io/library/deb:1 id -u
END
chmod 755 . && chmod 644 rows.sh
exec "$HERE/as-tester.sh" sh "$PWD/rows.sh"
