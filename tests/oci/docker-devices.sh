# needs: docker

# Nodes of devices, those that are asked for and those that are mounted on files; options of tmpfs.
docker_run --rm --device /dev/null:/dev/x --device /dev/zero:/dev/deep/er/y:r deb:1 sh -c '
    stat -c "%F %t:%T %a %u:%g" /dev/x /dev/deep/er/y; echo a > /dev/x; cat /dev/x; head -c 3 /dev/deep/er/y | od -An -tx1'
docker_run --rm -v /dev/null:/etc/foo -v /dev/zero:/dev/random deb:1 sh -c '
    cat /etc/foo; stat -c "%F %t:%T %a" /etc/foo /dev/random; echo x > /etc/foo; cat /etc/foo; head -c 2 /dev/random | od -An -tx1; rm /etc/foo 2>/dev/null; echo $?'
docker_run --rm -v /dev/null:/etc/foo:ro deb:1 sh -c 'exec 2>&1; echo x > /etc/foo; echo $?; chmod 600 /etc/foo; echo $?' 2>&1
# Nodes in the root and in a volume, which the host sees; a container may open what its rules allow.
mkdir vol
docker_run --name made -v "$PWD/vol:/vol" deb:1 sh -c 'exec 2>&1
    for d in / /vol; do cd $d; mknod -m 640 n c 1 3; mknod b b 8 1; mknod k c 1 11; chown 5:6 b; ln b c; rm b
        echo x > n && echo written; cat c; cat k; stat -c "%n %F %t:%T %a %u:%g %h" n c k; done' 2>&1
(cd vol; stat -c "%n %F %t:%T %a %u:%g %h" n c k)
docker diff made | grep -E ' /[nck]$' | sort; docker rm made
docker_run --rm --cap-drop MKNOD -v "$PWD/vol:/vol" deb:1 sh -c 'exec 2>&1; mknod /vol/x c 1 3; mknod /x c 1 3' 2>&1
docker_run --rm --device /dev/full:/dev/x:r deb:1 sh -c 'exec 2>&1; head -c 2 /dev/x | od -An -tx1; mknod /n c 10 229; cat /n' 2>&1
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("log")'; mkfifo fifo
docker_run --rm -v "$PWD/log:/dev/log" -v "$PWD/fifo:/run/fifo" deb:1 sh -c 'stat -c "%F %n" /dev/log /run/fifo'
docker_run --rm --mount type=tmpfs,target=/t,tmpfs-size=64k,tmpfs-mode=0710 --tmpfs /u:uid=7,gid=8,mode=750,nr_inodes=4,nr_blocks=16 deb:1 sh -c '
    stat -c "%a %u:%g" /t /u; stat -fc "%b" /t /u; head -c 100000 /dev/zero 2>/dev/null > /t/x; stat -c %s /t/x
    touch /u/1 /u/2 /u/3; touch /u/4 2>/dev/null; echo $?
    grep -E " (/t|/u|/dev/shm) " /proc/mounts | sort'
