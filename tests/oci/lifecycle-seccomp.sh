# timeout: 60

# linux.seccomp: what a profile makes of calls, in the init, in what it starts, and in processes that join it.

# Numbers are those of x86-64, of calls that neither perl nor runc makes: 24 sched_yield, 95 umask, 100 times, 111 getpgrp,
# 135 personality, 157 prctl, 162 sync, 306 syncfs.
cat > probe.pl <<'P'
use POSIX ();
sub probe {
    my ($name, $number, @rest) = @_;
    my $pid = fork // die "fork: $!";
    if (!$pid) { $! = 0; my $r = syscall($number, @rest); print "$name: ", $r == -1 ? "$!" : "made", "\n"; POSIX::_exit(0) }
    waitpid($pid, 0);
    print "$name: signal ", $? & 127, "\n" if $? & 127;
}
$| = 1;
open my $status, '<', '/proc/self/status'; print grep /^(NoNewPrivs|Seccomp)/, <$status>;
probe("call $_", $_) for 24, 95, 100, 111, 162, 306, 500, 999, 0x4000006f, -1;
probe("personality $_", 135, $_) for 0, 8, 9, 0x20000, 0x100000008, 0xffffffff;
probe("kill @$_", 62, $$, @$_) for [0, 7], [0, 8], [0, 1 << 32];
P
profile() {
    bundle "$1" "{\"process\": {\"noNewPrivileges\": $2}, \"linux\": {\"seccomp\": $3}}" perl -e "$(cat probe.pl)"
}
rules='{"names": ["sched_yield"], "action": "SCMP_ACT_KILL"}, {"names": ["getpgrp"], "action": "SCMP_ACT_KILL_PROCESS"},
    {"names": ["times"], "action": "SCMP_ACT_TRAP"}, {"names": ["umask"], "action": "SCMP_ACT_LOG"},
    {"names": ["syncfs", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 61}, {"names": ["sync"], "action": "SCMP_ACT_TRACE"},
    {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
    {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 131072, "valueTwo": 131072, "op": "SCMP_CMP_MASKED_EQ"}]},
    {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71, "args": [{"index": 1, "value": 0, "op": "SCMP_CMP_EQ"},
        {"index": 2, "value": 7, "op": "SCMP_CMP_GT"}]}'
profile denies true "{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"architectures\": [\"SCMP_ARCH_X86_64\", \"SCMP_ARCH_X32\"], \"syscalls\": [$rules]}"
status oci run --bundle denies denies 2>&1
# The other way round, as Docker does it; without no_new_privs it is loaded all the same.
allowed='read write open openat close fstat newfstatat stat lstat lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn
    ioctl pread64 access dup dup2 getpid execve exit exit_group wait4 fcntl getcwd readlink arch_prctl set_tid_address set_robust_list
    rseq prlimit64 getrandom futex uname getdents64 fstatfs statfs fchdir chdir setgroups setgid setuid capset capget prctl gettid tgkill
    clone clone3 vfork sysinfo sigaltstack geteuid getegid getuid getgid epoll_pwait epoll_ctl nanosleep
    openat2 fchown fchownat pipe2 getppid madvise sched_getaffinity readlinkat clock_gettime faccessat faccessat2 poll epoll_create1 eventfd2
    setresuid setresgid setsid keyctl fchmod fchmodat unlinkat close_range times newfstatat tkill timer_create timer_settime sched_yield'
names=$(printf '"%s", ' $allowed)
profile allows false "{\"defaultAction\": \"SCMP_ACT_ERRNO\", \"defaultErrnoRet\": 1, \"architectures\": [\"SCMP_ARCH_X86_64\"], \"syscalls\": [
    {\"names\": [${names%, }], \"action\": \"SCMP_ACT_ALLOW\"}]}"
status oci run --bundle allows allows 2>&1
# A process that joins is checked too.
profile joined true '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["sync"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}'
python3 -c '
import json
config = json.load(open("joined/config.json")); config["process"]["args"] = ["sleep", "1000"]; json.dump(config, open("joined/config.json", "w"))'
oci run -d --bundle joined joined
status oci exec joined perl -e '$r = syscall(162); print "$r $!\n"; open F, "/proc/1/status"; print grep /^Seccomp/, <F>'
oci delete --force joined
# What makes no sense: an argument that no call has, an action and a flag that do not exist. And a program that may not be executed.
for seccomp in '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}' \
    '{"defaultAction": "SCMP_ACT_FROB"}' '{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_FROB"]}' \
    '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["execve"], "action": "SCMP_ACT_ERRNO"}]}'; do
    profile wrong true "$seccomp"
    oci run --bundle wrong wrong > /dev/null 2>&1 || echo refused
    oci delete --force wrong 2>/dev/null
done
