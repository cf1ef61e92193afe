// Sockets of network mode `host`: everything that passes through to the host's sockets and back.
#include "check.h"
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/errqueue.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

static struct sockaddr_in at(uint16_t port) {
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static struct sockaddr_in6 at6(uint16_t port) {
    return (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
}

static uint16_t port_of(int fd) {
    struct sockaddr_in6 a;
    socklen_t length = sizeof a;
    OK(getsockname(fd, (struct sockaddr *)&a, &length));
    return ntohs(a.sin6_port);
}

static int bound(int family, int kind) {
    int fd = OK(socket(family, kind, 0));
    struct sockaddr_in a = at(0);
    struct sockaddr_in6 a6 = at6(0);
    OK(family == AF_INET ? bind(fd, (void *)&a, sizeof a) : bind(fd, (void *)&a6, sizeof a6));
    return fd;
}

static int listener(int family) {
    int fd = bound(family, SOCK_STREAM);
    OK(listen(fd, 10));
    return fd;
}

static int dial_to(int fd, int family, uint16_t port) {
    struct sockaddr_in a = at(port);
    struct sockaddr_in6 a6 = at6(port);
    return family == AF_INET ? connect(fd, (void *)&a, sizeof a) : connect(fd, (void *)&a6, sizeof a6);
}

static int c, a, l;

static void connected(int family) {
    l = listener(family);
    c = OK(socket(family, SOCK_STREAM, 0));
    OK(dial_to(c, family, port_of(l)));
    a = OK(accept(l, NULL, NULL));
}

static short ready(int fd, short events, int timeout_ms) {
    struct pollfd p = {fd, events, 0};
    int n = OK(poll(&p, 1, timeout_ms));
    return n ? p.revents : 0;
}

static int option(int fd, int level, int name) {
    int value = -1;
    socklen_t length = sizeof value;
    OK(getsockopt(fd, level, name, &value, &length));
    return value;
}

static void set(int fd, int level, int name, int value) {
    OK(setsockopt(fd, level, name, &value, sizeof value));
}

static void echo(int family) {
    connected(family);
    char text[100000], got[sizeof text];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = i * 7;
    pid_t pid = CHILD({
        size_t n = 0;
        while (n < sizeof got) {
            ssize_t r = OK(read(a, got + n, sizeof got - n));
            CHECK(r > 0);
            n += r;
        }
        CHECK_EQ(write(a, got, n), (ssize_t)n);
    });
    CHECK_EQ(write(c, text, sizeof text), (ssize_t)sizeof text);
    CHECK_EQ(recv(c, got, sizeof got, MSG_WAITALL), (ssize_t)sizeof got);
    CHECK(!memcmp(text, got, sizeof got));
    EXITED(wait_for(pid), 0);
}

TEST(tcp_echo) { echo(AF_INET); }
TEST(tcp6_echo) { echo(AF_INET6); }

TEST(names_are_the_host_s) {
    connected(AF_INET6);
    struct sockaddr_in6 own, peer;
    socklen_t length = sizeof own;
    OK(getsockname(c, (void *)&own, &length));
    CHECK_EQ(length, sizeof own);
    OK(getpeername(a, (void *)&peer, &length));
    CHECK(!memcmp(&own, &peer, sizeof own));
    int fresh = OK(socket(AF_INET, SOCK_STREAM, 0));
    ERR(getpeername(fresh, (void *)&peer, &length), ENOTCONN);
}

TEST(accept_gives_name_and_flags) {
    l = listener(AF_INET);
    c = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(dial_to(c, AF_INET, port_of(l)));
    struct sockaddr_in peer;
    socklen_t length = sizeof peer;
    a = OK(accept4(l, (void *)&peer, &length, SOCK_NONBLOCK | SOCK_CLOEXEC));
    CHECK_EQ(length, sizeof peer);
    CHECK_EQ(ntohs(peer.sin_port), port_of(c));
    CHECK(OK(fcntl(a, F_GETFL)) & O_NONBLOCK);
    CHECK_EQ(OK(fcntl(a, F_GETFD)), FD_CLOEXEC);
    char byte;
    ERR(read(a, &byte, 1), EAGAIN);
    OK(fcntl(l, F_SETFL, O_NONBLOCK));
    ERR(accept(l, NULL, NULL), EAGAIN);
    ERR(accept(c, NULL, NULL), EINVAL);
    CHECK_EQ(option(l, SOL_SOCKET, SO_ACCEPTCONN), 1);
    CHECK_EQ(option(c, SOL_SOCKET, SO_ACCEPTCONN), 0);
}

TEST(accept_waits) {
    l = listener(AF_INET);
    uint16_t port = port_of(l);
    pid_t pid = CHILD({
        sleep_ms(50);
        int fd = OK(socket(AF_INET, SOCK_STREAM, 0));
        OK(dial_to(fd, AF_INET, port));
        CHECK_EQ(write(fd, "x", 1), 1);
    });
    a = OK(accept(l, NULL, NULL));
    char byte;
    CHECK_EQ(read(a, &byte, 1), 1);
    EXITED(wait_for(pid), 0);
}

static volatile int alarms;
static void on_alarm(int signal) {
    (void)signal;
    alarms++;
}

static void alarm_in_ms(long ms, int flags) {
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = flags};
    OK(sigaction(SIGALRM, &action, NULL));
    struct itimerval timer = {.it_value.tv_usec = ms * 1000};
    OK(setitimer(ITIMER_REAL, &timer, NULL));
}

TEST(signals_interrupt) {
    l = listener(AF_INET);
    alarm_in_ms(30, 0);
    ERR(accept(l, NULL, NULL), EINTR);
    int udp = bound(AF_INET, SOCK_DGRAM);
    char byte;
    alarm_in_ms(30, 0);
    ERR(recv(udp, &byte, 1, 0), EINTR);
    CHECK_EQ(alarms, 2);
}

TEST(signals_restart_accept) {
    l = listener(AF_INET);
    uint16_t port = port_of(l);
    pid_t pid = CHILD({
        sleep_ms(120);
        int fd = OK(socket(AF_INET, SOCK_STREAM, 0));
        OK(dial_to(fd, AF_INET, port));
    });
    alarm_in_ms(30, SA_RESTART);
    OK(accept(l, NULL, NULL));
    CHECK_EQ(alarms, 1);
    EXITED(wait_for(pid), 0);
}

TEST(timeouts) {
    connected(AF_INET);
    struct timeval t = {.tv_usec = 40000}, back;
    OK(setsockopt(c, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
    socklen_t length = sizeof back;
    OK(getsockopt(c, SOL_SOCKET, SO_RCVTIMEO, &back, &length));
    CHECK_EQ(back.tv_usec, 40000);
    long long start = now_ms();
    char byte;
    ERR(recv(c, &byte, 1, 0), EAGAIN);
    CHECK(now_ms() - start >= 35);
}

TEST(connect_refused) {
    l = listener(AF_INET);
    uint16_t port = port_of(l);
    close(l);
    c = OK(socket(AF_INET, SOCK_STREAM, 0));
    ERR(dial_to(c, AF_INET, port), ECONNREFUSED);
    // The same socket may try again.
    ERR(dial_to(c, AF_INET, port), ECONNREFUSED);
    CHECK_EQ(option(c, SOL_SOCKET, SO_ERROR), 0);
    l = OK(socket(AF_INET, SOCK_STREAM, 0));
    set(l, SOL_SOCKET, SO_REUSEADDR, 1);
    struct sockaddr_in address = at(port);
    OK(bind(l, (void *)&address, sizeof address));
    OK(listen(l, 1));
    OK(dial_to(c, AF_INET, port));
    ERR(dial_to(c, AF_INET, port), EISCONN);
}

TEST(connect_nonblocking) {
    l = listener(AF_INET);
    c = OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    if (dial_to(c, AF_INET, port_of(l)))
        CHECK_EQ(errno, EINPROGRESS);
    CHECK_EQ(ready(c, POLLOUT, 2000), POLLOUT);
    CHECK_EQ(option(c, SOL_SOCKET, SO_ERROR), 0);
    int again = dial_to(c, AF_INET, port_of(l));
    CHECK(again == 0 || errno == EISCONN);
    ERR(dial_to(c, AF_INET, port_of(l)), EISCONN);
    a = OK(accept(l, NULL, NULL));
}

TEST(connect_nonblocking_refused) {
    l = listener(AF_INET);
    uint16_t port = port_of(l);
    close(l);
    c = OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    if (!dial_to(c, AF_INET, port) || errno != EINPROGRESS) {
        CHECK_EQ(errno, ECONNREFUSED);
        return;
    }
    CHECK(ready(c, POLLOUT, 2000) & POLLERR);
    CHECK_EQ(option(c, SOL_SOCKET, SO_ERROR), ECONNREFUSED);
    CHECK_EQ(option(c, SOL_SOCKET, SO_ERROR), 0);
}

// A backlog that is full makes connect wait: the host drops the SYN and sends it again after a second.
TEST(connect_waits_and_is_interrupted) {
    l = bound(AF_INET, SOCK_STREAM);
    OK(listen(l, 0));
    uint16_t port = port_of(l);
    int filler[8];
    for (int i = 0; i < 8; i++) {
        filler[i] = OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
        dial_to(filler[i], AF_INET, port);
    }
    sleep_ms(20);
    c = OK(socket(AF_INET, SOCK_STREAM, 0));
    alarm_in_ms(50, 0);
    ERR(dial_to(c, AF_INET, port), EINTR);
    OK(fcntl(c, F_SETFL, O_NONBLOCK));
    ERR(dial_to(c, AF_INET, port), EALREADY);
}

TEST(connect_timeout) {
    l = bound(AF_INET, SOCK_STREAM);
    OK(listen(l, 0));
    uint16_t port = port_of(l);
    for (int i = 0; i < 8; i++)
        dial_to(OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)), AF_INET, port);
    sleep_ms(20);
    c = OK(socket(AF_INET, SOCK_STREAM, 0));
    struct timeval t = {.tv_usec = 50000};
    OK(setsockopt(c, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t));
    ERR(dial_to(c, AF_INET, port), EINPROGRESS);
}

TEST(broken_pipe) {
    connected(AF_INET);
    signal(SIGPIPE, SIG_IGN);
    OK(shutdown(c, SHUT_WR));
    ERR(write(c, "x", 1), EPIPE);
    char byte;
    CHECK_EQ(read(a, &byte, 1), 0);
    pid_t pid = CHILD({
        signal(SIGPIPE, SIG_DFL);
        ERR(send(c, "x", 1, MSG_NOSIGNAL), EPIPE);
        send(c, "x", 1, 0);
    });
    KILLED(wait_for(pid), SIGPIPE);
}

TEST(reset_by_peer) {
    connected(AF_INET);
    signal(SIGPIPE, SIG_IGN);
    struct linger linger = {1, 0}, back;
    OK(setsockopt(a, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
    socklen_t length = sizeof back;
    OK(getsockopt(a, SOL_SOCKET, SO_LINGER, &back, &length));
    CHECK(back.l_onoff == 1 && back.l_linger == 0);
    close(a);
    CHECK(ready(c, POLLIN, 1000) & POLLERR);
    char byte;
    ERR(read(c, &byte, 1), ECONNRESET);
    CHECK_EQ(read(c, &byte, 1), 0);
    ERR(write(c, "x", 1), EPIPE);
    struct sockaddr_in peer;
    ERR(getpeername(c, (void *)&peer, &length), ENOTCONN);
}

TEST(linger_option_is_kept) {
    connected(AF_INET);
    struct linger linger = {1, 7}, back = {0, 0};
    OK(setsockopt(c, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
    socklen_t length = sizeof back;
    OK(getsockopt(c, SOL_SOCKET, SO_LINGER, &back, &length));
    CHECK(back.l_onoff == 1 && back.l_linger == 7);
    CHECK_EQ(write(c, "bye", 3), 3);
    close(c);
    char text[4];
    CHECK_EQ(read(a, text, 4), 3);
    CHECK_EQ(read(a, text, 4), 0);
}

TEST(half_close) {
    connected(AF_INET6);
    CHECK_EQ(write(c, "ab", 2), 2);
    OK(shutdown(c, SHUT_WR));
    char text[4];
    CHECK_EQ(read(a, text, 4), 2);
    CHECK_EQ(read(a, text, 4), 0);
    CHECK_EQ(ready(a, POLLIN | POLLRDHUP, 0), POLLIN | POLLRDHUP);
    CHECK_EQ(write(a, "cd", 2), 2);
    CHECK_EQ(read(c, text, 4), 2);
    OK(shutdown(c, SHUT_RD));
    CHECK_EQ(read(c, text, 4), 0);
    int fresh = OK(socket(AF_INET, SOCK_STREAM, 0));
    ERR(shutdown(fresh, SHUT_RDWR), ENOTCONN);
    ERR(shutdown(c, 9), EINVAL);
}

TEST(shutdown_wakes_a_reader) {
    connected(AF_INET);
    pid_t pid = CHILD({
        char byte;
        CHECK_EQ(read(c, &byte, 1), 0);
    });
    EVENTUALLY(state_of(pid) == 'S');
    OK(shutdown(c, SHUT_RDWR));
    EXITED(wait_for(pid), 0);
}

TEST(stream_flags) {
    connected(AF_INET);
    char text[16] = {0};
    ERR(recv(c, text, 1, MSG_DONTWAIT), EAGAIN);
    CHECK_EQ(write(a, "hello", 5), 5);
    CHECK_EQ(recv(c, text, 3, MSG_PEEK), 3);
    CHECK_EQ(recv(c, text, 16, MSG_PEEK), 5);
    STR_EQ(text, "hello");
    memset(text, 'z', sizeof text);
    CHECK_EQ(recv(c, text, 2, MSG_TRUNC), 2);
    CHECK_EQ(text[0], 'z');
    CHECK_EQ(recv(c, text, 16, 0), 3);
    CHECK(!memcmp(text, "llo", 3));
    CHECK_EQ(send(c, text, 3, MSG_MORE), 3);
    CHECK_EQ(send(c, text, 3, 0), 3);
    CHECK_EQ(recv(a, text, 6, MSG_WAITALL), 6);
}

TEST(urgent_data) {
    connected(AF_INET);
    CHECK_EQ(send(c, "ab!", 3, MSG_OOB), 3);
    CHECK(ready(a, POLLPRI, 1000) & POLLPRI);
    char text[4];
    int mark;
    CHECK_EQ(recv(a, text, 4, 0), 2);
    OK(ioctl(a, SIOCATMARK, &mark));
    CHECK_EQ(mark, 1);
    CHECK_EQ(recv(a, text, 4, MSG_OOB), 1);
    CHECK_EQ(text[0], '!');
    ERR(recv(a, text, 4, MSG_OOB), EINVAL);
}

TEST(stream_bytes_counted) {
    connected(AF_INET);
    CHECK_EQ(write(c, "12345", 5), 5);
    int n = 0;
    EVENTUALLY(!ioctl(a, FIONREAD, &n) && n == 5);
    OK(ioctl(c, TIOCOUTQ, &n));
    CHECK(n >= 0 && n <= 5);
    ERR(ioctl(c, 0x12345, &n), ENOTTY);
}

TEST(full_buffer) {
    connected(AF_INET);
    OK(fcntl(c, F_SETFL, O_NONBLOCK));
    static char block[65536];
    size_t sent = 0;
    // What is acknowledged makes room a little later.
    for (int quiet = 0; quiet < 20;) {
        ssize_t n = write(c, block, sizeof block);
        if (n < 0) {
            CHECK_EQ(errno, EAGAIN);
            quiet++;
            sleep_ms(1);
        } else {
            sent += n;
            quiet = 0;
        }
    }
    CHECK_EQ(ready(c, POLLOUT, 0), 0);
    pid_t pid = CHILD({
        size_t left = sent;
        while (left) {
            ssize_t n = OK(read(a, block, sizeof block));
            left -= n;
        }
    });
    CHECK_EQ(ready(c, POLLOUT, 5000), POLLOUT);
    EXITED(wait_for(pid), 0);
}

TEST(blocking_write_waits_for_room) {
    connected(AF_INET);
    static char block[8 << 20];
    pid_t pid = CHILD({
        sleep_ms(30);
        size_t left = sizeof block;
        while (left)
            left -= OK(read(a, block, sizeof block));
    });
    CHECK_EQ(write(c, block, sizeof block), (ssize_t)sizeof block);
    EXITED(wait_for(pid), 0);
}

TEST(udp_round_trip) {
    int x = bound(AF_INET, SOCK_DGRAM), y = bound(AF_INET, SOCK_DGRAM);
    struct sockaddr_in to = at(port_of(y)), from;
    CHECK_EQ(sendto(x, "hello", 5, 0, (void *)&to, sizeof to), 5);
    char text[8];
    socklen_t length = sizeof from;
    CHECK_EQ(recvfrom(y, text, 8, 0, (void *)&from, &length), 5);
    CHECK_EQ(length, sizeof from);
    CHECK_EQ(ntohs(from.sin_port), port_of(x));
    CHECK_EQ(sendto(x, "", 0, 0, (void *)&to, sizeof to), 0);
    CHECK_EQ(recvfrom(y, text, 8, 0, NULL, NULL), 0);
    ERR(send(x, "x", 1, 0), EDESTADDRREQ);
    ERR(recv(y, text, 8, MSG_DONTWAIT), EAGAIN);
}

TEST(udp_truncation) {
    int x = bound(AF_INET6, SOCK_DGRAM);
    OK(dial_to(x, AF_INET6, port_of(x)));
    CHECK_EQ(send(x, "0123456789", 10, 0), 10);
    char text[4];
    CHECK_EQ(recv(x, text, 4, MSG_PEEK), 4);
    CHECK_EQ(recv(x, text, 4, MSG_PEEK | MSG_TRUNC), 10);
    struct iovec iov = {text, 4};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    CHECK_EQ(recvmsg(x, &m, 0), 4);
    CHECK_EQ(m.msg_flags, MSG_TRUNC);
    static char large[70000];
    ERR(send(x, large, sizeof large, 0), EMSGSIZE);
    int n = -1;
    CHECK_EQ(send(x, "abc", 3, 0), 3);
    OK(ioctl(x, FIONREAD, &n));
    CHECK_EQ(n, 3);
}

TEST(udp_refused) {
    int y = bound(AF_INET, SOCK_DGRAM), x = OK(socket(AF_INET, SOCK_DGRAM, 0));
    uint16_t port = port_of(y);
    close(y);
    OK(dial_to(x, AF_INET, port));
    CHECK_EQ(send(x, "x", 1, 0), 1);
    char byte;
    ERR(recv(x, &byte, 1, 0), ECONNREFUSED);
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    OK(connect(x, &none, sizeof none));
    struct sockaddr_in peer;
    socklen_t length = sizeof peer;
    ERR(getpeername(x, (void *)&peer, &length), ENOTCONN);
}

TEST(udp_error_queue) {
    int y = bound(AF_INET, SOCK_DGRAM), x = OK(socket(AF_INET, SOCK_DGRAM, 0));
    uint16_t port = port_of(y);
    close(y);
    set(x, SOL_IP, IP_RECVERR, 1);
    OK(dial_to(x, AF_INET, port));
    CHECK_EQ(send(x, "hey", 3, 0), 3);
    CHECK(ready(x, POLLIN, 1000) & POLLERR);
    char text[8], control[256];
    struct iovec iov = {text, 8};
    struct sockaddr_in to;
    struct msghdr m = {.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &iov, .msg_iovlen = 1,
        .msg_control = control, .msg_controllen = sizeof control};
    CHECK_EQ(recvmsg(x, &m, MSG_ERRQUEUE), 3);
    CHECK_EQ(m.msg_flags & MSG_ERRQUEUE, MSG_ERRQUEUE);
    CHECK_EQ(ntohs(to.sin_port), port);
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&m);
    CHECK(cmsg && cmsg->cmsg_level == SOL_IP && cmsg->cmsg_type == IP_RECVERR);
    struct sock_extended_err *e = (void *)CMSG_DATA(cmsg);
    CHECK_EQ(e->ee_errno, ECONNREFUSED);
    CHECK_EQ(e->ee_origin, SO_EE_ORIGIN_ICMP);
    ERR(recvmsg(x, &m, MSG_ERRQUEUE), EAGAIN);
}

TEST(udp_many_messages) {
    int x = bound(AF_INET, SOCK_DGRAM);
    OK(dial_to(x, AF_INET, port_of(x)));
    struct mmsghdr out[3], in[5];
    struct iovec iov[3], iov_in[5];
    char texts[5][8];
    memset(out, 0, sizeof out);
    memset(in, 0, sizeof in);
    for (int i = 0; i < 3; i++) {
        iov[i] = (struct iovec){"abcdef", i + 1};
        out[i].msg_hdr.msg_iov = &iov[i];
        out[i].msg_hdr.msg_iovlen = 1;
    }
    for (int i = 0; i < 5; i++) {
        iov_in[i] = (struct iovec){texts[i], 8};
        in[i].msg_hdr.msg_iov = &iov_in[i];
        in[i].msg_hdr.msg_iovlen = 1;
    }
    CHECK_EQ(sendmmsg(x, out, 3, 0), 3);
    CHECK_EQ(recvmmsg(x, in, 5, MSG_WAITFORONE, NULL), 3);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(in[i].msg_len, i + 1);
}

static ssize_t receive_control(int fd, struct msghdr *m, char *control, size_t room) {
    static char text[64];
    static struct iovec iov;
    iov = (struct iovec){text, sizeof text};
    *m = (struct msghdr){.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = room};
    return recvmsg(fd, m, 0);
}

static void *find(struct msghdr *m, int level, int type) {
    for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h))
        if (h->cmsg_level == level && h->cmsg_type == type)
            return CMSG_DATA(h);
    FAIL("no control message %d/%d", level, type);
}

TEST(control_messages_received) {
    int x = bound(AF_INET, SOCK_DGRAM);
    set(x, SOL_IP, IP_PKTINFO, 1);
    set(x, SOL_IP, IP_RECVTTL, 1);
    set(x, SOL_IP, IP_RECVTOS, 1);
    set(x, SOL_SOCKET, SO_TIMESTAMP, 1);
    set(x, SOL_IP, IP_TTL, 33);
    OK(dial_to(x, AF_INET, port_of(x)));
    CHECK_EQ(send(x, "x", 1, 0), 1);
    char control[256];
    struct msghdr m;
    CHECK_EQ(receive_control(x, &m, control, sizeof control), 1);
    struct in_pktinfo *info = find(&m, SOL_IP, IP_PKTINFO);
    CHECK_EQ(info->ipi_addr.s_addr, htonl(INADDR_LOOPBACK));
    CHECK_EQ(info->ipi_ifindex, (int)if_nametoindex("lo"));
    CHECK_EQ(*(int *)find(&m, SOL_IP, IP_TTL), 33);
    CHECK_EQ(*(uint8_t *)find(&m, SOL_IP, IP_TOS), 0);
    struct timeval *stamp = find(&m, SOL_SOCKET, SO_TIMESTAMP), now;
    gettimeofday(&now, NULL);
    CHECK(now.tv_sec - stamp->tv_sec <= 2 && now.tv_sec >= stamp->tv_sec);
    CHECK_EQ(send(x, "x", 1, 0), 1);
    CHECK_EQ(receive_control(x, &m, control, 20), 1);
    CHECK(m.msg_flags & MSG_CTRUNC);
}

TEST(control_messages_sent) {
    int x = bound(AF_INET, SOCK_DGRAM), y = bound(AF_INET, SOCK_DGRAM);
    set(y, SOL_IP, IP_RECVTTL, 1);
    struct sockaddr_in to = at(port_of(y));
    union {
        char bytes[64];
        struct cmsghdr header;
    } control = {.header = {.cmsg_len = CMSG_LEN(4), .cmsg_level = SOL_IP, .cmsg_type = IP_TTL}};
    *(int *)CMSG_DATA(&control.header) = 9;
    struct iovec iov = {"x", 1};
    struct msghdr m = {.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &iov, .msg_iovlen = 1,
        .msg_control = &control, .msg_controllen = CMSG_SPACE(4)};
    CHECK_EQ(sendmsg(x, &m, 0), 1);
    char got[64];
    struct msghdr in;
    CHECK_EQ(receive_control(y, &in, got, sizeof got), 1);
    CHECK_EQ(*(int *)find(&in, SOL_IP, IP_TTL), 9);
    control.header.cmsg_type = 99;
    ERR(sendmsg(x, &m, 0), EINVAL);
    control.header.cmsg_level = SOL_SOCKET;
    ERR(sendmsg(x, &m, 0), EINVAL);
}

TEST(packet_info_6) {
    int x = bound(AF_INET6, SOCK_DGRAM);
    set(x, SOL_IPV6, IPV6_RECVPKTINFO, 1);
    set(x, SOL_IPV6, IPV6_RECVHOPLIMIT, 1);
    set(x, SOL_IPV6, IPV6_UNICAST_HOPS, 44);
    OK(dial_to(x, AF_INET6, port_of(x)));
    CHECK_EQ(send(x, "x", 1, 0), 1);
    char control[256];
    struct msghdr m;
    CHECK_EQ(receive_control(x, &m, control, sizeof control), 1);
    struct in6_pktinfo *info = find(&m, SOL_IPV6, IPV6_PKTINFO);
    CHECK(IN6_IS_ADDR_LOOPBACK(&info->ipi6_addr));
    CHECK_EQ(*(int *)find(&m, SOL_IPV6, IPV6_HOPLIMIT), 44);
}

TEST(v6_only) {
    int both = OK(socket(AF_INET6, SOCK_STREAM, 0));
    CHECK_EQ(option(both, SOL_IPV6, IPV6_V6ONLY), 0);
    struct sockaddr_in6 any = {.sin6_family = AF_INET6};
    OK(bind(both, (void *)&any, sizeof any));
    OK(listen(both, 1));
    c = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(dial_to(c, AF_INET, port_of(both)));
    struct sockaddr_in6 peer;
    socklen_t length = sizeof peer;
    OK(accept(both, (void *)&peer, &length));
    CHECK(IN6_IS_ADDR_V4MAPPED(&peer.sin6_addr));
    int only = OK(socket(AF_INET6, SOCK_STREAM, 0));
    set(only, SOL_IPV6, IPV6_V6ONLY, 1);
    OK(bind(only, (void *)&any, sizeof any));
    OK(listen(only, 1));
    int second = OK(socket(AF_INET, SOCK_STREAM, 0));
    ERR(dial_to(second, AF_INET, port_of(only)), ECONNREFUSED);
    int one = 1;
    ERR(setsockopt(only, SOL_IPV6, IPV6_V6ONLY, &one, sizeof one), EINVAL);
}

TEST(options_pass_through) {
    connected(AF_INET);
    CHECK_EQ(option(c, SOL_SOCKET, SO_TYPE), SOCK_STREAM);
    CHECK_EQ(option(c, SOL_SOCKET, SO_PROTOCOL), IPPROTO_TCP);
    CHECK_EQ(option(c, SOL_SOCKET, SO_DOMAIN), AF_INET);
    int flags[][2] = {{SOL_SOCKET, SO_REUSEADDR}, {SOL_SOCKET, SO_KEEPALIVE}, {SOL_SOCKET, SO_REUSEPORT},
        {SOL_SOCKET, SO_OOBINLINE}, {SOL_SOCKET, SO_BROADCAST}, {SOL_TCP, TCP_NODELAY}, {SOL_IP, IP_RECVTTL}};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        CHECK_EQ(option(c, flags[i][0], flags[i][1]), 0);
        set(c, flags[i][0], flags[i][1], 1);
        CHECK_EQ(option(c, flags[i][0], flags[i][1]), 1);
    }
    set(c, SOL_TCP, TCP_KEEPIDLE, 77);
    CHECK_EQ(option(c, SOL_TCP, TCP_KEEPIDLE), 77);
    set(c, SOL_SOCKET, SO_RCVBUF, 20000);
    CHECK_EQ(option(c, SOL_SOCKET, SO_RCVBUF), 40000);
    set(c, SOL_SOCKET, SO_RCVLOWAT, 3);
    CHECK_EQ(option(c, SOL_SOCKET, SO_RCVLOWAT), 3);
    set(c, SOL_IP, IP_TOS, 0x10);
    CHECK_EQ(option(c, SOL_IP, IP_TOS), 0x10);
    char name[16];
    socklen_t length = sizeof name;
    OK(getsockopt(c, SOL_TCP, TCP_CONGESTION, name, &length));
    CHECK(strlen(name) > 0);
    struct tcp_info info;
    length = sizeof info;
    OK(getsockopt(c, SOL_TCP, TCP_INFO, &info, &length));
    CHECK_EQ(info.tcpi_state, TCP_ESTABLISHED);
    length = 1;
    OK(getsockopt(c, SOL_TCP, TCP_INFO, &info, &length));
    CHECK_EQ(length, 1);
}

TEST(option_errors) {
    c = OK(socket(AF_INET, SOCK_STREAM, 0));
    int value = 1;
    socklen_t length = sizeof value;
    ERR(setsockopt(c, SOL_TCP, TCP_NODELAY, &value, 1), EINVAL);
    ERR(setsockopt(c, SOL_TCP, 9999, &value, sizeof value), ENOPROTOOPT);
    ERR(getsockopt(c, SOL_TCP, 9999, &value, &length), ENOPROTOOPT);
    ERR(setsockopt(c, SOL_SOCKET, 9999, &value, sizeof value), ENOPROTOOPT);
    ERR(setsockopt(c, SOL_IPV6, IPV6_V6ONLY, &value, sizeof value), ENOPROTOOPT);
    ERR(setsockopt(c, SOL_TCP, TCP_NODELAY, BAD_ADDRESS, sizeof value), EFAULT);
    value = 300;
    ERR(setsockopt(c, SOL_IP, IP_TTL, &value, sizeof value), EINVAL);
    int udp = OK(socket(AF_INET, SOCK_DGRAM, 0));
    ERR(setsockopt(udp, SOL_TCP, TCP_NODELAY, &value, sizeof value), ENOPROTOOPT);
}

TEST(lowat_is_waited_for) {
    connected(AF_INET);
    set(c, SOL_SOCKET, SO_RCVLOWAT, 3);
    CHECK_EQ(write(a, "a", 1), 1);
    CHECK_EQ(ready(c, POLLIN, 30), 0);
    pid_t pid = CHILD({
        sleep_ms(30);
        CHECK_EQ(write(a, "bc", 2), 2);
    });
    CHECK_EQ(ready(c, POLLIN, 2000), POLLIN);
    char text[8];
    CHECK_EQ(read(c, text, 8), 3);
    EXITED(wait_for(pid), 0);
}

TEST(multicast) {
    int x = OK(socket(AF_INET, SOCK_DGRAM, 0));
    struct sockaddr_in any = {.sin_family = AF_INET};
    OK(bind(x, (void *)&any, sizeof any));
    struct ip_mreqn group = {.imr_multiaddr.s_addr = htonl(0xefff0001), .imr_ifindex = if_nametoindex("lo")};
    OK(setsockopt(x, SOL_IP, IP_ADD_MEMBERSHIP, &group, sizeof group));
    ERR(setsockopt(x, SOL_IP, IP_ADD_MEMBERSHIP, &group, sizeof group), EADDRINUSE);
    OK(setsockopt(x, SOL_IP, IP_MULTICAST_IF, &group, sizeof group));
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port_of(x)), .sin_addr = group.imr_multiaddr};
    CHECK_EQ(sendto(x, "x", 1, 0, (void *)&to, sizeof to), 1);
    char text[8];
    CHECK_EQ(recv(x, text, 8, 0), 1);
    OK(setsockopt(x, SOL_IP, IP_DROP_MEMBERSHIP, &group, sizeof group));
}

TEST(bind_errors) {
    int x = bound(AF_INET, SOCK_STREAM), y = OK(socket(AF_INET, SOCK_STREAM, 0));
    struct sockaddr_in address = at(port_of(x));
    ERR(bind(y, (void *)&address, sizeof address), EADDRINUSE);
    ERR(bind(x, (void *)&address, sizeof address), EINVAL);
    address.sin_addr.s_addr = htonl(0xc0000201);
    ERR(bind(y, (void *)&address, sizeof address), EADDRNOTAVAIL);
    ERR(bind(y, (void *)&address, 4), EINVAL);
    address.sin_family = AF_INET6;
    ERR(bind(y, (void *)&address, sizeof address), EAFNOSUPPORT);
    ERR(bind(y, BAD_ADDRESS, sizeof address), EFAULT);
}

TEST(low_ports) {
    int x = OK(socket(AF_INET, SOCK_STREAM, 0));
    struct sockaddr_in address = at(81);
    OK(bind(x, (void *)&address, sizeof address));
    OK(listen(x, 1));
    become_nobody();
    int y = OK(socket(AF_INET6, SOCK_STREAM, 0));
    struct sockaddr_in6 address6 = at6(82);
    ERR(bind(y, (void *)&address6, sizeof address6), EACCES);
    address6.sin6_port = htons(1024);
    OK(bind(y, (void *)&address6, sizeof address6));
}

TEST(poll_states) {
    l = listener(AF_INET);
    CHECK_EQ(ready(l, POLLIN | POLLOUT, 0), 0);
    int fresh = OK(socket(AF_INET, SOCK_STREAM, 0));
    CHECK_EQ(ready(fresh, POLLIN | POLLOUT, 0), POLLOUT | POLLHUP);
    connected(AF_INET);
    short all = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM | POLLRDHUP;
    CHECK_EQ(ready(c, all, 0), POLLOUT | POLLWRNORM);
    CHECK_EQ(write(a, "x", 1), 1);
    CHECK_EQ(ready(c, POLLIN, 1000), POLLIN);
    CHECK_EQ(ready(c, all, 0), POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM);
    close(a);
    CHECK_EQ(ready(c, POLLRDHUP, 1000), POLLRDHUP);
    OK(shutdown(c, SHUT_WR));
    CHECK(ready(c, 0, 1000) & POLLHUP);
}

TEST(epoll_level_and_edge) {
    connected(AF_INET);
    int level = OK(epoll_create1(0)), edge = OK(epoll_create1(0));
    struct epoll_event e = {.events = EPOLLIN};
    OK(epoll_ctl(level, EPOLL_CTL_ADD, c, &e));
    e.events = EPOLLIN | EPOLLET;
    OK(epoll_ctl(edge, EPOLL_CTL_ADD, c, &e));
    CHECK_EQ(epoll_wait(level, &e, 1, 0), 0);
    CHECK_EQ(epoll_wait(edge, &e, 1, 0), 0);
    CHECK_EQ(write(a, "ab", 2), 2);
    CHECK_EQ(epoll_wait(edge, &e, 1, 1000), 1);
    CHECK_EQ(e.events, EPOLLIN);
    CHECK_EQ(epoll_wait(edge, &e, 1, 20), 0);
    CHECK_EQ(epoll_wait(level, &e, 1, 0), 1);
    CHECK_EQ(epoll_wait(level, &e, 1, 0), 1);
    char byte;
    CHECK_EQ(read(c, &byte, 1), 1);
    CHECK_EQ(epoll_wait(edge, &e, 1, 20), 0);
    CHECK_EQ(epoll_wait(level, &e, 1, 0), 1);
    CHECK_EQ(write(a, "c", 1), 1);
    CHECK_EQ(epoll_wait(edge, &e, 1, 1000), 1);
    char text[8];
    CHECK_EQ(read(c, text, 8), 2);
    CHECK_EQ(epoll_wait(level, &e, 1, 0), 0);
    close(a);
    CHECK_EQ(epoll_wait(edge, &e, 1, 1000), 1);
}

TEST(epoll_does_not_keep_a_socket) {
    connected(AF_INET);
    int ep = OK(epoll_create1(0));
    struct epoll_event e = {.events = EPOLLIN};
    OK(epoll_ctl(ep, EPOLL_CTL_ADD, c, &e));
    CHECK_EQ(epoll_wait(ep, &e, 1, 10), 0);
    close(c);
    char byte;
    CHECK_EQ(ready(a, POLLIN, 1000) & POLLIN, POLLIN);
    CHECK_EQ(read(a, &byte, 1), 0);
    CHECK_EQ(epoll_wait(ep, &e, 1, 0), 0);
}

// Whoever waits now and then must hear, however many messages have come meanwhile.
TEST(waits_after_busy_times) {
    int x = bound(AF_INET, SOCK_DGRAM), y = OK(socket(AF_INET, SOCK_DGRAM, 0));
    OK(dial_to(y, AF_INET, port_of(x)));
    char text[8];
    for (int round = 0; round < 20; round++) {
        pid_t pid = CHILD({
            sleep_ms(3);
            CHECK_EQ(send(y, "x", 1, 0), 1);
        });
        if (round % 2)
            CHECK_EQ(ready(x, POLLRDNORM, 2000), POLLRDNORM);
        CHECK_EQ(recv(x, text, 8, 0), 1);
        EXITED(wait_for(pid), 0);
        for (int i = 0; i < round; i++) {
            CHECK_EQ(send(y, "yz", 2, 0), 2);
            CHECK_EQ(recv(x, text, 8, 0), 2);
        }
    }
}

TEST(epoll_of_a_listener) {
    l = listener(AF_INET6);
    int ep = OK(epoll_create1(0));
    struct epoll_event e = {.events = EPOLLIN | EPOLLET};
    OK(epoll_ctl(ep, EPOLL_CTL_ADD, l, &e));
    for (int i = 0; i < 3; i++) {
        int fd = OK(socket(AF_INET6, SOCK_STREAM, 0));
        OK(dial_to(fd, AF_INET6, port_of(l)));
        CHECK_EQ(epoll_wait(ep, &e, 1, 1000), 1);
        OK(accept(l, NULL, NULL));
    }
}

TEST(descriptors_share_the_socket) {
    connected(AF_INET);
    int copy = OK(dup(c));
    close(c);
    CHECK_EQ(write(copy, "x", 1), 1);
    pid_t pid = CHILD({
        char text[4];
        CHECK_EQ(read(a, text, 4), 1);
        CHECK_EQ(write(a, "yz", 2), 2);
    });
    EXITED(wait_for(pid), 0);
    char text[4];
    CHECK_EQ(read(copy, text, 4), 2);
    close(copy);
    CHECK_EQ(read(a, text, 4), 0);
}

TEST(sockets_travel_over_unix_sockets) {
    connected(AF_INET);
    int pair[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr header;
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    *(int *)CMSG_DATA(&control.header) = c;
    struct iovec iov = {"x", 1};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    CHECK_EQ(sendmsg(pair[0], &m, 0), 1);
    close(c);
    char got[64];
    struct msghdr in;
    CHECK_EQ(receive_control(pair[1], &in, got, sizeof got), 1);
    int fd = *(int *)find(&in, SOL_SOCKET, SCM_RIGHTS);
    CHECK_EQ(write(fd, "hi", 2), 2);
    char text[4];
    CHECK_EQ(read(a, text, 4), 2);
}

TEST(sendfile_and_splice) {
    connected(AF_INET);
    write_file("data", "0123456789");
    int fd = OK(open("data", O_RDONLY));
    CHECK_EQ(sendfile(c, fd, NULL, 10), 10);
    int pipe_fds[2];
    OK(pipe(pipe_fds));
    CHECK_EQ(splice(a, NULL, pipe_fds[1], NULL, 10, 0), 10);
    char text[11] = {0};
    CHECK_EQ(read(pipe_fds[0], text, 10), 10);
    STR_EQ(text, "0123456789");
    CHECK_EQ(write(pipe_fds[1], "abc", 3), 3);
    CHECK_EQ(splice(pipe_fds[0], NULL, a, NULL, 3, 0), 3);
    CHECK_EQ(read(c, text, 10), 3);
}

TEST(vectors) {
    connected(AF_INET);
    struct iovec out[] = {{"ab", 2}, {"", 0}, {"cde", 3}};
    CHECK_EQ(writev(c, out, 3), 5);
    char x[3] = {0}, y[8] = {0};
    struct iovec in[] = {{x, 2}, {y, 7}};
    CHECK_EQ(readv(a, in, 2), 5);
    STR_EQ(x, "ab");
    STR_EQ(y, "cde");
    ERR(write(c, BAD_ADDRESS, 4), EFAULT);
    CHECK_EQ(write(c, "q", 1), 1);
    CHECK_EQ(ready(a, POLLIN, 1000), POLLIN);
    ERR(read(a, BAD_ADDRESS, 4), EFAULT);
}

TEST(kinds) {
    ERR(socket(AF_INET, SOCK_SEQPACKET, 0), ESOCKTNOSUPPORT);
    ERR(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP), EPROTONOSUPPORT);
    ERR(socket(AF_INET, SOCK_RAW, 0), EPROTONOSUPPORT);
    ERR(socket(AF_INET, 77, 0), EINVAL);
    int pair[2];
    ERR(socketpair(AF_INET, SOCK_STREAM, 0, pair), EOPNOTSUPP);
    OK(socket(AF_INET, SOCK_DGRAM, IPPROTO_UDP));
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    become_nobody();
    ERR(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), EPERM);
}

TEST(raw_ping) {
    int fd = OK(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
    struct {
        struct icmphdr header;
        char data[8];
    } request = {.header = {.type = ICMP_ECHO, .un.echo = {.id = htons(7), .sequence = htons(1)}}};
    uint32_t sum = 0;
    for (size_t i = 0; i < sizeof request / 2; i++)
        sum += ((uint16_t *)&request)[i];
    request.header.checksum = ~((sum & 0xffff) + (sum >> 16));
    struct sockaddr_in to = at(0);
    CHECK_EQ(sendto(fd, &request, sizeof request, 0, (void *)&to, sizeof to), (ssize_t)sizeof request);
    for (;;) {
        char packet[256];
        CHECK(ready(fd, POLLIN, 1000) & POLLIN);
        ssize_t n = OK(recv(fd, packet, sizeof packet, 0));
        struct icmphdr *reply = (void *)(packet + (packet[0] & 15) * 4);
        CHECK(n >= (ssize_t)(20 + sizeof request));
        if (reply->type == ICMP_ECHOREPLY) {
            CHECK_EQ(ntohs(reply->un.echo.id), 7);
            break;
        }
    }
}

TEST(interfaces) {
    struct ifaddrs *all;
    OK(getifaddrs(&all));
    int v4 = 0, v6 = 0;
    for (struct ifaddrs *i = all; i; i = i->ifa_next) {
        if (strcmp(i->ifa_name, "lo") || !i->ifa_addr)
            continue;
        v4 |= i->ifa_addr->sa_family == AF_INET;
        v6 |= i->ifa_addr->sa_family == AF_INET6;
    }
    CHECK(v4 && v6);
    int fd = OK(socket(AF_INET, SOCK_DGRAM, 0));
    struct ifreq r = {.ifr_name = "lo"};
    OK(ioctl(fd, SIOCGIFFLAGS, &r));
    CHECK(r.ifr_flags & IFF_UP && r.ifr_flags & IFF_LOOPBACK);
    OK(ioctl(fd, SIOCGIFADDR, &r));
    CHECK_EQ(((struct sockaddr_in *)&r.ifr_addr)->sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    OK(ioctl(fd, SIOCGIFMTU, &r));
    CHECK_EQ(r.ifr_mtu, 65536);
    strcpy(r.ifr_name, "none");
    ERR(ioctl(fd, SIOCGIFFLAGS, &r), ENODEV);
    char name[IF_NAMESIZE];
    CHECK(if_indextoname(if_nametoindex("lo"), name));
    STR_EQ(name, "lo");
    struct ifreq list[8];
    struct ifconf conf = {.ifc_len = sizeof list, .ifc_req = list};
    OK(ioctl(fd, SIOCGIFCONF, &conf));
    CHECK_EQ(conf.ifc_len, sizeof *list);
    STR_EQ(list[0].ifr_name, "lo");
    conf = (struct ifconf){.ifc_len = 0, .ifc_req = NULL};
    OK(ioctl(fd, SIOCGIFCONF, &conf));
    CHECK_EQ(conf.ifc_len, sizeof *list);
    conf = (struct ifconf){.ifc_len = 3, .ifc_req = list};
    OK(ioctl(fd, SIOCGIFCONF, &conf));
    CHECK_EQ(conf.ifc_len, 0);
    ERR(ioctl(fd, SIOCGIFCONF, BAD_ADDRESS), EFAULT);
}

TEST(interfaces_can_t_be_changed) {
    become_nobody();
    int fd = OK(socket(AF_INET, SOCK_DGRAM, 0));
    struct ifreq r = {.ifr_name = "lo"};
    ERR(ioctl(fd, SIOCSIFFLAGS, &r), EPERM);
    ERR(ioctl(fd, SIOCSIFMTU, &r), EPERM);
}

// Sends a request of rtnetlink and gives the type of the first message of the answer.
static int ask(int fd, int type, int flags, int *error) {
    struct {
        struct nlmsghdr header;
        struct ifinfomsg info;
    } request = {.header = {.nlmsg_len = sizeof request, .nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags, .nlmsg_seq = 5}};
    OK(send(fd, &request, sizeof request, 0));
    static char answer[65536];
    OK(recv(fd, answer, sizeof answer, 0));
    struct nlmsghdr *first = (void *)answer;
    CHECK_EQ(first->nlmsg_seq, 5);
    if (first->nlmsg_type == NLMSG_ERROR)
        *error = -((struct nlmsgerr *)NLMSG_DATA(first))->error;
    return first->nlmsg_type;
}

TEST(route_netlink) {
    int fd = OK(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    struct sockaddr_nl own = {.nl_family = AF_NETLINK}, from;
    OK(bind(fd, (void *)&own, sizeof own));
    socklen_t length = sizeof own;
    OK(getsockname(fd, (void *)&own, &length));
    CHECK(length == sizeof own && own.nl_pid);
    int error = 0;
    CHECK_EQ(ask(fd, RTM_GETLINK, NLM_F_DUMP, &error), RTM_NEWLINK);
    char text[65536];
    length = sizeof from;
    ssize_t n;
    do
        n = OK(recvfrom(fd, text, sizeof text, 0, (void *)&from, &length));
    while (((struct nlmsghdr *)text)->nlmsg_type != NLMSG_DONE && n);
    CHECK_EQ(from.nl_pid, 0);
    ERR(recv(fd, text, sizeof text, MSG_DONTWAIT), EAGAIN);
    CHECK_EQ(ask(fd, RTM_GETLINK, 0, &error), NLMSG_ERROR);
    CHECK_EQ(error, EINVAL);
    ERR(socket(AF_NETLINK, SOCK_STREAM, NETLINK_ROUTE), ESOCKTNOSUPPORT);
}

TEST(proc_net) {
    l = listener(AF_INET);
    char line[64];
    snprintf(line, sizeof line, "0100007F:%04X 00000000:0000 0A", port_of(l));
    CHECK(strstr(slurp("/proc/net/tcp"), line));
    char link[64] = {0}, path[64], inode[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", l);
    CHECK(OK(readlink(path, link, sizeof link - 1)) > 9);
    snprintf(inode, sizeof inode, " %ld ", atol(link + 8));
    CHECK(!strncmp(link, "socket:[", 8) && strstr(slurp("/proc/net/tcp"), inode));
    CHECK(strstr(slurp("/proc/net/dev"), "lo:"));
    CHECK(strstr(slurp("/proc/net/if_inet6"), "00000000000000000000000000000001"));
    CHECK(strstr(slurp("/sys/class/net/lo/mtu"), "65536"));
    CHECK(strstr(slurp("/proc/self/net/udp"), "local_address"));
}
