#!/bin/sh
# Runs a command of the world as the ordinary user that exists there only: as-tester.sh COMMAND ARGUMENT...
cd /run/w/home
exec setpriv --reuid 7777 --regid 7777 --clear-groups env -i \
    HOME=/run/w/home USER=tester XDG_RUNTIME_DIR=/run/user/7777 CONTAINERS_CONF=/run/w/etc/containers.conf STORAGE_DRIVER=overlay \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin RUNTIME="${RUNTIME:-}" MOAT_FLAGS="${MOAT_FLAGS:-}" "$@"
