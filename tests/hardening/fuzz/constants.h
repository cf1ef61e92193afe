// The numbers that mean something to a call, by its name and the argument's.
#pragma once
#include "structs.h"
#include <linux/fs.h>
#include <linux/if.h>
#include <linux/membarrier.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>

struct constants {
    const char *call, *argument;
    int count;
    const uint64_t *values;
};

#define LIST(CALL, ARGUMENT, ...) \
    {CALL, ARGUMENT, sizeof((uint64_t[]){__VA_ARGS__}) / 8, (const uint64_t[]){__VA_ARGS__}}

static const struct constants constants[] = {
    LIST("ioctl", "request", TCGETS, TCSETS, TCSETSW, TCSETSF, 0x5405, 0x5406, 0x540A, 0x540B, TIOCEXCL, TIOCNXCL, TIOCSCTTY, TIOCGPGRP, TIOCSPGRP, TIOCOUTQ,
         TIOCSTI, TIOCGWINSZ, TIOCSWINSZ, FIONREAD, TIOCPKT, FIONBIO, TIOCNOTTY, TIOCSETD, TIOCGETD, TIOCGSID, TIOCGPTN, TIOCSPTLCK, TIOCGPTPEER, FIOCLEX,
         FIONCLEX, FIOASYNC, FIOQSIZE, FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FIGETBSZ, FIBMAP, FICLONE, FICLONERANGE, FIFREEZE, FITHAW, 0xc020660b, SIOCGIFNAME, SIOCGIFCONF,
         SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCGIFADDR, SIOCSIFADDR, SIOCGIFNETMASK, SIOCSIFNETMASK, SIOCGIFMTU, SIOCSIFMTU, SIOCGIFHWADDR, SIOCGIFINDEX,
         SIOCGIFTXQLEN, SIOCADDRT, SIOCDELRT, SIOCGARP, SIOCATMARK, SIOCOUTQ, SIOCGSTAMP, SIOCETHTOOL, SIOCGIFMAP, 0xb701, 0xb702, 0xb703, 0xb704, 0x5423),
    LIST("fcntl", "cmd", F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETLK, F_SETLK, F_SETLKW, F_SETOWN, F_GETOWN, F_SETSIG, F_GETSIG, F_SETOWN_EX, F_GETOWN_EX,
         17, 36, 37, 38, F_SETLEASE, F_GETLEASE, F_NOTIFY, F_DUPFD_CLOEXEC, F_SETPIPE_SZ, F_GETPIPE_SZ, F_ADD_SEALS, F_GET_SEALS, 1035, 1036, 1037, 1038),
    LIST("prctl", "option", 1, 2, 3, 4, 5, 6, 7, 8, 13, 14, 15, 16, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 45,
         46, 47, 53, 59, 62, 65, 0x53564d41),
    LIST("arch_prctl", "option", 0x1001, 0x1003, 0x1004, 0x1011, 0x1012, 0x1021, 0x1022, 0x3001),
    LIST("ptrace", "request", 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 16, 17, 24, 31, 32, 0x4200, 0x4201, 0x4202, 0x4203, 0x4204, 0x4205, 0x4206, 0x4207, 0x4208,
         0x4209, 0x420a, 0x420b, 0x420c, 0x420d, 0x420e, 0x420f),
    LIST("futex", "op", 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 128, 129, 131, 132, 133, 134, 135, 136, 137, 138, 139, 140, 141, 256, 384, 265, 267),
    LIST("futex_waitv", "clock", 0, 1, 7),
    LIST("madvise", "advice", 0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 100),
    LIST("lseek", "whence", 0, 1, 2, 3, 4),
    LIST("socket", "family", AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, 40, 38, 0),
    LIST("socketpair", "family", AF_UNIX, AF_INET),
    LIST("*", "kind", 1, 2, 3, 4, 5, 0, 1 | SOCK_NONBLOCK, 2 | SOCK_CLOEXEC),
    LIST("socket", "protocol", 0, 0, 0, 1, 6, 17, 58, 255, 4, 15, 16, 0x300),
    LIST("*", "level", SOL_SOCKET, SOL_SOCKET, SOL_SOCKET, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, IPPROTO_UDP, SOL_NETLINK, SOL_PACKET, 255, 58),
    LIST("setsockopt", "len", 4, 4, 4, 4, 8, 12, 16, 20, 1, 0, 28, 128, 136),
    LIST("shmctl", "command", 0, 1, 2, 3, 11, 12, 13, 14, 15),
    LIST("semctl", "command", 0, 1, 2, 3, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20),
    LIST("msgctl", "command", 0, 1, 2, 3, 11, 12, 13),
    LIST("*", "key", 0, 1, 2, 3),
    LIST("*", "clock", 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, -1ul, -2ul, -6ul, -8ul),
    LIST("*", "resource", 0, 2, 3, 4, 7, 8, 10, 11, 12, 13, 14, 15, 16),
    LIST("epoll_ctl", "op", 1, 1, 1, 2, 3, 0),
    LIST("timerfd_settime", "flags", 0, 1, 2, 3),
    LIST("timer_settime", "flags", 0, 1),
    LIST("clock_nanosleep", "flags", 0, 1),
    LIST("seccomp", "operation", 1, 1, 1, 2, 3, 0),
    LIST("seccomp", "flags", 0, 0, 1, 2, 4, 8, 16, 24, 32),
    LIST("membarrier", "command", 0, 1, 2, 4, 8, 16, 32, 64, 128, 256),
    LIST("personality", "persona", 0, 0xffffffff, ADDR_NO_RANDOMIZE, READ_IMPLIES_EXEC, ADDR_COMPAT_LAYOUT, MMAP_PAGE_ZERO, 8),
    LIST("*", "policy", 0, 1, 2, 3, 5, 6, 7, 0x40000000),
    LIST("mount", "flags", 0, 0, MS_BIND, MS_BIND | MS_REC, MS_REMOUNT, MS_REMOUNT | MS_BIND | MS_RDONLY, MS_PRIVATE, MS_SHARED, MS_SLAVE, MS_UNBINDABLE,
         MS_MOVE, MS_RDONLY, MS_NOSUID | MS_NODEV | MS_NOEXEC, MS_NOATIME, MS_SHARED | MS_REC),
    LIST("umount2", "flags", 0, 1, 2, 4, 8, 10),
    LIST("waitid", "kind", 0, 1, 2, 3),
    LIST("*", "how", 0, 1, 2),
    LIST("*", "which", 0, 1, 2, 3),
    LIST("flock", "operation", LOCK_SH | LOCK_NB, LOCK_EX | LOCK_NB, LOCK_UN, LOCK_EX, LOCK_SH, 32),
    LIST("fallocate", "mode", 0, 1, 2, 3, 8, 0x10, 0x11, 0x20, 0x40),
    LIST("fadvise64", "advice", 0, 1, 2, 3, 4, 5, 6),
    LIST("pidfd_send_signal", "flags", 0, 0, 1, 2, 4),
    LIST("renameat2", "flags", 0, 0, 1, 2, 4, 3),
    LIST("mremap", "flags", 0, 1, 1, 3, 3, 5, 7, 8),
    LIST("msync", "flags", 0, 1, 2, 4, 5, 6),
    LIST("kcmp", "kind", 0, 1, 2, 3, 4, 5, 6, 7),
    LIST("bpf", "command", 0, 1, 5),
    LIST("syslog", "action", 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
    LIST("close_range", "first", 3, 10, 20, 30, 0, 100),
    LIST("close_range", "last", 12, 25, 31, 0xffffffff, 5),
    LIST("close_range", "flags", 0, 2, 4, 6),
    LIST("listen", "backlog", 0, 1, 5, 4096, -1ul),
    LIST("*", "signal", 0, 10, 12, 17, 14, 18, 19, 20, 21, 23, 28, 29, 32, 33, 34, 64, 65, 9, 11, 13, 1, 2, 15, -1ul),
    LIST("*", "who", 0, 1000, -1ul, 5),
    LIST("*", "uid", 0, 0, 1000, 1001, 65534, 0xffffffff),
    LIST("*", "gid", 0, 0, 1000, 1001, 65534, 0xffffffff),
    LIST("*", "mode", 0, 0777, 0644, 04755, 02755, 01777, 0600, 0010644, 0140644, 0020666, 0060666, 0100644, 0xffffffff),
    LIST("*", "dev", 0, 0x103, 0x105, 0x500, 0x502, 0x801, 0xffffffff),
    LIST("*", "timeout_ms", 0, 0, 1, 2, 5, -1ul),
    LIST("*", "seconds", 0, 1, 100, 0xffffffff),
    LIST("*", "mask", 0, 0xfff, 0x7ff, 0xfff000, 0x80000002, 0x40000fff, 0x20000010, 0x1000fff, 2),
    LIST("*", "id", 0, 1, 2, 3, 0x8000, 0x10001, -1ul),
    LIST("*", "group", 0, -1ul),
    LIST("signalfd4", "size", 8, 8, 8, 4, 0),
    LIST("*", "code", 0, 1, 77, 0xffffff),
};

static const uint64_t prot_flags[] = {0, 1, 3, 3, 3, 2, 4, 5, 7, 0x1000003, 0x2000003, 8};
static const uint64_t map_flags[] = {
    MAP_PRIVATE | MAP_ANONYMOUS, MAP_SHARED | MAP_ANONYMOUS, MAP_PRIVATE, MAP_SHARED, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED,
    MAP_PRIVATE | MAP_FIXED, MAP_SHARED | MAP_FIXED, MAP_SHARED_VALIDATE | MAP_FIXED, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
    MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED | MAP_FIXED, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | MAP_FIXED,
    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, 0, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK,
};
static const uint64_t open_flags[] = {
    O_RDONLY, O_RDWR, O_WRONLY, O_RDWR | O_CREAT, O_RDWR | O_CREAT | O_EXCL, O_WRONLY | O_TRUNC, O_DIRECTORY, O_PATH, O_PATH | O_NOFOLLOW, O_RDWR | O_APPEND,
    O_RDWR | O_TMPFILE, O_WRONLY | O_DIRECT, O_RDONLY | O_NOFOLLOW, O_RDWR | O_SYNC, O_RDWR | O_CREAT | O_CLOEXEC, O_RDONLY | O_NOATIME, O_PATH | O_DIRECTORY, O_NONBLOCK, O_ASYNC | O_RDWR, 3,
};
static const uint64_t at_flags[] = {0, 0, 0x100, 0x200, 0x400, 0x800, 0x1000, 0x2000, 0x4000, 0x8000, 0x1300};
static const uint64_t clone_flags[] = {
    0, CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWCGROUP, CLONE_FS, CLONE_FILES, CLONE_SYSVSEM, CLONE_SIGHAND, CLONE_PARENT,
    CLONE_PARENT_SETTID, CLONE_CHILD_SETTID, CLONE_CHILD_CLEARTID, CLONE_PTRACE, CLONE_UNTRACED, CLONE_IO, CLONE_PIDFD, 0x100000000, 0x200000000, 0x80, CLONE_NEWUSER | CLONE_NEWNS,
    CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET,
};

static uint64_t constant(struct thread *t, const struct constants *of) {
    uint64_t value = of->values[rnd(t, (uint32_t)of->count)];
    return one_in(t, 40) ? edge(t) : one_in(t, 40) ? value ^ 1ul << rnd(t, 32) : value;
}

static const struct constants *constants_of(const char *call, const char *argument) {
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (!strcmp(constants[i].argument, argument) && (!strcmp(constants[i].call, call) || !strcmp(constants[i].call, "*")))
            return &constants[i];
    return NULL;
}
