// Sockets beyond the first use: limits, timeouts, sharing of addresses, garbage, options, rtnetlink.
#include "check.h"
#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

static int s[2];

static void pair(int type) {
    OK(socketpair(AF_UNIX, type, 0, s));
}

static struct sockaddr_in at(uint32_t ip, uint16_t port) {
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(ip)};
}

static uint16_t port_of(int fd) {
    struct sockaddr_in6 a;
    socklen_t length = sizeof a;
    OK(getsockname(fd, (struct sockaddr *)&a, &length));
    return ntohs(a.sin6_port);
}

static int set(int fd, int level, int name, int value) {
    return setsockopt(fd, level, name, &value, sizeof value);
}

static int get(int fd, int level, int name) {
    int value = -12345;
    socklen_t length = sizeof value;
    OK(getsockopt(fd, level, name, &value, &length));
    return value;
}

static int bound(int type, uint32_t ip, uint16_t port) {
    int fd = OK(socket(AF_INET, type, 0));
    struct sockaddr_in a = at(ip, port);
    OK(bind(fd, (struct sockaddr *)&a, sizeof a));
    return fd;
}

static int try_bind(int fd, uint32_t ip, uint16_t port) {
    struct sockaddr_in a = at(ip, port);
    return bind(fd, (struct sockaddr *)&a, sizeof a);
}

static int dial(int fd, uint16_t port) {
    struct sockaddr_in a = at(INADDR_LOOPBACK, port);
    return connect(fd, (struct sockaddr *)&a, sizeof a);
}

static int l, c, a;

static void connected(void) {
    l = bound(SOCK_STREAM, INADDR_LOOPBACK, 0);
    OK(listen(l, 5));
    c = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(dial(c, port_of(l)));
    a = OK(accept(l, NULL, NULL));
}

static struct sockaddr_un name(const char *path) {
    struct sockaddr_un u = {.sun_family = AF_UNIX};
    strcpy(u.sun_path, path);
    return u;
}

static int send_fds(int to, const int *fds, int count) {
    char control[CMSG_SPACE(sizeof(int) * 10)] = {0};
    struct iovec v = {"f", 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(sizeof(int) * count)};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = CMSG_LEN(sizeof(int) * count);
    memcpy(CMSG_DATA(h), fds, sizeof(int) * count);
    return sendmsg(to, &m, MSG_DONTWAIT);
}

static void on_signal(int n) {
    (void)n;
}

// The handler asks for a restart.
static void alarm_in_20_ms(void) {
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    OK(sigaction(SIGALRM, &act, NULL));
    struct itimerval t = {.it_value.tv_usec = 20000};
    OK(setitimer(ITIMER_REAL, &t, NULL));
}

TEST(a_receive_timeout_forbids_the_restart) {
    pair(SOCK_STREAM);
    struct timeval t = {5, 0};
    OK(setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
    alarm_in_20_ms();
    char x;
    ERR(read(s[0], &x, 1), EINTR);
}

TEST(without_a_timeout_the_call_is_restarted) {
    pair(SOCK_STREAM);
    pid_t pid = CHILD(usleep(60000); write(s[1], "x", 1));
    alarm_in_20_ms();
    char x;
    CHECK_EQ(read(s[0], &x, 1), 1);
    wait_for(pid);
}

TEST(timeouts_are_shown) {
    pair(SOCK_STREAM);
    struct timeval t = {2, 500000};
    OK(setsockopt(s[0], SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t));
    memset(&t, 0, sizeof t);
    socklen_t length = sizeof t;
    OK(getsockopt(s[0], SOL_SOCKET, SO_SNDTIMEO, &t, &length));
    CHECK_EQ(t.tv_sec, 2);
    CHECK_EQ(t.tv_usec, 500000);
    t.tv_usec = 1000000;
    ERR(setsockopt(s[0], SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t), EDOM);
}

TEST(a_datagram_queue_is_short_for_strangers) {
    int r = OK(socket(AF_UNIX, SOCK_DGRAM, 0)), w = OK(socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0));
    struct sockaddr_un u = name("r");
    OK(bind(r, (struct sockaddr *)&u, sizeof u));
    OK(connect(w, (struct sockaddr *)&u, sizeof u));
    int sent = 0;
    while (send(w, "x", 1, 0) == 1)
        sent++;
    CHECK_EQ(errno, EAGAIN);
    CHECK(sent >= 10 && sent < 1000);
    struct pollfd f = {w, POLLOUT, 0};
    CHECK_EQ(poll(&f, 1, 0), 0);
    pid_t pid = CHILD(usleep(20000); char x[4]; while (recv(r, x, 4, MSG_DONTWAIT) == 1){});
    CHECK_EQ(poll(&f, 1, 5000), 1);
    CHECK_EQ(send(w, "x", 1, 0), 1);
    wait_for(pid);
}

TEST(connect_waits_for_the_backlog) {
    int server = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    struct sockaddr_un u = name("s");
    OK(bind(server, (struct sockaddr *)&u, sizeof u));
    OK(listen(server, 0));
    int first = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    OK(connect(first, (struct sockaddr *)&u, sizeof u));
    pid_t pid = CHILD(usleep(30000); OK(accept(server, NULL, NULL)); usleep(100000));
    int second = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    long long start = now_ms();
    OK(connect(second, (struct sockaddr *)&u, sizeof u));
    CHECK(now_ms() - start >= 20);
    wait_for(pid);
}

TEST(listen_and_accept_of_the_wrong_type) {
    int fd = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
    ERR(listen(fd, 1), EOPNOTSUPP);
    ERR(accept(fd, NULL, NULL), EOPNOTSUPP);
    fd = OK(socket(AF_INET, SOCK_DGRAM, 0));
    ERR(listen(fd, 1), EOPNOTSUPP);
    fd = OK(socket(AF_INET, SOCK_STREAM, 0));
    ERR(accept(fd, NULL, NULL), EINVAL);
    fd = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    ERR(listen(fd, 1), EINVAL); // without a name
}

TEST(name_lengths) {
    int fd = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    struct sockaddr_un u;
    socklen_t length = sizeof u;
    OK(getsockname(fd, (struct sockaddr *)&u, &length));
    CHECK_EQ(length, 2);
    u = name("four");
    OK(bind(fd, (struct sockaddr *)&u, offsetof(struct sockaddr_un, sun_path) + 4));
    length = sizeof u;
    OK(getsockname(fd, (struct sockaddr *)&u, &length));
    CHECK_EQ(length, 2 + 4 + 1);
    length = 4; // cut, but told whole
    OK(getsockname(fd, (struct sockaddr *)&u, &length));
    CHECK_EQ(length, 2 + 4 + 1);
    length = -1;
    ERR(getsockname(fd, (struct sockaddr *)&u, &length), EINVAL);
    struct stat st;
    OK(stat("four", &st));
}

TEST(a_full_length_path_has_no_zero_byte) {
    int fd = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    struct sockaddr_un u = {.sun_family = AF_UNIX};
    memset(u.sun_path, 'x', sizeof u.sun_path);
    OK(bind(fd, (struct sockaddr *)&u, sizeof u));
    char big[200];
    socklen_t length = sizeof big;
    OK(getsockname(fd, (struct sockaddr *)big, &length));
    CHECK_EQ(length, 2 + 108 + 1);
    ERR(bind(fd, (struct sockaddr *)big, 111), EINVAL);
}

TEST(a_socket_node_has_the_umask) {
    umask(027);
    int fd = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    struct sockaddr_un u = name("s");
    OK(bind(fd, (struct sockaddr *)&u, sizeof u));
    struct stat st;
    OK(stat("s", &st));
    CHECK_EQ(st.st_mode, S_IFSOCK | 0750);
    ERR(open("s", O_RDWR), ENXIO);
}

TEST(descriptors_end_a_read) {
    pair(SOCK_STREAM);
    CHECK_EQ(write(s[0], "ab", 2), 2);
    int fd = 0;
    CHECK_EQ(send_fds(s[0], &fd, 1), 1);
    CHECK_EQ(write(s[0], "cd", 2), 2);
    char text[10], control[64];
    struct iovec v = {text, 10};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    CHECK_EQ(recvmsg(s[1], &m, MSG_PEEK), 3);
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    CHECK(h && h->cmsg_type == SCM_RIGHTS); // peeked ones are the reader's, too
    m.msg_controllen = sizeof control;
    CHECK_EQ(recvmsg(s[1], &m, 0), 3);
    CHECK(CMSG_FIRSTHDR(&m));
    m.msg_controllen = sizeof control;
    CHECK_EQ(recvmsg(s[1], &m, 0), 2);
    CHECK(!CMSG_FIRSTHDR(&m));
}

TEST(no_room_for_descriptors_at_all) {
    pair(SOCK_STREAM);
    int fd = 0;
    CHECK_EQ(send_fds(s[0], &fd, 1), 1);
    char text[10];
    struct iovec v = {text, 10};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    CHECK_EQ(recvmsg(s[1], &m, 0), 1);
    CHECK(m.msg_flags & MSG_CTRUNC);
    CHECK_EQ(m.msg_controllen, 0);
}

TEST(bad_control_data) {
    pair(SOCK_STREAM);
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec v = {"f", 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = 99;
    h->cmsg_len = CMSG_LEN(sizeof(int));
    ERR(sendmsg(s[0], &m, 0), EINVAL);
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = 1000;
    ERR(sendmsg(s[0], &m, 0), EINVAL);
    m.msg_control = BAD_ADDRESS;
    ERR(sendmsg(s[0], &m, 0), EFAULT);
}

TEST(false_credentials_are_refused) {
    pair(SOCK_DGRAM);
    EXITED(wait_for(CHILD({
               become_nobody();
               char control[CMSG_SPACE(sizeof(struct ucred))] = {0};
               struct iovec v = {"f", 1};
               struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
               struct cmsghdr *h = CMSG_FIRSTHDR(&m);
               h->cmsg_level = SOL_SOCKET;
               h->cmsg_type = SCM_CREDENTIALS;
               h->cmsg_len = CMSG_LEN(sizeof(struct ucred));
               struct ucred u = {getpid(), 0, 65534};
               memcpy(CMSG_DATA(h), &u, sizeof u);
               ERR(sendmsg(s[0], &m, 0), EPERM);
               u.uid = 65534;
               memcpy(CMSG_DATA(h), &u, sizeof u);
               OK(sendmsg(s[0], &m, 0));
           })),
           0);
}

TEST(credentials_of_a_plain_write_are_the_writer_s) {
    pair(SOCK_STREAM);
    OK(set(s[1], SOL_SOCKET, SO_PASSCRED, 1));
    pid_t pid = CHILD(CHECK_EQ(write(s[0], "x", 1), 1));
    char text[10], control[64];
    struct iovec v = {text, 10};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    CHECK_EQ(recvmsg(s[1], &m, 0), 1);
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    CHECK(h && h->cmsg_type == SCM_CREDENTIALS);
    CHECK_EQ(((struct ucred *)CMSG_DATA(h))->pid, pid);
    wait_for(pid);
}

// Each round leaves two sockets in each other's queues. An ordinary user may have only so many in flight:
// without collection, which the end of any socket sets off, this ends with ETOOMANYREFS.
TEST(cycles_are_collected) {
    become_nobody();
    struct rlimit r = {64, 64};
    OK(setrlimit(RLIMIT_NOFILE, &r));
    for (int i = 0; i < 100; i++) {
        pair(i % 2 ? SOCK_STREAM : SOCK_DGRAM);
        int both[2] = {s[0], s[1]};
        EVENTUALLY(send_fds(s[0], both, 2) == 1);
        EVENTUALLY(send_fds(s[1], both, 2) == 1);
        close(s[0]);
        close(s[1]);
        close(OK(socket(AF_UNIX, SOCK_STREAM, 0)));
    }
}

// Each socket lies in the queue of the next; the last one's end takes all with it: too many for a recursion.
TEST(a_long_chain_ends_at_once) {
    int held[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, held));
    for (int i = 0; i < 5000; i++) {
        int next[2];
        OK(socketpair(AF_UNIX, SOCK_STREAM, 0, next));
        CHECK_EQ(send_fds(next[0], held, 2), 1);
        close(held[0]);
        close(held[1]);
        held[0] = next[0];
        held[1] = next[1];
    }
    close(held[0]);
    close(held[1]);
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, held));
}

TEST(a_live_socket_in_flight_is_kept) {
    pair(SOCK_STREAM);
    int inner[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, inner));
    CHECK_EQ(write(inner[0], "kept", 4), 4);
    CHECK_EQ(send_fds(s[0], &inner[1], 1), 1);
    close(inner[1]);
    for (int i = 0; i < 10; i++) { // sockets that go make the collector look
        int other[2];
        OK(socketpair(AF_UNIX, SOCK_STREAM, 0, other));
        close(other[0]);
        close(other[1]);
    }
    char control[CMSG_SPACE(sizeof(int))], byte, text[10] = {0};
    struct iovec v = {&byte, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    CHECK_EQ(recvmsg(s[1], &m, 0), 1);
    CHECK(CMSG_FIRSTHDR(&m));
    CHECK_EQ(read(*(int *)CMSG_DATA(CMSG_FIRSTHDR(&m)), text, 10), 4);
    STR_EQ(text, "kept");
}

TEST(a_bad_buffer_loses_nothing) {
    pair(SOCK_STREAM);
    CHECK_EQ(write(s[0], "abc", 3), 3);
    char *volatile bad = BAD_ADDRESS;
    ERR(read(s[1], bad, 3), EFAULT);
    char text[10] = {0};
    CHECK_EQ(read(s[1], text, 10), 3);
    ERR(write(s[0], bad, 3), EFAULT);
    connected();
    CHECK_EQ(write(c, "abc", 3), 3);
    ERR(recv(a, bad, 3, 0), EFAULT);
    CHECK_EQ(recv(a, text, 10, 0), 3);
}

TEST(edge_triggered_epoll_hears_of_each_write) {
    connected();
    int e = OK(epoll_create1(0));
    struct epoll_event v = {.events = EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP};
    OK(epoll_ctl(e, EPOLL_CTL_ADD, a, &v));
    CHECK_EQ(epoll_wait(e, &v, 1, 1000), 1);
    CHECK_EQ(v.events, EPOLLOUT);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(write(c, "x", 1), 1);
        CHECK_EQ(epoll_wait(e, &v, 1, 1000), 1);
        CHECK(v.events & EPOLLIN);
    }
    CHECK_EQ(epoll_wait(e, &v, 1, 0), 0);
    close(c);
    CHECK_EQ(epoll_wait(e, &v, 1, 1000), 1);
    CHECK(v.events & EPOLLRDHUP);
}

TEST(addresses_are_shared_by_rules) {
    int x = bound(SOCK_STREAM, INADDR_LOOPBACK, 0);
    uint16_t port = port_of(x);
    int y = OK(socket(AF_INET, SOCK_STREAM, 0));
    ERR(try_bind(y, INADDR_ANY, port), EADDRINUSE);
    OK(try_bind(y, 0x7f000002, port));
    close(x);
    close(y);
    x = OK(socket(AF_INET, SOCK_STREAM, 0));
    y = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(set(x, SOL_SOCKET, SO_REUSEADDR, 1));
    OK(set(y, SOL_SOCKET, SO_REUSEADDR, 1));
    OK(try_bind(x, INADDR_LOOPBACK, port));
    OK(try_bind(y, INADDR_LOOPBACK, port));
    OK(listen(x, 1));
    ERR(listen(y, 1), EADDRINUSE);
}

TEST(reuseport_spreads) {
    int x = OK(socket(AF_INET, SOCK_STREAM, 0)), y = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(set(x, SOL_SOCKET, SO_REUSEPORT, 1));
    OK(try_bind(x, INADDR_LOOPBACK, 0));
    ERR(try_bind(y, INADDR_LOOPBACK, port_of(x)), EADDRINUSE);
    OK(set(y, SOL_SOCKET, SO_REUSEPORT, 1));
    OK(try_bind(y, INADDR_LOOPBACK, port_of(x)));
    OK(listen(x, 100));
    OK(listen(y, 100));
    for (int i = 0; i < 60; i++)
        OK(dial(OK(socket(AF_INET, SOCK_STREAM, 0)), port_of(x)));
    fcntl(x, F_SETFL, O_NONBLOCK);
    fcntl(y, F_SETFL, O_NONBLOCK);
    int of_x = 0, of_y = 0;
    sleep_ms(10);
    while (accept(x, NULL, NULL) >= 0)
        of_x++;
    while (accept(y, NULL, NULL) >= 0)
        of_y++;
    CHECK_EQ(of_x + of_y, 60);
    CHECK(of_x && of_y);
}

TEST(ipv6_only_leaves_ipv4_alone) {
    int six = socket(AF_INET6, SOCK_STREAM, 0);
    if (six < 0)
        SKIP("no IPv6");
    OK(set(six, IPPROTO_IPV6, IPV6_V6ONLY, 1));
    struct sockaddr_in6 any = {.sin6_family = AF_INET6};
    OK(bind(six, (struct sockaddr *)&any, sizeof any));
    OK(listen(six, 1));
    ERR(set(six, IPPROTO_IPV6, IPV6_V6ONLY, 0), EINVAL);
    ERR(dial(OK(socket(AF_INET, SOCK_STREAM, 0)), port_of(six)), ECONNREFUSED);
    OK(try_bind(OK(socket(AF_INET, SOCK_STREAM, 0)), INADDR_ANY, port_of(six)));
}

TEST(a_mapped_address_reaches_ipv4) {
    connected();
    int six = socket(AF_INET6, SOCK_STREAM, 0);
    if (six < 0)
        SKIP("no IPv6");
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(port_of(l))};
    OK(inet_pton(AF_INET6, "::ffff:127.0.0.1", &to.sin6_addr));
    OK(connect(six, (struct sockaddr *)&to, sizeof to));
    socklen_t length = sizeof to;
    OK(getsockname(six, (struct sockaddr *)&to, &length));
    CHECK_EQ(length, 28);
    CHECK(IN6_IS_ADDR_V4MAPPED(&to.sin6_addr));
    struct sockaddr_in four = at(INADDR_LOOPBACK, port_of(l));
    ERR(connect(OK(socket(AF_INET6, SOCK_STREAM, 0)), (struct sockaddr *)&four, sizeof four), EINVAL);
    struct sockaddr_storage unknown = {.ss_family = AF_UNIX};
    ERR(connect(OK(socket(AF_INET6, SOCK_STREAM, 0)), (struct sockaddr *)&unknown, sizeof unknown), EAFNOSUPPORT);
}

TEST(poll_tells_of_a_refusal) {
    int fd = OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    l = bound(SOCK_STREAM, INADDR_LOOPBACK, 0);
    ERR(dial(fd, port_of(l)), EINPROGRESS); // bound, but nobody listens
    struct pollfd f = {fd, POLLIN | POLLOUT, 0};
    CHECK_EQ(poll(&f, 1, 1000), 1);
    CHECK_EQ(f.revents, POLLIN | POLLOUT | POLLERR | POLLHUP);
    CHECK_EQ(get(fd, SOL_SOCKET, SO_ERROR), ECONNREFUSED);
    CHECK_EQ(get(fd, SOL_SOCKET, SO_ERROR), 0);
}

TEST(connect_says_so_once) {
    connected();
    int fd = OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    ERR(dial(fd, port_of(l)), EINPROGRESS);
    struct pollfd f = {fd, POLLOUT, 0};
    CHECK_EQ(poll(&f, 1, 1000), 1);
    CHECK_EQ(f.revents, POLLOUT);
    OK(dial(fd, port_of(l)));
    ERR(dial(fd, port_of(l)), EISCONN);
}

TEST(shutdown_of_a_listener_ends_accept) {
    l = bound(SOCK_STREAM, INADDR_LOOPBACK, 0);
    OK(listen(l, 5));
    pid_t pid = CHILD(usleep(20000); OK(shutdown(l, SHUT_RDWR)));
    ERR(accept(l, NULL, NULL), EINVAL);
    wait_for(pid);
    ERR(dial(OK(socket(AF_INET, SOCK_STREAM, 0)), port_of(l)), ECONNREFUSED);
}

TEST(a_tcp_socket_can_be_used_again) {
    connected();
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    OK(connect(c, &none, sizeof none));
    char x;
    ERR(recv(a, &x, 1, 0), ECONNRESET);
    ERR(recv(c, &x, 1, 0), ECONNRESET);
    ERR(recv(c, &x, 1, 0), ENOTCONN);
    OK(dial(c, port_of(l)));
    a = OK(accept(l, NULL, NULL));
    CHECK_EQ(write(a, "x", 1), 1);
    CHECK_EQ(recv(c, &x, 1, 0), 1);
    ERR(recv(c, &x, 1, MSG_ERRQUEUE), EAGAIN);
}

TEST(tcp_errors_without_a_connection) {
    int fd = OK(socket(AF_INET, SOCK_STREAM, 0));
    char x;
    ERR(recv(fd, &x, 1, 0), ENOTCONN);
    ERR(send(fd, &x, 1, MSG_NOSIGNAL), EPIPE);
    ERR(shutdown(fd, SHUT_RDWR), ENOTCONN);
    struct sockaddr_in to = at(INADDR_LOOPBACK, 1);
    ERR(connect(fd, (struct sockaddr *)&to, 8), EINVAL);
    to.sin_family = AF_UNIX;
    ERR(connect(fd, (struct sockaddr *)&to, sizeof to), EAFNOSUPPORT);
}

TEST(a_write_ends_with_what_was_taken) {
    connected();
    struct timeval t = {0, 50000};
    OK(setsockopt(c, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t));
    static char block[16 << 20];
    ssize_t n = OK(write(c, block, sizeof block));
    CHECK(n > 65536 && n < (ssize_t)sizeof block);
    while ((n = write(c, block, sizeof block)) > 0) {
    }
    CHECK_EQ(errno, EAGAIN);
}

TEST(trunc_throws_tcp_bytes_away) {
    connected();
    CHECK_EQ(write(c, "abcdef", 6), 6);
    char text[10] = {0};
    sleep_ms(2);
    CHECK_EQ(recv(a, text, 4, MSG_TRUNC), 4);
    CHECK_EQ(text[0], 0);
    CHECK_EQ(recv(a, text, 10, 0), 2);
    STR_EQ(text, "ef");
}

TEST(values_of_options) {
    connected();
    CHECK_EQ(get(c, IPPROTO_TCP, TCP_KEEPINTVL), 75);
    CHECK_EQ(get(c, IPPROTO_TCP, TCP_KEEPCNT), 9);
    CHECK_EQ(get(c, IPPROTO_IP, IP_TTL), 64);
    ERR(set(c, IPPROTO_IP, IP_TTL, 256), EINVAL);
    ERR(set(c, IPPROTO_TCP, TCP_KEEPCNT, 0), EINVAL);
    ERR(set(c, IPPROTO_TCP, TCP_MAXSEG, 1), EINVAL);
    ERR(set(c, IPPROTO_UDP, 1, 1), ENOPROTOOPT);
    CHECK(get(c, IPPROTO_IP, IP_MTU) >= 65535);
    struct linger linger = {1, 7}, back = {0};
    OK(setsockopt(c, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
    socklen_t length = sizeof back;
    OK(getsockopt(c, SOL_SOCKET, SO_LINGER, &back, &length));
    CHECK(back.l_onoff == 1 && back.l_linger == 7);
    unsigned char tos;
    length = 1;
    OK(getsockopt(c, IPPROTO_IP, IP_TTL, &tos, &length));
    CHECK(length == 1 && tos == 64);
    char text[16];
    length = sizeof text;
    OK(getsockopt(c, IPPROTO_TCP, TCP_CONGESTION, text, &length));
    CHECK_EQ(length, 16);
    int fd = OK(socket(AF_INET, SOCK_STREAM, 0)), value;
    CHECK_EQ(get(fd, IPPROTO_TCP, TCP_MAXSEG), 536);
    length = sizeof value;
    ERR(getsockopt(fd, IPPROTO_IP, IP_MTU, &value, &length), ENOTCONN);
}

TEST(udp_tells_where_a_message_went) {
    int r = bound(SOCK_DGRAM, INADDR_ANY, 0), w = OK(socket(AF_INET, SOCK_DGRAM, 0));
    OK(set(r, IPPROTO_IP, IP_PKTINFO, 1));
    struct sockaddr_in to = at(0x7f000005, port_of(r));
    CHECK_EQ(sendto(w, "x", 1, 0, (struct sockaddr *)&to, sizeof to), 1);
    char text[10], control[64];
    struct iovec v = {text, 10};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    CHECK_EQ(recvmsg(r, &m, 0), 1);
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    CHECK(h && h->cmsg_level == IPPROTO_IP && h->cmsg_type == IP_PKTINFO);
    struct in_pktinfo *info = (struct in_pktinfo *)CMSG_DATA(h);
    CHECK_EQ(info->ipi_ifindex, (int)if_nametoindex("lo"));
    CHECK_EQ(ntohl(info->ipi_addr.s_addr), 0x7f000005);
}

TEST(udp_can_be_disconnected) {
    int r = bound(SOCK_DGRAM, INADDR_LOOPBACK, 0), w = OK(socket(AF_INET, SOCK_DGRAM, 0));
    OK(dial(w, port_of(r)));
    CHECK_EQ(send(w, "x", 1, 0), 1);
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    OK(connect(w, &none, sizeof none));
    ERR(send(w, "x", 1, 0), EDESTADDRREQ);
    struct sockaddr_in name;
    socklen_t length = sizeof name;
    ERR(getpeername(w, (struct sockaddr *)&name, &length), ENOTCONN);
    struct sockaddr_in to = at(INADDR_LOOPBACK, 0);
    ERR(sendto(w, "x", 1, 0, (struct sockaddr *)&to, sizeof to), EINVAL);
    to = at(INADDR_BROADCAST, 99);
    CHECK_EQ(sendto(w, "x", 1, 0, (struct sockaddr *)&to, sizeof to), -1);
}

TEST(udp_loses_what_finds_no_room) {
    int r = bound(SOCK_DGRAM, INADDR_LOOPBACK, 0), w = OK(socket(AF_INET, SOCK_DGRAM, 0));
    OK(set(r, SOL_SOCKET, SO_RCVBUF, 10000));
    OK(dial(w, port_of(r)));
    static char block[1000];
    for (int i = 0; i < 1000; i++)
        CHECK_EQ(send(w, block, sizeof block, 0), (ssize_t)sizeof block);
    int got = 0;
    while (recv(r, block, sizeof block, MSG_DONTWAIT) > 0)
        got++;
    CHECK(got >= 2 && got < 100);
}

TEST(proc_net_lists_sockets) {
    connected();
    int u = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    struct sockaddr_un n = {.sun_family = AF_UNIX, .sun_path = "\0moat-listed"};
    OK(bind(u, (struct sockaddr *)&n, 14));
    OK(listen(u, 1));
    CHECK(strstr(slurp("/proc/net/unix"), "00010000 0001 01"));
    CHECK(strstr(slurp("/proc/net/unix"), "@moat-listed"));
    char want[40];
    snprintf(want, sizeof want, "0100007F:%04X 00000000:0000 0A", port_of(l));
    CHECK(strstr(slurp("/proc/net/tcp"), want));
}

TEST(rtnetlink_lists_the_loopback) {
    int fd = OK(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    struct sockaddr_nl me = {.nl_family = AF_NETLINK};
    OK(bind(fd, (struct sockaddr *)&me, sizeof me));
    struct {
        struct nlmsghdr h;
        struct rtgenmsg g;
    } ask = {{NLMSG_LENGTH(sizeof(struct rtgenmsg)), RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 7, 0}, {AF_UNSPEC}};
    OK(send(fd, &ask, sizeof ask, 0));
    static char text[32768];
    int loopbacks = 0;
    for (;;) {
        int n = OK(recv(fd, text, sizeof text, 0));
        struct nlmsghdr *h;
        for (h = (struct nlmsghdr *)text; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
            CHECK_EQ(h->nlmsg_seq, 7);
            if (h->nlmsg_type == NLMSG_DONE)
                goto done;
            CHECK_EQ(h->nlmsg_type, RTM_NEWLINK);
            struct ifinfomsg *i = NLMSG_DATA(h);
            loopbacks += !!(i->ifi_flags & IFF_LOOPBACK);
        }
    }
done:
    CHECK_EQ(loopbacks, 1);
}
