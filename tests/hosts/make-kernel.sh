#!/bin/bash
# make-kernel.sh DIRECTORY MIRROR SUITE: the kernel of a Debian release with an initramfs that finds the root disk:
# vmlinuz, initrd.gz, busybox and modules/ in DIRECTORY/kernel-SUITE. Status 77: the packages are not to be had.
set -eu
directory=$1 mirror=$2 suite=$3
work=$directory/kernel-$suite
rm -rf "$work"
mkdir -p "$work"/apt/lists/partial "$work"/apt/cache/archives/partial "$work"/initrd/{bin,proc,sys,dev,root,lib}
cd "$work"
: >apt/status
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >apt/sources.list
apt() {
    command=$1
    shift
    "$command" -q -o Dir::Etc::sourcelist="$work/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::lists="$work/apt/lists" -o Dir::State::status="$work/apt/status" \
        -o Dir::Cache="$work/apt/cache" -o APT::Sandbox::User=root "$@"
}
apt apt-get update || exit 77
package=$(apt apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
apt apt-get download "$package" busybox-static || exit 77
dpkg-deb -x linux-image-*.deb kernel
dpkg-deb -x busybox-static*.deb unpacked
cp kernel/boot/vmlinuz-* vmlinuz
mkdir -p merged/lib modules
cp -r kernel/lib/modules kernel/usr/lib/modules merged/lib/ 2>/dev/null || true
version=$(ls merged/lib/modules)
depmod -b merged "$version"
mv "merged/lib/modules/$version" modules/
cp unpacked/bin/busybox busybox 2>/dev/null || cp unpacked/usr/bin/busybox busybox
cp busybox initrd/bin/

# Of each module what it needs comes first.
: >initrd/load
for module in virtio_pci virtio_blk virtio_console ext4 crc32c_generic overlay virtio_net fuse veth sch_netem; do
    line=$(grep "^[^:]*/$module\.ko[^:]*:" "modules/$version/modules.dep" | head -n 1) || continue
    for file in $(tr ' ' '\n' <<<"${line#*:}" | tac) "${line%%:*}"; do
        name=$(basename "${file%.xz}")
        [ ! -e "initrd/lib/$name" ] || continue
        case $file in
        *.xz) xz -dc "modules/$version/$file" >"initrd/lib/$name" ;;
        *) cp "modules/$version/$file" "initrd/lib/$name" ;;
        esac
        echo "$name" >>initrd/load
    done
done
cat >initrd/init <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
while read -r module; do /bin/busybox insmod "/lib/$module"; done </load
while [ ! -b /dev/vda ]; do /bin/busybox sleep 0.1; done
/bin/busybox mount -t ext4 /dev/vda /root
/bin/busybox umount /proc
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root /sbin/init
INIT
chmod 755 initrd/init
(cd initrd && find . | "./bin/busybox" cpio -o -H newc | gzip -1) >initrd.gz
rm -rf apt kernel unpacked merged initrd ./*.deb
