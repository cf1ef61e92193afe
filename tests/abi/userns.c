// User namespaces: user_namespaces(7), and what they may not do to those above.
#include "check.h"

#include <arpa/inet.h>
#include <grp.h>
#include <linux/capability.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#define USER 1000

// Nobody makes a user namespace whose root is not that of its mount namespace: where the checks run in such a place.
static int unshare_unless_chrooted(int flags) {
    int result = unshare(flags);
    if (result && errno == EPERM && flags & CLONE_NEWUSER)
        SKIP("no user namespace can be made here");
    return result;
}
#define unshare unshare_unless_chrooted

static uint64_t effective(void) {
    struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct d[2];
    OK(syscall(SYS_capget, &h, d));
    return d[0].effective | (uint64_t)d[1].effective << 32;
}

static void drop_capabilities(uint64_t which) {
    struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct d[2];
    OK(syscall(SYS_capget, &h, d));
    for (int i = 0; i < 2; i++) {
        d[i].effective &= ~(uint32_t)(which >> 32 * i);
        d[i].permitted &= ~(uint32_t)(which >> 32 * i);
        d[i].inheritable &= d[i].permitted;
    }
    OK(syscall(SYS_capset, &h, d));
}

// An ordinary user, who may write to its directory.
static void become_user(void) {
    if (geteuid())
        SKIP("root only");
    OK(chmod(".", 0777));
    OK(syscall(SYS_setgroups, 0, NULL));
    OK(setresgid(USER, USER, USER));
    OK(setresuid(USER, USER, USER));
    OK(prctl(PR_SET_DUMPABLE, 1));
}

static int try_write(const char *path, const char *text) {
    int fd = open(path, O_WRONLY);
    if (fd < 0)
        return -1;
    ssize_t done = write(fd, text, strlen(text));
    int error = errno;
    close(fd);
    errno = error;
    return done == (ssize_t)strlen(text) ? 0 : -1;
}

// A user namespace whose root is the user itself.
static void enter_userns(int more) {
    char map[64];
    uid_t uid = geteuid();
    gid_t gid = getegid();
    OK(unshare(CLONE_NEWUSER | more));
    OK(try_write("/proc/self/setgroups", "deny"));
    snprintf(map, sizeof map, "0 %u 1", uid);
    OK(try_write("/proc/self/uid_map", map));
    snprintf(map, sizeof map, "0 %u 1", gid);
    OK(try_write("/proc/self/gid_map", map));
}

TEST(unshare_gives_capabilities_there) {
    become_user();
    CHECK_EQ(effective(), 0);
    OK(unshare(CLONE_NEWUSER));
    CHECK(effective() >> CAP_SYS_ADMIN & 1);
    CHECK_EQ(getuid(), 65534);
    CHECK_EQ(getgid(), 65534);
    STR_EQ(slurp("/proc/self/uid_map"), "");
    ERR(setuid(0), EINVAL);
    ERR(setgroups(0, NULL), EPERM); // no map yet
    OK(try_write("/proc/self/uid_map", "0 1000 1"));
    ERR(try_write("/proc/self/uid_map", "0 1000 1"), EPERM); // once
    STR_EQ(slurp("/proc/self/uid_map"), "         0       1000          1\n");
    CHECK_EQ(getuid(), 0);
    ERR(try_write("/proc/self/gid_map", "0 1000 1"), EPERM); // setgroups is not denied
    STR_EQ(slurp("/proc/self/setgroups"), "allow\n");
    OK(try_write("/proc/self/setgroups", "deny"));
    ERR(try_write("/proc/self/setgroups", "allow"), EPERM);
    OK(try_write("/proc/self/gid_map", "5 1000 1"));
    CHECK_EQ(getgid(), 5);
    ERR(setgroups(0, NULL), EPERM);
    ERR(setuid(1), EINVAL); // no such id here
    OK(setuid(0));
    CHECK(strstr(slurp("/proc/self/status"), "Uid:\t0\t0\t0\t0\nGid:\t5\t5\t5\t5\n"));
    struct stat st;
    OK(stat("/", &st));
    CHECK_EQ(st.st_uid, 65534);
    OK(stat(".", &st));
    close(OK(open("file", O_CREAT | O_WRONLY, 0600)));
    OK(stat("file", &st));
    CHECK_EQ(st.st_uid, 0);
    CHECK_EQ(st.st_gid, 5);
}

TEST(maps_take_rules) {
    if (geteuid())
        SKIP("root only");
    int go[2], ready[2];
    OK(pipe(go));
    OK(pipe(ready));
    char path[64], byte;
    pid_t pid = CHILD(become_user(); OK(unshare(CLONE_NEWUSER)); OK(write(ready[1], "x", 1)); OK(read(go[0], &byte, 1));
                      CHECK_EQ(getuid(), 1); CHECK_EQ(getgid(), 7); OK(setgid(8)); OK(setgroups(0, NULL));
                      ERR(setuid(0), EINVAL));
    OK(read(ready[0], &byte, 1));
    snprintf(path, sizeof path, "/proc/%d/uid_map", pid);
    static const char *bad[] = {"",      "0 0",       "0 0 0",        "x 0 1",          "0 0 1 1",
                                "0 0 1\n\n1 1 1", "4294967295 0 1", "0 4294967290 10", "0 0 10\n5 100 10", "0 100 10\n20 105 10"};
    for (size_t i = 1; i < sizeof bad / sizeof *bad; i++)
        ERR(try_write(path, bad[i]), EINVAL);
    // Somebody else, who may write the file, has no say.
    EXITED(wait_for(CHILD(become_nobody(); ERR(try_write(path, "1 1000 1"), EACCES))), 0);
    OK(try_write(path, "1 1000 1\n2 100000 65536\n"));
    STR_EQ(slurp(path), "         1       1000          1\n         2     100000      65536\n");
    snprintf(path, sizeof path, "/proc/%d/gid_map", pid);
    OK(try_write(path, "7 1000 2"));
    snprintf(path, sizeof path, "/proc/%d/setgroups", pid);
    ERR(try_write(path, "deny"), EPERM); // too late
    OK(write(go[1], "x", 1));
    EXITED(wait_for(pid), 0);
}

TEST(unprivileged_map_only_themselves) {
    become_user();
    OK(unshare(CLONE_NEWUSER));
    ERR(try_write("/proc/self/uid_map", "0 0 1"), EPERM);
    ERR(try_write("/proc/self/uid_map", "0 1001 1"), EPERM);
    ERR(try_write("/proc/self/uid_map", "0 1000 2"), EPERM);
    ERR(try_write("/proc/self/uid_map", "0 1000 1\n1 1001 1"), EPERM);
    OK(try_write("/proc/self/uid_map", "1 1000 1"));
    // A program that is not root's keeps nothing.
    CHECK(effective());
}

TEST(clone_makes_all_at_once) {
    become_user();
    int ready[2];
    char byte;
    OK(pipe(ready));
    // The name of the host belongs to the new user namespace, whose capabilities the child has.
    EXITED(wait_for(CHILD(OK(unshare(CLONE_NEWUSER)))), 0);
    long pid = OK(syscall(SYS_clone, CLONE_NEWUSER | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNS | SIGCHLD, 0, 0, 0, 0));
    if (!pid) {
        CHECK_EQ(getpid(), 1);
        OK(read(ready[0], &byte, 1));
        CHECK_EQ(getuid(), 0);
        OK(sethostname("inner", 5));
        OK(mount("t", "/tmp", "tmpfs", 0, NULL));
        _exit(0);
    }
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/uid_map", pid);
    OK(try_write(path, "0 1000 1"));
    OK(write(ready[1], "x", 1));
    EXITED(wait_for(pid), 0);
    ERR(syscall(SYS_clone, CLONE_NEWUTS | SIGCHLD, 0, 0, 0, 0), EPERM);
    ERR(syscall(SYS_clone, CLONE_NEWUSER | CLONE_FS | SIGCHLD, 0, 0, 0, 0), EINVAL);
}

TEST(nesting_ends) {
    become_user();
    int depth = 0;
    char map[] = "0 0 1";
    enter_userns(0);
    while (unshare(CLONE_NEWUSER) == 0) {
        depth++;
        OK(try_write("/proc/self/uid_map", map));
        OK(try_write("/proc/self/gid_map", map));
    }
    CHECK_EQ(errno, ENOSPC);
    CHECK_EQ(depth, 32);
}

static void *wait_for_end(void *fd) {
    char byte;
    if (read(*(int *)fd, &byte, 1) < 0)
        return NULL;
    return NULL;
}

TEST(several_threads_stay) {
    become_user();
    int fds[2];
    pthread_t thread;
    OK(pipe(fds));
    CHECK(!pthread_create(&thread, NULL, wait_for_end, &fds[0]));
    ERR(unshare(CLONE_NEWUSER), EINVAL);
}

TEST(chrooted_stay) {
    if (geteuid())
        SKIP("root only");
    OK(mkdir("root", 0755));
    OK(chroot("root"));
    ERR(syscall(SYS_unshare, CLONE_NEWUSER), EPERM);
}

TEST(joining_takes_the_owner) {
    if (geteuid())
        SKIP("root only");
    int ready[2];
    char byte, path[64];
    OK(pipe(ready));
    pid_t pid = CHILD(become_user(); enter_userns(CLONE_NEWUTS); OK(sethostname("theirs", 6)); OK(write(ready[1], "x", 1)); pause());
    OK(read(ready[0], &byte, 1));
    snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
    int user = OK(open(path, O_RDONLY));
    snprintf(path, sizeof path, "/proc/%d/ns/uts", pid);
    int uts = OK(open(path, O_RDONLY)), own = OK(open("/proc/self/ns/user", O_RDONLY));
    int host = OK(open("/proc/self/ns/uts", O_RDONLY));
    uid_t owner;
    OK(ioctl(user, 0xb704, &owner));
    CHECK_EQ(owner, USER);
    // Somebody else has no capability there; its owner has all of them.
    EXITED(wait_for(CHILD(become_nobody(); ERR(setns(user, 0), EPERM))), 0);
    EXITED(wait_for(CHILD(become_user(); ERR(setns(uts, 0), EPERM); OK(setns(user, CLONE_NEWUSER)); CHECK_EQ(getuid(), 0);
                          CHECK(effective() >> CAP_SYS_ADMIN & 1); OK(setns(uts, 0)); OK(sethostname("joined", 6));
                          ERR(setns(own, 0), EPERM); ERR(setns(host, 0), EPERM))),
           0);
    kill(pid, SIGKILL);
    wait_for(pid);
}

// Attacks: nothing that belongs to the namespaces above is within reach.

TEST(names_above) {
    become_user();
    enter_userns(0);
    CHECK(effective() >> CAP_SYS_ADMIN & 1);
    ERR(sethostname("mine", 4), EPERM);
    ERR(setdomainname("mine", 4), EPERM);
    ERR(unshare(CLONE_NEWTIME | CLONE_VM | 1), EINVAL);
}

TEST(ports_and_raw_sockets_above) {
    become_user();
    enter_userns(0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(80), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = OK(socket(AF_INET, SOCK_STREAM, 0)), on = 1;
    ERR(bind(fd, (void *)&a, sizeof a), EACCES);
    ERR(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), EPERM);
    ERR(setsockopt(fd, SOL_SOCKET, SO_MARK, &on, sizeof on), EPERM);
    ERR(setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &on, sizeof on), EPERM);
    ERR(setsockopt(fd, SOL_IP, 19 /* IP_TRANSPARENT */, &on, sizeof on), EPERM);
}

TEST(files_above) {
    if (geteuid())
        SKIP("root only");
    write_file("secret", "x");
    OK(chmod("secret", 0600));
    close(OK(open("program", O_CREAT | O_RDWR, 0755)));
    become_user();
    enter_userns(CLONE_NEWNS);
    ERR(open("secret", O_RDONLY), EACCES);
    ERR(chown("secret", 0, 0), EPERM);
    ERR(chmod("secret", 0777), EPERM);
    ERR(mknod("null", S_IFCHR | 0666, makedev(1, 3)), EPERM);
    ERR(chown("program", 0, 0), EPERM);
    close(OK(open("own", O_CREAT | O_RDWR, 0755)));
    ERR(chown("own", 1, 1), EINVAL);
    ERR(setxattr("own", "trusted.x", "y", 1, 0), EPERM);
}

TEST(limits_above) {
    become_user();
    enter_userns(0);
    struct rlimit limit;
    OK(getrlimit(RLIMIT_NOFILE, &limit));
    limit.rlim_cur = limit.rlim_max = limit.rlim_max / 2;
    OK(setrlimit(RLIMIT_NOFILE, &limit));
    limit.rlim_max++;
    ERR(setrlimit(RLIMIT_NOFILE, &limit), EPERM);
    ERR(setpriority(PRIO_PROCESS, 0, -5), EACCES);
    ERR(syscall(SYS_syslog, 5, NULL, 0), EPERM);
}

TEST(processes_above) {
    if (geteuid())
        SKIP("root only");
    pid_t root = CHILD(pause());
    pid_t same = CHILD(become_user(); pause());
    EVENTUALLY(state_of(same) == 'S');
    EXITED(wait_for(CHILD(become_user(); enter_userns(0); ERR(kill(root, SIGTERM), EPERM);
                          ERR(ptrace(PTRACE_ATTACH, root, 0, 0), EPERM);
                          // Of the same user, but outside: its capabilities can't be compared.
                          ERR(ptrace(PTRACE_ATTACH, same, 0, 0), EPERM); char path[64];
                          snprintf(path, sizeof path, "/proc/%d/environ", same); ERR(open(path, O_RDONLY), EACCES);
                          snprintf(path, sizeof path, "/proc/%d/ns/mnt", same); ERR(open(path, O_RDONLY), EACCES);
                          OK(kill(same, 0)))),
           0);
    kill(root, SIGKILL);
    kill(same, SIGKILL);
    wait_for(root);
    wait_for(same);
}

// A process of root's that joins the namespace is not the namespace's to look into.
TEST(visitors_from_above) {
    if (geteuid())
        SKIP("root only");
    int ready[2], joined[2];
    char byte, path[64];
    OK(pipe(ready));
    OK(pipe(joined));
    pid_t pid = CHILD(become_user(); enter_userns(0); OK(write(ready[1], "x", 1)); pid_t visitor; OK(read(joined[0], &visitor, sizeof visitor));
                      ERR(ptrace(PTRACE_ATTACH, visitor, 0, 0), EPERM);
                      snprintf(path, sizeof path, "/proc/%d/environ", visitor); ERR(open(path, O_RDONLY), EACCES);
                      snprintf(path, sizeof path, "/proc/%d/root", visitor); ERR(open(path, O_RDONLY), EACCES));
    OK(read(ready[0], &byte, 1));
    snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
    int user = OK(open(path, O_RDONLY));
    pid_t visitor = CHILD(OK(setns(user, 0)); pid_t me = getpid(); OK(write(joined[1], &me, sizeof me)); pause());
    EXITED(wait_for(pid), 0);
    kill(visitor, SIGKILL);
    wait_for(visitor);
}

// Mounts that came from above stay together, and as they are.
TEST(mounts_from_above_are_locked) {
    if (geteuid() || unshare(CLONE_NEWNS))
        SKIP("root only");
    OK(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
    OK(mkdir("tree", 0777));
    OK(mount("t", "tree", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=777"));
    OK(mkdir("tree/covered", 0777));
    write_file("tree/covered/secret", "x");
    OK(chmod("tree/covered/secret", 0644));
    OK(mount("t", "tree/covered", "tmpfs", MS_RDONLY, NULL));
    OK(mkdir("other", 0777));
    // Root without the capability over its mounts is no more than a user.
    drop_capabilities(1ull << CAP_SYS_ADMIN);
    ERR(umount("tree/covered"), EPERM);
    OK(prctl(PR_SET_DUMPABLE, 1));
    enter_userns(CLONE_NEWNS);
    CHECK(effective() >> CAP_SYS_ADMIN & 1);
    ERR(umount2("tree/covered", MNT_DETACH), EINVAL);
    ERR(umount2("tree", MNT_DETACH), EINVAL);
    ERR(mount("tree/covered", "other", NULL, MS_MOVE, NULL), EINVAL);
    ERR(mount("tree", "other", NULL, MS_BIND, NULL), EINVAL); // without what covers
    ERR(mount("none", "tree/covered", NULL, MS_REMOUNT | MS_BIND, NULL), EPERM);
    ERR(mount("none", "tree/covered", NULL, MS_REMOUNT, NULL), EPERM);
    ERR(mount("none", "tree", NULL, MS_REMOUNT | MS_BIND, NULL), EPERM);
    ERR(mount("none", "tree", NULL, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV, NULL), EPERM);
    ERR(mount("none", "tree", NULL, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME, NULL), EPERM);
    OK(mount("none", "tree", NULL, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, NULL));
    OK(mount("none", "tree", NULL, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
    // A copy with all of it is one's own, and covers the same: also when it is gone.
    OK(mount("tree", "other", NULL, MS_BIND | MS_REC, NULL));
    ERR(open("other/covered/secret", O_RDONLY), ENOENT);
    ERR(umount2("other/covered", MNT_DETACH), EINVAL);
    int kept = OK(open("other", O_PATH | O_DIRECTORY));
    OK(umount2("other", MNT_DETACH));
    ERR(openat(kept, "covered/secret", O_RDONLY), ENOENT);
    int fd = OK(openat(kept, "covered", O_RDONLY));
    close(kept);
    ERR(openat(fd, "secret", O_RDONLY), ENOENT);
    ERR(openat(fd, "../covered/secret", O_RDONLY), ENOENT);
    ERR(mkdirat(fd, "x", 0777), EROFS);
    // A copy of the namespace for the same user keeps the locks.
    OK(unshare(CLONE_NEWNS));
    ERR(umount2("tree/covered", MNT_DETACH), EINVAL);
    // What one mounts oneself can be removed.
    OK(mount("t", "tree/covered", "tmpfs", 0, NULL));
    OK(umount("tree/covered"));
    int here = OK(open("tree", O_PATH | O_DIRECTORY));
    OK(unshare(CLONE_NEWNS)); // the tree of `here` is gone with its namespace
    ERR(openat(here, "covered/secret", O_RDONLY), ENOENT);
}

TEST(proc_shows_no_more_than_before) {
    if (geteuid() || unshare(CLONE_NEWNS | CLONE_NEWPID))
        SKIP("root only");
    // A tree with one proc, masked as a runtime does it.
    EXITED(wait_for(CHILD(
               OK(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL)); OK(mkdir("new", 0755));
               OK(mount("t", "new", "tmpfs", 0, "mode=755")); OK(mkdir("new/proc", 0755)); OK(mkdir("new/old", 0755));
               OK(mount("p", "new/proc", "proc", 0, NULL)); OK(syscall(SYS_pivot_root, "new", "new/old"));
               OK(chdir("/")); OK(umount2("old", MNT_DETACH));
               OK(mount("/proc/sys", "/proc/sys", NULL, MS_BIND, NULL));
               OK(mount("none", "/proc/sys", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
               drop_capabilities(1ull << CAP_SYS_ADMIN); OK(prctl(PR_SET_DUMPABLE, 1));
               enter_userns(CLONE_NEWNS | CLONE_NEWPID);
               ERR(mount("none", "/proc/sys", NULL, MS_REMOUNT | MS_BIND, NULL), EPERM);
               ERR(umount2("/proc/sys", MNT_DETACH), EINVAL);
               EXITED(wait_for(CHILD(ERR(mount("p", "/old", "proc", 0, NULL), EPERM);
                                     ERR(mount("p", "/proc", "proc", MS_RDONLY, NULL), EPERM))),
                      0);
               ERR(try_write("/proc/sys/kernel/hostname", "mine"), EROFS))),
           0);
}

TEST(proc_of_an_own_pid_namespace) {
    become_user();
    OK(unshare(CLONE_NEWUSER | CLONE_NEWNS));
    ERR(mount("p", "/proc", "proc", 0, NULL), EPERM); // shows a pid namespace of those above
    OK(unshare(CLONE_NEWPID));
    EXITED(wait_for(CHILD(if (mount("p", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL)) {
               if (errno == EPERM)
                   SKIP("/proc is covered in part");
               FAIL("mount: %d", errno);
           } CHECK_EQ(getpid(), 1);
                          char text[20] = {0}; OK(readlink("/proc/self", text, sizeof text)); STR_EQ(text, "1");
                          ERR(try_write("/proc/sys/kernel/hostname", "mine"), EACCES))),
           0);
}

TEST(own_mounts_have_no_devices) {
    become_user();
    enter_userns(CLONE_NEWNS);
    OK(mkdir("dev", 0755));
    OK(mount("t", "dev", "tmpfs", 0, "mode=755"));
    struct stat st;
    OK(stat("dev", &st));
    CHECK_EQ(st.st_uid, 0);
    ERR(mknod("dev/null", S_IFCHR | 0666, makedev(1, 3)), EPERM);
    close(OK(open("dev/null", O_CREAT | O_WRONLY, 0666)));
    OK(mount("/dev/null", "dev/null", NULL, MS_BIND, NULL));
    close(OK(open("dev/null", O_RDWR)));
    OK(mkdir("dev/pts", 0755));
    OK(mount("devpts", "dev/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620"));
    close(OK(open("dev/pts/ptmx", O_RDWR)));
}

// Set-id bits and file capabilities of a user's own file system mean nothing to those above.
int helper(int argc, char **argv) {
    (void)argc;
    (void)argv;
    return effective() ? 7 : 8;
}

TEST(set_id_programs_from_below) {
    if (geteuid())
        SKIP("root only");
    int ready[2];
    char byte, path[64];
    OK(pipe(ready));
    char self[PATH_MAX] = {0};
    OK(readlink("/proc/self/exe", self, sizeof self - 1));
    pid_t pid = CHILD(become_user(); enter_userns(CLONE_NEWNS); int in = OK(open(self, O_RDONLY));
                      OK(mount("t", "/tmp", "tmpfs", 0, NULL)); int out = OK(open("/tmp/program", O_CREAT | O_WRONLY, 0755));
                      static char buffer[1 << 16]; ssize_t n;
                      while ((n = read(in, buffer, sizeof buffer)) > 0) OK(write(out, buffer, n));
                      OK(fchmod(out, 06755)); close(out); OK(write(ready[1], "x", 1)); pause());
    OK(read(ready[0], &byte, 1));
    snprintf(path, sizeof path, "/proc/%d/root/tmp/program", pid);
    int fd = OK(open(path, O_RDONLY));
    // Somebody else executes it: it stays who it is.
    EXITED(wait_for(CHILD(become_nobody(); char *args[] = {"program", "--helper", NULL}, *none[] = {NULL};
                          syscall(SYS_execveat, fd, "", args, none, AT_EMPTY_PATH); FAIL("exec: %d", errno))),
           8);
    kill(pid, SIGKILL);
    wait_for(pid);
}

TEST(exec_keeps_what_root_has) {
    become_user();
    char self[PATH_MAX] = {0};
    OK(readlink("/proc/self/exe", self, sizeof self - 1));
    char *args[] = {"program", "--helper", NULL}, *none[] = {NULL};
    EXITED(wait_for(CHILD(enter_userns(0); execve(self, args, none))), 7);
    EXITED(wait_for(CHILD(OK(unshare(CLONE_NEWUSER)); execve(self, args, none))), 8);
}
