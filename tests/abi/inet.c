// TCP and UDP over the loopback device: connections, ends, errors, options, names.
#include "check.h"
#include <arpa/inet.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <net/if.h>

static struct sockaddr_in at(uint16_t port) {
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static uint16_t port_of(int fd) {
    struct sockaddr_in a;
    socklen_t length = sizeof a;
    OK(getsockname(fd, (struct sockaddr *)&a, &length));
    CHECK_EQ(a.sin_family, AF_INET);
    return ntohs(a.sin_port);
}

static int listener(void) {
    int fd = OK(socket(AF_INET, SOCK_STREAM, 0));
    struct sockaddr_in a = at(0);
    OK(bind(fd, (struct sockaddr *)&a, sizeof a));
    OK(listen(fd, 10));
    return fd;
}

static int dial(uint16_t port) {
    int fd = OK(socket(AF_INET, SOCK_STREAM, 0));
    struct sockaddr_in a = at(port);
    OK(connect(fd, (struct sockaddr *)&a, sizeof a));
    return fd;
}

static int c, a, l;

static void connected(void) {
    l = listener();
    c = dial(port_of(l));
    a = OK(accept(l, NULL, NULL));
}

TEST(tcp_round_trip) {
    connected();
    CHECK_EQ(write(c, "ping", 4), 4);
    char text[10] = {0};
    CHECK_EQ(read(a, text, 10), 4);
    CHECK_EQ(write(a, "pong!", 5), 5);
    CHECK_EQ(read(c, text, 10), 5);
    STR_EQ(text, "pong!");
}

TEST(tcp_names) {
    connected();
    struct sockaddr_in peer;
    socklen_t length = sizeof peer;
    OK(getpeername(a, (struct sockaddr *)&peer, &length));
    CHECK_EQ(ntohs(peer.sin_port), port_of(c));
    CHECK_EQ(peer.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    CHECK_EQ(port_of(a), port_of(l));
    ERR(getpeername(l, (struct sockaddr *)&peer, &length), ENOTCONN);
}

TEST(tcp_accept_tells_the_peer) {
    l = listener();
    c = dial(port_of(l));
    struct sockaddr_in peer;
    socklen_t length = sizeof peer;
    a = OK(accept4(l, (struct sockaddr *)&peer, &length, SOCK_NONBLOCK | SOCK_CLOEXEC));
    CHECK_EQ(length, sizeof peer);
    CHECK_EQ(ntohs(peer.sin_port), port_of(c));
    CHECK(fcntl(a, F_GETFL) & O_NONBLOCK);
}

TEST(tcp_end_of_file) {
    connected();
    CHECK_EQ(write(c, "bye", 3), 3);
    close(c);
    char text[10];
    CHECK_EQ(read(a, text, 10), 3);
    CHECK_EQ(read(a, text, 10), 0);
}

TEST(tcp_half_close) {
    connected();
    OK(shutdown(c, SHUT_WR));
    char text[10];
    CHECK_EQ(read(a, text, 10), 0);
    ERR(send(c, "x", 1, MSG_NOSIGNAL), EPIPE);
    CHECK_EQ(write(a, "late", 4), 4);
    CHECK_EQ(read(c, text, 10), 4);
}

TEST(tcp_write_to_a_closed_peer) {
    connected();
    close(a);
    send(c, "x", 1, MSG_NOSIGNAL); // answered by a reset
    EVENTUALLY(send(c, "x", 1, MSG_NOSIGNAL) == -1);
    CHECK(errno == EPIPE || errno == ECONNRESET);
}

TEST(tcp_unread_data_resets) {
    connected();
    CHECK_EQ(write(c, "x", 1), 1);
    sleep_ms(5);
    close(a);
    char t;
    ERR(read(c, &t, 1), ECONNRESET);
}

TEST(tcp_linger_zero_resets) {
    connected();
    struct linger linger = {1, 0};
    OK(setsockopt(a, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
    close(a);
    char t;
    ERR(read(c, &t, 1), ECONNRESET);
}

TEST(tcp_refused) {
    l = listener();
    uint16_t port = port_of(l);
    close(l);
    int fd = OK(socket(AF_INET, SOCK_STREAM, 0));
    struct sockaddr_in to = at(port);
    ERR(connect(fd, (struct sockaddr *)&to, sizeof to), ECONNREFUSED);
}

TEST(tcp_connect_nonblocking) {
    l = listener();
    int fd = OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    struct sockaddr_in to = at(port_of(l));
    int result = connect(fd, (struct sockaddr *)&to, sizeof to);
    CHECK(result == 0 || errno == EINPROGRESS);
    struct pollfd f = {fd, POLLOUT, 0};
    CHECK_EQ(poll(&f, 1, 5000), 1);
    int error = 9;
    socklen_t length = sizeof error;
    OK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length));
    CHECK_EQ(error, 0);
    OK(connect(fd, (struct sockaddr *)&to, sizeof to) + (errno == EISCONN));
}

TEST(tcp_refused_nonblocking) {
    l = listener();
    struct sockaddr_in to = at(port_of(l));
    close(l);
    int fd = OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    int result = connect(fd, (struct sockaddr *)&to, sizeof to);
    CHECK(result == -1 && (errno == EINPROGRESS || errno == ECONNREFUSED));
    if (errno == EINPROGRESS) {
        struct pollfd f = {fd, POLLOUT, 0};
        CHECK_EQ(poll(&f, 1, 5000), 1);
        CHECK(f.revents & POLLERR);
        int error = 0;
        socklen_t length = sizeof error;
        OK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length));
        CHECK_EQ(error, ECONNREFUSED);
    }
}

TEST(bind_conflicts) {
    l = listener();
    struct sockaddr_in to = at(port_of(l));
    int fd = OK(socket(AF_INET, SOCK_STREAM, 0));
    ERR(bind(fd, (struct sockaddr *)&to, sizeof to), EADDRINUSE);
    to.sin_addr.s_addr = htonl(0x01020304);
    to.sin_port = 0;
    ERR(bind(fd, (struct sockaddr *)&to, sizeof to), EADDRNOTAVAIL);
    to = at(0);
    OK(bind(fd, (struct sockaddr *)&to, sizeof to));
    ERR(bind(fd, (struct sockaddr *)&to, sizeof to), EINVAL);
    ERR(bind(fd, (struct sockaddr *)&to, 3), EINVAL);
}

TEST(bind_of_low_ports_needs_a_capability) {
    EXITED(wait_for(CHILD({
               become_nobody();
               int fd = OK(socket(AF_INET, SOCK_STREAM, 0));
               struct sockaddr_in to = at(80);
               ERR(bind(fd, (struct sockaddr *)&to, sizeof to), EACCES);
           })),
           0);
}

TEST(reuse_address_after_a_connection) {
    l = listener();
    OK(setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)));
    c = dial(port_of(l));
    a = OK(accept(l, NULL, NULL));
    uint16_t port = port_of(l);
    close(a);
    close(c);
    close(l);
    int fd = OK(socket(AF_INET, SOCK_STREAM, 0)), on = 1;
    OK(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
    struct sockaddr_in to = at(port);
    OK(bind(fd, (struct sockaddr *)&to, sizeof to));
    OK(listen(fd, 1));
}

TEST(any_address_is_reached_by_loopback) {
    int fd = OK(socket(AF_INET, SOCK_STREAM, 0));
    struct sockaddr_in any = {.sin_family = AF_INET};
    OK(bind(fd, (struct sockaddr *)&any, sizeof any));
    OK(listen(fd, 5));
    dial(port_of(fd));
    OK(accept(fd, NULL, NULL));
}

TEST(connect_to_any_means_loopback) {
    l = listener();
    int fd = OK(socket(AF_INET, SOCK_STREAM, 0));
    struct sockaddr_in to = at(port_of(l));
    to.sin_addr.s_addr = 0;
    OK(connect(fd, (struct sockaddr *)&to, sizeof to));
}

TEST(whole_127_net_is_local) {
    int fd = OK(socket(AF_INET, SOCK_STREAM, 0));
    struct sockaddr_in to = at(0);
    to.sin_addr.s_addr = htonl(0x7f010203);
    OK(bind(fd, (struct sockaddr *)&to, sizeof to));
}

TEST(unreachable_network) {
    int fd = OK(socket(AF_INET, SOCK_STREAM, 0));
    struct sockaddr_in to = at(80);
    to.sin_addr.s_addr = htonl(0xc0000201); // 192.0.2.1
    ERR(connect(fd, (struct sockaddr *)&to, sizeof to), ENETUNREACH);
}

TEST(tcp_poll_states) {
    l = listener();
    struct pollfd f = {l, POLLIN, 0};
    CHECK_EQ(poll(&f, 1, 0), 0);
    c = dial(port_of(l));
    CHECK_EQ(poll(&f, 1, 5000), 1);
    a = OK(accept(l, NULL, NULL));
    f = (struct pollfd){a, POLLIN | POLLOUT | POLLRDHUP, 0};
    CHECK_EQ(poll(&f, 1, 0), 1);
    CHECK_EQ(f.revents, POLLOUT);
    OK(shutdown(c, SHUT_WR));
    f.events = POLLIN | POLLRDHUP;
    CHECK_EQ(poll(&f, 1, 5000), 1);
    CHECK_EQ(f.revents, POLLIN | POLLRDHUP);
    int fresh = OK(socket(AF_INET, SOCK_STREAM, 0));
    f = (struct pollfd){fresh, POLLIN | POLLOUT, 0};
    CHECK_EQ(poll(&f, 1, 0), 1);
    CHECK_EQ(f.revents, POLLOUT | POLLHUP);
}

TEST(tcp_large_transfer) {
    l = listener();
    enum { SIZE = 4 << 20 };
    pid_t pid = CHILD({
        static unsigned char block[SIZE];
        int fd = dial(port_of(l));
        for (size_t i = 0; i < SIZE; i++)
            block[i] = i / 1000;
        CHECK_EQ(write(fd, block, SIZE), SIZE);
    });
    a = OK(accept(l, NULL, NULL));
    static unsigned char block[SIZE];
    size_t got = 0;
    ssize_t n;
    while ((n = read(a, block + got, SIZE - got)) > 0)
        got += n;
    CHECK_EQ(got, SIZE);
    for (size_t i = 0; i < SIZE; i++)
        CHECK(block[i] == (unsigned char)(i / 1000));
    EXITED(wait_for(pid), 0);
}

TEST(tcp_full_buffer) {
    connected();
    OK(fcntl(c, F_SETFL, O_NONBLOCK));
    static char block[65536];
    size_t total = 0;
    ssize_t n;
    while ((n = write(c, block, sizeof block)) > 0)
        total += n;
    CHECK_EQ(errno, EAGAIN);
    struct pollfd f = {c, POLLOUT, 0};
    CHECK_EQ(poll(&f, 1, 0), 0);
    size_t got = 0;
    while (got < total)
        got += OK(read(a, block, sizeof block));
    CHECK_EQ(poll(&f, 1, 5000), 1);
}

TEST(tcp_peek_and_waitall) {
    connected();
    CHECK_EQ(write(c, "abc", 3), 3);
    char text[10] = {0};
    CHECK_EQ(recv(a, text, 10, MSG_PEEK), 3);
    pid_t pid = CHILD(usleep(10000); write(c, "def", 3));
    CHECK_EQ(recv(a, text, 6, MSG_WAITALL), 6);
    STR_EQ(text, "abcdef");
    wait_for(pid);
    ERR(recv(a, text, 1, MSG_DONTWAIT), EAGAIN);
    CHECK_EQ(write(c, "12345", 5), 5);
    int n;
    sleep_ms(2);
    OK(ioctl(a, FIONREAD, &n));
    CHECK_EQ(n, 5);
}

TEST(tcp_options) {
    connected();
    int value = 1;
    socklen_t length = sizeof value;
    OK(setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &value, sizeof value));
    value = 0;
    OK(getsockopt(c, IPPROTO_TCP, TCP_NODELAY, &value, &length));
    CHECK_EQ(value, 1);
    OK(setsockopt(c, SOL_SOCKET, SO_KEEPALIVE, &value, sizeof value));
    OK(setsockopt(c, IPPROTO_TCP, TCP_KEEPIDLE, &(int){60}, sizeof value));
    OK(getsockopt(c, IPPROTO_TCP, TCP_KEEPIDLE, &value, &length));
    CHECK_EQ(value, 60);
    OK(getsockopt(c, SOL_SOCKET, SO_PROTOCOL, &value, &length));
    CHECK_EQ(value, IPPROTO_TCP);
    struct tcp_info info;
    length = sizeof info;
    OK(getsockopt(c, IPPROTO_TCP, TCP_INFO, &info, &length));
    CHECK_EQ(info.tcpi_state, TCP_ESTABLISHED);
    ERR(setsockopt(c, IPPROTO_TCP, 9999, &value, sizeof value), ENOPROTOOPT);
    length = sizeof value;
    OK(getsockopt(c, SOL_SOCKET, SO_RCVBUF, &value, &length));
    CHECK(value > 1000);
}

TEST(udp_round_trip) {
    int x = OK(socket(AF_INET, SOCK_DGRAM, 0)), y = OK(socket(AF_INET, SOCK_DGRAM, 0));
    struct sockaddr_in to = at(0), from;
    OK(bind(x, (struct sockaddr *)&to, sizeof to));
    to = at(port_of(x));
    CHECK_EQ(sendto(y, "one", 3, 0, (struct sockaddr *)&to, sizeof to), 3);
    CHECK_EQ(sendto(y, "", 0, 0, (struct sockaddr *)&to, sizeof to), 0);
    char text[10];
    socklen_t length = sizeof from;
    CHECK_EQ(recvfrom(x, text, 10, 0, (struct sockaddr *)&from, &length), 3);
    CHECK_EQ(ntohs(from.sin_port), port_of(y)); // bound by sending
    CHECK_EQ(recvfrom(x, text, 10, 0, (struct sockaddr *)&from, &length), 0);
    CHECK_EQ(sendto(x, "back", 4, 0, (struct sockaddr *)&from, length), 4);
    CHECK_EQ(recv(y, text, 10, 0), 4);
}

TEST(udp_connected) {
    int x = OK(socket(AF_INET, SOCK_DGRAM, 0)), y = OK(socket(AF_INET, SOCK_DGRAM, 0)), z = OK(socket(AF_INET, SOCK_DGRAM, 0));
    struct sockaddr_in to = at(0);
    OK(bind(x, (struct sockaddr *)&to, sizeof to));
    to = at(port_of(x));
    OK(connect(y, (struct sockaddr *)&to, sizeof to));
    CHECK_EQ(send(y, "x", 1, 0), 1);
    struct sockaddr_in back = at(port_of(y));
    CHECK_EQ(sendto(z, "stranger", 8, 0, (struct sockaddr *)&back, sizeof back), 8);
    char t;
    ERR(recv(y, &t, 1, MSG_DONTWAIT), EAGAIN); // only the peer is heard
    close(x);
    send(y, "x", 1, 0);
    EVENTUALLY(recv(y, &t, 1, MSG_DONTWAIT) == -1 && errno == ECONNREFUSED);
    ERR(send(z, "x", 1, 0), EDESTADDRREQ);
}

TEST(udp_truncation_and_size) {
    int x = OK(socket(AF_INET, SOCK_DGRAM, 0));
    struct sockaddr_in to = at(0);
    OK(bind(x, (struct sockaddr *)&to, sizeof to));
    to = at(port_of(x));
    OK(connect(x, (struct sockaddr *)&to, sizeof to));
    static char big[70000];
    CHECK_EQ(send(x, big, 60000, 0), 60000);
    CHECK_EQ(recv(x, big, 10, MSG_TRUNC), 60000);
    ERR(send(x, big, 66000, 0), EMSGSIZE);
}

TEST(ipv6_loopback) {
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    if (fd < 0 && errno == EAFNOSUPPORT)
        SKIP("no IPv6");
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    if (bind(fd, (struct sockaddr *)&six, sizeof six) && errno == EADDRNOTAVAIL)
        SKIP("no IPv6 address");
    OK(listen(fd, 5));
    socklen_t length = sizeof six;
    OK(getsockname(fd, (struct sockaddr *)&six, &length));
    int client = OK(socket(AF_INET6, SOCK_STREAM, 0));
    OK(connect(client, (struct sockaddr *)&six, sizeof six));
    OK(accept(fd, NULL, NULL));
}

TEST(ipv6_socket_takes_ipv4) {
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    if (fd < 0 && errno == EAFNOSUPPORT)
        SKIP("no IPv6");
    struct sockaddr_in6 six = {.sin6_family = AF_INET6};
    OK(bind(fd, (struct sockaddr *)&six, sizeof six));
    OK(listen(fd, 5));
    socklen_t length = sizeof six;
    OK(getsockname(fd, (struct sockaddr *)&six, &length));
    dial(ntohs(six.sin6_port));
    length = sizeof six;
    OK(accept(fd, (struct sockaddr *)&six, &length));
    CHECK(IN6_IS_ADDR_V4MAPPED(&six.sin6_addr));
}

TEST(loopback_interface) {
    int fd = OK(socket(AF_INET, SOCK_DGRAM, 0));
    struct ifreq r = {.ifr_name = "lo"};
    OK(ioctl(fd, SIOCGIFFLAGS, &r));
    CHECK(r.ifr_flags & IFF_UP && r.ifr_flags & IFF_LOOPBACK);
    OK(ioctl(fd, SIOCGIFINDEX, &r));
    CHECK_EQ(r.ifr_ifindex, 1);
    OK(ioctl(fd, SIOCGIFADDR, &r));
    CHECK_EQ(((struct sockaddr_in *)&r.ifr_addr)->sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    strcpy(r.ifr_name, "nothing0");
    ERR(ioctl(fd, SIOCGIFFLAGS, &r), ENODEV);
}

TEST(socket_kinds_refused) {
    ERR(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP), EPROTONOSUPPORT);
    ERR(socket(AF_INET, 9, 0), ESOCKTNOSUPPORT);
    EXITED(wait_for(CHILD(become_nobody(); ERR(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), EPERM))), 0);
}

TEST(backlog_takes_connections_before_accept) {
    l = listener();
    for (int i = 0; i < 5; i++) {
        int fd = dial(port_of(l));
        CHECK_EQ(write(fd, "early", 5), 5);
    }
    for (int i = 0; i < 5; i++) {
        a = OK(accept(l, NULL, NULL));
        char text[10];
        CHECK_EQ(read(a, text, 10), 5);
    }
}

// A listener whose queue one client fills, which waits there.
static void full_listener(void) {
    l = OK(socket(AF_INET, SOCK_STREAM, 0));
    struct sockaddr_in any = at(0);
    OK(bind(l, (void *)&any, sizeof any));
    OK(listen(l, 0));
    dial(port_of(l));
}

static int waiting_client(void) {
    int fd = OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    struct sockaddr_in to = at(port_of(l));
    ERR(connect(fd, (void *)&to, sizeof to), EINPROGRESS);
    return fd;
}

TEST(a_client_that_gave_up_holds_up_no_other) {
    full_listener();
    int gone = waiting_client(), next = waiting_client();
    close(gone);
    close(OK(accept(l, NULL, NULL)));
    struct pollfd writable = {next, POLLOUT, 0};
    CHECK_EQ(poll(&writable, 1, 20000), 1);
    CHECK_EQ(writable.revents, POLLOUT);
    OK(accept(l, NULL, NULL));
}

TEST(shutdown_ends_an_attempt) {
    full_listener();
    int fd = waiting_client();
    struct sockaddr_in to = at(port_of(l));
    ERR(connect(fd, (void *)&to, sizeof to), EALREADY);
    OK(shutdown(fd, SHUT_WR));
    ERR(connect(fd, (void *)&to, sizeof to), EINPROGRESS);
}

TEST(sendfile_to_a_socket) {
    connected();
    write_file("f", "through the socket");
    int fd = OK(open("f", O_RDONLY));
    off_t from = 0;
    CHECK_EQ(syscall(SYS_sendfile, c, fd, &from, 100), 18);
    char text[30] = {0};
    CHECK_EQ(read(a, text, 30), 18);
    STR_EQ(text, "through the socket");
}

TEST(closing_the_listener_resets_the_queue) {
    l = listener();
    c = dial(port_of(l));
    close(l);
    char t;
    ERR(read(c, &t, 1), ECONNRESET);
}

TEST(automatic_ports_are_chosen_at_random) {
    static const int kinds[] = {SOCK_STREAM, SOCK_DGRAM};
    for (int k = 0; k < 2; k++)
        for (int v6 = 0; v6 < 2; v6++) {
            int different = 0;
            uint16_t first = 0;
            for (int i = 0; i < 12; i++) {
                int fd = socket(v6 ? AF_INET6 : AF_INET, kinds[k], 0);
                if (fd < 0)
                    SKIP("no such sockets");
                struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
                struct sockaddr_in four = at(0);
                socklen_t length = sizeof six;
                if (v6 && bind(fd, (struct sockaddr *)&six, sizeof six) != 0)
                    SKIP("no IPv6");
                if (!v6)
                    OK(bind(fd, (struct sockaddr *)&four, sizeof four));
                OK(getsockname(fd, (struct sockaddr *)&six, &length));
                uint16_t port = ntohs(six.sin6_port); // at the same place in both
                CHECK(port >= 1024);
                if (i == 0)
                    first = port;
                different += port > first + 100 || port + 100 < first;
                close(fd);
            }
            CHECK(different > 0);
        }
}

// Reads the error queue; gives the bytes of the datagram that came back.
static int error_of(int fd, char *data, size_t size, struct sockaddr *to, struct sock_extended_err *e, struct sockaddr *offender,
                    socklen_t length) {
    char control[256];
    struct iovec v = {data, size};
    struct msghdr m = {.msg_name = to, .msg_namelen = length, .msg_iov = &v, .msg_iovlen = 1, .msg_control = control,
                       .msg_controllen = sizeof control};
    int n = OK(recvmsg(fd, &m, MSG_ERRQUEUE));
    CHECK(m.msg_flags & MSG_ERRQUEUE);
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    CHECK(c);
    int v6 = length == sizeof(struct sockaddr_in6);
    CHECK_EQ(c->cmsg_level, v6 ? SOL_IPV6 : SOL_IP);
    CHECK_EQ(c->cmsg_type, v6 ? IPV6_RECVERR : IP_RECVERR);
    CHECK_EQ(c->cmsg_len, CMSG_LEN(sizeof *e + length));
    memcpy(e, CMSG_DATA(c), sizeof *e);
    memcpy(offender, CMSG_DATA(c) + sizeof *e, length);
    return n;
}

TEST(the_error_queue_says_what_became_of_a_datagram) {
    int fd = OK(socket(AF_INET, SOCK_DGRAM, 0)), on = 1, other = OK(socket(AF_INET, SOCK_DGRAM, 0));
    struct sockaddr_in a = at(0), to, offender;
    OK(bind(other, (struct sockaddr *)&a, sizeof a));
    a.sin_port = htons(port_of(other));
    close(other);
    ERR(recv(fd, &to, 1, MSG_ERRQUEUE), EAGAIN);
    // Without the option nobody is told.
    CHECK_EQ(sendto(fd, "lost", 4, 0, (struct sockaddr *)&a, sizeof a), 4);
    struct pollfd p = {fd, POLLIN, 0};
    CHECK_EQ(poll(&p, 1, 50), 0);
    OK(setsockopt(fd, SOL_IP, IP_RECVERR, &on, sizeof on));
    CHECK_EQ(sendto(fd, "hello", 5, 0, (struct sockaddr *)&a, sizeof a), 5);
    CHECK_EQ(poll(&p, 1, 2000), 1);
    CHECK(p.revents & POLLERR);
    char data[32] = "";
    struct sock_extended_err e;
    CHECK_EQ(error_of(fd, data, sizeof data, (struct sockaddr *)&to, &e, (struct sockaddr *)&offender, sizeof to), 5);
    STR_EQ(data, "hello");
    CHECK_EQ(to.sin_port, a.sin_port);
    CHECK_EQ(to.sin_addr.s_addr, a.sin_addr.s_addr);
    CHECK_EQ(e.ee_errno, ECONNREFUSED);
    CHECK_EQ(e.ee_origin, SO_EE_ORIGIN_ICMP);
    CHECK_EQ(e.ee_type, 3);
    CHECK_EQ(e.ee_code, 3);
    CHECK_EQ(offender.sin_addr.s_addr, a.sin_addr.s_addr);
    // It was the pending error, too.
    CHECK_EQ(poll(&p, 1, 0), 0);
    ERR(recv(fd, data, 1, MSG_ERRQUEUE), EAGAIN);
    CHECK_EQ(sendto(fd, "one", 3, 0, (struct sockaddr *)&a, sizeof a), 3);
    sleep_ms(50);
    ERR(sendto(fd, "two", 3, 0, (struct sockaddr *)&a, sizeof a), ECONNREFUSED);
    CHECK_EQ(recv(fd, data, 2, MSG_ERRQUEUE), 2);
}

TEST(the_error_queue_of_ipv6) {
    int fd = OK(socket(AF_INET6, SOCK_DGRAM, 0)), on = 1, other = OK(socket(AF_INET6, SOCK_DGRAM, 0));
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT}, to, offender;
    socklen_t size = sizeof a;
    OK(bind(other, (struct sockaddr *)&a, sizeof a));
    OK(getsockname(other, (struct sockaddr *)&a, &size));
    close(other);
    OK(setsockopt(fd, SOL_IPV6, IPV6_RECVERR, &on, sizeof on));
    CHECK_EQ(sendto(fd, "hello", 5, 0, (struct sockaddr *)&a, sizeof a), 5);
    struct pollfd p = {fd, POLLIN, 0};
    CHECK_EQ(poll(&p, 1, 2000), 1);
    char data[32] = "";
    struct sock_extended_err e;
    CHECK_EQ(error_of(fd, data, sizeof data, (struct sockaddr *)&to, &e, (struct sockaddr *)&offender, sizeof to), 5);
    CHECK_EQ(e.ee_errno, ECONNREFUSED);
    CHECK_EQ(e.ee_origin, SO_EE_ORIGIN_ICMP6);
    CHECK_EQ(e.ee_type, 1);
    CHECK_EQ(e.ee_code, 4);
    CHECK_EQ(to.sin6_port, a.sin6_port);
    CHECK(!memcmp(&offender.sin6_addr, &a.sin6_addr, 16));
}

// What is kept of options whose values have bounds.
static int kept(int fd, int level, int name, int value) {
    socklen_t size = sizeof value;
    OK(setsockopt(fd, level, name, &value, sizeof value));
    OK(getsockopt(fd, level, name, &value, &size));
    return value;
}

TEST(option_values_are_brought_within_bounds) {
    int fd = OK(socket(AF_INET, SOCK_STREAM, 0)), u = OK(socket(AF_INET, SOCK_DGRAM, 0)), zero = 0;
    CHECK_EQ(kept(fd, IPPROTO_TCP, TCP_LINGER2, -5), -1);
    CHECK_EQ(kept(fd, IPPROTO_TCP, TCP_LINGER2, 0), 60);
    CHECK_EQ(kept(fd, IPPROTO_TCP, TCP_LINGER2, 30), 30);
    CHECK_EQ(kept(fd, IPPROTO_TCP, TCP_LINGER2, 1000), 120);
    CHECK_EQ(kept(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP, 3), 1152);
    CHECK_EQ(kept(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP, 0), 0);
    CHECK_EQ(kept(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP, 5000), 5000);
    CHECK_EQ(kept(fd, IPPROTO_IP, IP_TOS, 0xff), 0xfc);
    CHECK_EQ(kept(u, IPPROTO_IP, IP_TOS, 0xff), 0xff);
    CHECK_EQ(kept(u, IPPROTO_IP, IP_TOS, 256), 0);
    CHECK_EQ(kept(u, IPPROTO_IP, IP_TOS, -5), 251);
    int v6 = OK(socket(AF_INET6, SOCK_STREAM, 0));
    CHECK_EQ(kept(v6, IPPROTO_IPV6, IPV6_TCLASS, 0xff), 0xfc);
    CHECK_EQ(kept(v6, IPPROTO_IPV6, IPV6_TCLASS, -1), 0);
    OK(listen(fd, 1));
    ERR(setsockopt(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP, &zero, sizeof zero), EINVAL);
}

TEST(a_look_that_throws_away_only_counts) {
    connected();
    char data[5] = "....";
    CHECK_EQ(send(c, "hello world", 11, 0), 11);
    CHECK_EQ(recv(a, data, 5, MSG_PEEK | MSG_TRUNC), 5);
    STR_EQ(data, "....");
    CHECK_EQ(recv(a, data, 3, MSG_TRUNC), 3);
    STR_EQ(data, "....");
    CHECK_EQ(recv(a, data, 2, MSG_PEEK), 2);
    CHECK(!memcmp(data, "lo", 2));
}

TEST(lines_of_proc_net_have_linuxs_widths) {
    int fd = listener(), u = OK(socket(AF_INET, SOCK_DGRAM, 0)), e = OK(socket(AF_INET6, SOCK_DGRAM, 0));
    struct sockaddr_in addr = at(0);
    struct sockaddr_in6 any6 = {.sin6_family = AF_INET6};
    OK(bind(u, (struct sockaddr *)&addr, sizeof addr));
    OK(bind(e, (struct sockaddr *)&any6, sizeof any6));
    // The number of a UDP socket has five characters, of a TCP socket four; lines of IPv6 are not padded.
    const struct { const char *name; size_t head, line, colon; } files[] = {
        {"/proc/net/tcp", 149, 149, 4}, {"/proc/net/udp", 127, 127, 5}, {"/proc/net/udp6", 162, 0, 5},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *text = slurp(files[i].name), *end = strchr(text, '\n');
        CHECK_EQ((size_t)(end - text), files[i].head);
        char *line = end + 1, *line_end = strchr(line, '\n');
        CHECK(line_end);
        if (files[i].line) CHECK_EQ((size_t)(line_end - line), files[i].line);
        CHECK_EQ((size_t)(strchr(line, ':') - line), files[i].colon);
    }
    close(fd);
}
