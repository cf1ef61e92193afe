// Queues of netlink sockets: what finds no room in SO_RCVBUF is lost, and who reads is told so once (netlink(7)).
#include "check.h"
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

// A network of its own, with nothing but a loopback.
static void own_network(void) {
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET))
        SKIP("unshare: %s", strerror(errno));
    struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    OK(ioctl(OK(socket(AF_INET, SOCK_DGRAM, 0)), SIOCSIFFLAGS, &r));
}

static int netlink(unsigned groups, int room) {
    struct sockaddr_nl me = {.nl_family = AF_NETLINK, .nl_groups = groups};
    int fd = OK(socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, NETLINK_ROUTE));
    if (room)
        OK(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room));
    OK(bind(fd, (void *)&me, sizeof me));
    return fd;
}

// Adds or removes a route that leads nowhere, which members of RTMGRP_IPV4_ROUTE are told.
static void change(int fd, int type, int flags, int metric) {
    struct {
        struct nlmsghdr h;
        struct rtmsg route;
        struct rtattr by;
        int metric;
    } r = {.h = {sizeof r, type, NLM_F_REQUEST | flags, 1, 0}};
    r.route = (struct rtmsg){.rtm_family = AF_INET, .rtm_type = RTN_UNREACHABLE, .rtm_table = RT_TABLE_MAIN};
    r.route.rtm_protocol = RTPROT_STATIC;
    r.by = (struct rtattr){RTA_LENGTH(4), RTA_PRIORITY}, r.metric = metric;
    OK(send(fd, &r, sizeof r, 0));
}

static int events(int fd) {
    struct pollfd p = {fd, POLLIN, 0};
    OK(poll(&p, 1, 0));
    return p.revents;
}

// Reads all that waits; gives how many messages that were.
static int drain(int fd) {
    char answer[8192];
    int count = 0;
    while (recv(fd, answer, sizeof answer, 0) >= 0)
        count++;
    CHECK_EQ(errno, EAGAIN);
    return count;
}

TEST(members_of_groups_that_do_not_read_are_told_of_it) {
    own_network();
    char answer[8192];
    int changer = netlink(0, 0), small = netlink(RTMGRP_IPV4_ROUTE, 1), large = netlink(RTMGRP_IPV4_ROUTE, 0);
    for (int i = 0; i < 20; i++)
        change(changer, RTM_NEWROUTE, NLM_F_CREATE, i + 1);
    CHECK_EQ(events(small), POLLIN | POLLERR);
    CHECK_EQ(events(large), POLLIN);
    ERR(recv(small, answer, sizeof answer, 0), ENOBUFS);
    CHECK_EQ(events(small), POLLIN);
    // Nothing more comes, and nothing more is told, until all has been read.
    OK(recv(small, answer, sizeof answer, 0));
    for (int i = 0; i < 20; i++)
        change(changer, RTM_DELROUTE, 0, i + 1);
    int left = drain(small);
    CHECK(left >= 1 && left <= 4);
    CHECK_EQ(events(small), 0);
    change(changer, RTM_NEWROUTE, NLM_F_CREATE, 1);
    CHECK_EQ(drain(small), 1);
    CHECK_EQ(drain(large), 41);
}

TEST(who_does_not_want_to_be_told_is_not) {
    own_network();
    char answer[8192];
    int changer = netlink(0, 0), small = netlink(RTMGRP_IPV4_ROUTE, 1), on = 1, got = 7;
    socklen_t size = sizeof got;
    OK(getsockopt(small, SOL_NETLINK, NETLINK_NO_ENOBUFS, &got, &size));
    CHECK_EQ(got, 0);
    OK(setsockopt(small, SOL_NETLINK, NETLINK_NO_ENOBUFS, &on, sizeof on));
    OK(getsockopt(small, SOL_NETLINK, NETLINK_NO_ENOBUFS, &got, &size));
    CHECK_EQ(got, 1);
    for (int i = 0; i < 20; i++)
        change(changer, RTM_NEWROUTE, NLM_F_CREATE, i + 1);
    CHECK_EQ(events(small), POLLIN);
    // Where there is room again, it gets what comes: nothing has to be read before.
    OK(recv(small, answer, sizeof answer, 0));
    OK(recv(small, answer, sizeof answer, 0));
    change(changer, RTM_DELROUTE, 0, 1);
    struct nlmsghdr *last = (void *)answer;
    int types = 0;
    while (recv(small, answer, sizeof answer, 0) >= 0)
        types = last->nlmsg_type;
    CHECK_EQ(errno, EAGAIN);
    CHECK_EQ(types, RTM_DELROUTE);
}

TEST(a_default_buffer_overruns_too) {
    own_network();
    char answer[8192];
    int changer = netlink(0, 0), member = netlink(RTMGRP_IPV4_ROUTE, 0), error = 0;
    socklen_t size = sizeof error;
    for (int i = 0; i < 300; i++) {
        change(changer, RTM_NEWROUTE, NLM_F_CREATE, 1);
        change(changer, RTM_DELROUTE, 0, 1);
    }
    OK(getsockopt(member, SOL_SOCKET, SO_ERROR, &error, &size));
    CHECK_EQ(error, ENOBUFS);
    int count = drain(member);
    // 212,992 bytes, of which each message takes 768.
    CHECK(count > 150 && count < 450);
    ERR(recv(member, answer, sizeof answer, 0), EAGAIN);
}

TEST(answers_that_find_no_room_are_lost) {
    own_network();
    char answer[8192];
    int fd = netlink(0, 1);
    // Each is acknowledged; the requests themselves are carried out.
    for (int i = 0; i < 20; i++)
        change(fd, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_ACK, i + 1);
    ERR(recv(fd, answer, sizeof answer, 0), ENOBUFS);
    int count = drain(fd);
    CHECK(count >= 1 && count <= 6);
    for (int i = 0; i < 20; i++) {
        change(fd, RTM_DELROUTE, NLM_F_ACK, i + 1);
        OK(recv(fd, answer, sizeof answer, 0));
        struct nlmsghdr *h = (void *)answer;
        CHECK_EQ(((struct nlmsgerr *)NLMSG_DATA(h))->error, 0);
    }
}
