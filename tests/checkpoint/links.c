// Sockets about links and what goes over them: netlink, ping, raw and packet sockets, multicast groups of the loopback.
#include "check.h"
#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip_icmp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static int netlink(int protocol, int groups) {
    int s = socket(AF_NETLINK, SOCK_RAW, protocol);
    struct sockaddr_nl name = {.nl_family = AF_NETLINK, .nl_groups = groups};
    CHECK(s >= 0 && !bind(s, (struct sockaddr *)&name, sizeof name));
    return s;
}

static void ask(int s, int type, int flags, uint32_t seq) {
    struct {
        struct nlmsghdr head;
        struct rtgenmsg body;
    } m = {{NLMSG_LENGTH(sizeof m.body), type, NLM_F_REQUEST | flags, seq, 0}, {AF_UNSPEC}};
    CHECK_EQ(send(s, &m, sizeof m, 0), sizeof m);
}

// The messages of one read; gives how many are of `type`, and whether the dump is at its end.
static int count(int s, int type, uint32_t seq, int *done) {
    char buffer[40000];
    ssize_t left = recv(s, buffer, sizeof buffer, 0);
    CHECK(left > 0);
    int found = 0;
    for (struct nlmsghdr *m = (void *)buffer; NLMSG_OK(m, left); m = NLMSG_NEXT(m, left)) {
        CHECK_EQ(m->nlmsg_seq, seq);
        found += m->nlmsg_type == type;
        *done |= m->nlmsg_type == NLMSG_DONE;
    }
    return found;
}

TEST(answers_that_nobody_has_read) {
    int s = netlink(NETLINK_ROUTE, 0), done = 0, links = 0, size = 70000, got = 0;
    struct sockaddr_nl before, after;
    socklen_t len = sizeof before;
    CHECK(!getsockname(s, (struct sockaddr *)&before, &len) && before.nl_pid);
    CHECK(!setsockopt(s, SOL_SOCKET, SO_RCVBUF, &size, sizeof size));
    // A dump of which nothing has been read, and an error behind it.
    ask(s, RTM_GETLINK, NLM_F_DUMP, 77);
    RESTORED();
    CHECK(!getsockname(s, (struct sockaddr *)&after, &len) && !memcmp(&before, &after, sizeof before));
    len = sizeof got;
    CHECK(!getsockopt(s, SOL_SOCKET, SO_RCVBUF, &got, &len) && got == 2 * size);
    while (!done)
        links += count(s, RTM_NEWLINK, 77, &done);
    CHECK(links >= 1);
    ask(s, RTM_GETADDR, NLM_F_DUMP, 78);
    for (done = 0; !done;)
        count(s, RTM_NEWADDR, 78, &done);
}

TEST(an_error_that_nobody_has_read) {
    int s = netlink(NETLINK_SOCK_DIAG, 0);
    struct {
        struct nlmsghdr head;
        unsigned char family[8];
    } m = {{sizeof m, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 5, 0}, {200}};
    CHECK_EQ(send(s, &m, sizeof m, 0), sizeof m);
    RESTORED();
    struct {
        struct nlmsghdr head;
        struct nlmsgerr error;
    } answer;
    CHECK_EQ(recv(s, &answer, sizeof answer, MSG_DONTWAIT), sizeof answer);
    CHECK(answer.head.nlmsg_type == NLMSG_ERROR && answer.error.error < 0 && answer.error.msg.nlmsg_seq == 5);
    CHECK(recv(s, &answer, sizeof answer, MSG_DONTWAIT) == -1 && errno == EAGAIN);
}

TEST(groups_and_who_is_told_of_changes) {
    int s = netlink(NETLINK_ROUTE, RTMGRP_LINK), group = RTNLGRP_IPV4_IFADDR;
    CHECK(!setsockopt(s, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group));
    RESTORED();
    struct sockaddr_nl name;
    socklen_t len = sizeof name;
    CHECK(!getsockname(s, (struct sockaddr *)&name, &len));
    CHECK_EQ(name.nl_groups, RTMGRP_LINK | RTMGRP_IPV4_IFADDR);
    // In a network of this process's own it would be told of nothing: that of the sandbox is changed by this one alone.
    uint32_t list = 0;
    len = sizeof list;
    CHECK(!getsockopt(s, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, &list, &len));
    CHECK_EQ(list, RTMGRP_LINK | RTMGRP_IPV4_IFADDR);
    char byte;
    while (recv(s, &byte, 1, MSG_DONTWAIT | MSG_TRUNC) > 0) {
    }
    CHECK_EQ(errno, EAGAIN);
    struct ifreq link = {.ifr_name = "lo"};
    int d = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(d >= 0 && !ioctl(d, SIOCGIFMTU, &link));
    int was = link.ifr_mtu;
    link.ifr_mtu = was - 1;
    CHECK(!ioctl(d, SIOCSIFMTU, &link));
    char buffer[8000];
    CHECK(recv(s, buffer, sizeof buffer, 0) > 0 && ((struct nlmsghdr *)buffer)->nlmsg_type == RTM_NEWLINK);
    link.ifr_mtu = was;
    CHECK(!ioctl(d, SIOCSIFMTU, &link));
}

TEST(events_of_devices) {
    int s = netlink(NETLINK_KOBJECT_UEVENT, 1);
    RESTORED();
    char byte;
    struct sockaddr_nl name;
    socklen_t len = sizeof name;
    CHECK(!getsockname(s, (struct sockaddr *)&name, &len) && name.nl_groups == 1);
    CHECK(recv(s, &byte, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
}

static void echo(int s, uint16_t sequence) {
    struct icmphdr request = {.type = ICMP_ECHO, .un.echo.sequence = htons(sequence)};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    CHECK_EQ(sendto(s, &request, sizeof request, 0, (struct sockaddr *)&to, sizeof to), sizeof request);
}

static void answer(int s, uint16_t sequence) {
    struct icmphdr reply;
    CHECK_EQ(recv(s, &reply, sizeof reply, 0), sizeof reply);
    CHECK(reply.type == ICMP_ECHOREPLY);
    CHECK_EQ(ntohs(reply.un.echo.sequence), sequence);
}

TEST(a_ping_socket) {
    int range = open("/proc/sys/net/ipv4/ping_group_range", O_WRONLY), ttl = 9, got = 0;
    CHECK(range >= 0 && write(range, "0 0", 3) == 3 && !close(range));
    int s = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
    CHECK(s >= 0 && !setsockopt(s, SOL_IP, IP_TTL, &ttl, sizeof ttl));
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons(4321)};
    CHECK(!bind(s, (struct sockaddr *)&name, sizeof name));
    echo(s, 1);
    echo(s, 2);
    answer(s, 1);
    RESTORED();
    answer(s, 2);
    socklen_t len = sizeof name;
    CHECK(!getsockname(s, (struct sockaddr *)&name, &len) && ntohs(name.sin_port) == 4321);
    len = sizeof got;
    CHECK(!getsockopt(s, SOL_IP, IP_TTL, &got, &len) && got == 9);
    echo(s, 3);
    answer(s, 3);
}

TEST(a_raw_socket) {
    int s = socket(AF_INET, SOCK_RAW, 253), other = socket(AF_INET, SOCK_RAW, 253), on = 1, got = 0;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    CHECK(s >= 0 && other >= 0 && !bind(s, (struct sockaddr *)&to, sizeof to));
    CHECK(!setsockopt(other, SOL_IP, IP_HDRINCL, &on, sizeof on));
    CHECK_EQ(sendto(s, "first", 5, 0, (struct sockaddr *)&to, sizeof to), 5);
    RESTORED();
    char packet[100];
    CHECK(recv(s, packet, sizeof packet, MSG_DONTWAIT) == 25 && !memcmp(packet + 20, "first", 5));
    socklen_t len = sizeof got;
    CHECK(!getsockopt(other, SOL_IP, IP_HDRINCL, &got, &len) && got == 1);
    CHECK_EQ(sendto(s, "second", 6, 0, (struct sockaddr *)&to, sizeof to), 6);
    CHECK(recv(s, packet, sizeof packet, 0) == 26 && !memcmp(packet + 20, "second", 6));
}

TEST(a_packet_socket) {
    int s = socket(AF_PACKET, SOCK_DGRAM, 0), on = 1;
    // Others use the loopback as well.
    struct sock_filter own[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_PROTOCOL),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x9999, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 60),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog program = {4, own};
    struct sockaddr_ll name = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = if_nametoindex("lo")};
    CHECK(s >= 0 && !setsockopt(s, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program));
    CHECK(!bind(s, (struct sockaddr *)&name, sizeof name));
    CHECK(!setsockopt(s, SOL_SOCKET, SO_LOCK_FILTER, &on, sizeof on));
    CHECK(!setsockopt(s, SOL_PACKET, PACKET_AUXDATA, &on, sizeof on));
    struct sockaddr_ll to = name;
    to.sll_protocol = htons(0x9999);
    to.sll_halen = 6;
    CHECK_EQ(sendto(s, "abcdefg", 7, 0, (struct sockaddr *)&to, sizeof to), 7);
    RESTORED();
    char frame[100];
    struct sockaddr_ll from;
    socklen_t len = sizeof from;
    CHECK_EQ(recvfrom(s, frame, sizeof frame, MSG_DONTWAIT, (struct sockaddr *)&from, &len), 7);
    CHECK(from.sll_protocol == htons(0x9999) && !memcmp(frame, "abcdefg", 7));
    len = sizeof name;
    CHECK(!getsockname(s, (struct sockaddr *)&name, &len) && name.sll_ifindex == (int)if_nametoindex("lo"));
    int value = 0;
    len = sizeof value;
    CHECK(!getsockopt(s, SOL_PACKET, PACKET_AUXDATA, &value, &len) && value == 1);
    CHECK(setsockopt(s, SOL_SOCKET, SO_DETACH_FILTER, &on, sizeof on) == -1 && errno == EPERM);
    CHECK_EQ(sendto(s, "later", 5, 0, (struct sockaddr *)&to, sizeof to), 5);
    CHECK_EQ(recv(s, frame, sizeof frame, 0), 5);
    CHECK(!memcmp(frame, "later", 5));
}

TEST(multicast_on_the_loopback) {
    int s = socket(AF_INET, SOCK_DGRAM, 0), off = 0;
    struct ip_mreqn group = {.imr_multiaddr.s_addr = htonl(0xefff0107), .imr_ifindex = if_nametoindex("lo")};
    struct sockaddr_in name = {.sin_family = AF_INET}, to;
    socklen_t len = sizeof name;
    CHECK(s >= 0 && !bind(s, (struct sockaddr *)&name, sizeof name) && !getsockname(s, (struct sockaddr *)&name, &len));
    CHECK(!setsockopt(s, SOL_IP, IP_ADD_MEMBERSHIP, &group, sizeof group));
    CHECK(!setsockopt(s, SOL_IP, IP_MULTICAST_IF, &group, sizeof group));
    CHECK(!setsockopt(s, SOL_IP, IP_MULTICAST_ALL, &off, sizeof off));
    to = name;
    to.sin_addr = group.imr_multiaddr;
    RESTORED();
    CHECK(setsockopt(s, SOL_IP, IP_ADD_MEMBERSHIP, &group, sizeof group) == -1 && errno == EADDRINUSE);
    CHECK_EQ(sendto(s, "all", 3, 0, (struct sockaddr *)&to, sizeof to), 3);
    char text[8];
    struct timeval second = {1, 0};
    CHECK(!setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second));
    CHECK(recv(s, text, sizeof text, 0) == 3 && !memcmp(text, "all", 3));
    CHECK(!setsockopt(s, SOL_IP, IP_DROP_MEMBERSHIP, &group, sizeof group));
    CHECK_EQ(sendto(s, "gone", 4, 0, (struct sockaddr *)&to, sizeof to), 4);
    CHECK(recv(s, text, sizeof text, MSG_DONTWAIT) == -1 && errno == EAGAIN);
}

TEST(bound_to_the_loopback) {
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(s >= 0 && !setsockopt(s, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3));
    RESTORED();
    char name[IFNAMSIZ];
    socklen_t len = sizeof name;
    CHECK(!getsockopt(s, SOL_SOCKET, SO_BINDTODEVICE, name, &len) && !strcmp(name, "lo"));
}
