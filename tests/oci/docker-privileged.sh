# needs: docker
# oracle: none

# A privileged container has what mounting takes, and a node for each device of the host. (runc can't make one where the machine's
# own root lacks a capability.) Devices that the guest's kernel has no driver for can't be opened.
docker_run --rm --privileged deb:1 sh -c '
    for d in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
        [ "$(stat -c "%t:%T" /dev/${d%%:*})" = "${d#*:}" ] || echo "/dev/${d%%:*} is another device"
    done
    echo a > /dev/null && [ "$(head -c 3 /dev/zero | tr "\\0" z)" = zzz ] || echo "no zeros"
    mount -t tmpfs t /mnt && touch /mnt/x || echo "no mount"' > out 2>&1 || exit 1
cat out
[ ! -s out ] || exit 1
docker_run --rm --privileged deb:1 sh -c 'cd /dev; find . -maxdepth 1 -type c -o -maxdepth 1 -type b' | sort > inside
for device in $(cd /dev; find . -maxdepth 1 \( -type c -o -type b \) ! -name console ! -name ptmx ); do
    grep -qx "$device" inside || { echo "$device is missing"; exit 1; }
done
node=$(cd /dev; find . -maxdepth 1 -type b | head -1)
if [ -n "$node" ]; then
    docker_run --rm --privileged deb:1 sh -c "exec 2>&1; cat /dev/$node" | grep -q "No such device or address" || { echo "$node can be opened"; exit 1; }
fi
