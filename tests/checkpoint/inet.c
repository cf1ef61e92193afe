// TCP and UDP between sockets of the sandbox.
#include "check.h"
#include <arpa/inet.h>
#include <linux/errqueue.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static struct sockaddr_in at(int port) {
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int bound(int type, int port, int *got) {
    struct sockaddr_in a = at(port);
    socklen_t len = sizeof a;
    int s = socket(AF_INET, type, 0);
    CHECK(s >= 0 && !bind(s, (void *)&a, len) && !getsockname(s, (void *)&a, &len));
    *got = ntohs(a.sin_port);
    return s;
}

static int listener(int *port) {
    int s = bound(SOCK_STREAM, 0, port);
    CHECK(!listen(s, 5));
    return s;
}

static int connected(int port) {
    struct sockaddr_in a = at(port);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(s >= 0 && !connect(s, (void *)&a, sizeof a));
    return s;
}

static int accepted(int s) {
    int a = accept(s, NULL, NULL);
    CHECK(a >= 0);
    return a;
}

TEST(a_connection) {
    int port, s = listener(&port), client = connected(port), server = accepted(s), on = 1, value;
    char b[100];
    socklen_t len = sizeof value;
    struct sockaddr_in before, after;
    socklen_t size = sizeof before;
    CHECK(!setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, 4) && !setsockopt(server, SOL_SOCKET, SO_KEEPALIVE, &on, 4));
    CHECK(!getsockname(client, (void *)&before, &size) && send(client, "hello", 5, 0) == 5 && send(server, "back", 4, 0) == 4);
    close(s);
    RESTORED();
    size = sizeof after;
    CHECK(!getpeername(server, (void *)&after, &size) && after.sin_port == before.sin_port);
    CHECK(!getsockopt(client, IPPROTO_TCP, TCP_NODELAY, &value, &len) && value == 1);
    CHECK(!getsockopt(server, SOL_SOCKET, SO_KEEPALIVE, &value, &len) && value == 1);
    CHECK(!ioctl(server, FIONREAD, &value) && value == 5);
    CHECK(recv(server, b, 100, 0) == 5 && !memcmp(b, "hello", 5) && recv(client, b, 100, 0) == 4 && !memcmp(b, "back", 4));
    CHECK(recv(client, b, 100, MSG_DONTWAIT) < 0 && errno == EAGAIN);
    CHECK(send(client, "more", 4, 0) == 4 && recv(server, b, 100, 0) == 4 && !shutdown(client, SHUT_WR));
    CHECK(recv(server, b, 100, 0) == 0 && send(server, "end", 3, 0) == 3 && !close(server));
    CHECK(recv(client, b, 100, 0) == 3 && recv(client, b, 100, 0) == 0);
}

TEST(a_listener) {
    int port, s = listener(&port), first = connected(port), second = connected(port), reset = connected(port);
    char b[10];
    struct linger linger = {1, 0};
    CHECK(send(first, "1", 1, 0) == 1 && send(second, "2", 1, 0) == 1 && !shutdown(second, SHUT_WR));
    CHECK(!setsockopt(reset, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) && !close(reset));
    RESTORED();
    int a = accepted(s), c = accepted(s);
    CHECK(recv(a, b, 10, 0) == 1 && *b == '1' && recv(c, b, 10, 0) == 1 && *b == '2' && recv(c, b, 10, 0) == 0);
    CHECK(send(a, "x", 1, 0) == 1 && recv(first, b, 10, 0) == 1);
    struct pollfd p = {s, POLLIN, 0};
    int third = connected(port), d;
    CHECK(poll(&p, 1, 1000) == 1);
    // The one that was reset may stand in between.
    do
        d = accepted(s);
    while (recv(d, b, 10, MSG_DONTWAIT) < 0 && errno == ECONNRESET);
    CHECK(send(d, "y", 1, 0) == 1 && recv(third, b, 10, 0) == 1 && *b == 'y');
    int other = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in taken = at(port);
    CHECK(bind(other, (void *)&taken, sizeof taken) < 0 && errno == EADDRINUSE);
}

TEST(an_accept_that_waits) {
    int port, s = listener(&port), status;
    char b[10];
    pid_t child = fork();
    if (!child) {
        int a = accepted(s);
        CHECK(recv(a, b, 10, 0) == 4 && send(a, b, 4, 0) == 4);
        _exit(0);
    }
    usleep(20000);
    RESTORED();
    int c = connected(port);
    CHECK(send(c, "ping", 4, 0) == 4 && recv(c, b, 10, 0) == 4);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

TEST(a_full_connection) {
    int port, s = listener(&port), client = connected(port), server = accepted(s), ep = epoll_create1(0);
    static char b[65536];
    long sent = 0, got = 0;
    for (ssize_t n; (n = send(client, b, sizeof b, MSG_DONTWAIT)) > 0;)
        sent += n;
    struct epoll_event e = {EPOLLOUT | EPOLLET, {.u64 = 5}};
    CHECK(errno == EAGAIN && !epoll_ctl(ep, EPOLL_CTL_ADD, client, &e) && epoll_wait(ep, &e, 1, 0) == 0);
    RESTORED();
    while (got < sent) {
        ssize_t n = recv(server, b, sizeof b, 0);
        CHECK(n > 0);
        got += n;
    }
    CHECK(got == sent && epoll_wait(ep, &e, 1, 5000) == 1 && e.data.u64 == 5);
    CHECK_EQ(send(client, b, 100, MSG_DONTWAIT), 100);
}

TEST(a_peer_that_is_gone) {
    int port, s = listener(&port), client = connected(port), server = accepted(s);
    char b[10];
    CHECK(send(server, "last", 4, 0) == 4 && !close(server));
    usleep(10000);
    RESTORED();
    struct pollfd p = {client, POLLIN | POLLRDHUP, 0};
    CHECK(poll(&p, 1, 1000) == 1 && p.revents & POLLRDHUP);
    CHECK(recv(client, b, 10, 0) == 4 && recv(client, b, 10, 0) == 0);
    CHECK_EQ(send(client, "x", 1, MSG_NOSIGNAL), 1);
    usleep(10000);
    CHECK(send(client, "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
}

TEST(ipv6) {
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT}, any = {.sin6_family = AF_INET6};
    socklen_t len = sizeof a;
    char b[10];
    int s = socket(AF_INET6, SOCK_STREAM, 0), dual = socket(AF_INET6, SOCK_STREAM, 0), client = socket(AF_INET6, SOCK_STREAM, 0);
    if (bind(s, (void *)&a, len) && errno == EADDRNOTAVAIL) {
        READY();
        return;
    }
    CHECK(!getsockname(s, (void *)&a, &len) && !listen(s, 1) && !connect(client, (void *)&a, sizeof a));
    CHECK(!bind(dual, (void *)&any, sizeof any) && !getsockname(dual, (void *)&any, &len) && !listen(dual, 1));
    int server = accepted(s);
    CHECK_EQ(send(client, "six", 3, 0), 3);
    RESTORED();
    CHECK_EQ(recv(server, b, 10, 0), 3);
    int c = connected(ntohs(any.sin6_port)), d = accepted(dual);
    CHECK(send(c, "four", 4, 0) == 4 && recv(d, b, 10, 0) == 4);
}

TEST(datagrams) {
    int port, own, s = bound(SOCK_DGRAM, 0, &port), client = bound(SOCK_DGRAM, 0, &own), on = 1;
    struct sockaddr_in to = at(port), from;
    socklen_t len = sizeof from;
    char b[10];
    CHECK(!setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, 4) && !connect(client, (void *)&to, sizeof to));
    CHECK(send(client, "one", 3, 0) == 3 && send(client, "", 0, 0) == 0 && send(client, "three", 5, 0) == 5);
    RESTORED();
    CHECK(recvfrom(s, b, 10, 0, (void *)&from, &len) == 3 && from.sin_port == htons(own));
    CHECK(recv(s, b, 10, 0) == 0 && recv(s, b, 2, MSG_TRUNC) == 5 && recv(s, b, 10, MSG_DONTWAIT) < 0 && errno == EAGAIN);
    CHECK(send(client, "again", 5, 0) == 5 && recvfrom(s, b, 10, 0, (void *)&from, &len) == 5);
    CHECK(sendto(s, "answer", 6, 0, (void *)&from, len) == 6 && recv(client, b, 10, 0) == 6);
    // Connected: it takes nothing of others.
    int other = socket(AF_INET, SOCK_DGRAM, 0);
    to = at(own);
    CHECK(sendto(other, "x", 1, 0, (void *)&to, sizeof to) == 1 && recv(client, b, 10, MSG_DONTWAIT) < 0 && errno == EAGAIN);
    close(s);
    CHECK_EQ(send(client, "x", 1, 0), 1);
    usleep(1000);
    CHECK(send(client, "x", 1, 0) < 0 && errno == ECONNREFUSED);
    CHECK(bound(SOCK_DGRAM, port, &port) >= 0);
}

TEST(urgent_data) {
    int port, s = listener(&port), client = connected(port), server = accepted(s);
    char b[10];
    CHECK(send(client, "ab", 2, 0) == 2 && send(client, "!", 1, MSG_OOB) == 1);
    usleep(10000);
    RESTORED();
    CHECK(recv(server, b, 10, MSG_OOB) == 1 && *b == '!');
    CHECK(recv(server, b, 10, 0) == 2 && !memcmp(b, "ab", 2));
}

TEST(errors_that_nobody_has_read) {
    int port, on = 1, gone = bound(SOCK_DGRAM, 0, &port), s = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in to = at(port), was;
    CHECK(!close(gone) && !setsockopt(s, SOL_IP, IP_RECVERR, &on, sizeof on));
    CHECK_EQ(sendto(s, "first", 5, 0, (void *)&to, sizeof to), 5);
    struct pollfd p = {s, POLLIN, 0};
    CHECK(poll(&p, 1, 5000) == 1 && p.revents & POLLERR);
    RESTORED();
    char data[16] = "", control[200];
    struct iovec v = {data, sizeof data};
    struct msghdr m = {.msg_name = &was, .msg_namelen = sizeof was, .msg_iov = &v, .msg_iovlen = 1,
                       .msg_control = control, .msg_controllen = sizeof control};
    CHECK_EQ(poll(&p, 1, 0), 1);
    CHECK_EQ(recvmsg(s, &m, MSG_ERRQUEUE), 5);
    STR_EQ(data, "first");
    CHECK(was.sin_port == to.sin_port && was.sin_addr.s_addr == to.sin_addr.s_addr);
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    CHECK(c && c->cmsg_level == SOL_IP && c->cmsg_type == IP_RECVERR);
    struct sock_extended_err *e = (void *)CMSG_DATA(c);
    CHECK(e->ee_errno == ECONNREFUSED && e->ee_origin == SO_EE_ORIGIN_ICMP && e->ee_type == 3 && e->ee_code == 3);
    CHECK(((struct sockaddr_in *)SO_EE_OFFENDER(e))->sin_addr.s_addr == to.sin_addr.s_addr);
    ERR(recvmsg(s, &m, MSG_ERRQUEUE), EAGAIN);
    CHECK_EQ(poll(&p, 1, 0), 0);
}

TEST(a_filter_that_stays) {
    int port, on = 1, s = bound(SOCK_DGRAM, 0, &port), client = socket(AF_INET, SOCK_DGRAM, 0);
    // Datagrams that begin with 'a', behind the header of UDP.
    struct sock_filter code[] = {{BPF_LD | BPF_B | BPF_ABS, 0, 0, 8},
                                 {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 'a'},
                                 {BPF_RET | BPF_K, 0, 0, 0xffff},
                                 {BPF_RET | BPF_K, 0, 0, 0}};
    struct sock_fprog program = {4, code};
    CHECK(!setsockopt(s, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program));
    CHECK(!setsockopt(s, SOL_SOCKET, SO_LOCK_FILTER, &on, sizeof on));
    RESTORED();
    struct sockaddr_in to = at(port);
    char data[8];
    CHECK(sendto(client, "b1", 2, 0, (void *)&to, sizeof to) == 2 && sendto(client, "a2", 2, 0, (void *)&to, sizeof to) == 2);
    CHECK(recv(s, data, sizeof data, 0) == 2 && data[0] == 'a' && data[1] == '2');
    ERR(recv(s, data, sizeof data, MSG_DONTWAIT), EAGAIN);
    ERR(setsockopt(s, SOL_SOCKET, SO_DETACH_FILTER, &on, sizeof on), EPERM);
}
