# needs: docker

# A Docker daemon with --userns-remap beside the other: containers are in a user namespace with the maps of its configuration.
remapped() { docker -H unix:///run/w/remap.sock "$@"; }
mkdir -p /run/w/etc/remap
cat > /run/w/remap.json <<END
{ "runtimes": { "moat": { "path": "/run/w/moat" } },
  "storage-driver": "overlay2", "iptables": false, "ip6tables": false, "bridge": "none" }
END
# The ids of its namespace, for this mount namespace alone.
for file in subuid subgid; do
    cp /etc/$file $file 2>/dev/null || : > $file
    grep -q '^nobody:' $file || echo 'nobody:300000:65536' >> $file
    mount --bind $file /etc/$file 2>/dev/null || { touch /etc/$file && mount --bind $file /etc/$file; }
done
dockerd --config-file /run/w/remap.json --host unix:///run/w/remap.sock --pidfile /run/w/remap.pid --userns-remap nobody:nogroup \
    --data-root $WORK/data --exec-root $WORK/exec --containerd /run/containerd/containerd.sock \
    --containerd-namespace remap --containerd-plugins-namespace remap-plugins > dockerd.log 2>&1 &
daemon=$!
trap 'kill $daemon; wait $daemon; umount /etc/subuid /etc/subgid' EXIT
eventually remapped version > /dev/null || tail -3 dockerd.log
docker save deb:1 | remapped load > /dev/null
run="remapped run --runtime $RUNTIME --network none"
$run --rm deb:1 sh -c 'cat /proc/self/uid_map /proc/self/gid_map; id; ls -ldn / /etc /etc/passwd | cut -d" " -f1,3,4'
mkdir volume && chmod 777 volume
$run --rm -v "$PWD/volume:/v" deb:1 sh -c 'touch /v/root; su nobody -s /bin/sh -c "touch /v/nobody"; ls -n /v | cut -d" " -f3,4,9'
ls -n volume | cut -d' ' -f3,4,9
$run -d --name box deb:1 sleep 1000 > /dev/null
remapped exec box sh -c 'id -u; cat /proc/self/uid_map; chown 5:6 /tmp && stat -c %u:%g /tmp; cat /etc/shadow > /dev/null && echo read'
remapped exec -u nobody box sh -c 'id -u; touch /root/x 2>&1 | grep -o "Permission denied"'
remapped cp box:/etc/hostname name && wc -l < name
remapped kill box > /dev/null; status remapped wait box
remapped rm box > /dev/null
$run --rm --userns host deb:1 cat /proc/self/uid_map
