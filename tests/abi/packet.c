// Packet sockets: frames of a link are seen, filtered, cut and put into a ring that is mapped.
#include "check.h"
#include <arpa/inet.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

// Makes a device without a link in a network of the check's own; gives its number.
static int device(void) {
    if (geteuid())
        SKIP("takes root");
    if (unshare(CLONE_NEWNET))
        CHECK_EQ(errno, EPERM);
    int nl = OK(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    static const char *kinds[] = {"dummy", "ifb"};
    for (int i = 0; i < 2 && !if_nametoindex("p0"); i++) {
        struct {
            struct nlmsghdr h;
            struct ifinfomsg i;
            struct rtattr name;
            char text[4];
            struct rtattr info, kind;
            char driver[8];
        } r = {{sizeof r - 8 + strlen(kinds[i]), RTM_NEWLINK, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK, 1, 0},
               {.ifi_flags = IFF_UP, .ifi_change = IFF_UP},
               {RTA_LENGTH(3), IFLA_IFNAME},
               "p0",
               {RTA_LENGTH(4 + strlen(kinds[i])), IFLA_LINKINFO},
               {RTA_LENGTH(strlen(kinds[i])), IFLA_INFO_KIND},
               ""};
        strcpy(r.driver, kinds[i]);
        char answer[512];
        OK(send(nl, &r, r.h.nlmsg_len, 0));
        OK(recv(nl, answer, sizeof answer, 0));
    }
    close(nl);
    int index = if_nametoindex("p0");
    CHECK(index > 0);
    return index;
}

static int attach(int fd, struct sock_filter *program, int count) {
    struct sock_fprog p = {count, program};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof p);
}

static int packet(int type, int protocol, int index) {
    int fd = OK(socket(AF_PACKET, type, 0));
    // Only what the check sends: a device that comes up asks for its neighbours.
    struct sock_filter own[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_PROTOCOL),
                                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x88b5, 0, 1), BPF_STMT(BPF_RET | BPF_K, 0xffff),
                                BPF_STMT(BPF_RET | BPF_K, 0)};
    OK(attach(fd, own, 4));
    struct sockaddr_ll a = {.sll_family = AF_PACKET, .sll_protocol = htons(protocol), .sll_ifindex = index};
    OK(bind(fd, (struct sockaddr *)&a, sizeof a));
    return fd;
}

// A frame of protocol 0x88b5 (for experiments) to everybody, with `size` bytes of `letter`.
static int frame(unsigned char *to, int size, char letter) {
    memset(to, 0xff, 6);
    memcpy(to + 6, "\2\0\0\0\0\7\x88\xb5", 8);
    memset(to + 14, letter, size);
    return size + 14;
}

static void transmit(int index, int size, char letter) {
    static unsigned char bytes[2000];
    int n = frame(bytes, size, letter), fd = packet(SOCK_RAW, 0, index);
    CHECK_EQ(send(fd, bytes, n, 0), n);
    close(fd);
}

TEST(frames_are_seen_with_and_without_their_header) {
    int d = device(), raw = packet(SOCK_RAW, ETH_P_ALL, d), cooked = packet(SOCK_DGRAM, ETH_P_ALL, d);
    // One of a protocol sees nothing that is sent from here.
    int other = packet(SOCK_RAW, 0x88b5, d);
    transmit(d, 100, 'a');
    unsigned char bytes[300];
    struct sockaddr_ll from;
    socklen_t size = sizeof from;
    CHECK_EQ(recvfrom(raw, bytes, sizeof bytes, 0, (struct sockaddr *)&from, &size), 114);
    CHECK_EQ(bytes[113], 'a');
    CHECK_EQ(from.sll_ifindex, d);
    CHECK_EQ(ntohs(from.sll_protocol), 0x88b5);
    CHECK_EQ(from.sll_pkttype, PACKET_OUTGOING);
    CHECK_EQ(from.sll_halen, 6);
    CHECK_EQ(from.sll_addr[5], 7);
    CHECK_EQ(recv(cooked, bytes, sizeof bytes, 0), 100);
    CHECK_EQ(bytes[0], 'a');
    ERR(recv(other, bytes, sizeof bytes, MSG_DONTWAIT), EAGAIN);
    // What does not fit is cut.
    transmit(d, 100, 'b');
    CHECK_EQ(recv(raw, bytes, 20, MSG_TRUNC), 114);
    ERR(recv(raw, bytes, 20, MSG_DONTWAIT), EAGAIN);
    int on = 1;
    OK(setsockopt(cooked, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on));
    recv(cooked, bytes, sizeof bytes, MSG_DONTWAIT);
    transmit(d, 100, 'c');
    ERR(recv(cooked, bytes, sizeof bytes, MSG_DONTWAIT), EAGAIN);
    struct tpacket_stats stats;
    size = sizeof stats;
    OK(getsockopt(raw, SOL_PACKET, PACKET_STATISTICS, &stats, &size));
    CHECK_EQ(stats.tp_packets, 3);
    OK(getsockopt(raw, SOL_PACKET, PACKET_STATISTICS, &stats, &size));
    CHECK_EQ(stats.tp_packets, 0);
}

TEST(names_of_packet_sockets) {
    int d = device(), fd = packet(SOCK_RAW, ETH_P_ALL, d);
    struct sockaddr_ll a;
    socklen_t size = sizeof a;
    OK(getsockname(fd, (struct sockaddr *)&a, &size));
    CHECK_EQ(a.sll_ifindex, d);
    CHECK_EQ(ntohs(a.sll_protocol), ETH_P_ALL);
    CHECK_EQ(a.sll_hatype, 1);
    CHECK_EQ(a.sll_halen, 6);
    a.sll_ifindex = 4711;
    ERR(bind(fd, (struct sockaddr *)&a, sizeof a), ENODEV);
    a.sll_family = AF_INET;
    ERR(bind(fd, (struct sockaddr *)&a, sizeof a), EINVAL);
    ERR(connect(fd, (struct sockaddr *)&a, sizeof a), EOPNOTSUPP);
    ERR(getpeername(fd, (struct sockaddr *)&a, &size), EOPNOTSUPP);
    ERR(socket(AF_PACKET, SOCK_STREAM, 0), ESOCKTNOSUPPORT);
    unsigned char bytes[2000];
    ERR(send(fd, bytes, 5, 0), EINVAL);
    frame(bytes, 1900, 'x');
    ERR(send(fd, bytes, 1914, 0), EMSGSIZE);
    int unbound = OK(socket(AF_PACKET, SOCK_RAW, 0));
    ERR(send(unbound, bytes, 100, 0), ENXIO);
    OK(setgroups(0, NULL));
    OK(setresuid(65534, 65534, 65534));
    ERR(socket(AF_PACKET, SOCK_RAW, 0), EPERM);
}

TEST(filters_choose_and_cut_frames) {
    int d = device(), fd = packet(SOCK_RAW, ETH_P_ALL, d);
    // 40 bytes of frames whose 15th byte is 'y'.
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 14), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 'y', 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 40), BPF_STMT(BPF_RET | BPF_K, 0)};
    OK(attach(fd, program, 4));
    transmit(d, 100, 'n');
    transmit(d, 100, 'y');
    unsigned char bytes[200];
    CHECK_EQ(recv(fd, bytes, sizeof bytes, 0), 40);
    CHECK_EQ(bytes[39], 'y');
    ERR(recv(fd, bytes, sizeof bytes, MSG_DONTWAIT), EAGAIN);
    // By what is beside the frame; a load beyond its end drops it.
    struct sock_filter beside[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_PROTOCOL),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x88b5, 1, 0), BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_PKTTYPE),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_OUTGOING, 0, 1), BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 60),
        BPF_STMT(BPF_RET | BPF_K, 0xffff)};
    OK(attach(fd, beside, 7));
    transmit(d, 20, 'y');
    transmit(d, 100, 'z');
    CHECK_EQ(recv(fd, bytes, sizeof bytes, 0), 114);
    CHECK_EQ(bytes[20], 'z');
    ERR(attach(fd, program, 0), EINVAL);
    ERR(attach(fd, program, 3), EINVAL); // a jump beyond the end
    ERR(attach(fd, program, 1), EINVAL); // no end
    ERR(attach(fd, NULL, 4), EINVAL);
    ERR(attach(fd, (void *)16, 4), EFAULT);
    int on = 1;
    OK(setsockopt(fd, SOL_SOCKET, SO_LOCK_FILTER, &on, sizeof on));
    ERR(attach(fd, program, 4), EPERM);
    ERR(setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &on, sizeof on), EPERM);
}

TEST(a_ring_takes_frames) {
    int d = device(), fd = packet(SOCK_RAW, ETH_P_ALL, d), version = TPACKET_V2;
    int length = TPACKET_V2;
    socklen_t size = sizeof length;
    OK(getsockopt(fd, SOL_PACKET, PACKET_HDRLEN, &length, &size));
    CHECK_EQ(length, sizeof(struct tpacket2_hdr));
    length = 17;
    ERR(getsockopt(fd, SOL_PACKET, PACKET_HDRLEN, &length, &size), EINVAL);
    OK(setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof version));
    struct tpacket_req q = {4096, 2, 2048, 4}, bad = q;
    bad.tp_frame_nr = 5;
    ERR(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &bad, sizeof bad), EINVAL);
    bad = q, bad.tp_block_size = 5000;
    ERR(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &bad, sizeof bad), EINVAL);
    bad = q, bad.tp_frame_size = 32;
    ERR(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &bad, sizeof bad), EINVAL);
    ERR(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), EINVAL);
    OK(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &q, sizeof q));
    ERR(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &q, sizeof q), EBUSY);
    char *ring = OK(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    struct pollfd p = {fd, POLLIN, 0};
    CHECK_EQ(poll(&p, 1, 0), 0);
    for (int i = 0; i < 5; i++)
        transmit(d, 100, 'a' + i);
    CHECK_EQ(poll(&p, 1, 2000), 1);
    for (int i = 0; i < 4; i++) {
        struct tpacket2_hdr *h = (void *)(ring + 2048 * i);
        CHECK(h->tp_status & TP_STATUS_USER);
        CHECK_EQ(h->tp_len, 114);
        CHECK_EQ(h->tp_snaplen, 114);
        CHECK_EQ(h->tp_net - h->tp_mac, 14);
        CHECK(h->tp_sec > 0);
        CHECK_EQ(((char *)h)[h->tp_net], 'a' + i);
        struct sockaddr_ll *from = (void *)((char *)h + TPACKET_ALIGN(sizeof *h));
        CHECK_EQ(from->sll_pkttype, PACKET_OUTGOING);
    }
    // The fifth found no room; the next that does says so.
    struct tpacket2_hdr *first = (void *)ring;
    first->tp_status = TP_STATUS_KERNEL;
    transmit(d, 100, 'f');
    CHECK_EQ(ring[first->tp_net], 'f');
    CHECK(first->tp_status & TP_STATUS_LOSING);
    struct tpacket_stats stats;
    size = sizeof stats;
    OK(getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &stats, &size));
    CHECK_EQ(stats.tp_drops, 1);
    OK(munmap(ring, 8192));
}
