// Namespaces as files and joining them: namespaces(7), setns(2), ioctl_ns(2).
#include "check.h"

#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#define NS_GET_USERNS 0xb701
#define NS_GET_PARENT 0xb702
#define NS_GET_NSTYPE 0xb703
#define NS_GET_OWNER_UID 0xb704

static int namespace_of(pid_t pid, const char *kind) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, kind);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static ino_t id_of(pid_t pid, const char *kind) {
    char path[64];
    struct stat st;
    snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, kind);
    OK(stat(path, &st));
    return st.st_ino;
}

static void need_root(void) {
    if (geteuid() != 0 || unshare(CLONE_NEWUTS))
        SKIP("new namespaces take a privilege");
}

// A child in namespaces of its own, which waits to be killed.
static pid_t child_in(int flags) {
    int ready[2];
    OK(pipe(ready));
    pid_t pid = CHILD(OK(unshare(flags)); OK(sethostname("child", 5)); OK(write(ready[1], "x", 1)); pause());
    char byte;
    OK(read(ready[0], &byte, 1));
    close(ready[0]);
    close(ready[1]);
    return pid;
}

static void end_child(pid_t pid) {
    kill(pid, SIGKILL);
    wait_for(pid);
}

TEST(files_name_namespaces) {
    static const struct {
        const char *name;
        int flag;
    } kinds[] = {{"cgroup", CLONE_NEWCGROUP}, {"ipc", CLONE_NEWIPC}, {"mnt", CLONE_NEWNS},
                 {"net", CLONE_NEWNET},       {"pid", CLONE_NEWPID}, {"pid_for_children", CLONE_NEWPID},
                 {"user", CLONE_NEWUSER},     {"uts", CLONE_NEWUTS}};
    dev_t dev = 0;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char path[64], text[64] = {0}, want[64];
        struct stat st, by_path;
        struct statfs fs;
        snprintf(path, sizeof path, "/proc/self/ns/%s", kinds[i].name);
        int fd = OK(open(path, O_RDONLY));
        OK(fstat(fd, &st));
        OK(stat(path, &by_path));
        CHECK_EQ(st.st_ino, by_path.st_ino);
        CHECK_EQ(st.st_dev, by_path.st_dev);
        CHECK_EQ(st.st_mode, S_IFREG | 0444);
        CHECK(!dev || dev == st.st_dev);
        dev = st.st_dev;
        CHECK_EQ(major(dev), 0);
        OK(fstatfs(fd, &fs));
        CHECK_EQ(fs.f_type, 0x6e736673);
        OK(readlink(path, text, sizeof text - 1));
        snprintf(want, sizeof want, "%.*s:[%llu]", (int)strcspn(kinds[i].name, "_"), kinds[i].name,
                 (unsigned long long)st.st_ino);
        STR_EQ(text, want);
        memset(text, 0, sizeof text);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        OK(readlink(path, text, sizeof text - 1));
        STR_EQ(text, want);
        CHECK_EQ(ioctl(fd, NS_GET_NSTYPE), kinds[i].flag);
        ERR(read(fd, text, 1), EINVAL);
        ERR(ioctl(fd, 0xb7ff), ENOTTY);
        close(fd);
    }
    ERR(open("/proc/self/ns/nothing", O_RDONLY), ENOENT);
}

TEST(files_of_others_take_permission) {
    pid_t root = getpid();
    if (geteuid())
        SKIP("root only");
    EXITED(wait_for(CHILD(become_nobody(); ERR(namespace_of(root, "uts"), EACCES))), 0);
}

TEST(setns_uts) {
    need_root();
    OK(sethostname("parent", 6));
    pid_t pid = child_in(CLONE_NEWUTS);
    CHECK(id_of(pid, "uts") != id_of(getpid(), "uts"));
    CHECK_EQ(id_of(pid, "ipc"), id_of(getpid(), "ipc"));
    int own = OK(namespace_of(getpid(), "uts")), fd = OK(namespace_of(pid, "uts"));
    char name[70];
    ERR(setns(fd, CLONE_NEWIPC), EINVAL);
    OK(setns(fd, CLONE_NEWUTS));
    OK(gethostname(name, sizeof name));
    STR_EQ(name, "child");
    CHECK_EQ(id_of(pid, "uts"), id_of(getpid(), "uts"));
    OK(setns(own, 0));
    OK(gethostname(name, sizeof name));
    STR_EQ(name, "parent");
    // The file holds the namespace when nobody is in it any more.
    end_child(pid);
    OK(setns(fd, 0));
    OK(gethostname(name, sizeof name));
    STR_EQ(name, "child");
}

TEST(setns_refuses) {
    int plain = OK(open("/proc/self/ns", O_RDONLY)), fds[2];
    ERR(setns(plain, 0), EINVAL);
    ERR(setns(-1, 0), EBADF);
    OK(pipe(fds));
    ERR(setns(fds[0], CLONE_NEWUTS), EINVAL);
    // Where one is already is no place to gain capabilities.
    int user = OK(open("/proc/self/ns/user", O_RDONLY));
    ERR(setns(user, 0), EINVAL);
    int uts = OK(open("/proc/self/ns/uts", O_RDONLY));
    if (geteuid())
        SKIP("root only");
    EXITED(wait_for(CHILD(become_nobody(); ERR(setns(uts, 0), EPERM))), 0);
}

TEST(setns_by_pidfd) {
    need_root();
    pid_t pid = child_in(CLONE_NEWUTS | CLONE_NEWIPC);
    int pidfd = OK(syscall(SYS_pidfd_open, pid, 0));
    ERR(setns(pidfd, 0), EINVAL);
    ERR(setns(pidfd, CLONE_FILES), EINVAL);
    ERR(setns(pidfd, CLONE_NEWUTS | CLONE_NEWUSER), EINVAL); // the user namespace is the own one: all or nothing
    CHECK(id_of(pid, "uts") != id_of(getpid(), "uts"));
    OK(setns(pidfd, CLONE_NEWUTS | CLONE_NEWIPC));
    CHECK_EQ(id_of(pid, "uts"), id_of(getpid(), "uts"));
    CHECK_EQ(id_of(pid, "ipc"), id_of(getpid(), "ipc"));
    EXITED(wait_for(CHILD(become_nobody(); ERR(setns(pidfd, CLONE_NEWUTS), EPERM))), 0);
    end_child(pid);
    ERR(setns(pidfd, CLONE_NEWUTS), ESRCH);
}

TEST(setns_mnt_moves_root_and_cwd) {
    need_root();
    pid_t pid = child_in(CLONE_NEWUTS | CLONE_NEWNS);
    OK(mkdir("sub", 0755));
    OK(chdir("sub"));
    int fd = OK(namespace_of(pid, "mnt")), proc = OK(open("/proc", O_PATH | O_DIRECTORY));
    OK(setns(fd, CLONE_NEWNS));
    char here[PATH_MAX];
    OK(syscall(SYS_getcwd, here, sizeof here));
    STR_EQ(here, "/");
    struct stat st, theirs;
    OK(fstat(fd, &theirs));
    OK(fstatat(proc, "self/ns/mnt", &st, 0));
    CHECK_EQ(st.st_ino, theirs.st_ino);
    end_child(pid);
}

static void *wait_for_byte(void *fd) {
    char byte;
    if (read(*(int *)fd, &byte, 1) < 0)
        return NULL;
    return NULL;
}

TEST(setns_of_several_threads) {
    need_root();
    pid_t pid = child_in(CLONE_NEWUTS | CLONE_NEWNS);
    int fds[2], mnt = OK(namespace_of(pid, "mnt")), uts = OK(namespace_of(pid, "uts"));
    pthread_t thread;
    OK(pipe(fds));
    CHECK(!pthread_create(&thread, NULL, wait_for_byte, &fds[0]));
    ERR(setns(mnt, 0), EINVAL);
    OK(setns(uts, 0)); // of this thread only
    CHECK(id_of(getpid(), "uts") == id_of(pid, "uts"));
    OK(write(fds[1], "x", 1));
    pthread_join(thread, NULL);
    OK(setns(mnt, 0));
    end_child(pid);
}

TEST(pid_namespaces_only_below) {
    need_root();
    int own = OK(namespace_of(getpid(), "pid"));
    char text[64];
    OK(unshare(CLONE_NEWPID));
    // Without an init there is nothing to show yet.
    ERR(readlink("/proc/self/ns/pid_for_children", text, sizeof text), ENOENT);
    int fds[2];
    OK(pipe(fds));
    pid_t init = CHILD(CHECK_EQ(getpid(), 1); close(fds[1]); char byte; OK(read(fds[0], &byte, 1));
                       ERR(setns(own, 0), EINVAL));
    CHECK_EQ(id_of(getpid(), "pid_for_children"), id_of(init, "pid"));
    CHECK(id_of(getpid(), "pid") != id_of(init, "pid"));
    int below = OK(namespace_of(init, "pid"));
    OK(setns(own, CLONE_NEWPID));
    pid_t same = CHILD(CHECK(getpid() != 2));
    EXITED(wait_for(same), 0);
    OK(setns(below, CLONE_NEWPID));
    EXITED(wait_for(CHILD(CHECK_EQ(getpid(), 2))), 0);
    int parent = OK(ioctl(below, NS_GET_PARENT));
    struct stat st;
    OK(fstat(parent, &st));
    CHECK_EQ(st.st_ino, id_of(getpid(), "pid"));
    CHECK_EQ(fcntl(parent, F_GETFD), FD_CLOEXEC);
    close(fds[1]);
    EXITED(wait_for(init), 0);
    // Its init is gone: nobody can follow.
    OK(setns(below, 0));
    ERR(fork(), ENOMEM);
}

TEST(owners) {
    int uts = OK(open("/proc/self/ns/uts", O_RDONLY)), user = OK(open("/proc/self/ns/user", O_RDONLY));
    uid_t owner = -1;
    OK(ioctl(user, NS_GET_OWNER_UID, &owner));
    CHECK_EQ(owner, 0);
    ERR(ioctl(user, NS_GET_OWNER_UID, BAD_ADDRESS), EFAULT);
    ERR(ioctl(uts, NS_GET_OWNER_UID, &owner), EINVAL);
    ERR(ioctl(uts, NS_GET_PARENT), EINVAL);
    ERR(ioctl(user, NS_GET_PARENT), EPERM);
    int of = OK(ioctl(uts, NS_GET_USERNS));
    CHECK_EQ(ioctl(of, NS_GET_NSTYPE), CLONE_NEWUSER);
    struct stat st;
    OK(fstat(of, &st));
    CHECK_EQ(st.st_ino, id_of(getpid(), "user"));
}

TEST(files_can_be_mounted) {
    need_root();
    OK(unshare(CLONE_NEWNS));
    OK(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
    OK(sethostname("kept", 4));
    close(OK(open("uts", O_CREAT | O_RDWR, 0600)));
    OK(mount("/proc/self/ns/uts", "uts", NULL, MS_BIND, NULL));
    OK(unshare(CLONE_NEWUTS));
    OK(sethostname("other", 5));
    char here[PATH_MAX], want[PATH_MAX + 40], name[70];
    OK(syscall(SYS_getcwd, here, sizeof here));
    snprintf(want, sizeof want, " %s/uts nsfs", here);
    CHECK(strstr(slurp("/proc/self/mounts"), want));
    CHECK(strstr(slurp("/proc/self/mountinfo"), " uts:["));
    int fd = OK(open("uts", O_RDONLY));
    OK(setns(fd, CLONE_NEWUTS));
    OK(gethostname(name, sizeof name));
    STR_EQ(name, "kept");
    snprintf(want, sizeof want, "/proc/self/fd/%d", fd);
    memset(name, 0, sizeof name);
    char shown[PATH_MAX] = {0};
    OK(readlink(want, shown, sizeof shown - 1));
    CHECK(!strncmp(shown, here, strlen(here)));
    ERR(umount("uts"), EBUSY);
    close(fd);
    OK(umount("uts"));
    struct stat st;
    OK(stat("uts", &st));
    CHECK_EQ(st.st_size, 0);
}

// Linux 6.18 takes the age of a mount namespace from a counter of the CPU.
static void stay_on_one_cpu(void) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    OK(sched_setaffinity(0, sizeof one, &one));
}

TEST(mount_namespaces_hold_only_younger_ones) {
    need_root();
    stay_on_one_cpu();
    pid_t older = child_in(CLONE_NEWUTS | CLONE_NEWNS);
    OK(unshare(CLONE_NEWNS));
    OK(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
    pid_t younger = child_in(CLONE_NEWUTS | CLONE_NEWNS);
    close(OK(open("mnt", O_CREAT | O_RDWR, 0600)));
    char path[64];
    ERR(mount("/proc/self/ns/mnt", "mnt", NULL, MS_BIND, NULL), EINVAL);
    snprintf(path, sizeof path, "/proc/%d/ns/mnt", older);
    ERR(mount(path, "mnt", NULL, MS_BIND, NULL), EINVAL);
    snprintf(path, sizeof path, "/proc/%d/ns/mnt", younger);
    OK(mount(path, "mnt", NULL, MS_BIND, NULL));
    // A copy is younger than what the original holds.
    struct stat st;
    OK(stat("mnt", &st));
    CHECK(st.st_ino == id_of(younger, "mnt"));
    OK(unshare(CLONE_NEWNS));
    OK(stat("mnt", &st));
    CHECK_EQ(st.st_size, 0);
    CHECK(st.st_ino != id_of(younger, "mnt"));
    end_child(older);
    end_child(younger);
}

TEST(trees_of_others_stay_as_they_are) {
    need_root();
    pid_t pid = child_in(CLONE_NEWUTS | CLONE_NEWNS);
    char theirs[64];
    snprintf(theirs, sizeof theirs, "/proc/%d/root/tmp", pid);
    ERR(mount("none", theirs, "tmpfs", 0, NULL), EINVAL);
    ERR(mount("/tmp", theirs, NULL, MS_BIND, NULL), EINVAL);
    OK(unshare(CLONE_NEWNS));
    ERR(mount(theirs, "/tmp", NULL, MS_BIND, NULL), EINVAL);
    ERR(umount2(theirs, MNT_DETACH), EINVAL);
    int fds[2];
    OK(pipe(fds));
    snprintf(theirs, sizeof theirs, "/proc/self/fd/%d", fds[0]);
    close(OK(open("file", O_CREAT | O_RDWR, 0600)));
    ERR(mount(theirs, "file", NULL, MS_BIND, NULL), EINVAL);
    end_child(pid);
}

// Namespaces that hold one another in a long chain go without a trace when the first one does.
TEST(long_chains_of_mount_namespaces) {
    need_root();
    stay_on_one_cpu();
    EXITED(wait_for(CHILD(
               OK(unshare(CLONE_NEWNS)); OK(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
               close(OK(open("mnt", O_CREAT | O_RDWR, 0600))); int outer = OK(namespace_of(getpid(), "mnt"));
               char here[PATH_MAX]; OK(syscall(SYS_getcwd, here, sizeof here));
               for (int i = 0; i < 300; i++) {
                   OK(unshare(CLONE_NEWNS));
                   int inner = OK(namespace_of(getpid(), "mnt"));
                   char path[64];
                   snprintf(path, sizeof path, "/proc/self/fd/%d", inner);
                   OK(setns(outer, 0));
                   if (chdir(here))
                       SKIP("the root is not that of the namespace");
                   OK(mount(path, "mnt", NULL, MS_BIND, NULL));
                   close(outer);
                   outer = inner;
                   OK(setns(outer, 0));
                   OK(chdir(here));
               })),
           0);
}
