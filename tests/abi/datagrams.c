// What goes with datagrams: stamps of time, addresses, filters, several in one call; udp(7), socket(7), ip(7).
#include "check.h"
#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>

#ifndef TCP_INQ
#define TCP_INQ 36
#endif
#ifndef IP_RECVORIGDSTADDR
#define IP_RECVORIGDSTADDR 20
#endif

static int udp(const char *ip, struct sockaddr_in *a) {
    int fd = OK(socket(AF_INET, SOCK_DGRAM, 0));
    *a = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = inet_addr(ip)};
    OK(bind(fd, (struct sockaddr *)a, sizeof *a));
    socklen_t size = sizeof *a;
    OK(getsockname(fd, (struct sockaddr *)a, &size));
    return fd;
}

static void turn_on(int fd, int level, int name) {
    int one = 1;
    OK(setsockopt(fd, level, name, &one, sizeof one));
}

static ssize_t send_to(int fd, const void *data, size_t len, struct sockaddr_in *a) {
    return sendto(fd, data, len, 0, (struct sockaddr *)a, sizeof *a);
}

// Receives with control messages; gives that of a kind, or NULL.
static char data[70000];
static void *receive(int fd, ssize_t *n, int level, int kind) {
    static char control[512];
    struct iovec v = {data, sizeof data};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    *n = recvmsg(fd, &m, MSG_DONTWAIT);
    if (*n >= 0)
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
            if (c->cmsg_level == level && c->cmsg_type == kind)
                return CMSG_DATA(c);
    return NULL;
}

TEST(a_datagram_tells_when_it_came) {
    struct sockaddr_in a, b;
    int to = udp("127.0.0.1", &a), from = udp("127.0.0.1", &b);
    struct timeval before, after, *tv;
    struct timespec *ts;
    ssize_t n;
    gettimeofday(&before, NULL);
    turn_on(to, SOL_SOCKET, SO_TIMESTAMP);
    CHECK_EQ(send_to(from, "x", 1, &a), 1);
    CHECK(tv = receive(to, &n, SOL_SOCKET, SO_TIMESTAMP));
    gettimeofday(&after, NULL);
    // Linux's stamp is made some microseconds before the send returns.
    CHECK(tv->tv_sec >= before.tv_sec && tv->tv_sec <= after.tv_sec + 1 && tv->tv_usec < 1000000);
    struct timeval none;
    ERR(ioctl(to, SIOCGSTAMP, &none), ENOENT);
    // One kind at a time.
    turn_on(to, SOL_SOCKET, SO_TIMESTAMPNS);
    CHECK_EQ(send_to(from, "x", 1, &a), 1);
    CHECK(ts = receive(to, &n, SOL_SOCKET, SO_TIMESTAMPNS));
    CHECK(ts->tv_sec >= before.tv_sec && ts->tv_nsec < 1000000000);
    CHECK_EQ(send_to(from, "x", 1, &a), 1);
    CHECK(!receive(to, &n, SOL_SOCKET, SO_TIMESTAMP));
    CHECK_EQ(n, 1);
}

// The last number of the socket's line of /proc/net/udp.
static long lost_by_table(int port) {
    FILE *table = fopen("/proc/net/udp", "r");
    CHECK(table);
    char line[300], local[20];
    long lost = -1;
    while (fgets(line, sizeof line, table)) {
        char *end = line + strcspn(line, "\n");
        while (end > line && end[-1] == ' ')
            end--;
        *end = 0;
        snprintf(local, sizeof local, "0100007F:%04X ", port);
        if (strstr(line, local))
            lost = atol(strrchr(line, ' '));
    }
    fclose(table);
    return lost;
}

TEST(a_reader_is_told_how_many_were_lost) {
    struct sockaddr_in a, b;
    int to = udp("127.0.0.1", &a), from = udp("127.0.0.1", &b), least = 1, taken = 0;
    ssize_t n;
    OK(setsockopt(to, SOL_SOCKET, SO_RCVBUF, &least, sizeof least));
    turn_on(to, SOL_SOCKET, SO_RXQ_OVFL);
    for (int i = 0; i < 50; i++)
        CHECK_EQ(send_to(from, data, 600, &a), 600);
    // Those that were taken before the first was lost say nothing of it.
    for (void *lost; lost = receive(to, &n, SOL_SOCKET, SO_RXQ_OVFL), n == 600; taken++)
        CHECK(!lost);
    CHECK_EQ(errno, EAGAIN);
    CHECK(taken >= 1 && taken < 10);
    CHECK_EQ(send_to(from, "x", 1, &a), 1);
    uint32_t *lost = receive(to, &n, SOL_SOCKET, SO_RXQ_OVFL);
    CHECK(lost && *lost == 50u - taken);
    CHECK_EQ(lost_by_table(ntohs(a.sin_port)), 50 - taken);
    // What a filter does not want is counted too.
    struct sock_filter none[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
    struct sock_fprog program = {1, none};
    OK(setsockopt(to, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program));
    CHECK_EQ(send_to(from, "x", 1, &a), 1);
    ERR(setsockopt(to, SOL_SOCKET, SO_DETACH_FILTER, NULL, 0), EINVAL);
    turn_on(to, SOL_SOCKET, SO_DETACH_FILTER);
    CHECK_EQ(send_to(from, "x", 1, &a), 1);
    lost = receive(to, &n, SOL_SOCKET, SO_RXQ_OVFL);
    CHECK(lost && *lost == 51u - taken);
}

TEST(the_time_of_the_last_datagram_can_be_asked_for) {
    struct sockaddr_in a, b;
    int to = udp("127.0.0.1", &a), from = udp("127.0.0.1", &b);
    struct timeval now, tv;
    struct timespec ts;
    ssize_t n;
    ERR(ioctl(to, SIOCGSTAMP, &tv), ENOENT);
    CHECK_EQ(send_to(from, "x", 1, &a), 1);
    receive(to, &n, 0, 0);
    CHECK_EQ(n, 1);
    gettimeofday(&now, NULL);
    OK(ioctl(to, SIOCGSTAMP, &tv));
    CHECK(tv.tv_sec >= now.tv_sec - 1 && tv.tv_sec <= now.tv_sec + 1);
    OK(ioctl(to, SIOCGSTAMPNS, &ts));
    CHECK_EQ(ts.tv_sec, tv.tv_sec);
}

TEST(the_address_that_it_was_sent_to) {
    struct sockaddr_in a, b, *original;
    int to = udp("127.0.0.1", &a), from = udp("127.0.0.1", &b);
    ssize_t n;
    turn_on(to, IPPROTO_IP, IP_RECVORIGDSTADDR);
    CHECK_EQ(send_to(from, "x", 1, &a), 1);
    CHECK(original = receive(to, &n, IPPROTO_IP, IP_RECVORIGDSTADDR));
    CHECK(original->sin_port == a.sin_port && original->sin_addr.s_addr == a.sin_addr.s_addr);
}

static int filter(int fd, struct sock_filter *code, unsigned short len) {
    struct sock_fprog program = {len, code};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

TEST(filters_choose_and_cut) {
    struct sockaddr_in a, b;
    int to = udp("127.0.0.1", &a), from = udp("127.0.0.1", &b), one = 1;
    ssize_t n;
    // Those whose first byte is 'y', behind the header of 8 bytes; 10 bytes of them with it.
    struct sock_filter y[] = {BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 8), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 'y', 0, 1),
                              BPF_STMT(BPF_RET | BPF_K, 10), BPF_STMT(BPF_RET | BPF_K, 0)};
    OK(filter(to, y, 4));
    CHECK_EQ(send_to(from, "no", 2, &a), 2);
    CHECK_EQ(send_to(from, "yes", 3, &a), 3);
    receive(to, &n, 0, 0);
    CHECK_EQ(n, 2);
    receive(to, &n, 0, 0);
    CHECK_EQ(n, -1);
    // The destination's port, in UDP's header; the protocol, in IP's.
    struct sock_filter port[] = {BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 2),
                                 BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ntohs(a.sin_port), 0, 3),
                                 BPF_STMT(BPF_LD | BPF_B | BPF_ABS, (unsigned)SKF_NET_OFF + 9),
                                 BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 17, 0, 1),
                                 BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
                                 BPF_STMT(BPF_RET | BPF_K, 0)};
    OK(filter(to, port, 6));
    CHECK_EQ(send_to(from, "whole", 5, &a), 5);
    receive(to, &n, 0, 0);
    CHECK_EQ(n, 5);
    struct sock_filter bad[] = {BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 8)};
    ERR(filter(to, bad, 1), EINVAL);
    OK(setsockopt(to, SOL_SOCKET, SO_DETACH_FILTER, &one, sizeof one));
    ERR(setsockopt(to, SOL_SOCKET, SO_DETACH_FILTER, &one, sizeof one), ENOENT);
    OK(filter(to, y, 4));
    OK(setsockopt(to, SOL_SOCKET, SO_LOCK_FILTER, &one, sizeof one));
    ERR(setsockopt(to, SOL_SOCKET, SO_DETACH_FILTER, &one, sizeof one), EPERM);
    ERR(filter(to, y, 4), EPERM);
}

static ssize_t send_in(int fd, size_t len, unsigned short segment, struct sockaddr_in *a) {
    char control[CMSG_SPACE(2)] = {0};
    struct iovec v = {data, len};
    struct msghdr m = {.msg_name = a, .msg_namelen = sizeof *a, .msg_iov = &v, .msg_iovlen = 1, .msg_control = control,
                       .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    *c = (struct cmsghdr){.cmsg_len = CMSG_LEN(2), .cmsg_level = SOL_UDP, .cmsg_type = UDP_SEGMENT};
    memcpy(CMSG_DATA(c), &segment, 2);
    return sendmsg(fd, &m, 0);
}

TEST(several_datagrams_in_one_call) {
    struct sockaddr_in a, b;
    int to = udp("127.0.0.1", &a), from = udp("127.0.0.1", &b), size = 400;
    ssize_t n;
    OK(setsockopt(from, SOL_UDP, UDP_SEGMENT, &size, sizeof size));
    CHECK_EQ(send_to(from, data, 1000, &a), 1000);
    for (int want = 400, i = 0; i < 3; i++, want = i == 2 ? 200 : 400) {
        receive(to, &n, 0, 0);
        CHECK_EQ(n, want);
    }
    receive(to, &n, 0, 0);
    CHECK_EQ(n, -1);
    // A message's own size counts before the socket's.
    CHECK_EQ(send_in(from, 300, 200, &a), 300);
    receive(to, &n, 0, 0);
    CHECK_EQ(n, 200);
    receive(to, &n, 0, 0);
    CHECK_EQ(n, 100);
    ERR(send_in(from, 129 * 5, 5, &a), EINVAL);
    // Read together, with the size.
    turn_on(to, SOL_UDP, UDP_GRO);
    CHECK_EQ(send_in(from, 900, 300, &a), 900);
    int *told = receive(to, &n, SOL_UDP, UDP_GRO);
    CHECK(n == 900 && told && *told == 300);
    CHECK_EQ(send_in(from, 100, 300, &a), 100);
    CHECK(!receive(to, &n, SOL_UDP, UDP_GRO));
    CHECK_EQ(n, 100);
}

TEST(everybody_on_the_loopback) {
    struct sockaddr_in a;
    int to = udp("0.0.0.0", &a), from = OK(socket(AF_INET, SOCK_DGRAM, 0));
    ssize_t n;
    a.sin_addr.s_addr = inet_addr("127.255.255.255");
    ERR(send_to(from, "x", 1, &a), EACCES);
    turn_on(from, SOL_SOCKET, SO_BROADCAST);
    CHECK_EQ(send_to(from, "x", 1, &a), 1);
    receive(to, &n, 0, 0);
    CHECK_EQ(n, 1);
    close(to);
    CHECK_EQ(send_to(from, "x", 1, &a), 1);
}

TEST(raw_sockets_see_what_goes_over_the_loopback) {
    struct sockaddr_in a, b;
    int raw = socket(AF_INET, SOCK_RAW, IPPROTO_UDP);
    if (raw < 0)
        SKIP("raw sockets: %s", strerror(errno));
    int from = udp("127.0.0.1", &b);
    udp("127.0.0.1", &a);
    ssize_t n;
    CHECK_EQ(send_to(from, "seen", 4, &a), 4);
    receive(raw, &n, 0, 0);
    CHECK(n == 32 && data[9] == IPPROTO_UDP && !memcmp(data + 28, "seen", 4));
    CHECK(!memcmp(data + 20, &b.sin_port, 2) && !memcmp(data + 22, &a.sin_port, 2));
    close(raw);
    // The port of an IPv6 address is the protocol there.
    raw = OK(socket(AF_INET6, SOCK_RAW, IPPROTO_TCP));
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = 1337, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    ERR(sendto(raw, "x", 1, 0, (struct sockaddr *)&six, sizeof six), EINVAL);
}

static void connected(int *client, int *server) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = inet_addr("127.0.0.1")};
    int listener = OK(socket(AF_INET, SOCK_STREAM, 0));
    socklen_t size = sizeof a;
    OK(bind(listener, (struct sockaddr *)&a, sizeof a));
    OK(listen(listener, 1));
    OK(getsockname(listener, (struct sockaddr *)&a, &size));
    *client = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(connect(*client, (struct sockaddr *)&a, sizeof a));
    *server = OK(accept(listener, NULL, NULL));
    close(listener);
}

TEST(a_stream_tells_what_is_left) {
    int client, server;
    connected(&client, &server);
    turn_on(server, IPPROTO_TCP, TCP_INQ);
    CHECK_EQ(send(client, "abcdef", 6, 0), 6);
    struct {
        char data[2];
        char control[64];
    } two;
    struct iovec v = {two.data, 2};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = two.control, .msg_controllen = 64};
    CHECK_EQ(recvmsg(server, &m, 0), 2);
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    CHECK(c && c->cmsg_level == IPPROTO_TCP && c->cmsg_type == TCP_INQ && *(int *)CMSG_DATA(c) == 4);
}

// The time of a control message, in nanoseconds; 0 for none.
static long long stream_time(int fd, int flags, ssize_t want, int type) {
    char bytes[16], control[128];
    struct iovec v = {bytes, want};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    CHECK_EQ(recvmsg(fd, &m, flags), want);
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    if (!c)
        return 0;
    CHECK(c->cmsg_level == SOL_SOCKET && c->cmsg_type == type && c->cmsg_len == CMSG_LEN(16));
    long long *t = (long long *)CMSG_DATA(c);
    return t[0] * 1000000000 + t[1] * (type == SCM_TIMESTAMP ? 1000 : 1);
}

TEST(a_stream_tells_when_its_bytes_came) {
    int client, server, off = 0;
    struct timespec t;
    connected(&client, &server);
    CHECK_EQ(write(client, "a", 1), 1);
    CHECK_EQ(stream_time(server, 0, 1, SCM_TIMESTAMP), 0);
    turn_on(server, SOL_SOCKET, SO_TIMESTAMP);
    sleep_ms(20);
    CHECK_EQ(write(client, "bc", 2), 2);
    clock_gettime(CLOCK_REALTIME, &t);
    long long sent = t.tv_sec * 1000000000ll + t.tv_nsec;
    sleep_ms(100);
    long long peeked = stream_time(server, MSG_PEEK, 1, SCM_TIMESTAMP), first = stream_time(server, 0, 1, SCM_TIMESTAMP);
    CHECK_EQ(peeked, first);
    // When it came, and not when it is read.
    CHECK(first > sent - 90000000 && first < sent + 50000000);
    turn_on(server, SOL_SOCKET, SO_TIMESTAMPNS);
    long long second = stream_time(server, 0, 1, SCM_TIMESTAMPNS);
    CHECK_EQ(second / 1000 * 1000, first);
    CHECK_EQ(write(client, "d", 1), 1);
    CHECK(stream_time(server, 0, 1, SCM_TIMESTAMPNS) > sent + 90000000);
    OK(setsockopt(server, SOL_SOCKET, SO_TIMESTAMPNS, &off, sizeof off));
    CHECK_EQ(write(client, "e", 1), 1);
    CHECK_EQ(stream_time(server, 0, 1, SCM_TIMESTAMPNS), 0);
    // The end has no time.
    turn_on(server, SOL_SOCKET, SO_TIMESTAMP);
    close(client);
    CHECK_EQ(stream_time(server, 0, 0, SCM_TIMESTAMP), 0);
}

TEST(more_holds_bytes_and_the_end_is_the_end) {
    int client, server;
    connected(&client, &server);
    turn_on(client, IPPROTO_TCP, TCP_NODELAY);
    CHECK_EQ(send(client, "ab", 2, MSG_MORE), 2);
    usleep(20000);
    ERR(recv(server, data, 9, MSG_DONTWAIT), EAGAIN);
    CHECK_EQ(send(client, "c", 1, 0), 1);
    usleep(20000);
    CHECK_EQ(recv(server, data, 9, MSG_DONTWAIT), 3);
    OK(shutdown(client, SHUT_WR));
    CHECK_EQ(recv(server, data, 9, 0), 0);
    OK(shutdown(server, SHUT_WR));
    CHECK_EQ(recv(client, data, 9, 0), 0);
    usleep(20000);
    ERR(shutdown(client, SHUT_RDWR), ENOTCONN);
}

TEST(netlink_tells_memberships_and_ends_a_dump_apart) {
    int fd = OK(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)), group = RTNLGRP_LINK;
    socklen_t size = 0;
    unsigned groups[4] = {0};
    OK(getsockopt(fd, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, NULL, &size));
    CHECK_EQ(size, 0);
    OK(setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group));
    OK(getsockopt(fd, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, NULL, &size));
    CHECK_EQ(size, 8);
    size = 4;
    OK(getsockopt(fd, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, groups, &size));
    CHECK(size == 8 && groups[0] == 1u << (RTNLGRP_LINK - 1));
    close(fd);
    // Nothing of what is listed is read, but for the end; either bit of NLM_F_DUMP asks for a list.
    fd = OK(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));
    struct {
        struct nlmsghdr header;
        struct rtgenmsg body;
    } request = {{sizeof request, RTM_GETADDR, NLM_F_REQUEST | NLM_F_ROOT, 1, 0}, {AF_UNSPEC}};
    CHECK_EQ(send(fd, &request, sizeof request, 0), (int)sizeof request);
    CHECK(recv(fd, NULL, 0, MSG_TRUNC) > 100);
    struct nlmsghdr end;
    CHECK_EQ(recv(fd, &end, sizeof end, MSG_TRUNC), 20);
    CHECK_EQ(end.nlmsg_type, NLMSG_DONE);
}

TEST(the_tree_of_routes_has_the_own_addresses) {
    const char *tree = slurp("/proc/net/fib_trie");
    const char *own = strstr(tree, "|-- 127.0.0.1\n");
    CHECK(!strncmp(tree, "Main:\n", 6) && own && strstr(own, "/32 host LOCAL") && strstr(tree, "Local:\n"));
}
