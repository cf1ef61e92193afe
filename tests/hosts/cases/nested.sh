# 600s moat in containers: what works, and what is said where it does not.
. /usr/local/lib/library.sh
says "this is a sandbox of moat" moat do moat do echo hi
says "this is a sandbox of moat" moat do moat doctor
systemctl start docker || { journalctl -u docker | tail -n 20; fail "docker does not start"; }
docker import /usr/local/lib/busybox.tar busybox >/dev/null
# In a container of runc's, with the program in it and what it was linked with.
programs="-v /usr/local/bin/moat:/bin/moat:ro -v /usr/lib:/lib:ro -v /usr/lib64:/lib64:ro"
inside() { docker run --rm --network none $programs "$@"; }
# Docker's filter refuses most of what makes a sandbox.
says "in a container: --privileged" inside busybox moat do echo hi
says "in a container: --privileged" inside busybox moat doctor
some="--security-opt seccomp=unconfined --security-opt apparmor=unconfined --cap-add SYS_ADMIN"
same "what doctor says is enough" "$(inside $some busybox moat do echo hi)" hi
same "with a gofer, too" "$(inside $some busybox moat --directfs=false do echo hi)" hi
same "and by ptrace" "$(inside $some busybox moat --platform ptrace do echo hi)" hi
same "with a vDSO" "$(inside $some busybox moat do grep -c vdso /proc/self/maps)" 1
says "systempaths=unconfined" inside $some busybox moat doctor
same "in a privileged container" "$(inside --privileged busybox moat do echo hi)" hi
same "in a privileged container, by ptrace" "$(inside --privileged busybox moat --platform ptrace do echo hi)" hi
systemctl stop docker docker.socket containerd
install -m 644 /usr/local/lib/busybox.tar /home/user/busybox.tar
login user podman import busybox.tar busybox >/dev/null 2>&1
rootless() { login user podman --runtime runc run --rm --network none $programs "$@"; }
same "in a privileged container without root" "$(rootless --privileged busybox moat do echo hi)" hi
# Podman's filter lets a sandbox be made, and answers for the calls that it does not know.
says "--platform=ptrace" rootless busybox moat do echo hi
says "a filter of system calls" rootless busybox moat doctor
same "by ptrace without root" "$(rootless busybox moat --platform ptrace do echo hi)" hi
