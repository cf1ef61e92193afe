# needs: docker

# Files into a container and out of it, while it runs and after.
docker_run -d --name box deb:1 sh -c 'echo inside > /tmp/file; mkdir /data; seq 1000 > /data/seq; sleep 1000' >/dev/null
eventually docker exec box test -e /data/seq
docker cp -q box:/tmp/file . && cat file
docker cp -q box:/data . && cksum < data/seq
echo outside > new; chmod 750 new; ln -s new link; mkdir dir; echo deep > dir/deep
docker cp -q new box:/root/ && docker exec box sh -c 'cat /root/new; stat -c "%a %u %g" /root/new'
docker cp -q dir box:/srv/ && docker exec box cat /srv/dir/deep
tar -cf - new link | docker cp -q - box:/opt && docker exec box sh -c 'readlink /opt/link; cat /opt/link'
# A file that exists is replaced for readers inside.
echo newer > file; docker cp -q file box:/tmp/file && docker exec box cat /tmp/file
docker cp -q box:/no/such/file . 2>/dev/null || echo 'no such file'
docker kill box >/dev/null
docker cp -q box:/root/new again && cat again
docker diff box | grep -v -x -e 'C /run.*' -e 'A /run.*' | sort
docker rm -f box
