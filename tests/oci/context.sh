# Makes the directory `context` for the cases that build an image: users, packages from a repository, two stages, a health check.
mkdir -p context/repo package/DEBIAN package/usr/bin
cat > package/usr/bin/greeting <<'EOF'
#!/bin/sh
echo "a greeting from the package"
EOF
cat > package/DEBIAN/control <<'EOF'
Package: greeting
Version: 1.0
Architecture: all
Maintainer: nobody <nobody@example.com>
Description: greets
EOF
cat > package/DEBIAN/postinst <<'EOF'
#!/bin/sh
useradd -r greeter && chown greeter: /usr/bin/greeting && chmod u+s /usr/bin/greeting
EOF
chmod 755 package/usr/bin/greeting package/DEBIAN/postinst
dpkg-deb --root-owner-group -b package context/repo/greeting.deb > /dev/null
{
    cat package/DEBIAN/control
    echo "Filename: ./greeting.deb"
    echo "Size: $(stat -c %s context/repo/greeting.deb)"
    echo "SHA256: $(sha256sum context/repo/greeting.deb | cut -d ' ' -f 1)"
} > context/repo/Packages
cat > context/Dockerfile <<'EOF'
FROM docker.io/library/deb:1 AS build
RUN useradd -m builder && mkdir /out && echo built > /out/file && chmod 640 /out/file && ln -s file /out/link
USER builder
RUN id -un; touch /home/builder/mine; ls -n /home/builder | cut -d ' ' -f 1,3,4,9; touch /out/theirs 2>&1 | grep -o 'Permission denied'
USER root
FROM docker.io/library/deb:1
ARG WORD=none
ENV A=1
COPY --from=build /out /srv/out
COPY repo /repo
RUN rm -rf /etc/apt/sources.list.d/*; echo 'deb [trusted=yes] file:/repo ./' > /etc/apt/sources.list
RUN apt-get -qq update > /dev/null 2>&1; apt-get -qq -y install --no-install-recommends greeting > /dev/null 2>&1; greeting; \
    stat -c '%U %A' /usr/bin/greeting; dpkg -s greeting | grep Status
RUN apt-get -qq -y purge greeting > /dev/null 2>&1; dpkg -s greeting 2>&1 | grep -c 'not installed'; rm -r /repo
RUN useradd -r -u 555 app && chown -R app /srv/out
USER app
WORKDIR /srv
HEALTHCHECK --interval=1s --retries=20 CMD test -e /srv/out/file
RUN id; cat out/link; echo $A $WORD; pwd
ENTRYPOINT ["sh", "-c"]
CMD ["id -un; cat out/file; pwd"]
EOF
