// Network namespaces that a guest makes: network_namespaces(7).
#include "check.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/un.h>

static void enter(void) {
    if (geteuid())
        SKIP("root only");
    // In network mode host there is one.
    if (unshare(CLONE_NEWNET))
        SKIP("unshare: %s", strerror(errno));
}

static int flags_of(const char *name, int *set) {
    struct ifreq r = {0};
    int fd = OK(socket(AF_INET, SOCK_DGRAM, 0));
    strcpy(r.ifr_name, name);
    if (ioctl(fd, SIOCGIFFLAGS, &r)) {
        close(fd);
        return -1;
    }
    if (set) {
        r.ifr_flags |= *set;
        OK(ioctl(fd, SIOCSIFFLAGS, &r));
    }
    close(fd);
    return r.ifr_flags;
}

static int listener(uint16_t port) {
    int fd = OK(socket(AF_INET, SOCK_STREAM, 0));
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(fd, (void *)&a, sizeof a) || listen(fd, 5)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

static int connection(uint16_t port) {
    int fd = OK(socket(AF_INET, SOCK_STREAM, 0));
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(fd, (void *)&a, sizeof a)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

TEST(begins_with_a_loopback_that_is_down) {
    enter();
    CHECK_EQ(flags_of("lo", NULL) & (IFF_UP | IFF_LOOPBACK), IFF_LOOPBACK);
    CHECK_EQ(flags_of("eth0", NULL), -1);
    char *text = slurp("/proc/self/net/dev");
    CHECK(strstr(text, "lo:"));
    CHECK(!strstr(text, "eth0:"));
    // No address, and nothing to reach it by.
    CHECK_EQ(connection(9), -1);
    CHECK_EQ(errno, ENETUNREACH);
    int up = IFF_UP;
    flags_of("lo", &up);
    CHECK(flags_of("lo", NULL) & IFF_UP);
    int fd = OK(listener(7001)), client = OK(connection(7001)), server = OK(accept(fd, NULL, NULL));
    OK(write(client, "x", 1));
    char byte;
    CHECK_EQ(read(server, &byte, 1), 1);
}

TEST(ports_and_names_are_its_own) {
    int before = OK(listener(7002)), unix_before = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    memcpy(name.sun_path, "\0netns-test", 11);
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + 11;
    OK(bind(unix_before, (void *)&name, length));
    OK(listen(unix_before, 1));
    int old = OK(open("/proc/self/ns/net", O_RDONLY));
    enter();
    int up = IFF_UP;
    flags_of("lo", &up);
    ERR(connection(7002), ECONNREFUSED);
    int after = OK(listener(7002));
    int peer = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    ERR(connect(peer, (void *)&name, length), ECONNREFUSED);
    // A socket stays where it was made, whoever uses it.
    int client;
    OK(setns(old, CLONE_NEWNET));
    client = OK(connection(7002));
    struct sockaddr_in a;
    length = sizeof a;
    int got = OK(accept(before, (void *)&a, &length));
    CHECK_EQ(fcntl(after, F_SETFL, O_NONBLOCK), 0);
    ERR(accept(after, NULL, NULL), EAGAIN);
    close(got);
    close(client);
}

TEST(settings_are_those_of_the_reader) {
    int old = OK(open("/proc/self/ns/net", O_RDONLY));
    char before[64], path[64];
    snprintf(before, sizeof before, "%s", slurp("/proc/sys/net/ipv4/ip_unprivileged_port_start"));
    enter();
    int fd = OK(open("/proc/sys/net/ipv4/ip_unprivileged_port_start", O_RDWR));
    CHECK_EQ(write(fd, "500", 3), 3);
    close(fd);
    STR_EQ(slurp("/proc/sys/net/ipv4/ip_unprivileged_port_start"), "500\n");
    OK(setns(old, 0));
    STR_EQ(slurp("/proc/sys/net/ipv4/ip_unprivileged_port_start"), before);
    (void)path;
}

static const char *tcp_setting(const char *name) {
    static char path[128];
    snprintf(path, sizeof path, "/proc/sys/net/ipv4/tcp_%s", name);
    return path;
}

static int set_tcp(const char *name, const char *value) { return put_file(tcp_setting(name), value); }

TEST(settings_of_tcp_are_checked_and_are_the_defaults_of_sockets) {
    enter();
    STR_EQ(slurp(tcp_setting("recovery")), "1\n");
    STR_EQ(slurp(tcp_setting("sack")), "1\n");
    STR_EQ(slurp(tcp_setting("dsack")), "1\n");
    STR_EQ(slurp(tcp_setting("frto")), "2\n");
    STR_EQ(slurp(tcp_setting("syncookies")), "1\n");
    STR_EQ(slurp(tcp_setting("pacing_ca_ratio")), "120\n");
    STR_EQ(slurp(tcp_setting("pacing_ss_ratio")), "200\n");
    OK(set_tcp("ecn", "1"));
    STR_EQ(slurp(tcp_setting("ecn")), "1\n");
    ERR(set_tcp("ecn", "9"), EINVAL);
    ERR(set_tcp("pacing_ss_ratio", "1001"), EINVAL);
    ERR(set_tcp("syn_retries", "0"), EINVAL);
    ERR(set_tcp("recovery", "256"), EINVAL);
    OK(set_tcp("keepalive_time", "111"));
    OK(set_tcp("keepalive_intvl", "22"));
    OK(set_tcp("keepalive_probes", "3"));
    OK(set_tcp("syn_retries", "4"));
    OK(set_tcp("fin_timeout", "17"));
    int fd = OK(socket(AF_INET, SOCK_STREAM, 0));
    struct {
        int name, value;
    } set[] = {{TCP_KEEPIDLE, 111}, {TCP_KEEPINTVL, 22}, {TCP_KEEPCNT, 3}, {TCP_SYNCNT, 4}, {TCP_LINGER2, 17}};
    for (unsigned i = 0; i < sizeof set / sizeof *set; i++) {
        int value = 0;
        socklen_t len = sizeof value;
        OK(getsockopt(fd, IPPROTO_TCP, set[i].name, &value, &len));
        CHECK_EQ(value, set[i].value);
    }
    unsigned rate = 0;
    socklen_t len = sizeof rate;
    OK(getsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, &len));
    CHECK_EQ(rate, ~0u);
    rate = 1000000;
    OK(setsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, sizeof rate));
    OK(getsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, &len));
    CHECK_EQ(rate, 1000000);
    close(fd);
}

#define CONF "/proc/sys/net/ipv4/conf/"

TEST(settings_of_devices_are_kept_and_forwarding_is_that_of_all) {
    enter();
    OK(put_file(CONF "default/arp_notify", "7"));
    STR_EQ(slurp(CONF "default/arp_notify"), "7\n");
    // Of devices that have none of their own; of IPv6 only of those to come.
    STR_EQ(slurp(CONF "lo/arp_notify"), "7\n");
    OK(put_file(CONF "lo/arp_notify", "3"));
    OK(put_file(CONF "default/arp_notify", "5"));
    STR_EQ(slurp(CONF "lo/arp_notify"), "3\n");
    STR_EQ(slurp(CONF "lo/disable_policy"), "1\n");
    OK(put_file("/proc/sys/net/ipv6/conf/default/hop_limit", "33"));
    STR_EQ(slurp("/proc/sys/net/ipv6/conf/lo/hop_limit"), "64\n");
    OK(put_file(CONF "lo/rp_filter", "2\n"));
    STR_EQ(slurp(CONF "lo/rp_filter"), "2\n");
    OK(put_file(CONF "all/src_valid_mark", "-5"));
    STR_EQ(slurp(CONF "all/src_valid_mark"), "-5\n");
    ERR(put_file(CONF "all/src_valid_mark", "x"), EINVAL);
    ERR(put_file(CONF "all/src_valid_mark", "99999999999"), EINVAL);
    STR_EQ(slurp(CONF "all/src_valid_mark"), "-5\n");
    OK(put_file("/proc/sys/net/ipv4/ip_forward", "1"));
    STR_EQ(slurp(CONF "all/forwarding"), "1\n");
    STR_EQ(slurp(CONF "lo/forwarding"), "1\n");
    STR_EQ(slurp(CONF "default/forwarding"), "1\n");
    OK(put_file(CONF "lo/forwarding", "0"));
    STR_EQ(slurp("/proc/sys/net/ipv4/ip_forward"), "1\n");
    OK(put_file(CONF "all/forwarding", "0"));
    STR_EQ(slurp("/proc/sys/net/ipv4/ip_forward"), "0\n");
    STR_EQ(slurp(CONF "default/forwarding"), "0\n");
    OK(put_file("/proc/sys/net/ipv6/conf/all/forwarding", "1"));
    STR_EQ(slurp("/proc/sys/net/ipv6/conf/lo/forwarding"), "1\n");
    STR_EQ(slurp(CONF "all/forwarding"), "0\n");
    STR_EQ(slurp("/proc/sys/net/ipv6/conf/all/disable_ipv6"), "0\n");
    ERR(open(CONF "nobody/forwarding", O_RDONLY), ENOENT);
    ERR(open(CONF "lo/nonesuch", O_RDONLY), ENOENT);
}

TEST(a_refused_connect_leaves_a_port_of_udp) {
    enter();
    int fd = OK(socket(AF_INET, SOCK_DGRAM, 0));
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(0xcb007101)}, own;
    socklen_t size = sizeof own;
    ERR(connect(fd, (void *)&to, sizeof to), ENETUNREACH);
    OK(getsockname(fd, (void *)&own, &size));
    CHECK(own.sin_port != 0);
    CHECK_EQ(own.sin_addr.s_addr, 0);
    // Neither does an address of another family.
    int other = OK(socket(AF_INET, SOCK_DGRAM, 0));
    to.sin_family = AF_UNIX;
    ERR(connect(other, (void *)&to, sizeof to), EAFNOSUPPORT);
    OK(getsockname(other, (void *)&own, &size));
    CHECK(own.sin_port != 0);
    to.sin_family = AF_UNSPEC;
    OK(connect(fd, (void *)&to, sizeof to));
    OK(getsockname(fd, (void *)&own, &size));
    CHECK_EQ(own.sin_port, 0);
}

TEST(proc_net_is_that_of_the_process) {
    int ready[2];
    char byte, path[64];
    int here = OK(listener(7003));
    OK(pipe(ready));
    pid_t pid = CHILD(enter(); OK(write(ready[1], "x", 1)); pause());
    close(ready[1]);
    if (read(ready[0], &byte, 1) != 1)
        SKIP("new network namespaces take a privilege");
    CHECK(strstr(slurp("/proc/self/net/tcp"), ":1B5B "));
    snprintf(path, sizeof path, "/proc/%d/net/tcp", pid);
    CHECK(!strstr(slurp(path), ":1B5B "));
    kill(pid, SIGKILL);
    wait_for(pid);
    close(here);
}

TEST(of_an_unprivileged_user) {
    if (geteuid())
        SKIP("root only");
    OK(syscall(SYS_setgroups, 0, NULL));
    OK(setresgid(1000, 1000, 1000));
    OK(setresuid(1000, 1000, 1000));
    ERR(unshare(CLONE_NEWNET), EPERM);
    int before = OK(socket(AF_INET, SOCK_DGRAM, 0));
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET))
        SKIP("unshare: %s", strerror(errno));
    int up = IFF_UP;
    flags_of("lo", &up);
    // It rules there, and nowhere else.
    close(OK(listener(80)));
    close(OK(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)));
    struct ifreq r = {.ifr_name = "lo"};
    ERR(ioctl(before, SIOCSIFFLAGS, &r), EPERM);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(81), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    ERR(bind(before, (void *)&a, sizeof a), EACCES);
}
