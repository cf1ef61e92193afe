// rtnetlink and sock_diag: links, addresses and routes are made, shown and told; sockets are listed. /proc/net beside it.
#include "check.h"
#include <arpa/inet.h>
#include <grp.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

static int nl;
static char answer[65536];

struct request {
    struct nlmsghdr h;
    char body[512];
};

static int netlink(int protocol, unsigned groups) {
    int fd = OK(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol));
    struct sockaddr_nl me = {.nl_family = AF_NETLINK, .nl_groups = groups};
    OK(bind(fd, (struct sockaddr *)&me, sizeof me));
    return fd;
}

static struct request begin(int type, int flags, const void *head, size_t size) {
    struct request r = {.h = {NLMSG_LENGTH(size), type, NLM_F_REQUEST | flags, 7, 0}};
    memcpy(r.body, head, size);
    return r;
}

static void attribute(struct request *r, int type, const void *value, size_t size) {
    struct rtattr *a = (struct rtattr *)((char *)r + NLMSG_ALIGN(r->h.nlmsg_len));
    *a = (struct rtattr){RTA_LENGTH(size), type};
    memcpy(RTA_DATA(a), value, size);
    r->h.nlmsg_len = NLMSG_ALIGN(r->h.nlmsg_len) + RTA_ALIGN(a->rta_len);
}

// Sends a request for a change; gives 0, or the errno that is told.
static int change(struct request *r) {
    r->h.nlmsg_flags |= NLM_F_ACK;
    OK(send(nl, r, r->h.nlmsg_len, 0));
    int n = OK(recv(nl, answer, sizeof answer, 0));
    struct nlmsghdr *h = (struct nlmsghdr *)answer;
    CHECK(NLMSG_OK(h, n));
    CHECK_EQ(h->nlmsg_type, NLMSG_ERROR);
    return -((struct nlmsgerr *)NLMSG_DATA(h))->error;
}

// Asks for a list; `each` gets every message of it. Gives how many there were.
static int list(int fd, struct request *r, void (*each)(struct nlmsghdr *)) {
    OK(send(fd, r, r->h.nlmsg_len, 0));
    for (int count = 0;;) {
        int n = OK(recv(fd, answer, sizeof answer, 0));
        for (struct nlmsghdr *h = (struct nlmsghdr *)answer; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
            if (h->nlmsg_type == NLMSG_DONE)
                return count;
            CHECK(h->nlmsg_type != NLMSG_ERROR);
            CHECK(h->nlmsg_flags & NLM_F_MULTI);
            count++;
            if (each)
                each(h);
        }
    }
}

// The value of an attribute of the message whose fixed part has `size` bytes.
static void *find(struct nlmsghdr *h, size_t size, int type) {
    int n = h->nlmsg_len - NLMSG_SPACE(size);
    for (struct rtattr *a = (struct rtattr *)((char *)h + NLMSG_SPACE(size)); RTA_OK(a, n); a = RTA_NEXT(a, n))
        if (a->rta_type == type)
            return RTA_DATA(a);
    return NULL;
}

static int make(const char *name, const char *kind) {
    struct ifinfomsg info = {.ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    struct request r = begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &info, sizeof info);
    attribute(&r, IFLA_IFNAME, name, strlen(name) + 1);
    struct {
        struct rtattr a;
        char kind[8];
    } nested = {{RTA_LENGTH(strlen(kind)), IFLA_INFO_KIND}, ""};
    strcpy(nested.kind, kind);
    attribute(&r, IFLA_LINKINFO, &nested, sizeof nested);
    return change(&r);
}

// A device without a link: a dummy, or what else a kernel without that driver has.
static int dummy(const char *name) {
    int e = make(name, "dummy");
    return e == EOPNOTSUPP ? make(name, "ifb") : e;
}

static int link_flags(int index, unsigned flags) {
    struct ifinfomsg info = {.ifi_index = index, .ifi_flags = flags, .ifi_change = IFF_UP};
    struct request r = begin(RTM_NEWLINK, 0, &info, sizeof info);
    return change(&r);
}

static int address(int type, int flags, int index, const char *text, int prefix) {
    struct ifaddrmsg info = {.ifa_family = AF_INET, .ifa_prefixlen = prefix, .ifa_index = index};
    struct request r = begin(type, flags, &info, sizeof info);
    struct in_addr a;
    CHECK(inet_aton(text, &a));
    attribute(&r, IFA_LOCAL, &a, 4);
    attribute(&r, IFA_ADDRESS, &a, 4);
    return change(&r);
}

static int route(int type, int flags, const char *to, int prefix, const char *gateway, int index) {
    struct rtmsg info = {.rtm_family = AF_INET, .rtm_dst_len = prefix, .rtm_table = RT_TABLE_MAIN,
                         .rtm_protocol = type == RTM_NEWROUTE ? RTPROT_STATIC : 0,
                         .rtm_scope = gateway ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK,
                         .rtm_type = type == RTM_NEWROUTE ? RTN_UNICAST : 0};
    if (type == RTM_DELROUTE)
        info.rtm_scope = RT_SCOPE_NOWHERE;
    struct request r = begin(type, flags, &info, sizeof info);
    struct in_addr a;
    CHECK(inet_aton(to, &a));
    attribute(&r, RTA_DST, &a, 4);
    if (gateway) {
        CHECK(inet_aton(gateway, &a));
        attribute(&r, RTA_GATEWAY, &a, 4);
    }
    if (index)
        attribute(&r, RTA_OIF, &index, 4);
    return change(&r);
}

// The device and the gateway ("-" for none) of the way to an address; 0 if there is none.
static int way(const char *to, char *gateway) {
    struct rtmsg info = {.rtm_family = AF_INET, .rtm_dst_len = 32};
    struct request r = begin(RTM_GETROUTE, 0, &info, sizeof info);
    struct in_addr a;
    CHECK(inet_aton(to, &a));
    attribute(&r, RTA_DST, &a, 4);
    OK(send(nl, &r, r.h.nlmsg_len, 0));
    OK(recv(nl, answer, sizeof answer, 0));
    struct nlmsghdr *h = (struct nlmsghdr *)answer;
    if (h->nlmsg_type == NLMSG_ERROR)
        return 0;
    CHECK_EQ(h->nlmsg_type, RTM_NEWROUTE);
    struct in_addr *hop = find(h, sizeof info, RTA_GATEWAY);
    strcpy(gateway, hop ? inet_ntoa(*hop) : "-");
    int *device = find(h, sizeof info, RTA_OIF);
    CHECK(device);
    return *device;
}

// A network of the check's own: a namespace, or the sandbox's where there are no others.
static void own_network(void) {
    if (geteuid())
        SKIP("takes root");
    if (unshare(CLONE_NEWNET))
        CHECK_EQ(errno, EPERM);
    nl = netlink(NETLINK_ROUTE, 0);
    // What another check has left in a network that is not new.
    struct ifinfomsg old = {.ifi_index = if_nametoindex("d0")};
    struct request r = begin(RTM_DELLINK, 0, &old, sizeof old);
    if (old.ifi_index)
        CHECK_EQ(change(&r), 0);
    CHECK_EQ(link_flags(if_nametoindex("lo"), IFF_UP), 0);
}

static int bound_to(const char *text) {
    int fd = OK(socket(AF_INET, SOCK_DGRAM, 0));
    struct sockaddr_in a = {.sin_family = AF_INET};
    CHECK(inet_aton(text, &a.sin_addr));
    int e = bind(fd, (struct sockaddr *)&a, sizeof a) ? errno : 0;
    close(fd);
    return e;
}

TEST(addresses_come_with_their_network) {
    own_network();
    CHECK_EQ(dummy("d0"), 0);
    CHECK_EQ(dummy("d0"), EEXIST);
    int d = if_nametoindex("d0");
    CHECK(d > 1);
    char hop[20];
    CHECK_EQ(bound_to("192.0.2.1"), EADDRNOTAVAIL);
    CHECK_EQ(way("192.0.2.77", hop), 0);
    CHECK_EQ(address(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, d, "192.0.2.1", 24), 0);
    CHECK_EQ(address(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, d, "192.0.2.1", 24), EEXIST);
    CHECK_EQ(address(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, 4711, "192.0.2.1", 24), ENODEV);
    CHECK_EQ(address(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, d, "192.0.2.1", 33), EINVAL);
    CHECK_EQ(bound_to("192.0.2.1"), 0);
    CHECK_EQ(way("192.0.2.77", hop), d);
    STR_EQ(hop, "-");
    // Its own address leads over the loopback.
    CHECK_EQ(way("192.0.2.1", hop), (int)if_nametoindex("lo"));
    CHECK_EQ(address(RTM_NEWADDR, NLM_F_CREATE, d, "192.0.2.2", 24), 0);
    CHECK_EQ(address(RTM_DELADDR, 0, d, "192.0.2.1", 24), 0);
    // The second one of a network goes with the first.
    CHECK_EQ(bound_to("192.0.2.2"), EADDRNOTAVAIL);
    CHECK_EQ(address(RTM_DELADDR, 0, d, "192.0.2.1", 24), EADDRNOTAVAIL);
    CHECK_EQ(way("192.0.2.77", hop), 0);
}

TEST(all_of_a_loopback_network_is_local) {
    own_network();
    int lo = if_nametoindex("lo");
    CHECK_EQ(address(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, lo, "198.51.100.1", 24), 0);
    CHECK_EQ(bound_to("198.51.100.200"), 0);
    CHECK_EQ(bound_to("198.51.101.1"), EADDRNOTAVAIL);
    int server = OK(socket(AF_INET, SOCK_STREAM, 0)), client = OK(socket(AF_INET, SOCK_STREAM, 0));
    struct sockaddr_in a = {.sin_family = AF_INET};
    inet_aton("198.51.100.9", &a.sin_addr);
    OK(bind(server, (struct sockaddr *)&a, sizeof a));
    OK(listen(server, 1));
    socklen_t size = sizeof a;
    OK(getsockname(server, (struct sockaddr *)&a, &size));
    OK(connect(client, (struct sockaddr *)&a, sizeof a));
    CHECK_EQ(address(RTM_DELADDR, 0, lo, "198.51.100.1", 24), 0);
}

TEST(routes_lead_over_gateways) {
    own_network();
    CHECK_EQ(dummy("d0"), 0);
    int d = if_nametoindex("d0");
    CHECK_EQ(address(RTM_NEWADDR, NLM_F_CREATE, d, "192.0.2.1", 24), 0);
    int new = NLM_F_CREATE | NLM_F_EXCL;
    char hop[20];
    CHECK_EQ(route(RTM_NEWROUTE, new, "203.0.113.0", 24, "10.99.0.1", 0), ENETUNREACH);
    CHECK_EQ(route(RTM_NEWROUTE, new, "203.0.113.1", 24, "192.0.2.9", 0), EINVAL);
    CHECK_EQ(route(RTM_NEWROUTE, new, "203.0.113.0", 24, "192.0.2.9", 0), 0);
    CHECK_EQ(route(RTM_NEWROUTE, new, "203.0.113.0", 24, "192.0.2.10", 0), EEXIST);
    CHECK_EQ(way("203.0.113.5", hop), d);
    STR_EQ(hop, "192.0.2.9");
    CHECK_EQ(route(RTM_NEWROUTE, NLM_F_REPLACE, "203.0.113.0", 24, "192.0.2.10", 0), 0);
    way("203.0.113.5", hop);
    STR_EQ(hop, "192.0.2.10");
    // A longer prefix is closer.
    CHECK_EQ(route(RTM_NEWROUTE, new, "203.0.113.4", 30, NULL, d), 0);
    way("203.0.113.5", hop);
    STR_EQ(hop, "-");
    CHECK_EQ(route(RTM_NEWROUTE, NLM_F_REPLACE, "203.0.114.0", 24, "192.0.2.10", 0), ENOENT);
    CHECK_EQ(route(RTM_NEWROUTE, new, "203.0.114.0", 24, NULL, 4711), ENODEV);
    CHECK_EQ(route(RTM_DELROUTE, 0, "203.0.113.0", 24, "192.0.2.9", 0), ESRCH);
    CHECK_EQ(route(RTM_DELROUTE, 0, "203.0.113.0", 24, NULL, 0), 0);
    CHECK_EQ(route(RTM_DELROUTE, 0, "203.0.113.0", 24, NULL, 0), ESRCH);
    CHECK_EQ(way("203.0.113.200", hop), 0);
}

TEST(a_link_that_goes_down_takes_its_routes) {
    own_network();
    CHECK_EQ(dummy("d0"), 0);
    int d = if_nametoindex("d0");
    CHECK_EQ(address(RTM_NEWADDR, NLM_F_CREATE, d, "192.0.2.1", 24), 0);
    CHECK_EQ(route(RTM_NEWROUTE, NLM_F_CREATE, "203.0.113.0", 24, "192.0.2.9", 0), 0);
    char hop[20];
    CHECK_EQ(link_flags(d, 0), 0);
    CHECK_EQ(way("192.0.2.77", hop), 0);
    CHECK_EQ(route(RTM_NEWROUTE, NLM_F_CREATE, "203.0.113.0", 24, NULL, d), ENETDOWN);
    CHECK_EQ(link_flags(d, IFF_UP), 0);
    // The network comes back, what was added does not.
    CHECK_EQ(way("192.0.2.77", hop), d);
    CHECK_EQ(way("203.0.113.5", hop), 0);
    struct ifinfomsg info = {.ifi_index = d};
    struct request r = begin(RTM_DELLINK, 0, &info, sizeof info);
    CHECK_EQ(change(&r), 0);
    CHECK_EQ(if_nametoindex("d0"), 0);
    CHECK_EQ(bound_to("192.0.2.1"), EADDRNOTAVAIL);
    CHECK_EQ(link_flags(d, IFF_UP), ENODEV);
}

TEST(links_are_renamed_and_resized) {
    own_network();
    CHECK_EQ(dummy("d0"), 0);
    int d = if_nametoindex("d0");
    struct ifinfomsg info = {.ifi_index = d};
    struct request r = begin(RTM_NEWLINK, 0, &info, sizeof info);
    unsigned mtu = 1400;
    attribute(&r, IFLA_MTU, &mtu, 4);
    CHECK_EQ(change(&r), 0);
    struct ifreq q = {.ifr_name = "d0"};
    OK(ioctl(nl, SIOCGIFMTU, &q));
    CHECK_EQ(q.ifr_mtu, 1400);
    CHECK_EQ(link_flags(d, 0), 0);
    r = begin(RTM_NEWLINK, 0, &info, sizeof info);
    attribute(&r, IFLA_IFNAME, "other0", 7);
    CHECK_EQ(change(&r), 0);
    CHECK_EQ(if_nametoindex("other0"), d);
    r = begin(RTM_NEWLINK, 0, &info, sizeof info);
    attribute(&r, IFLA_IFNAME, "lo", 3);
    CHECK_EQ(change(&r), EEXIST);
    r = begin(RTM_NEWLINK, 0, &info, sizeof info);
    attribute(&r, IFLA_IFNAME, "a/b", 4);
    CHECK_EQ(change(&r), EINVAL);
}

TEST(members_of_groups_are_told) {
    own_network();
    int monitor = netlink(NETLINK_ROUTE, RTMGRP_LINK | RTMGRP_IPV4_IFADDR);
    int routes = netlink(NETLINK_ROUTE, 0), group = RTNLGRP_IPV4_ROUTE;
    OK(setsockopt(routes, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group));
    CHECK_EQ(dummy("d0"), 0);
    int d = if_nametoindex("d0");
    CHECK_EQ(address(RTM_NEWADDR, NLM_F_CREATE, d, "192.0.2.1", 24), 0);
    CHECK_EQ(address(RTM_DELADDR, 0, d, "192.0.2.1", 24), 0);
    int links = 0, came = 0, went = 0;
    while (links == 0 || went == 0) {
        int n = OK(recv(monitor, answer, sizeof answer, 0));
        for (struct nlmsghdr *h = (struct nlmsghdr *)answer; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
            struct ifinfomsg *i = NLMSG_DATA(h);
            struct ifaddrmsg *a = NLMSG_DATA(h);
            links += h->nlmsg_type == RTM_NEWLINK && i->ifi_index == d;
            came += h->nlmsg_type == RTM_NEWADDR && (int)a->ifa_index == d;
            went += h->nlmsg_type == RTM_DELADDR && (int)a->ifa_index == d;
        }
    }
    CHECK_EQ(came, 1);
    CHECK_EQ(went, 1);
    // The connected route, among others.
    for (int seen = 0; !seen;) {
        int n = OK(recv(routes, answer, sizeof answer, 0));
        for (struct nlmsghdr *h = (struct nlmsghdr *)answer; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
            struct rtmsg *r = NLMSG_DATA(h);
            seen |= h->nlmsg_type == RTM_NEWROUTE && r->rtm_table == RT_TABLE_MAIN && r->rtm_dst_len == 24;
        }
    }
    OK(setsockopt(routes, SOL_NETLINK, NETLINK_DROP_MEMBERSHIP, &group, sizeof group));
    group = 0;
    ERR(setsockopt(routes, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group), EINVAL);
}

TEST(changes_take_the_capability) {
    own_network();
    OK(setgroups(0, NULL));
    OK(setresuid(65534, 65534, 65534));
    int lo = if_nametoindex("lo");
    CHECK_EQ(dummy("d1"), EPERM);
    CHECK_EQ(link_flags(lo, 0), EPERM);
    CHECK_EQ(address(RTM_NEWADDR, NLM_F_CREATE, lo, "192.0.2.1", 24), EPERM);
    CHECK_EQ(route(RTM_NEWROUTE, NLM_F_CREATE, "203.0.113.0", 24, NULL, lo), EPERM);
    struct ifreq q = {.ifr_name = "lo", .ifr_flags = 0};
    ERR(ioctl(nl, SIOCSIFFLAGS, &q), EPERM);
    struct rtentry e = {.rt_dst.sa_family = AF_INET};
    ERR(ioctl(OK(socket(AF_INET, SOCK_DGRAM, 0)), SIOCADDRT, &e), EPERM);
    char hop[20];
    CHECK_EQ(way("127.0.0.1", hop), lo);
}

TEST(ioctls_of_ifconfig_and_route) {
    own_network();
    CHECK_EQ(dummy("d0"), 0);
    int s = OK(socket(AF_INET, SOCK_DGRAM, 0)), d = if_nametoindex("d0");
    struct ifreq q = {.ifr_name = "d0"};
    struct sockaddr_in *a = (struct sockaddr_in *)&q.ifr_addr;
    a->sin_family = AF_INET;
    inet_aton("10.1.2.3", &a->sin_addr);
    OK(ioctl(s, SIOCSIFADDR, &q));
    inet_aton("255.255.255.0", &a->sin_addr);
    OK(ioctl(s, SIOCSIFNETMASK, &q));
    inet_aton("255.0.255.0", &a->sin_addr);
    ERR(ioctl(s, SIOCSIFNETMASK, &q), EINVAL);
    OK(ioctl(s, SIOCGIFADDR, &q));
    STR_EQ(inet_ntoa(a->sin_addr), "10.1.2.3");
    OK(ioctl(s, SIOCGIFNETMASK, &q));
    STR_EQ(inet_ntoa(a->sin_addr), "255.255.255.0");
    char hop[20];
    CHECK_EQ(way("10.1.2.77", hop), d);
    CHECK_EQ(way("10.1.3.77", hop), 0);
    struct rtentry e = {.rt_flags = RTF_UP | RTF_GATEWAY, .rt_metric = 6};
    a = (struct sockaddr_in *)&e.rt_dst, a->sin_family = AF_INET;
    a = (struct sockaddr_in *)&e.rt_genmask, a->sin_family = AF_INET;
    a = (struct sockaddr_in *)&e.rt_gateway, a->sin_family = AF_INET;
    inet_aton("10.1.2.9", &a->sin_addr);
    OK(ioctl(s, SIOCADDRT, &e));
    ERR(ioctl(s, SIOCADDRT, &e), EEXIST);
    CHECK_EQ(way("203.0.113.1", hop), d);
    STR_EQ(hop, "10.1.2.9");
    FILE *f = fopen("/proc/self/net/route", "r");
    CHECK(f);
    static char line[512];
    int seen = 0;
    while (fgets(line, sizeof line, f))
        seen |= !strncmp(line, "d0\t00000000\t0902010A\t0003\t0\t0\t5\t00000000", 38);
    CHECK(seen);
    OK(ioctl(s, SIOCDELRT, &e));
    ERR(ioctl(s, SIOCDELRT, &e), ESRCH);
}

static int rules;
static unsigned tables[4];

static void rule(struct nlmsghdr *h) {
    struct rtmsg *r = NLMSG_DATA(h);
    CHECK_EQ(h->nlmsg_type, RTM_NEWRULE);
    if (rules < 4)
        tables[rules++] = r->rtm_table;
}

TEST(the_rules_are_the_usual_ones) {
    own_network();
    struct rtmsg info = {.rtm_family = AF_INET};
    struct request r = begin(RTM_GETRULE, NLM_F_DUMP, &info, sizeof info);
    CHECK_EQ(list(nl, &r, rule), 3);
    CHECK_EQ(tables[0], RT_TABLE_LOCAL);
    CHECK_EQ(tables[1], RT_TABLE_MAIN);
    CHECK_EQ(tables[2], RT_TABLE_DEFAULT);
}

static ino_t inode(int fd) {
    struct stat s;
    OK(fstat(fd, &s));
    return s.st_ino;
}

static ino_t wanted;
static int found, state, receive_queue, with_info;

static void diag(struct nlmsghdr *h) {
    struct inet_diag_msg *m = NLMSG_DATA(h);
    CHECK_EQ(h->nlmsg_type, SOCK_DIAG_BY_FAMILY);
    if (m->idiag_inode == wanted) {
        found++;
        state = m->idiag_state;
        receive_queue = m->idiag_rqueue;
        with_info = find(h, sizeof *m, INET_DIAG_INFO) != NULL;
    }
}

static struct request ask_inet(int protocol, int flags) {
    struct inet_diag_req_v2 q = {.sdiag_family = AF_INET, .sdiag_protocol = protocol, .idiag_states = -1,
                                 .idiag_ext = 1 << (INET_DIAG_INFO - 1)};
    return begin(SOCK_DIAG_BY_FAMILY, flags, &q, sizeof q);
}

TEST(sock_diag_lists_inet_sockets) {
    int sd = netlink(NETLINK_SOCK_DIAG, 0);
    int l = OK(socket(AF_INET, SOCK_STREAM, 0)), u = OK(socket(AF_INET, SOCK_DGRAM, 0));
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof a;
    OK(bind(u, (struct sockaddr *)&a, sizeof a));
    OK(bind(l, (struct sockaddr *)&a, sizeof a));
    OK(listen(l, 5));
    OK(getsockname(l, (struct sockaddr *)&a, &size));
    int c = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(connect(c, (struct sockaddr *)&a, sizeof a));
    wanted = inode(l);
    struct request r = ask_inet(IPPROTO_TCP, NLM_F_DUMP);
    list(sd, &r, diag);
    CHECK_EQ(found, 1);
    CHECK_EQ(state, TCP_LISTEN);
    CHECK_EQ(receive_queue, 1);
    int s = OK(accept(l, NULL, NULL));
    CHECK_EQ(write(c, "hello", 5), 5);
    wanted = inode(s), found = 0;
    list(sd, &r, diag);
    CHECK_EQ(found, 1);
    CHECK_EQ(state, TCP_ESTABLISHED);
    CHECK_EQ(receive_queue, 5);
    CHECK(with_info);
    // Only those in a state that is asked for.
    ((struct inet_diag_req_v2 *)r.body)->idiag_states = 1 << TCP_LISTEN;
    found = 0;
    list(sd, &r, diag);
    CHECK_EQ(found, 0);
    wanted = inode(u), found = 0;
    r = ask_inet(IPPROTO_UDP, NLM_F_DUMP);
    list(sd, &r, diag);
    CHECK_EQ(found, 1);
    CHECK_EQ(state, TCP_CLOSE);
    // One socket, by its addresses.
    r = ask_inet(IPPROTO_TCP, 0);
    struct inet_diag_sockid *id = &((struct inet_diag_req_v2 *)r.body)->id;
    id->idiag_sport = a.sin_port;
    id->idiag_src[0] = a.sin_addr.s_addr;
    id->idiag_cookie[0] = id->idiag_cookie[1] = INET_DIAG_NOCOOKIE;
    OK(send(sd, &r, r.h.nlmsg_len, 0));
    OK(recv(sd, answer, sizeof answer, 0));
    struct nlmsghdr *h = (struct nlmsghdr *)answer;
    CHECK_EQ(h->nlmsg_type, SOCK_DIAG_BY_FAMILY);
    CHECK_EQ(((struct inet_diag_msg *)NLMSG_DATA(h))->idiag_inode, inode(l));
    id->idiag_sport ^= 0xffff;
    OK(send(sd, &r, r.h.nlmsg_len, 0));
    OK(recv(sd, answer, sizeof answer, 0));
    CHECK_EQ(h->nlmsg_type, NLMSG_ERROR);
    CHECK_EQ(((struct nlmsgerr *)NLMSG_DATA(h))->error, -ENOENT);
}

static int peers;
static char name[120];

static void diag_unix(struct nlmsghdr *h) {
    struct unix_diag_msg *m = NLMSG_DATA(h);
    if (m->udiag_ino != wanted)
        return;
    found++;
    state = m->udiag_state;
    unsigned *peer = find(h, sizeof *m, UNIX_DIAG_PEER);
    peers = peer ? *peer : 0;
    char *n = find(h, sizeof *m, UNIX_DIAG_NAME);
    memcpy(name, n ? n : "\0", n ? 12 : 1);
}

TEST(sock_diag_lists_unix_sockets) {
    int sd = netlink(NETLINK_SOCK_DIAG, 0), pair[2], l = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    struct sockaddr_un n = {.sun_family = AF_UNIX, .sun_path = "\0moat-listed"};
    OK(bind(l, (struct sockaddr *)&n, 14));
    OK(listen(l, 1));
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    struct unix_diag_req q = {.sdiag_family = AF_UNIX, .udiag_states = -1,
                              .udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_PEER | UDIAG_SHOW_RQLEN};
    struct request r = begin(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &q, sizeof q);
    wanted = inode(l);
    list(sd, &r, diag_unix);
    CHECK_EQ(found, 1);
    CHECK_EQ(state, TCP_LISTEN);
    CHECK(!memcmp(name, "\0moat-listed", 12));
    wanted = inode(pair[0]), found = 0;
    list(sd, &r, diag_unix);
    CHECK_EQ(found, 1);
    CHECK_EQ(state, TCP_ESTABLISHED);
    CHECK_EQ(peers, (int)inode(pair[1]));
}

TEST(a_long_list_comes_in_pieces) {
    int sd = netlink(NETLINK_SOCK_DIAG, 0);
    struct rlimit most = {1024, 1024};
    OK(setrlimit(RLIMIT_NOFILE, &most));
    for (int i = 0; i < 600; i++) {
        int u = OK(socket(AF_INET, SOCK_DGRAM, 0));
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        OK(bind(u, (struct sockaddr *)&a, sizeof a));
    }
    struct request r = ask_inet(IPPROTO_UDP, NLM_F_DUMP);
    CHECK(list(sd, &r, NULL) >= 600);
    // A second one that begins before the first has ended is refused, once the pieces of the first are read.
    OK(send(sd, &r, r.h.nlmsg_len, 0));
    OK(send(sd, &r, r.h.nlmsg_len, 0));
    for (int over = 0, busy = 0; !over || !busy;) {
        int n = OK(recv(sd, answer, sizeof answer, 0));
        for (struct nlmsghdr *h = (struct nlmsghdr *)answer; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
            over |= h->nlmsg_type == NLMSG_DONE;
            if (h->nlmsg_type == NLMSG_ERROR) {
                CHECK_EQ(((struct nlmsgerr *)NLMSG_DATA(h))->error, -EBUSY);
                busy = 1;
            }
        }
    }
}

TEST(requests_that_are_none) {
    own_network();
    struct request r = {.h = {NLMSG_LENGTH(1), RTM_NEWADDR, NLM_F_REQUEST, 7, 0}};
    CHECK_EQ(change(&r), EOPNOTSUPP);
    r.body[0] = AF_INET;
    CHECK_EQ(change(&r), EINVAL);
    // What has not even a family is passed over.
    r.h = (struct nlmsghdr){NLMSG_LENGTH(0), RTM_NEWLINK, NLM_F_REQUEST, 7, 0};
    CHECK_EQ(change(&r), 0);
    // Lengths that lie end the message; no answer comes.
    r.h = (struct nlmsghdr){4000, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 7, 0};
    CHECK_EQ(send(nl, &r, 20, 0), 20);
    ERR(recv(nl, answer, sizeof answer, MSG_DONTWAIT), EAGAIN);
    struct inet_diag_req_v2 q = {.sdiag_family = 250};
    r = begin(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &q, sizeof q);
    nl = netlink(NETLINK_SOCK_DIAG, 0);
    CHECK_EQ(change(&r), EINVAL);
    q.sdiag_family = AF_X25;
    r = begin(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &q, sizeof q);
    CHECK_EQ(change(&r), ENOENT);
    ERR(socket(AF_NETLINK, SOCK_STREAM, NETLINK_ROUTE), ESOCKTNOSUPPORT);
    ERR(socket(AF_NETLINK, SOCK_RAW, 31), EPROTONOSUPPORT);
}

TEST(proc_net_counts) {
    static const char *files[] = {"snmp", "netstat"};
    for (int i = 0; i < 2; i++) {
        char path[40];
        snprintf(path, sizeof path, "/proc/self/net/%s", files[i]);
        FILE *f = fopen(path, "r");
        CHECK(f);
        static char names[8192], values[8192];
        while (fgets(names, sizeof names, f)) {
            CHECK(fgets(values, sizeof values, f));
            int a = 0, b = 0;
            for (char *p = names; *p; p++)
                a += *p == ' ';
            for (char *p = values; *p; p++)
                b += *p == ' ';
            CHECK_EQ(a, b);
            CHECK_EQ(strcspn(names, ":"), strcspn(values, ":"));
        }
        fclose(f);
    }
    static const char *others[] = {"sockstat", "sockstat6", "raw", "raw6", "packet", "netlink", "protocols",
                                   "ipv6_route", "igmp", "igmp6", "dev_mcast"};
    for (int i = 0; i < 11; i++) {
        char path[40];
        snprintf(path, sizeof path, "/proc/self/net/%s", others[i]);
        close(OK(open(path, O_RDONLY)));
    }
}
