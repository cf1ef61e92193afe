// Credentials and permissions: ids, groups, capabilities, mode bits, the sticky bit, chmod and chown.
#include "check.h"
#include <linux/capability.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>

#define AS_NOBODY(...) EXITED(wait_for(CHILD(become_nobody(); __VA_ARGS__)), 0)

static void touch(const char *name, int mode) {
    int fd = OK(open(name, O_CREAT | O_WRONLY, 0600));
    OK(fchmod(fd, mode));
    close(fd);
}

static int mode_of(const char *name) {
    struct stat s;
    OK(stat(name, &s));
    return s.st_mode & 07777;
}

TEST(ids_of_root) {
    CHECK_EQ(getuid(), 0);
    CHECK_EQ(geteuid(), 0);
    CHECK_EQ(getgid(), 0);
    CHECK_EQ(getegid(), 0);
}

TEST(setuid_of_root_drops_all_three) {
    EXITED(wait_for(CHILD({
               OK(setuid(100));
               uid_t r, e, s;
               OK(getresuid(&r, &e, &s));
               CHECK(r == 100 && e == 100 && s == 100);
               ERR(setuid(0), EPERM);
               ERR(seteuid(0), EPERM);
               OK(setuid(100));
           })),
           0);
}

TEST(seteuid_can_come_back) {
    EXITED(wait_for(CHILD({
               OK(seteuid(100));
               CHECK_EQ(geteuid(), 100);
               ERR(setresuid(200, -1, -1), EPERM);
               OK(seteuid(0));
           })),
           0);
}

TEST(setresuid_shuffles) {
    EXITED(wait_for(CHILD({
               OK(setresuid(1, 2, 3));
               OK(setresuid(-1, 1, -1));
               OK(setresuid(3, -1, -1));
               ERR(setresuid(2, -1, -1), EPERM);
               OK(setreuid(-1, 3));
           })),
           0);
}

TEST(setreuid_changes_the_saved_id) {
    EXITED(wait_for(CHILD({
               OK(setreuid(5, 6));
               uid_t r, e, s;
               OK(getresuid(&r, &e, &s));
               CHECK(r == 5 && e == 6 && s == 6);
           })),
           0);
}

TEST(groups) {
    EXITED(wait_for(CHILD({
               gid_t list[3] = {7, 8, 9}, back[10];
               OK(syscall(SYS_setgroups, 3, list));
               CHECK_EQ(syscall(SYS_getgroups, 0, NULL), 3);
               CHECK_EQ(syscall(SYS_getgroups, 10, back), 3);
               ERR(syscall(SYS_getgroups, 2, back), EINVAL);
               CHECK_EQ(back[2], 9);
               OK(setgid(50));
               CHECK_EQ(getegid(), 50);
           })),
           0);
    AS_NOBODY(ERR(syscall(SYS_setgroups, 0, NULL), EPERM); ERR(setgid(0), EPERM));
}

TEST(fsuid_returns_the_old_one) {
    EXITED(wait_for(CHILD(CHECK_EQ(setfsuid(5), 0); CHECK_EQ(setfsuid(-1), 5); CHECK_EQ(setfsgid(6), 0))), 0);
}

static void capabilities(unsigned long long *effective, unsigned long long *permitted) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    OK(syscall(SYS_capget, &header, data));
    *effective = data[0].effective | (unsigned long long)data[1].effective << 32;
    *permitted = data[0].permitted | (unsigned long long)data[1].permitted << 32;
}

TEST(capabilities_go_with_the_uid) {
    unsigned long long effective, permitted;
    capabilities(&effective, &permitted);
    CHECK(effective & 1 << CAP_SETUID);
    EXITED(wait_for(CHILD({
               OK(seteuid(100));
               capabilities(&effective, &permitted);
               CHECK_EQ(effective, 0);
               CHECK(permitted);
               OK(seteuid(0));
               capabilities(&effective, &permitted);
               CHECK(effective);
           })),
           0);
    AS_NOBODY(capabilities(&effective, &permitted); CHECK(!effective && !permitted));
}

TEST(keepcaps) {
    EXITED(wait_for(CHILD({
               OK(prctl(PR_SET_KEEPCAPS, 1));
               OK(setuid(100));
               unsigned long long effective, permitted;
               capabilities(&effective, &permitted);
               CHECK_EQ(effective, 0);
               CHECK(permitted);
           })),
           0);
}

TEST(capset_only_takes_away) {
    EXITED(wait_for(CHILD({
               struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
               struct __user_cap_data_struct data[2] = {{0}};
               data[0].permitted = data[0].effective = 1 << CAP_CHOWN;
               OK(syscall(SYS_capset, &header, data));
               data[0].permitted = data[0].effective = 1 << CAP_CHOWN | 1 << CAP_KILL;
               ERR(syscall(SYS_capset, &header, data), EPERM);
               header.version = 1;
               ERR(syscall(SYS_capget, &header, data), EINVAL);
               CHECK_EQ(header.version, _LINUX_CAPABILITY_VERSION_3);
           })),
           0);
}

TEST(bounding_set) {
    EXITED(wait_for(CHILD({
               CHECK_EQ(prctl(PR_CAPBSET_READ, CAP_CHOWN), 1);
               OK(prctl(PR_CAPBSET_DROP, CAP_CHOWN));
               CHECK_EQ(prctl(PR_CAPBSET_READ, CAP_CHOWN), 0);
               ERR(prctl(PR_CAPBSET_READ, 64), EINVAL);
           })),
           0);
}

TEST(no_new_privs) {
    EXITED(wait_for(CHILD({
               CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
               OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
               CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
               ERR(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), EINVAL);
           })),
           0);
}

TEST(mode_bits_of_others) {
    OK(chmod(".", 0755));
    touch("secret", 0600);
    touch("readable", 0644);
    touch("writable", 0622);
    AS_NOBODY({
        ERR(open("secret", O_RDONLY), EACCES);
        ERR(open("readable", O_WRONLY), EACCES);
        OK(open("readable", O_RDONLY));
        OK(open("writable", O_WRONLY));
        ERR(open("writable", O_RDWR), EACCES);
        ERR(open("new", O_CREAT | O_WRONLY, 0600), EACCES);
        ERR(mkdir("new", 0700), EACCES);
        ERR(unlink("readable"), EACCES);
        ERR(rename("readable", "x"), EACCES);
        ERR(link("readable", "x"), EPERM);
        ERR(truncate("readable", 0), EACCES);
    });
}

TEST(owner_bits_come_first) {
    OK(chmod(".", 0755));
    touch("f", 0077);
    OK(chown("f", 65534, 0));
    AS_NOBODY(ERR(open("f", O_RDONLY), EACCES));
    OK(chown("f", 0, 65534));
    OK(chmod("f", 0707));
    AS_NOBODY(ERR(open("f", O_RDONLY), EACCES));
}

TEST(supplementary_group_counts) {
    OK(chmod(".", 0755));
    touch("f", 0640);
    OK(chown("f", 0, 777));
    EXITED(wait_for(CHILD({
               gid_t group = 777;
               OK(syscall(SYS_setgroups, 1, &group));
               OK(setresgid(65534, 65534, 65534));
               OK(setresuid(65534, 65534, 65534));
               OK(open("f", O_RDONLY));
               ERR(open("f", O_WRONLY), EACCES);
           })),
           0);
}

TEST(search_permission_on_the_way) {
    OK(chmod(".", 0755));
    OK(mkdir("d", 0700));
    touch("d/f", 0644);
    OK(mkdir("noread", 0711));
    touch("noread/f", 0644);
    AS_NOBODY({
        struct stat s;
        ERR(stat("d/f", &s), EACCES);
        OK(stat("d", &s));
        ERR(chdir("d"), EACCES);
        OK(stat("noread/f", &s));
        ERR(open("noread", O_RDONLY), EACCES);
    });
}

TEST(root_passes_but_needs_an_x_to_execute) {
    touch("f", 0);
    OK(open("f", O_RDWR));
    ERR(access("f", X_OK), EACCES);
    OK(chmod("f", 010));
    OK(access("f", X_OK));
}

TEST(access_uses_the_real_ids) {
    OK(chmod(".", 0755));
    touch("f", 0600);
    EXITED(wait_for(CHILD({
               OK(setresuid(65534, 0, 0));
               ERR(access("f", R_OK), EACCES);
               OK(faccessat(AT_FDCWD, "f", R_OK, AT_EACCESS));
           })),
           0);
    ERR(access("f", 8), EINVAL);
    ERR(access("missing", F_OK), ENOENT);
    OK(access("f", F_OK));
}

TEST(sticky_directory) {
    OK(chmod(".", 0755));
    OK(mkdir("t", 0777));
    OK(chmod("t", 01777));
    touch("t/root", 0666);
    touch("t/mine", 0666);
    OK(chown("t/mine", 65534, 65534));
    AS_NOBODY({
        ERR(unlink("t/root"), EPERM);
        ERR(rename("t/root", "t/x"), EPERM);
        ERR(rename("t/mine", "t/root"), EPERM);
        OK(unlink("t/mine"));
    });
}

TEST(chmod_rules) {
    OK(chmod(".", 0755));
    touch("f", 0644);
    OK(chmod("f", 07654));
    CHECK_EQ(mode_of("f"), 07654);
    OK(chmod("f", 0644));
    AS_NOBODY(ERR(chmod("f", 0777), EPERM));
    ERR(chmod("missing", 0), ENOENT);
    OK(chown("f", 65534, 0));
    AS_NOBODY(OK(chmod("f", 02755)); CHECK_EQ(mode_of("f"), 0755)); // not a member of the group: no setgid
}

TEST(chown_rules) {
    OK(chmod(".", 0755));
    touch("f", 06755);
    OK(chown("f", 5, 6));
    struct stat s;
    OK(stat("f", &s));
    CHECK(s.st_uid == 5 && s.st_gid == 6);
    CHECK_EQ(mode_of("f"), 0755); // the set-id bits are gone
    OK(chown("f", -1, 7));
    OK(stat("f", &s));
    CHECK(s.st_uid == 5 && s.st_gid == 7);
    AS_NOBODY(ERR(chown("f", 65534, -1), EPERM));
    touch("g", 0644);
    OK(chown("g", 65534, 0));
    AS_NOBODY(OK(chown("g", -1, 65534)); ERR(chown("g", -1, 0), EPERM); ERR(chown("g", 0, -1), EPERM));
    OK(symlink("f", "l"));
    OK(lchown("l", 9, 9));
    OK(stat("f", &s));
    CHECK_EQ(s.st_uid, 5);
}

TEST(writing_clears_setuid) {
    OK(chmod(".", 0755));
    touch("f", 04777);
    OK(chown("f", 65534, 65534));
    OK(chmod("f", 06777));
    EXITED(wait_for(CHILD({
               become_nobody();
               int fd = OK(open("f", O_WRONLY));
               CHECK_EQ(write(fd, "x", 1), 1);
           })),
           0);
    CHECK_EQ(mode_of("f"), 0777);
}

TEST(utimes_needs_ownership_or_writability) {
    OK(chmod(".", 0755));
    touch("f", 0644);
    touch("w", 0666);
    AS_NOBODY({
        struct timespec times[2] = {{1, 0}, {2, 0}};
        ERR(utimensat(AT_FDCWD, "f", times, 0), EPERM);
        ERR(utimensat(AT_FDCWD, "f", NULL, 0), EACCES);
        OK(utimensat(AT_FDCWD, "w", NULL, 0));
        ERR(utimensat(AT_FDCWD, "w", times, 0), EPERM);
    });
}

TEST(new_files_belong_to_the_fsuid) {
    OK(chmod(".", 0777));
    AS_NOBODY(close(OK(open("mine", O_CREAT | O_WRONLY, 0600))));
    struct stat s;
    OK(stat("mine", &s));
    CHECK(s.st_uid == 65534 && s.st_gid == 65534);
}

TEST(mknod_of_devices_needs_a_capability) {
    OK(chmod(".", 0777));
    AS_NOBODY(ERR(mknod("dev", S_IFCHR | 0600, 0x103), EPERM); OK(mknod("fifo", S_IFIFO | 0600, 0)));
}

TEST(umask_applies) {
    umask(0777);
    close(OK(open("f", O_CREAT | O_WRONLY, 0777)));
    CHECK_EQ(mode_of("f"), 0);
    CHECK_EQ(umask(022), 0777);
}

TEST(hostname_needs_a_capability) {
    AS_NOBODY(ERR(sethostname("x", 1), EPERM));
}

TEST(rlimits_can_only_shrink_without_capability) {
    struct rlimit limit = {10, 10};
    OK(setrlimit(RLIMIT_NOFILE, &limit));
    AS_NOBODY({
        limit.rlim_max = 11;
        ERR(setrlimit(RLIMIT_NOFILE, &limit), EPERM);
        limit.rlim_max = 9;
        ERR(setrlimit(RLIMIT_NOFILE, &limit), EINVAL);
        limit.rlim_cur = 9;
        OK(setrlimit(RLIMIT_NOFILE, &limit));
    });
}

TEST(priority) {
    AS_NOBODY({
        CHECK_EQ(getpriority(PRIO_PROCESS, 0), 0);
        OK(setpriority(PRIO_PROCESS, 0, 5));
        CHECK_EQ(getpriority(PRIO_PROCESS, 0), 5);
        ERR(setpriority(PRIO_PROCESS, 0, 4), EACCES);
        ERR(setpriority(99, 0, 4), EINVAL);
        ERR(getpriority(PRIO_PROCESS, 1 << 21), ESRCH);
    });
}

TEST(own_descriptors_in_proc_whoever_one_becomes) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0666));
    OK(fchmod(fd, 0666));
    char path[40];
    sprintf(path, "/proc/self/fd/%d", fd);
    EXITED(wait_for(CHILD({
               become_nobody();
               close(OK(open(path, O_RDWR)));
               ERR(open("/proc/self/fd/77", O_RDWR), ENOENT);
               DIR *dir = opendir("/proc/self/fd");
               CHECK(dir != NULL);
           })),
           0);
}
