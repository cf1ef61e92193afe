// Paths: of two trees that all workers share, of /proc, of devices, and such as are hard to read.
#pragma once
#include "memory.h"
#include <stdio.h>
#include <unistd.h>

static const char *const trees[] = {"/tmp/t", "/tmp/t/a", "/tmp/t/b", "/tmp/t/a/c", "/root/t", "/root/t/a", "/root/t/b", "/dev/shm"};

static const char *const of_process[] = {
    "auxv", "cgroup", "cmdline", "comm", "coredump_filter", "environ", "io", "limits", "maps", "mountinfo", "mounts", "mountstats", "oom_score",
    "oom_score_adj", "oom_adj", "sched", "schedstat", "setgroups", "smaps", "smaps_rollup", "stat", "statm", "status", "syscall", "wchan", "mem", "fd",
    "fdinfo", "ns", "task", "net", "cwd", "exe", "root", "fd/0", "fd/3", "fd/9", "fd/20", "fd/31", "fdinfo/4", "fdinfo/12", "fdinfo/25", "ns/pid",
    "ns/mnt", "ns/net", "ns/user", "ns/uts", "ns/ipc", "ns/cgroup", "ns/time", "ns/pid_for_children", "cwd/n1", "root/tmp/t/n1", "net/unix",
    "net/tcp", "net/tcp6", "net/udp", "net/dev", "net/route", "net/packet", "net/netlink", "net/snmp", "uid_map", "gid_map", "projid_map", "clear_refs",
    "timers", "timerslack_ns", "autogroup", "personality", "pagemap", "attr/current", "map_files", "loginuid", "nothing", "fd/77", "task/nothing",
};

static const char *const of_system[] = {
    "stat", "uptime", "loadavg", "meminfo", "mounts", "self", "thread-self", "sysvipc/shm", "sysvipc/msg", "sysvipc/sem", "locks", "cpuinfo", "version",
    "filesystems", "devices", "vmstat", "swaps", "partitions", "cgroups", "kmsg", "sysrq-trigger", "", "sys", "net", "keys", "interrupts",
    "sys/kernel/hostname", "sys/kernel/domainname", "sys/kernel/shmmax", "sys/kernel/shmall", "sys/kernel/shmmni", "sys/kernel/sem", "sys/kernel/msgmax",
    "sys/kernel/msgmnb", "sys/kernel/msgmni", "sys/kernel/pid_max", "sys/kernel/core_pattern", "sys/kernel/ns_last_pid", "sys/kernel/random/uuid",
    "sys/kernel/cap_last_cap", "sys/kernel/yama/ptrace_scope", "sys/fs/mqueue/msg_max", "sys/fs/mqueue/queues_max", "sys/fs/pipe-max-size", "sys/fs/file-max",
    "sys/fs/inotify/max_user_watches", "sys/fs/protected_hardlinks", "sys/fs/protected_symlinks", "sys/fs/suid_dumpable", "sys/vm/overcommit_memory",
    "sys/vm/max_map_count", "sys/vm/drop_caches", "sys/user/max_user_namespaces", "sys/net/ipv4/ip_forward", "sys/net/ipv4/ip_local_port_range",
    "sys/net/ipv4/tcp_rmem", "sys/net/ipv4/tcp_wmem", "sys/net/ipv4/ping_group_range", "sys/net/ipv4/ip_unprivileged_port_start",
    "sys/net/ipv4/conf/all/forwarding", "sys/net/ipv6/conf/all/disable_ipv6", "sys/net/core/somaxconn", "sys/net/core/rmem_max", "nothing",
};

static const char *const odd[] = {
    "", "/", ".", "..", "/.", "//", "/tmp/t/../t/./n1", "/tmp/t/n1/", "/tmp/t/n2/.", "/tmp/t/n3/..", "n1", "../n2", "/dev/pts", "/dev/pts/0", "/dev/pts/1",
    "/dev/ptmx", "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/tty", "/dev/mqueue", "/dev/fd/3", "/dev/shm", "/sys", "/sys/fs/cgroup",
    "/sys/devices/system/cpu/online", "/sys/class/net/lo/mtu", "/tmp/t/s1", "/tmp/t/f1", "/proc", "/dev", "/tmp/t/program", "/root/t/program", "/bin/fuzz",
};

// Worker processes, for who wants another one; set by the supervisor.
static volatile int *pids;

// Another process; never the supervisor, which has to see to the others.
static int some_pid(struct thread *t) {
    int pid = pids[rnd(t, 8)];
    return pid > 1 && rnd(t, 4) ? pid : (int)getpid();
}

static size_t name(struct thread *t, char *out) {
    switch (rnd(t, 12)) {
    case 0: return (size_t)sprintf(out, "/proc/%s", PICK(t, of_system));
    case 1: return (size_t)sprintf(out, "/proc/self/%s", PICK(t, of_process));
    case 2: return (size_t)sprintf(out, "/proc/%d/%s", some_pid(t), PICK(t, of_process));
    case 3: return (size_t)sprintf(out, "/proc/self/task/%d/%s", some_pid(t), PICK(t, of_process));
    case 4: case 5: return (size_t)sprintf(out, "%s", PICK(t, odd));
    case 6: {
        if (rnd(t, 3))
            break;
        size_t n = PICK(t, ((size_t[]){254, 255, 256, 4094, 4095, 4096}));
        memset(out, 'x', n);
        memcpy(out, "/tmp/t/", 7);
        for (size_t i = 200; n > 1000 && i < n; i += 200)
            out[i] = '/';
        out[n] = 0;
        return n;
    }
    }
    return (size_t)sprintf(out, "%s/n%u", PICK(t, trees), rnd(t, 6));
}

static uint64_t path(struct thread *t) {
    char text[4200];
    size_t n = name(t, text);
    if (one_in(t, 30)) // without an end
        return (uint64_t)memcpy(t->area + AREA_PAGES * PAGE - n % PAGE, text, n % PAGE);
    return placed(t, text, n + 1);
}

static uint64_t text_of(struct thread *t, const char *text) {
    return placed(t, text, strlen(text) + 1);
}
