# needs: docker

# A read-only root, dropped and added capabilities, masked files.
docker_run --rm --read-only deb:1 sh -c 'exec 2>&1; touch /x; echo $?; rm /etc/passwd; mkdir /dev/shm/ok && ls /dev/shm' 2>&1
caps='grep -E "^Cap(Inh|Prm|Eff|Bnd|Amb)" /proc/self/status'
docker_run --rm deb:1 sh -c "$caps"
docker_run --rm --cap-drop ALL deb:1 sh -c "exec 2>&1; $caps; chown 1 /etc/passwd; mount -t tmpfs t /mnt; echo \$?" 2>&1
docker_run --rm --cap-drop CHOWN deb:1 sh -c 'exec 2>&1; chown 1 /etc/passwd; chmod 600 /etc/passwd && echo changed' 2>&1
docker_run --rm --cap-drop ALL --cap-add SETUID --cap-add NET_BIND_SERVICE deb:1 sh -c "$caps"
docker_run --rm --cap-add SYS_ADMIN --security-opt apparmor=unconfined deb:1 sh -c 'mount -t tmpfs t /mnt && touch /mnt/x && ls /mnt'
docker_run --rm -u 1 deb:1 sh -c "$caps"
docker_run --rm deb:1 sh -c 'exec 2>&1; cat /proc/kcore /proc/timer_list 2>/dev/null; for d in /proc/acpi /sys/firmware; do ls -A $d 2>/dev/null | wc -l; done; echo 1 > /proc/sys/kernel/hostname; echo b > /proc/sysrq-trigger' 2>&1
docker_run --rm deb:1 sh -c 'exec 2>&1; touch /sys/x; mount -o remount,rw /; echo $?; mknod /dev/sda b 8 0; dd if=/dev/sda count=1 of=/dev/null' 2>&1 | grep -v ^dd
