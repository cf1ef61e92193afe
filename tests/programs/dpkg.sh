# timeout: 120

# The package manager: lists, checks, and builds and installs a package.
set -e
dpkg -l | sha256sum; dpkg -l | wc -l
dpkg -S /bin/bash; dpkg -s coreutils | grep -E '^(Package|Status|Version)'
dpkg --audit; apt-get -q check 2>&1 | tail -n 1
mkdir -p /root/p/DEBIAN /root/p/usr/share/moat && cd /root && echo data > p/usr/share/moat/file
printf 'Package: moat-test\nVersion: 1.0\nArchitecture: all\nMaintainer: x <x@example.test>\nDescription: test\n' > p/DEBIAN/control
printf '#!/bin/sh\necho configured by "$1"\n' > p/DEBIAN/postinst; chmod 755 p/DEBIAN/postinst
dpkg-deb -b p moat-test.deb
dpkg -i moat-test.deb | grep -v 'Reading database'
dpkg -L moat-test; cat /usr/share/moat/file
apt-get -q -y -o Dpkg::Use-Pty=0 remove moat-test 2>&1 | grep -v 'Reading database' | tail -n 1
test ! -e /usr/share/moat/file && echo gone
