# needs: docker

# Files and directories of the image change while they are in use: the host's overlay copies them up, and they stay what they are.
docker_run --rm deb:1 sh -c '
    exec 2>&1
    exec 3< /etc/passwd; echo new:x:99:99::/:/bin/sh >> /etc/passwd; tail -n 1 /etc/passwd; cat <&3 | head -n 1
    exec 4>> /etc/group; chmod 600 /etc/group; echo more >&4; tail -n 1 /etc/group; stat -c %a /etc/group
    cd /etc; echo x > /etc/made; chmod 700 /etc; ls made; echo y >> made; cat made; chmod 755 .; stat -c %a /etc
    mv /etc/host.conf /etc/moved.conf; ls /etc/host.conf; cat /etc/moved.conf
    ln /etc/shells /etc/linked; echo /bin/odd >> /etc/shells; tail -n 1 /etc/linked; stat -c %h /etc/shells
    cp -a /usr/share/misc /tmp/misc; mv /tmp/misc /usr/share/misc/inner; ls /usr/share/misc/inner > /dev/null && echo listed
    chown 1:1 /bin/true; /bin/true && stat -c %u:%g /bin/true; touch -d @0 /bin/false; stat -c %Y /bin/false
    mkdir /opt/a; echo z > /opt/a/f; mv /opt/a /opt/b; cat /opt/b/f; rm -r /opt/b; rmdir /opt; ls -d /opt
    rm /etc/made /etc/moved.conf; ls /etc/made /etc/moved.conf' 2>&1
# Files of an image that are the mount points of files, and directories over new ones.
echo alone > single
docker_run --rm -v "$PWD/single:/etc/issue" -v "$PWD/single:/etc/new" -v "$PWD:/usr/local/new/dir:ro" deb:1 sh -c '
    exec 2>&1; cat /etc/issue /etc/new /usr/local/new/dir/single; echo x > /etc/other; chmod 711 /etc
    cat /etc/issue; echo more >> /etc/new; rm /etc/issue; mv /etc/new /etc/newer; touch /usr/local/new/dir/x' 2>&1
cat single
