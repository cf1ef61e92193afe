// Namespaces that processes have made.
#include "check.h"
#include <grp.h>
#include <linux/nsfs.h>
#include <mqueue.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/utsname.h>

static void is_called(const char *host, const char *domain) {
    struct utsname name;
    CHECK(!uname(&name));
    STR_EQ(name.nodename, host);
    STR_EQ(name.domainname, domain);
}

TEST(names_of_a_namespace_that_two_share) {
    struct utsname before;
    CHECK(!uname(&before));
    CHECK(!unshare(CLONE_NEWUTS) && !sethostname("inner", 5) && !setdomainname("of.it", 5));
    int ends[2], status;
    CHECK(!pipe(ends));
    pid_t child = fork();
    if (!child) {
        char byte;
        AWAIT();
        is_called("inner", "of.it");
        CHECK(!sethostname("changed", 7) && read(ends[0], &byte, 1) == 1);
        _exit(0);
    }
    pid_t other = fork();
    if (!other) {
        CHECK(!unshare(CLONE_NEWUTS) && !sethostname("third", 5));
        RESTORED();
        is_called("third", "of.it");
        _exit(0);
    }
    AWAIT();
    for (struct utsname name; !uname(&name) && strcmp(name.nodename, "changed");)
        usleep(1000);
    CHECK_EQ(write(ends[1], "x", 1), 1);
    CHECK(waitpid(child, &status, 0) == child && !status);
    CHECK(waitpid(other, &status, 0) == other && !status);
    is_called("changed", "of.it");
}

static void put_text(const char *path, const char *text) {
    int f = open(path, O_WRONLY);
    CHECK(f >= 0 && write(f, text, strlen(text)) == (ssize_t)strlen(text) && !close(f));
}

static void has_text(const char *path, const char *words) {
    char text[4000] = "";
    int f = open(path, O_RDONLY);
    CHECK(f >= 0 && read(f, text, sizeof text - 1) >= 0 && !close(f));
    if (!strstr(text, words))
        FAIL("%s: %s, not %s", path, text, words);
}

static void ended_well(pid_t child) {
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_EQ(status, 0);
}

// The link of a namespace is another one than that of the container.
static void is_own(const char *kind) {
    char path[40], own[60] = "", outer[60] = "";
    snprintf(path, sizeof path, "/proc/self/ns/%s", kind);
    CHECK(readlink(path, own, sizeof own - 1) > 0);
    snprintf(path, sizeof path, "/proc/%d/ns/%s", getppid(), kind);
    CHECK(readlink(path, outer, sizeof outer - 1) > 0);
    CHECK(strcmp(own, outer));
}

TEST(a_user_namespace_and_one_below) {
    CHECK(!unshare(CLONE_NEWUSER));
    put_text("/proc/self/setgroups", "deny");
    put_text("/proc/self/uid_map", "0 0 1\n");
    put_text("/proc/self/gid_map", "5 0 1\n");
    CHECK(getuid() == 0 && getgid() == 5);
    CHECK(!unshare(CLONE_NEWUTS) && !sethostname("mine", 4));
    pid_t below = fork();
    if (!below) {
        CHECK(!unshare(CLONE_NEWUSER));
        CHECK(getuid() == 65534);
        RESTORED();
        CHECK(getuid() == 65534);
        put_text("/proc/self/uid_map", "7 0 1\n");
        CHECK_EQ(getuid(), 7);
        ERR(sethostname("theirs", 6), EPERM);
        _exit(0);
    }
    AWAIT();
    CHECK(getuid() == 0 && getgid() == 5);
    has_text("/proc/self/setgroups", "deny");
    has_text("/proc/self/uid_map", "         0          0          1");
    has_text("/proc/self/status", "CapEff:\t000001ffffffffff");
    CHECK(!sethostname("again", 5));
    // What belongs to who is not mapped here is nobody's, and mounts of the container are not this namespace's to change.
    ERR(mount("none", "/tmp", "tmpfs", 0, NULL), EPERM);
    ended_well(below);
}

TEST(a_map_of_many_ids) {
    int ready[2], mapped[2];
    char byte = 0;
    CHECK(!pipe(ready) && !pipe(mapped));
    pid_t child = fork();
    if (!child) {
        CHECK(!unshare(CLONE_NEWUSER) && write(ready[1], &byte, 1) == 1 && read(mapped[0], &byte, 1) == 1);
        CHECK(!setresgid(3, 3, 3) && !setgroups(0, NULL) && !setresuid(2, 2, 2));
        RESTORED();
        CHECK(getuid() == 2 && getgid() == 3);
        has_text("/proc/self/uid_map", "         0     100000      65536");
        has_text("/proc/self/gid_map", "         0     200000         10");
        int f = open("/tmp/of_a_mapped_user", O_CREAT | O_RDWR, 0600);
        struct stat s;
        CHECK(f >= 0 && !fstat(f, &s) && s.st_uid == 2 && s.st_gid == 3);
        _exit(0);
    }
    char path[60];
    CHECK(read(ready[0], &byte, 1) == 1);
    snprintf(path, sizeof path, "/proc/%d/uid_map", child);
    put_text(path, "0 100000 65536\n");
    snprintf(path, sizeof path, "/proc/%d/gid_map", child);
    put_text(path, "0 200000 10\n");
    CHECK(write(mapped[1], &byte, 1) == 1);
    AWAIT();
    ended_well(child);
    struct stat s;
    CHECK(!stat("/tmp/of_a_mapped_user", &s) && s.st_uid == 100002 && s.st_gid == 200003);
}

static volatile int *segment_of(int key, int flags) {
    int id = shmget(key, 4096, flags);
    void *at = id < 0 ? MAP_FAILED : shmat(id, NULL, 0);
    CHECK(at != MAP_FAILED);
    return at;
}

struct message {
    long type;
    char text[8];
};

TEST(objects_of_an_ipc_namespace) {
    enum { KEY = 0x6e73 };
    struct mq_attr attr = {.mq_maxmsg = 3, .mq_msgsize = 16};
    volatile int *outer = segment_of(KEY, IPC_CREAT | 0600);
    *outer = 11;
    pid_t child = fork();
    if (!child) {
        CHECK(!unshare(CLONE_NEWIPC));
        ERR(shmget(KEY, 4096, 0), ENOENT);
        volatile int *inner = segment_of(KEY, IPC_CREAT | 0600);
        *inner = 22;
        int queue = msgget(KEY, IPC_CREAT | 0600), sems = semget(KEY, 2, IPC_CREAT | 0600);
        struct message m = {5, "inner"};
        struct sembuf up = {1, 3, 0};
        CHECK(queue >= 0 && sems >= 0 && !msgsnd(queue, &m, sizeof m.text, 0) && !semop(sems, &up, 1));
        mqd_t posix = mq_open("/of_two", O_CREAT | O_RDWR, 0600, &attr);
        CHECK(posix != (mqd_t)-1 && !mq_send(posix, "in it", 6, 1));
        put_text("/proc/sys/kernel/msgmax", "7000");
        RESTORED();
        CHECK_EQ(*inner, 22);
        CHECK_EQ(*segment_of(KEY, 0), 22);
        CHECK(msgget(KEY, 0) == queue && semget(KEY, 2, 0) == sems);
        CHECK(msgrcv(queue, &m, sizeof m.text, 5, IPC_NOWAIT) == sizeof m.text);
        STR_EQ(m.text, "inner");
        CHECK_EQ(semctl(sems, 1, GETVAL), 3);
        mqd_t again = mq_open("/of_two", O_RDWR);
        char text[16];
        CHECK(again != (mqd_t)-1 && mq_receive(again, text, sizeof text, NULL) == 6);
        STR_EQ(text, "in it");
        struct mq_attr now;
        CHECK(!mq_getattr(posix, &now) && now.mq_curmsgs == 0);
        has_text("/proc/sys/kernel/msgmax", "7000");
        is_own("ipc");
        _exit(0);
    }
    mqd_t posix = mq_open("/of_two", O_CREAT | O_RDWR, 0600, &attr);
    CHECK(posix != (mqd_t)-1 && !mq_send(posix, "outside", 8, 1));
    AWAIT();
    ended_well(child);
    CHECK(*outer == 11 && *segment_of(KEY, 0) == 11);
    ERR(msgget(KEY, 0), ENOENT);
    char text[16];
    CHECK(mq_receive(posix, text, sizeof text, NULL) == 8);
    STR_EQ(text, "outside");
    CHECK(!mq_unlink("/of_two"));
}

TEST(processes_of_a_pid_namespace) {
    int ends[2];
    char byte;
    CHECK(!pipe(ends) && !unshare(CLONE_NEWPID));
    pid_t init = fork();
    if (!init) {
        pid_t child = fork();
        if (!child) {
            // Orphaned in it: its init is its parent from then on.
            pid_t orphan = fork();
            if (!orphan) {
                while (getppid() != 1)
                    usleep(1000);
                RESTORED();
                CHECK(getpid() == 3 && getppid() == 1);
                _exit(7);
            }
            _exit(0);
        }
        int status;
        CHECK(getpid() == 1 && child == 2 && waitpid(2, &status, 0) == 2);
        AWAIT();
        CHECK(getpid() == 1 && !kill(1, 0) && getppid() == 0);
        CHECK(waitpid(3, &status, 0) == 3 && WEXITSTATUS(status) == 7);
        pid_t next = fork();
        if (!next)
            _exit(getpid() != 4);
        CHECK_EQ(next, 4);
        ended_well(next);
        pid_t last = fork();
        if (!last)
            pause();
        CHECK_EQ(write(ends[1], "x", 1), 1);
        pause();
    }
    int fd = syscall(SYS_pidfd_open, init, 0);
    CHECK(fd >= 0);
    AWAIT();
    CHECK(read(ends[0], &byte, 1) == 1 && getpid() != 1);
    char words[60];
    snprintf(words, sizeof words, "NSpid:\t%d\t1\n", init);
    char path[40];
    snprintf(path, sizeof path, "/proc/%d/status", init);
    has_text(path, words);
    // It ends with its init, and nobody comes into it again.
    int status;
    CHECK(!syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0));
    CHECK(waitpid(init, &status, 0) == init && WTERMSIG(status) == SIGKILL);
    ERR(fork(), ENOMEM);
}

TEST(a_pid_namespace_that_is_over) {
    CHECK(!unshare(CLONE_NEWPID));
    pid_t init = fork();
    if (!init)
        _exit(0);
    ended_well(init);
    ERR(fork(), ENOMEM);
    RESTORED();
    ERR(fork(), ENOMEM);
}

TEST(a_pid_namespace_that_nobody_is_in_yet) {
    CHECK(!unshare(CLONE_NEWPID));
    RESTORED();
    pid_t init = fork();
    if (!init)
        _exit(getpid() != 1);
    ended_well(init);
}

TEST(a_cgroup_namespace) {
    CHECK(!unshare(CLONE_NEWCGROUP));
    RESTORED();
    is_own("cgroup");
}

TEST(files_of_namespaces) {
    int outer = open("/proc/self/ns/uts", O_RDONLY), user = open("/proc/self/ns/user", O_RDONLY);
    CHECK(outer >= 0 && user >= 0 && !unshare(CLONE_NEWUTS) && !sethostname("kept", 4));
    int inner = open("/proc/self/ns/uts", O_RDONLY);
    struct utsname before;
    CHECK(inner >= 0 && !setns(outer, CLONE_NEWUTS) && !uname(&before) && strcmp(before.nodename, "kept"));
    // Nobody is in it: it lives by its file.
    RESTORED();
    struct utsname name;
    CHECK(!uname(&name));
    STR_EQ(name.nodename, before.nodename);
    CHECK(!setns(inner, CLONE_NEWUTS) && !uname(&name));
    STR_EQ(name.nodename, "kept");
    CHECK_EQ(ioctl(user, NS_GET_NSTYPE), CLONE_NEWUSER);
    CHECK(!setns(outer, 0));
}

static int loopback_flags(void) {
    struct ifreq link = {.ifr_name = "lo"};
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(s >= 0 && !ioctl(s, SIOCGIFFLAGS, &link) && !close(s));
    return link.ifr_flags;
}

TEST(a_network_namespace_whose_loopback_device_is_up) {
    CHECK(!unshare(CLONE_NEWNET));
    struct ifreq link = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(s >= 0 && !ioctl(s, SIOCSIFFLAGS, &link) && !close(s));
    put_text("/proc/sys/net/ipv4/ip_unprivileged_port_start", "77");
    int file = open("/proc/self/ns/net", O_RDONLY);
    RESTORED();
    is_own("net");
    has_text("/proc/sys/net/ipv4/ip_unprivileged_port_start", "77");
    CHECK(loopback_flags() & IFF_UP);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(!bind(listener, (void *)&at, len) && !listen(listener, 1) && !getsockname(listener, (void *)&at, &len));
    CHECK(!connect(client, (void *)&at, len));
    CHECK(!unshare(CLONE_NEWNET) && !(loopback_flags() & IFF_UP));
    CHECK(!setns(file, CLONE_NEWNET) && loopback_flags() & IFF_UP);
}

TEST(a_network_namespace_as_it_is_made) {
    CHECK(!unshare(CLONE_NEWUSER | CLONE_NEWNET));
    RESTORED();
    CHECK(!(loopback_flags() & IFF_UP));
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_port = 9};
    int s = socket(AF_INET, SOCK_STREAM, 0);
    ERR(connect(s, (void *)&at, sizeof at), ENETUNREACH);
}
