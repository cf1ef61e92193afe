// Raw sockets over the loopback: errors of ICMP about what they have sent, and headers that they make themselves.
#include "check.h"
#include <arpa/inet.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/socket.h>

// A protocol that nobody speaks.
#define NOBODYS 253

static struct sockaddr_in at(const char *ip, int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = inet_addr(ip);
    return a;
}

static struct sockaddr_in6 at6(const char *ip) {
    struct sockaddr_in6 a = {.sin6_family = AF_INET6};
    CHECK_EQ(inet_pton(AF_INET6, ip, &a.sin6_addr), 1);
    return a;
}

static int raw(int protocol) {
    return OK(socket(AF_INET, SOCK_RAW | SOCK_NONBLOCK, protocol));
}

// A port of UDP that nobody has.
static int closed_port(void) {
    struct sockaddr_in a = at("127.0.0.1", 0);
    socklen_t len = sizeof a;
    int s = OK(socket(AF_INET, SOCK_DGRAM, 0));
    OK(bind(s, (void *)&a, sizeof a));
    OK(getsockname(s, (void *)&a, &len));
    close(s);
    return ntohs(a.sin_port);
}

// A datagram from port 7 without a checksum; gives its length.
static int datagram(char *to, int port, const char *text) {
    struct udphdr h = {.source = htons(7), .dest = htons(port), .len = htons(sizeof h + strlen(text))};
    memcpy(to, &h, sizeof h);
    memcpy(to + sizeof h, text, strlen(text));
    return sizeof h + strlen(text);
}

static int readable(int s) {
    struct pollfd p = {.fd = s, .events = POLLIN};
    return OK(poll(&p, 1, 200));
}

static int pending(int s) {
    int error = -1;
    socklen_t len = sizeof error;
    OK(getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &len));
    return error;
}

// Takes an error out of the queue of errors; gives the bytes that it quotes, or -1.
static ssize_t take_error(int s, struct sock_extended_err *error, char *quoted, size_t room, struct sockaddr_in *to) {
    char control[256];
    struct iovec v = {quoted, room};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    m.msg_name = to, m.msg_namelen = to ? sizeof *to : 0;
    ssize_t n = recvmsg(s, &m, MSG_ERRQUEUE);
    if (n < 0)
        return n;
    CHECK(m.msg_flags & MSG_ERRQUEUE);
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    CHECK(c != NULL);
    CHECK_EQ(c->cmsg_level, SOL_IP);
    CHECK_EQ(c->cmsg_type, IP_RECVERR);
    memcpy(error, CMSG_DATA(c), sizeof *error);
    return n;
}

TEST(a_connected_raw_socket_learns_that_a_port_is_closed) {
    char packet[64];
    int port = closed_port(), s = raw(IPPROTO_UDP), all = raw(IPPROTO_ICMP);
    struct sockaddr_in to = at("127.0.0.1", 0);
    int len = datagram(packet, port, "hello");
    // One without a peer is told of nothing, but the message comes.
    CHECK_EQ(sendto(s, packet, len, 0, (void *)&to, sizeof to), len);
    CHECK_EQ(readable(all), 1);
    char seen[256];
    ssize_t n = OK(recv(all, seen, sizeof seen, 0));
    struct iphdr *ip = (void *)seen;
    CHECK_EQ(ip->protocol, IPPROTO_ICMP);
    CHECK_EQ(ip->tos, 0xc0);
    // Port unreachable, with the whole packet.
    CHECK_EQ(seen[20], 3);
    CHECK_EQ(seen[21], 3);
    CHECK_EQ(n, 20 + 8 + 20 + len);
    CHECK(memcmp(seen + 48, packet, len) == 0);
    CHECK_EQ(pending(s), 0);
    OK(connect(s, (void *)&to, sizeof to));
    CHECK_EQ(send(s, packet, len, 0), len);
    EVENTUALLY(pending(s) == ECONNREFUSED);
    // The copy of the own packet is still there.
    CHECK_EQ(recv(s, seen, sizeof seen, 0), 20 + len);
}

TEST(the_queue_of_errors_of_a_raw_socket) {
    char packet[64], quoted[256];
    int on = 1, port = closed_port(), s = raw(IPPROTO_UDP), other = raw(IPPROTO_UDP);
    struct sockaddr_in to = at("127.0.0.1", 0), away = at("127.0.0.9", 0), told;
    struct sock_extended_err e;
    OK(setsockopt(s, SOL_IP, IP_RECVERR, &on, sizeof on));
    OK(setsockopt(other, SOL_IP, IP_RECVERR, &on, sizeof on));
    OK(connect(other, (void *)&away, sizeof away));
    int len = datagram(packet, port, "hello");
    CHECK_EQ(sendto(s, packet, len, 0, (void *)&to, sizeof to), len);
    struct pollfd p = {.fd = s, .events = 0};
    CHECK_EQ(OK(poll(&p, 1, 1000)), 1);
    CHECK_EQ(p.revents, POLLERR);
    ssize_t n = OK(take_error(s, &e, quoted, sizeof quoted, &told));
    // What it quotes begins behind IP's header, which the kernel made.
    CHECK_EQ(n, len);
    CHECK(memcmp(quoted, packet, len) == 0);
    CHECK_EQ(e.ee_errno, ECONNREFUSED);
    CHECK_EQ(e.ee_origin, SO_EE_ORIGIN_ICMP);
    CHECK_EQ(e.ee_type, 3);
    CHECK_EQ(e.ee_code, 3);
    CHECK_EQ(told.sin_addr.s_addr, to.sin_addr.s_addr);
    CHECK_EQ(pending(s), 0);
    ERR(take_error(s, &e, quoted, sizeof quoted, NULL), EAGAIN);
    // Of another peer's packets it learns nothing.
    ERR(take_error(other, &e, quoted, sizeof quoted, NULL), EAGAIN);
    CHECK_EQ(pending(other), 0);
}

TEST(a_protocol_that_nobody_speaks) {
    char quoted[256], packet[28] = {0};
    int on = 1, s = raw(IPPROTO_RAW), icmp = raw(IPPROTO_ICMP);
    struct sockaddr_in to = at("127.0.0.1", 0);
    struct iphdr ip = {.version = 4, .ihl = 5, .ttl = 9, .protocol = NOBODYS, .daddr = to.sin_addr.s_addr};
    memcpy(packet, &ip, sizeof ip);
    OK(setsockopt(s, SOL_IP, IP_RECVERR, &on, sizeof on));
    CHECK_EQ(sendto(s, packet, sizeof packet, 0, (void *)&to, sizeof to), (int)sizeof packet);
    CHECK_EQ(readable(icmp), 1);
    CHECK_EQ(recv(icmp, quoted, sizeof quoted, 0), 20 + 8 + (int)sizeof packet);
    // Protocol unreachable.
    CHECK_EQ(quoted[20], 3);
    CHECK_EQ(quoted[21], 2);
    struct iphdr *about = (void *)(quoted + 28);
    CHECK_EQ(about->protocol, NOBODYS);
    CHECK_EQ(about->ttl, 9);
    CHECK_EQ(about->saddr, to.sin_addr.s_addr);
    CHECK_EQ(ntohs(about->tot_len), sizeof packet);
    // Who speaks a protocol hears of it; the sender is of another one.
    struct sock_extended_err e;
    ERR(take_error(s, &e, quoted, sizeof quoted, NULL), EAGAIN);
}

TEST(errors_of_packets_with_a_header_of_their_own) {
    char quoted[256], packet[64] = {0};
    int on = 1, port = closed_port(), s = raw(IPPROTO_UDP);
    struct sockaddr_in to = at("127.0.0.1", 0);
    struct sock_extended_err e;
    OK(setsockopt(s, SOL_IP, IP_HDRINCL, &on, sizeof on));
    OK(setsockopt(s, SOL_IP, IP_RECVERR, &on, sizeof on));
    struct iphdr ip = {.version = 4, .ihl = 5, .ttl = 9, .protocol = IPPROTO_UDP, .id = htons(0x1234)};
    ip.daddr = to.sin_addr.s_addr;
    memcpy(packet, &ip, sizeof ip);
    int len = sizeof ip + datagram(packet + sizeof ip, port, "hello");
    CHECK_EQ(sendto(s, packet, len, 0, (void *)&to, sizeof to), len);
    struct pollfd p = {.fd = s, .events = 0};
    CHECK_EQ(OK(poll(&p, 1, 1000)), 1);
    // The header is quoted too.
    CHECK_EQ(OK(take_error(s, &e, quoted, sizeof quoted, NULL)), len);
    struct iphdr *about = (void *)quoted;
    CHECK_EQ(ntohs(about->id), 0x1234);
    CHECK_EQ(about->protocol, IPPROTO_UDP);
    CHECK_EQ(e.ee_errno, ECONNREFUSED);
    // The message of another protocol is about a packet of this one: who speaks that is told.
    CHECK_EQ(pending(s), 0);
}

TEST(an_own_header_goes_as_it_is) {
    char packet[128] = {0}, seen[256];
    int s = raw(IPPROTO_RAW), all = raw(IPPROTO_UDP);
    struct sockaddr_in to = at("127.0.0.1", 0), elsewhere = at("192.0.2.77", 0), from;
    socklen_t len = sizeof from;
    struct iphdr ip = {.version = 4, .ihl = 6, .tos = 0x28, .ttl = 3, .protocol = IPPROTO_UDP, .id = htons(77)};
    // The way is that of the address which the call names; the header may say another, and have options.
    ip.daddr = elsewhere.sin_addr.s_addr, ip.saddr = inet_addr("198.51.100.3"), ip.frag_off = htons(0x4000);
    memcpy(packet, &ip, sizeof ip);
    // Four times "no operation".
    memset(packet + 20, 1, 4);
    int total = 24 + datagram(packet + 24, 9, "own");
    CHECK_EQ(sendto(s, packet, total, 0, (void *)&to, sizeof to), total);
    CHECK_EQ(readable(all), 1);
    CHECK_EQ(recvfrom(all, seen, sizeof seen, 0, (void *)&from, &len), total);
    struct iphdr *got = (void *)seen;
    CHECK_EQ(from.sin_addr.s_addr, ip.saddr);
    CHECK_EQ(got->daddr, ip.daddr);
    CHECK_EQ(got->ihl, 6);
    CHECK_EQ(got->tos, 0x28);
    CHECK_EQ(got->ttl, 3);
    CHECK_EQ(ntohs(got->id), 77);
    CHECK_EQ(ntohs(got->frag_off), 0x4000);
    CHECK_EQ(ntohs(got->tot_len), total);
    CHECK(memcmp(seen + 20, packet + 20, total - 20) == 0);
    // What is zero is filled in: the source, and the number.
    ip.saddr = 0, ip.id = 0, ip.daddr = to.sin_addr.s_addr, ip.frag_off = 0, ip.ihl = 5;
    memcpy(packet, &ip, sizeof ip);
    total = 20 + datagram(packet + 20, 9, "own");
    CHECK_EQ(sendto(s, packet, total, 0, (void *)&to, sizeof to), total);
    CHECK_EQ(readable(all), 1);
    CHECK_EQ(recv(all, seen, sizeof seen, 0), total);
    CHECK_EQ(got->saddr, to.sin_addr.s_addr);
    CHECK(got->id != 0);
}

TEST(headers_that_are_none) {
    char packet[64] = {0};
    int s = raw(IPPROTO_RAW), all = raw(IPPROTO_UDP);
    struct sockaddr_in to = at("127.0.0.1", 0);
    struct iphdr ip = {.version = 4, .ihl = 5, .ttl = 3, .protocol = IPPROTO_UDP, .daddr = to.sin_addr.s_addr};
    memcpy(packet, &ip, sizeof ip);
    ERR(sendto(s, packet, 19, 0, (void *)&to, sizeof to), EINVAL);
    // Longer than the packet.
    packet[0] = 0x4f;
    ERR(sendto(s, packet, 40, 0, (void *)&to, sizeof to), EINVAL);
    packet[0] = 0x44;
    ERR(sendto(s, packet, 40, 0, (void *)&to, sizeof to), EINVAL);
    // Of another version: sent, and lost where it comes.
    packet[0] = 0x65;
    CHECK_EQ(sendto(s, packet, 40, 0, (void *)&to, sizeof to), 40);
    CHECK_EQ(readable(all), 0);
    packet[0] = 0x45;
    char *large = calloc(1, 70000);
    memcpy(large, packet, 20);
    ERR(sendto(s, large, 66000, 0, (void *)&to, sizeof to), EMSGSIZE);
    ERR(send(s, packet, 40, 0), EDESTADDRREQ);
}

TEST(errors_of_ipv6) {
    char packet[64], seen[256], control[256];
    int on = 1, port = closed_port(), s = OK(socket(AF_INET6, SOCK_RAW | SOCK_NONBLOCK, IPPROTO_UDP));
    struct sockaddr_in6 to = at6("::1");
    OK(setsockopt(s, SOL_IPV6, IPV6_RECVERR, &on, sizeof on));
    // IPv6 wants the checksum, which the kernel makes at this offset.
    int offset = 6, len = datagram(packet, port, "hello");
    OK(setsockopt(s, SOL_IPV6, IPV6_CHECKSUM, &offset, sizeof offset));
    CHECK_EQ(sendto(s, packet, len, 0, (void *)&to, sizeof to), len);
    struct pollfd p = {.fd = s, .events = 0};
    CHECK_EQ(OK(poll(&p, 1, 1000)), 1);
    struct iovec v = {seen, sizeof seen};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    CHECK_EQ(OK(recvmsg(s, &m, MSG_ERRQUEUE)), len);
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    CHECK_EQ(c->cmsg_level, SOL_IPV6);
    CHECK_EQ(c->cmsg_type, IPV6_RECVERR);
    struct sock_extended_err *e = (void *)CMSG_DATA(c);
    CHECK_EQ(e->ee_errno, ECONNREFUSED);
    CHECK_EQ(e->ee_origin, SO_EE_ORIGIN_ICMP6);
    CHECK_EQ(e->ee_type, 1);
    CHECK_EQ(e->ee_code, 4);
}
