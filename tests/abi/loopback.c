// What the loopback device carries besides plain streams and datagrams: groups, corked and deferred connections, ends that come early.
#include "check.h"
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

static struct sockaddr_in at(const char *ip, uint16_t port) {
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = inet_addr(ip)};
}

static struct sockaddr_in name_of(int fd) {
    struct sockaddr_in a;
    socklen_t size = sizeof a;
    OK(getsockname(fd, (struct sockaddr *)&a, &size));
    return a;
}

static int bound(int type, const char *ip) {
    int fd = OK(socket(AF_INET, type, 0));
    struct sockaddr_in a = at(ip, 0);
    OK(bind(fd, (struct sockaddr *)&a, sizeof a));
    return fd;
}

static int listener(void) {
    int fd = bound(SOCK_STREAM, "127.0.0.1");
    OK(listen(fd, 10));
    return fd;
}

static int dial(int fd) {
    struct sockaddr_in a = name_of(fd);
    int c = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(connect(c, (struct sockaddr *)&a, sizeof a));
    return c;
}

static short ready(int fd, short events, int ms) {
    struct pollfd p = {fd, events, 0};
    OK(poll(&p, 1, ms));
    return p.revents;
}

static const char GROUP[] = "239.1.2.3";

// A member of the group on the loopback, and where to send so that it gets it.
static int member(struct sockaddr_in *to) {
    int fd = bound(SOCK_DGRAM, "0.0.0.0");
    struct ip_mreq group = {{inet_addr(GROUP)}, {inet_addr("127.0.0.1")}};
    OK(setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group));
    *to = at(GROUP, name_of(fd).sin_port);
    return fd;
}

TEST(a_group_is_reached_by_the_address_of_the_sender) {
    struct sockaddr_in to, from;
    int in = member(&to), out = bound(SOCK_DGRAM, "127.0.0.1");
    socklen_t size = sizeof from;
    char data[8];
    CHECK_EQ(sendto(out, "hi", 2, 0, (struct sockaddr *)&to, sizeof to), 2);
    CHECK(ready(in, POLLIN, 2000) & POLLIN);
    CHECK_EQ(recvfrom(in, data, sizeof data, 0, (struct sockaddr *)&from, &size), 2);
    CHECK_EQ(from.sin_addr.s_addr, inet_addr("127.0.0.1"));
    CHECK_EQ(from.sin_port, name_of(out).sin_port);
}

TEST(a_group_is_reached_by_the_device_of_the_socket) {
    struct sockaddr_in to, from;
    int in = member(&to), out = OK(socket(AF_INET, SOCK_DGRAM, 0)), off = 0;
    socklen_t size = sizeof from;
    char data[8];
    struct ip_mreqn lo = {.imr_ifindex = (int)if_nametoindex("lo")};
    OK(setsockopt(out, IPPROTO_IP, IP_MULTICAST_IF, &lo, sizeof lo));
    // It has no effect on a device that gives back everything.
    OK(setsockopt(out, IPPROTO_IP, IP_MULTICAST_LOOP, &off, sizeof off));
    OK(connect(out, (struct sockaddr *)&to, sizeof to));
    CHECK_EQ(send(out, "hi", 2, 0), 2);
    CHECK(ready(in, POLLIN, 2000) & POLLIN);
    CHECK_EQ(recvfrom(in, data, sizeof data, 0, (struct sockaddr *)&from, &size), 2);
    CHECK_EQ(from.sin_addr.s_addr, name_of(out).sin_addr.s_addr);
}

TEST(who_left_a_group_gets_nothing_of_it) {
    struct sockaddr_in to;
    int in = member(&to), out = bound(SOCK_DGRAM, "127.0.0.1");
    struct ip_mreq group = {{inet_addr(GROUP)}, {inet_addr("127.0.0.1")}};
    OK(setsockopt(in, IPPROTO_IP, IP_DROP_MEMBERSHIP, &group, sizeof group));
    CHECK_EQ(sendto(out, "hi", 2, 0, (struct sockaddr *)&to, sizeof to), 2);
    CHECK_EQ(ready(in, POLLIN, 50), 0);
}

TEST(a_socket_of_both_families_speaks_that_of_its_address) {
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT}, four = {.sin6_family = AF_INET6};
    OK(inet_pton(AF_INET6, "::ffff:127.0.0.1", &four.sin6_addr));
    for (int i = 0; i < 2; i++) {
        int a = OK(socket(AF_INET6, i ? SOCK_STREAM : SOCK_DGRAM, 0)), b = OK(socket(AF_INET6, i ? SOCK_STREAM : SOCK_DGRAM, 0));
        OK(bind(a, (struct sockaddr *)&six, sizeof six));
        OK(bind(b, (struct sockaddr *)&four, sizeof four));
        four.sin6_port = six.sin6_port = htons(1337);
        ERR(connect(a, (struct sockaddr *)&four, sizeof four), ENETUNREACH);
        ERR(connect(b, (struct sockaddr *)&six, sizeof six), EAFNOSUPPORT);
        if (!i) {
            ERR(sendto(a, "x", 1, 0, (struct sockaddr *)&four, sizeof four), ENETUNREACH);
            ERR(sendto(b, "x", 1, 0, (struct sockaddr *)&six, sizeof six), EAFNOSUPPORT);
        }
        four.sin6_port = six.sin6_port = 0;
    }
    // An address that connect(2) chose is none of that kind.
    int in = bound(SOCK_DGRAM, "127.0.0.1"), out = OK(socket(AF_INET6, SOCK_DGRAM, 0));
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    char data[8];
    six.sin6_port = four.sin6_port = name_of(in).sin_port;
    OK(connect(out, (struct sockaddr *)&six, sizeof six));
    CHECK_EQ(sendto(out, "hi", 2, 0, (struct sockaddr *)&four, sizeof four), 2);
    CHECK_EQ(recvfrom(in, data, sizeof data, 0, (struct sockaddr *)&from, &size), 2);
    CHECK_EQ(from.sin_addr.s_addr, inet_addr("127.0.0.1"));
    out = OK(socket(AF_INET6, SOCK_DGRAM, 0));
    OK(connect(out, (struct sockaddr *)&four, sizeof four));
    ERR(sendto(out, "hi", 2, 0, (struct sockaddr *)&six, sizeof six), EAFNOSUPPORT);
}

TEST(a_refused_attempt_leaves_an_end_to_read) {
    int gone = bound(SOCK_STREAM, "127.0.0.1"), error = 0;
    struct sockaddr_in a = name_of(gone);
    socklen_t size = sizeof error;
    int fd = OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    char c;
    ERR(connect(fd, (struct sockaddr *)&a, sizeof a), EINPROGRESS);
    CHECK(ready(fd, POLLOUT, 2000) & POLLERR);
    OK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size));
    CHECK_EQ(error, ECONNREFUSED);
    CHECK_EQ(read(fd, &c, 1), 0);
    // Told once more by the call itself, which then begins anew.
    ERR(connect(fd, (struct sockaddr *)&a, sizeof a), ECONNABORTED);
    ERR(read(fd, &c, 1), ENOTCONN);
    OK(listen(gone, 1));
    ERR(connect(fd, (struct sockaddr *)&a, sizeof a), EINPROGRESS);
    CHECK_EQ(ready(fd, POLLOUT, 2000), POLLOUT);
}

TEST(a_socket_may_call_itself) {
    int fd = bound(SOCK_STREAM, "127.0.0.1");
    struct sockaddr_in a = name_of(fd), peer;
    socklen_t size = sizeof peer;
    char data[8];
    OK(connect(fd, (struct sockaddr *)&a, sizeof a));
    OK(getpeername(fd, (struct sockaddr *)&peer, &size));
    CHECK_EQ(peer.sin_port, a.sin_port);
    CHECK_EQ(send(fd, "me", 2, 0), 2);
    CHECK_EQ(recv(fd, data, sizeof data, 0), 2);
    OK(shutdown(fd, SHUT_WR));
    CHECK_EQ(recv(fd, data, sizeof data, 0), 0);
    ERR(send(fd, "me", 2, MSG_NOSIGNAL), EPIPE);
}

TEST(a_cork_holds_what_is_no_whole_segment) {
    int l = listener(), c = dial(l), a = OK(accept(l, NULL, NULL)), on = 1, off = 0;
    char data[8];
    OK(setsockopt(c, IPPROTO_TCP, TCP_CORK, &on, sizeof on));
    CHECK_EQ(send(c, "ab", 2, 0), 2);
    ERR(recv(a, data, sizeof data, MSG_DONTWAIT), EAGAIN);
    CHECK_EQ(send(c, "cd", 2, 0), 2);
    OK(setsockopt(c, IPPROTO_TCP, TCP_CORK, &off, sizeof off));
    CHECK(ready(a, POLLIN, 2000) & POLLIN);
    CHECK_EQ(recv(a, data, sizeof data, 0), 4);
    // Not for ever, and not beyond the end.
    OK(setsockopt(c, IPPROTO_TCP, TCP_CORK, &on, sizeof on));
    CHECK_EQ(send(c, "ef", 2, 0), 2);
    CHECK(ready(a, POLLIN, 5000) & POLLIN);
    CHECK_EQ(recv(a, data, sizeof data, 0), 2);
    CHECK_EQ(send(c, "gh", 2, 0), 2);
    OK(shutdown(c, SHUT_WR));
    CHECK_EQ(recv(a, data, sizeof data, MSG_WAITALL), 2);
}

TEST(accept_waits_for_first_bytes_if_told) {
    int l = listener(), seconds = 2, kept = 0;
    socklen_t size = sizeof kept;
    OK(setsockopt(l, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof seconds));
    OK(getsockopt(l, IPPROTO_TCP, TCP_DEFER_ACCEPT, &kept, &size));
    CHECK_EQ(kept, 3);
    int c = dial(l), ended = dial(l);
    CHECK_EQ(ready(l, POLLIN, 50), 0);
    CHECK_EQ(send(c, "x", 1, 0), 1);
    CHECK_EQ(ready(l, POLLIN, 2000), POLLIN);
    close(OK(accept(l, NULL, NULL)));
    CHECK_EQ(ready(l, POLLIN, 50), 0);
    OK(shutdown(ended, SHUT_WR));
    CHECK_EQ(ready(l, POLLIN, 2000), POLLIN);
    close(OK(accept(l, NULL, NULL)));
    // A silent one is given after the time.
    dial(l);
    CHECK_EQ(ready(l, POLLIN, 500), 0);
    CHECK_EQ(ready(l, POLLIN, 10000), POLLIN);
}

TEST(a_reset_connection_is_accepted_with_its_peer) {
    int l = listener(), c = dial(l), error = 0;
    struct sockaddr_in peer = {0}, own = name_of(c);
    socklen_t size = sizeof peer, error_size = sizeof error;
    struct linger hard = {1, 0};
    OK(setsockopt(c, SOL_SOCKET, SO_LINGER, &hard, sizeof hard));
    close(c);
    int a = OK(accept(l, (struct sockaddr *)&peer, &size));
    CHECK_EQ(peer.sin_port, own.sin_port);
    CHECK_EQ(ready(a, POLLIN, 2000), POLLIN | POLLHUP | POLLERR);
    OK(getsockopt(a, SOL_SOCKET, SO_ERROR, &error, &error_size));
    CHECK_EQ(error, ECONNRESET);
}

TEST(shutdown_of_an_attempt_is_an_error) {
    int l = bound(SOCK_STREAM, "127.0.0.1");
    struct sockaddr_in a = name_of(l);
    OK(listen(l, 0));
    dial(l);
    int fd = OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    ERR(connect(fd, (struct sockaddr *)&a, sizeof a), EINPROGRESS);
    OK(shutdown(fd, SHUT_WR));
    CHECK_EQ(ready(fd, 0, 0), POLLHUP | POLLERR);
}

TEST(a_datagram_peer_without_a_port_is_none) {
    int fd = OK(socket(AF_INET, SOCK_DGRAM, 0));
    struct sockaddr_in a = at("127.0.0.1", 0);
    socklen_t size = sizeof a;
    OK(connect(fd, (struct sockaddr *)&a, sizeof a));
    ERR(getpeername(fd, (struct sockaddr *)&a, &size), ENOTCONN);
}

TEST(a_type_of_service_without_a_value_is_none) {
    int fd = OK(socket(AF_INET, SOCK_DGRAM, 0)), tos = 0x20;
    socklen_t size = sizeof tos;
    OK(setsockopt(fd, IPPROTO_IP, IP_TOS, &tos, sizeof tos));
    OK(setsockopt(fd, IPPROTO_IP, IP_TOS, &tos, 0));
    OK(getsockopt(fd, IPPROTO_IP, IP_TOS, &tos, &size));
    CHECK_EQ(tos, 0);
}

TEST(sockets_that_share_a_port_share_its_datagrams) {
    int on = 1, in[2], got[2] = {0};
    struct sockaddr_in a = at("127.0.0.1", 0);
    for (int i = 0; i < 2; i++) {
        in[i] = OK(socket(AF_INET, SOCK_DGRAM, 0));
        OK(setsockopt(in[i], SOL_SOCKET, SO_REUSEPORT, &on, sizeof on));
        OK(bind(in[i], (struct sockaddr *)&a, sizeof a));
        a = name_of(in[i]);
    }
    // Which one gets them is a matter of the sender, but always the same for each.
    for (int i = 0; i < 100; i++) {
        int out = OK(socket(AF_INET, SOCK_DGRAM, 0)), of[2];
        char c;
        OK(connect(out, (struct sockaddr *)&a, sizeof a));
        CHECK_EQ(send(out, "x", 1, 0), 1);
        CHECK_EQ(send(out, "y", 1, 0), 1);
        for (int k = 0; k < 2; k++) {
            of[k] = 0;
            while (recv(in[k], &c, 1, MSG_DONTWAIT) == 1) of[k]++;
            got[k] += of[k];
        }
        CHECK(of[0] == 2 || of[1] == 2);
        close(out);
    }
    CHECK_EQ(got[0] + got[1], 200);
    CHECK(got[0] && got[1]);
}

TEST(the_end_of_datagrams_is_for_those_who_wait) {
    int fd = bound(SOCK_DGRAM, "127.0.0.1");
    struct sockaddr_in a = name_of(fd);
    char data[8];
    OK(connect(fd, (struct sockaddr *)&a, sizeof a));
    OK(shutdown(fd, SHUT_RD));
    ERR(recv(fd, data, sizeof data, MSG_DONTWAIT), EAGAIN);
    CHECK_EQ(recv(fd, data, sizeof data, 0), 0);
    OK(fcntl(fd, F_SETFL, O_NONBLOCK));
    ERR(recv(fd, data, sizeof data, 0), EAGAIN);
}

TEST(errors_are_queued_by_the_option_of_the_packets_family) {
    int gone = OK(socket(AF_INET6, SOCK_DGRAM, 0)), fd = OK(socket(AF_INET6, SOCK_DGRAM, 0)), on = 1, value;
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    socklen_t size = sizeof a, value_size = sizeof value;
    char data[8];
    OK(bind(gone, (struct sockaddr *)&a, sizeof a));
    OK(getsockname(gone, (struct sockaddr *)&a, &size));
    close(gone);
    OK(setsockopt(fd, IPPROTO_IP, IP_RECVERR, &on, sizeof on));
    OK(connect(fd, (struct sockaddr *)&a, sizeof a));
    CHECK_EQ(send(fd, "x", 1, 0), 1);
    CHECK(ready(fd, POLLIN, 2000) & POLLERR);
    ERR(recv(fd, data, sizeof data, MSG_ERRQUEUE), EAGAIN);
    // A socket of IPv4 has none of the other family.
    int v4 = OK(socket(AF_INET, SOCK_DGRAM, 0));
    ERR(setsockopt(v4, IPPROTO_IPV6, IPV6_RECVERR, &on, sizeof on), ENOPROTOOPT);
    ERR(getsockopt(v4, IPPROTO_IPV6, IPV6_RECVERR, &value, &value_size), EOPNOTSUPP);
}
