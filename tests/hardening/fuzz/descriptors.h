// Descriptors of every kind, in the numbers below 32 of a worker.
#pragma once
#include "names.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <mqueue.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#define SLOTS 32

static uint64_t descriptor(struct thread *t) {
    switch (rnd(t, 40)) {
    case 0: return (uint64_t)-1;
    case 1: return edge(t);
    case 2: return 1000;
    default: return 3 + rnd(t, SLOTS - 3);
    }
}

static uint64_t directory(struct thread *t) {
    return rnd(t, 3) ? (uint64_t)AT_FDCWD : descriptor(t);
}

// An address of any family, mostly one that others have, too.
static socklen_t socket_address(struct thread *t, struct sockaddr_storage *out) {
    memset(out, 0, sizeof *out);
    struct sockaddr_un *un = (void *)out;
    struct sockaddr_in *in = (void *)out;
    struct sockaddr_in6 *in6 = (void *)out;
    struct sockaddr_nl *nl = (void *)out;
    struct sockaddr_ll *ll = (void *)out;
    switch (rnd(t, 10)) {
    case 0: case 1:
        un->sun_family = AF_UNIX;
        return (socklen_t)(2 + sprintf(un->sun_path, "/tmp/t/s%u", rnd(t, 3)) + (int)rnd(t, 2));
    case 2:
        un->sun_family = AF_UNIX;
        sprintf(un->sun_path + 1, "abstract%u", rnd(t, 3));
        return one_in(t, 4) ? (socklen_t)rnd(t, 112) : 12;
    case 3: case 4: case 5:
        in->sin_family = AF_INET;
        in->sin_port = htons((uint16_t)(one_in(t, 6) ? 0 : 7000 + rnd(t, 4)));
        in->sin_addr.s_addr = htonl(PICK(t, ((uint32_t[]){INADDR_LOOPBACK, INADDR_LOOPBACK, INADDR_LOOPBACK, 0, 0xffffffff, 0xe0000001, 0x7f000009, 0x08080808})));
        return sizeof *in;
    case 6:
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons((uint16_t)(7000 + rnd(t, 4)));
        in6->sin6_scope_id = rnd(t, 3);
        if (rnd(t, 3))
            in6->sin6_addr = in6addr_loopback;
        else
            memcpy(&in6->sin6_addr, PICK(t, ((const char *[]){"\0\0\0\0\0\0\0\0\0\0\377\377\177\0\0\1", "\377\2\0\0\0\0\0\0\0\0\0\0\0\0\0\1", "\376\200\0\0\0\0\0\0\0\0\0\0\0\0\0\1"})), 16);
        return sizeof *in6;
    case 7:
        nl->nl_family = AF_NETLINK;
        nl->nl_pid = rnd(t, 3) ? 0 : (uint32_t)word(t);
        nl->nl_groups = (uint32_t)bits(t);
        return sizeof *nl;
    case 8:
        ll->sll_family = AF_PACKET;
        ll->sll_protocol = htons((uint16_t)PICK(t, ((int[]){3, 0x800, 0x86dd, 0x806, 0})));
        ll->sll_ifindex = (int)rnd(t, 3);
        ll->sll_halen = (unsigned char)small(t);
        return sizeof *ll;
    default:
        out->ss_family = (sa_family_t)small(t);
        return (socklen_t)rnd(t, 130);
    }
}

// A program that begins as a real one does, with some bytes changed; or a script.
static int changed_program(struct thread *t) {
    char start[8192];
    char path[64];
    sprintf(path, "%s/program", rnd(t, 2) ? "/tmp/t" : "/root/t");
    int from = open("/bin/fuzz", O_RDONLY), to = open(path, O_RDWR | O_CREAT | O_TRUNC, 0755);
    ssize_t n = read(from, start, sizeof start);
    close(from);
    if (n < 4096 || to < 0)
        return to;
    switch (rnd(t, 4)) {
    case 0:
        n = sprintf(start, "#!%s%s%s\n", one_in(t, 3) ? " " : "", PICK(t, ((const char *[]){"/bin/fuzz", "/bin/fuzz exit", "/tmp/t/program", "", "nothing", "/proc/self/exe x"})), one_in(t, 3) ? "\t y z" : "");
        break;
    default:
        // 64 bytes of header and eleven program headers or so of 56.
        for (uint32_t i = 1 + rnd(t, 4); i > 0; i--) {
            uint32_t at = rnd(t, 64 + 11 * 56);
            uint64_t value = edge(t);
            memcpy(start + at, &value, PICK(t, ((size_t[]){1, 2, 4, 8})));
        }
        n = one_in(t, 4) ? (ssize_t)rnd(t, 8192) : n;
    }
    (void)!write(to, start, (size_t)n);
    if (rnd(t, 2)) { // so that it can be executed
        close(to);
        to = open(path, O_RDONLY);
    }
    return to;
}

static int new_socket(struct thread *t) {
    static const int kinds[][3] = {
        {AF_UNIX, SOCK_STREAM, 0}, {AF_UNIX, SOCK_DGRAM, 0}, {AF_UNIX, SOCK_SEQPACKET, 0}, {AF_INET, SOCK_STREAM, 0}, {AF_INET, SOCK_STREAM, 0},
        {AF_INET, SOCK_DGRAM, 0}, {AF_INET, SOCK_DGRAM, IPPROTO_ICMP}, {AF_INET, SOCK_RAW, IPPROTO_ICMP}, {AF_INET, SOCK_RAW, IPPROTO_RAW},
        {AF_INET, SOCK_RAW, IPPROTO_UDP}, {AF_INET6, SOCK_STREAM, 0}, {AF_INET6, SOCK_DGRAM, 0}, {AF_INET6, SOCK_RAW, IPPROTO_ICMPV6},
        {AF_NETLINK, SOCK_RAW, NETLINK_ROUTE}, {AF_NETLINK, SOCK_RAW, NETLINK_ROUTE}, {AF_NETLINK, SOCK_DGRAM, NETLINK_SOCK_DIAG},
        {AF_NETLINK, SOCK_RAW, NETLINK_KOBJECT_UEVENT}, {AF_NETLINK, SOCK_RAW, NETLINK_GENERIC}, {AF_NETLINK, SOCK_RAW, NETLINK_AUDIT},
        {AF_PACKET, SOCK_RAW, 0x300}, {AF_PACKET, SOCK_DGRAM, 0x300},
    };
    const int *kind = PICK(t, kinds);
    int fd = socket(kind[0], kind[1] | (rnd(t, 4) ? SOCK_NONBLOCK : 0), kind[2]);
    struct sockaddr_storage address;
    if (rnd(t, 2)) {
        socklen_t size = socket_address(t, &address);
        bind(fd, (void *)&address, size);
        if (rnd(t, 2))
            listen(fd, (int)rnd(t, 4));
    }
    if (rnd(t, 2)) {
        socklen_t size = socket_address(t, &address);
        connect(fd, (void *)&address, size);
    }
    return fd;
}

static int new_file(struct thread *t) {
    int pair[2] = {-1, -1};
    char text[4200];
    struct mq_attr queue = {.mq_maxmsg = 4, .mq_msgsize = 64};
    sigset_t all;
    switch (rnd(t, 24)) {
    case 0: case 1: case 2: case 3: case 4:
        name(t, text);
        return open(text, PICK(t, ((int[]){O_RDONLY, O_RDWR, O_RDWR | O_CREAT, O_WRONLY | O_CREAT | O_TRUNC, O_DIRECTORY, O_PATH, O_RDWR | O_APPEND, O_RDWR | O_DIRECT})) | O_NONBLOCK | O_NOCTTY, 0777);
    case 5: case 6: case 7: case 8: case 9: return new_socket(t);
    case 10: if (pipe2(pair, rnd(t, 2) ? O_NONBLOCK : O_DIRECT | O_NONBLOCK)) return -1; break;
    case 11: if (socketpair(AF_UNIX, PICK(t, ((int[]){SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET})) | SOCK_NONBLOCK, 0, pair)) return -1; break;
    case 12: return epoll_create1(0);
    case 13: return eventfd(rnd(t, 3), EFD_NONBLOCK | (rnd(t, 2) ? EFD_SEMAPHORE : 0));
    case 14: return timerfd_create(PICK(t, ((int[]){CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME})), TFD_NONBLOCK);
    case 15: sigfillset(&all); return signalfd(-1, &all, SFD_NONBLOCK);
    case 16: return memfd_create("m", MFD_ALLOW_SEALING);
    case 17: { int fd = inotify_init1(IN_NONBLOCK); inotify_add_watch(fd, PICK(t, trees), IN_ALL_EVENTS); return fd; }
    case 18: return (int)syscall(SYS_pidfd_open, some_pid(t), 0);
    case 19: {
        int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK), zero = 0;
        ioctl(master, TIOCSPTLCK, &zero);
        pair[0] = master;
        pair[1] = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NONBLOCK);
        break;
    }
    case 20: sprintf(text, "/q%u", rnd(t, 3)); return mq_open(text, O_RDWR | O_CREAT | O_NONBLOCK, 0600, &queue);
    case 21: return open(PICK(t, ((const char *[]){"/proc/self/ns/net", "/proc/self/ns/user", "/proc/self/ns/mnt", "/proc/self/ns/pid", "/proc/self/ns/uts", "/proc/self/ns/ipc", "/proc/self/ns/cgroup"})), O_RDONLY);
    case 22: return changed_program(t);
    default: return open(PICK(t, trees), O_RDONLY | O_DIRECTORY);
    }
    dup2(pair[1], 3 + (int)rnd(t, SLOTS - 3));
    close(pair[1]);
    return pair[0];
}

// Puts a new file where a number was.
static void refill(struct thread *t) {
    int at = 3 + (int)rnd(t, SLOTS - 3), fd = new_file(t);
    if (fd < 0 || fd == at)
        return;
    dup2(fd, at);
    close(fd);
}
