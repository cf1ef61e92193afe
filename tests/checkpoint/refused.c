// What can't be saved yet: it is named before anything is stopped, and the program goes on as if nobody had asked. Each check runs by
// itself, and says what the refusal has to contain.
#include "check.h"
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

static void REFUSED(const char *words) {
    char line[200];
    int n = snprintf(line, sizeof line, "refusal: %s\n", words);
    CHECK_EQ(write(1, line, n), n);
    RESTORED();
}

// One change of the network, acknowledged.
static void change(int type, const void *body, int body_len, const void *more, int more_len) {
    struct {
        struct nlmsghdr head;
        char rest[200];
    } m = {.head = {.nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL}};
    memcpy(NLMSG_DATA(&m.head), body, body_len);
    memcpy((char *)NLMSG_DATA(&m.head) + NLMSG_ALIGN(body_len), more, more_len);
    m.head.nlmsg_len = NLMSG_LENGTH(NLMSG_ALIGN(body_len) + more_len);
    int s = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    CHECK(s >= 0 && send(s, &m, m.head.nlmsg_len, 0) == (ssize_t)m.head.nlmsg_len);
    char answer[500];
    CHECK(recv(s, answer, sizeof answer, 0) >= (ssize_t)NLMSG_LENGTH(sizeof(struct nlmsgerr)));
    int error = ((struct nlmsgerr *)NLMSG_DATA((struct nlmsghdr *)answer))->error;
    if (error)
        FAIL("netlink says %d", error);
    close(s);
}

struct attribute {
    struct rtattr head;
    unsigned char value[8];
};

static struct attribute attribute(int type, const void *value, int len) {
    struct attribute a = {.head = {RTA_LENGTH(len), type}};
    memcpy(a.value, value, len);
    return a;
}

TEST(an_address) {
    struct ifaddrmsg address = {AF_INET, 32, 0, 0, 1};
    struct in_addr ip = {htonl(0x0a090909)};
    struct attribute local = attribute(IFA_LOCAL, &ip, 4);
    change(RTM_NEWADDR, &address, sizeof address, &local, 8);
    REFUSED("changed of its network (addresses)");
}

TEST(a_route) {
    struct rtmsg route = {.rtm_family = AF_INET,
                          .rtm_dst_len = 24,
                          .rtm_table = RT_TABLE_MAIN,
                          .rtm_protocol = RTPROT_BOOT,
                          .rtm_scope = RT_SCOPE_LINK,
                          .rtm_type = RTN_UNICAST};
    struct in_addr ip = {htonl(0x0a090900)};
    int link = 1;
    struct attribute more[2] = {attribute(RTA_DST, &ip, 4), attribute(RTA_OIF, &link, 4)};
    char packed[16];
    memcpy(packed, &more[0], 8);
    memcpy(packed + 8, &more[1], 8);
    change(RTM_NEWROUTE, &route, sizeof route, packed, 16);
    REFUSED("changed of its network (routes)");
}

TEST(a_link_that_was_changed) {
    struct ifreq link = {.ifr_name = "lo", .ifr_mtu = 4321};
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(s >= 0 && !ioctl(s, SIOCSIFMTU, &link) && !close(s));
    REFUSED("changed of its network (links)");
}

TEST(a_socket_with_a_ring) {
    int s = socket(AF_PACKET, SOCK_RAW, 0), version = TPACKET_V2;
    struct tpacket_req ring = {4096, 1, 2048, 2};
    CHECK(s >= 0 && !setsockopt(s, SOL_PACKET, PACKET_VERSION, &version, sizeof version));
    CHECK(!setsockopt(s, SOL_PACKET, PACKET_RX_RING, &ring, sizeof ring));
    REFUSED("a packet socket with a ring");
    CHECK(!close(s));
}

TEST(a_network_namespace_with_a_socket) {
    CHECK(!unshare(CLONE_NEWNET));
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(s >= 0);
    REFUSED("a socket of a network namespace of the guest's own");
}

TEST(a_network_namespace_that_was_set_up) {
    CHECK(!unshare(CLONE_NEWNET));
    struct ifreq link = {.ifr_name = "lo", .ifr_mtu = 4321};
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(s >= 0 && !ioctl(s, SIOCSIFMTU, &link) && !close(s));
    REFUSED("what was set up in a network namespace of the guest's own");
}

TEST(a_mount) {
    CHECK(!mkdir("/tmp/made", 0700) && !mount("none", "/tmp/made", "tmpfs", 0, NULL));
    REFUSED("the tmpfs at /tmp/made, which a process has mounted, can't be saved");
    CHECK(!umount2("/tmp/made", MNT_DETACH) && !rmdir("/tmp/made"));
}

TEST(a_bind_mount) {
    CHECK(!mkdir("/tmp/bound", 0700) && !mount("/tmp", "/tmp/bound", NULL, MS_BIND, NULL));
    REFUSED("at /tmp/bound, which a process has mounted");
    CHECK(!umount2("/tmp/bound", MNT_DETACH) && !rmdir("/tmp/bound"));
}

TEST(a_mount_that_was_mounted_again) {
    struct statvfs before;
    CHECK(!statvfs("/tmp", &before));
    unsigned long flags = MS_REMOUNT | MS_BIND | (before.f_flag & (ST_NOSUID | ST_NODEV | ST_NOEXEC));
    CHECK(!mount("none", "/tmp", NULL, flags ^ MS_NOEXEC, NULL));
    REFUSED("at /tmp, which a process has mounted again with other flags");
    CHECK(!mount("none", "/tmp", NULL, flags, NULL));
}

TEST(a_mount_namespace) {
    CHECK(!unshare(CLONE_NEWNS));
    REFUSED("mount namespace of the guest's own");
}
