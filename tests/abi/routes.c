// Routes that differ in nothing but where they lead: which one counts, and in what order they are shown (rtnetlink(7)).
#include "check.h"
#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define ADD (NLM_F_CREATE | NLM_F_EXCL)
#define APPEND (NLM_F_CREATE | NLM_F_APPEND)
// As `ip route prepend` says it.
#define PREPEND NLM_F_CREATE

static int nl;

// A network of its own, with nothing but a loopback.
static void own_network(void) {
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET))
        SKIP("unshare: %s", strerror(errno));
    struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    OK(ioctl(OK(socket(AF_INET, SOCK_DGRAM, 0)), SIOCSIFFLAGS, &r));
    nl = OK(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));
}

struct request {
    struct nlmsghdr h;
    struct rtmsg route;
    char attributes[64];
};

static void attribute(struct request *r, int type, const void *value, size_t size) {
    struct rtattr *a = (struct rtattr *)((char *)r + r->h.nlmsg_len);
    *a = (struct rtattr){RTA_LENGTH(size), type};
    memcpy(RTA_DATA(a), value, size);
    r->h.nlmsg_len += RTA_ALIGN(a->rta_len);
}

// Adds or removes a route of a kind that leads nowhere; gives 0, or the errno that is told.
static int route(int type, int flags, int family, int kind, unsigned metric) {
    struct request r = {.h = {NLMSG_LENGTH(sizeof r.route), type, NLM_F_REQUEST | NLM_F_ACK | flags, 1, 0}};
    r.route = (struct rtmsg){.rtm_family = family, .rtm_dst_len = family == AF_INET ? 24 : 64, .rtm_type = kind};
    r.route.rtm_table = RT_TABLE_MAIN, r.route.rtm_protocol = type == RTM_NEWROUTE ? RTPROT_STATIC : 0;
    r.route.rtm_scope = type == RTM_NEWROUTE ? RT_SCOPE_UNIVERSE : RT_SCOPE_NOWHERE;
    char to[16], answer[4096];
    CHECK_EQ(inet_pton(family, family == AF_INET ? "203.0.113.0" : "2001:db8::", to), 1);
    attribute(&r, RTA_DST, to, family == AF_INET ? 4 : 16);
    if (metric)
        attribute(&r, RTA_PRIORITY, &metric, 4);
    OK(send(nl, &r, r.h.nlmsg_len, 0));
    OK(recv(nl, answer, sizeof answer, 0));
    struct nlmsghdr *h = (void *)answer;
    CHECK_EQ(h->nlmsg_type, NLMSG_ERROR);
    return -((struct nlmsgerr *)NLMSG_DATA(h))->error;
}

// The kinds of these routes in the order in which they are listed, a letter each.
static const char *listed(int family) {
    static char kinds[32];
    char answer[16384];
    int count = 0;
    struct request r = {.h = {NLMSG_LENGTH(sizeof r.route), RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, 2, 0}};
    r.route.rtm_family = family;
    OK(send(nl, &r, r.h.nlmsg_len, 0));
    for (;;) {
        int n = OK(recv(nl, answer, sizeof answer, 0));
        for (struct nlmsghdr *h = (void *)answer; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
            if (h->nlmsg_type == NLMSG_DONE) {
                kinds[count] = 0;
                return kinds;
            }
            struct rtmsg *m = NLMSG_DATA(h);
            CHECK(count < 30);
            if (m->rtm_dst_len == (family == AF_INET ? 24 : 64) && m->rtm_table == RT_TABLE_MAIN)
                kinds[count++] = m->rtm_type == RTN_UNREACHABLE ? 'u' : m->rtm_type == RTN_PROHIBIT ? 'p' : 'b';
        }
    }
}

// What becomes of a way to there.
static int way(void) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = inet_addr("203.0.113.7")};
    int fd = OK(socket(AF_INET, SOCK_DGRAM, 0)), n = connect(fd, (void *)&a, sizeof a), error = errno;
    close(fd);
    return n ? error : 0;
}

TEST(the_first_of_one_metric_counts) {
    own_network();
    CHECK_EQ(route(RTM_NEWROUTE, ADD, AF_INET, RTN_UNREACHABLE, 0), 0);
    CHECK_EQ(route(RTM_NEWROUTE, ADD, AF_INET, RTN_PROHIBIT, 0), EEXIST);
    CHECK_EQ(route(RTM_NEWROUTE, APPEND, AF_INET, RTN_PROHIBIT, 0), 0);
    STR_EQ(listed(AF_INET), "up");
    CHECK_EQ(way(), EHOSTUNREACH);
    CHECK_EQ(route(RTM_NEWROUTE, PREPEND, AF_INET, RTN_BLACKHOLE, 0), 0);
    STR_EQ(listed(AF_INET), "bup");
    CHECK_EQ(way(), EINVAL);
    // None twice, wherever it is put.
    CHECK_EQ(route(RTM_NEWROUTE, PREPEND, AF_INET, RTN_PROHIBIT, 0), EEXIST);
    CHECK_EQ(route(RTM_NEWROUTE, APPEND, AF_INET, RTN_BLACKHOLE, 0), EEXIST);
    CHECK_EQ(route(RTM_NEWROUTE, NLM_F_REPLACE, AF_INET, RTN_PROHIBIT, 0), EEXIST);
    CHECK_EQ(route(RTM_NEWROUTE, NLM_F_REPLACE, AF_INET, RTN_BLACKHOLE, 0), 0);
    STR_EQ(listed(AF_INET), "bup");
    CHECK_EQ(route(RTM_DELROUTE, 0, AF_INET, RTN_UNSPEC, 0), 0);
    CHECK_EQ(way(), EHOSTUNREACH);
    CHECK_EQ(route(RTM_NEWROUTE, NLM_F_REPLACE, AF_INET, RTN_BLACKHOLE, 0), 0);
    STR_EQ(listed(AF_INET), "bp");
}

TEST(metrics_come_before_order) {
    own_network();
    CHECK_EQ(route(RTM_NEWROUTE, ADD, AF_INET, RTN_UNREACHABLE, 7), 0);
    CHECK_EQ(route(RTM_NEWROUTE, APPEND, AF_INET, RTN_PROHIBIT, 3), 0);
    CHECK_EQ(route(RTM_NEWROUTE, PREPEND, AF_INET, RTN_BLACKHOLE, 9), 0);
    CHECK_EQ(way(), EACCES);
    STR_EQ(listed(AF_INET), "pub");
    CHECK_EQ(route(RTM_NEWROUTE, PREPEND, AF_INET, RTN_UNREACHABLE, 3), 0);
    STR_EQ(listed(AF_INET), "upub");
}

TEST(only_a_route_that_may_be_made_is) {
    own_network();
    CHECK_EQ(route(RTM_NEWROUTE, NLM_F_APPEND, AF_INET, RTN_UNREACHABLE, 0), ENOENT);
    CHECK_EQ(route(RTM_NEWROUTE, 0, AF_INET, RTN_UNREACHABLE, 0), ENOENT);
    CHECK_EQ(route(RTM_NEWROUTE, NLM_F_EXCL, AF_INET, RTN_UNREACHABLE, 0), ENOENT);
    STR_EQ(listed(AF_INET), "");
    CHECK_EQ(route(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, AF_INET, RTN_UNREACHABLE, 0), 0);
    CHECK_EQ(route(RTM_NEWROUTE, 0, AF_INET, RTN_PROHIBIT, 0), ENOENT);
    CHECK_EQ(route(RTM_NEWROUTE, 0, AF_INET, RTN_UNREACHABLE, 0), EEXIST);
    STR_EQ(listed(AF_INET), "u");
}
