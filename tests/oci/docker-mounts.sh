# needs: docker

# Bind mounts, volumes and memory file systems.
mkdir shared; echo host > shared/file; echo alone > single
docker_run --rm -v "$PWD/shared:/mnt" deb:1 sh -c 'cat /mnt/file; echo guest > /mnt/made; rm /mnt/file; mkdir /mnt/dir'
ls shared; cat shared/made; stat -c '%u %g %a' shared/made
docker_run --rm -v "$PWD/shared:/mnt:ro" deb:1 sh -c 'exec 2>&1; cat /mnt/made; echo x > /mnt/made; touch /mnt/x; rm /mnt/made; ls /mnt' 2>&1
docker_run --rm -v "$PWD/single:/etc/single" deb:1 sh -c 'exec 2>&1; cat /etc/single; echo changed > /etc/single; rm /etc/single' 2>&1
cat single
docker_run --rm -v "$PWD/single:/etc/single:ro" deb:1 sh -c 'exec 2>&1; echo x > /etc/single || cat /etc/single' 2>&1
# What the host changes shows inside, and the other way round.
docker_run -d --name box -v "$PWD/shared:/mnt" deb:1 sleep 1000 >/dev/null
echo later > shared/later
docker exec box cat /mnt/later
docker exec box sh -c 'echo again > /mnt/later; mv /mnt/later /mnt/moved; ln -s moved /mnt/link'
cat shared/link; ls shared
rm shared/moved; docker exec box ls /mnt/moved 2>&1
docker rm -f box
# Volumes outlive containers; new ones get what the image has there.
docker volume create vol
docker_run --rm -v vol:/data deb:1 sh -c 'echo kept > /data/file'
docker_run --rm -v vol:/data:ro deb:1 sh -c 'exec 2>&1; cat /data/file; touch /data/x' 2>&1
docker_run --rm -v vol2:/etc/apt deb:1 ls /etc/apt
docker volume rm vol vol2
docker_run --rm -v /anonymous deb:1 sh -c 'echo x > /anonymous/file; cat /anonymous/file'
docker volume ls -q
docker_run --rm --tmpfs /scratch:size=1m,mode=700 deb:1 sh -c '
    stat -c "%a" /scratch; stat -f -c %T /scratch; dd if=/dev/zero of=/scratch/big bs=1k count=2000 2>&1 | grep -o "No space.*"
    stat -c %s /scratch/big; cp /bin/true /scratch/t; rm /scratch/big; cp /bin/true /scratch/t; /scratch/t || echo noexec'
docker_run --rm --mount "type=bind,source=$PWD/shared,target=/a/b/c" --mount type=tmpfs,target=/t deb:1 sh -c 'ls /a/b/c; touch /t/x && ls /t'
docker_run --rm --read-only --tmpfs /tmp -v "$PWD/shared:/mnt" deb:1 sh -c 'exec 2>&1; touch /file; touch /tmp/file /mnt/file && ls /tmp /mnt' 2>&1
