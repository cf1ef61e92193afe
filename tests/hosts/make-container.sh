#!/bin/bash
# make-container.sh WORK BUSYBOX... ARCHIVE: an archive with the root of the containers, which is the static busybox that is named
# first: unpacking a larger one takes minutes without acceleration.
set -eu
work=$1 program=$2 archive=${!#}
rm -rf "$work"
mkdir -p "$work"/{bin,etc,tmp,proc,sys,dev,root}
cp "$program" "$work/bin/busybox"
"$program" --list | while read -r applet; do
    [ "$applet" = busybox ] || ln -s busybox "$work/bin/$applet"
done
echo 'root:x:0:0::/root:/bin/sh' >"$work/etc/passwd"
tar -C "$work" -cf "$archive" .
rm -rf "$work"
