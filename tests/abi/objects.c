// A file is what it is, not what it is called: descriptors of files whose names have gone or belong to others, files without a
// name, every kind of node, extended attributes, access control lists.
#include "check.h"
#include <grp.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <sys/xattr.h>

#ifndef RENAME_WHITEOUT
#define RENAME_WHITEOUT 4
#endif
#define ACCESS "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"

static int make(const char *name, int mode) {
    int fd = OK(open(name, O_CREAT | O_EXCL | O_RDWR, 0600));
    OK(fchmod(fd, mode));
    return fd;
}

static struct stat of(int fd) {
    struct stat s;
    OK(fstat(fd, &s));
    return s;
}

static const char *by_proc(int fd) {
    static char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return path;
}

static void change(int fd) {
    struct timespec times[2] = {{1, 0}, {2, 0}};
    OK(fchmod(fd, 0600));
    OK(fchown(fd, 12, 13));
    OK(futimens(fd, times));
    struct stat s = of(fd);
    CHECK(s.st_mode == 0100600 && s.st_uid == 12 && s.st_gid == 13 && s.st_mtime == 2);
}

TEST(a_change_by_descriptor_leaves_the_names_new_file_alone) {
    for (int how = 0; how < 2; how++) {
        int old = make("x", 0644), new;
        if (how) {
            new = make("y", 0644);
            OK(rename("y", "x"));
        } else {
            OK(unlink("x"));
            new = make("x", 0644);
        }
        of(old);
        change(old);
        struct stat s = of(new);
        CHECK(s.st_mode == 0100644 && s.st_uid == 0 && s.st_mtime != 2);
        OK(unlink("x"));
    }
}

TEST(an_unlinked_file_can_be_changed_and_opened_again) {
    for (int links = 0; links < 2; links++) {
        int fd = make("x", 0644);
        if (links) {
            OK(link("x", "z"));
            fd = OK(open("z", O_RDWR));
            OK(unlink("z"));
        } else {
            OK(unlink("x"));
        }
        change(fd);
        CHECK_EQ(write(fd, "abc", 3), 3);
        char text[4] = "";
        int again = OK(open(by_proc(fd), O_RDWR));
        CHECK_EQ(read(again, text, 3), 3);
        CHECK(!strcmp(text, "abc"));
        CHECK_EQ(of(again).st_nlink, links);
        if (links)
            OK(unlink("x"));
    }
}

TEST(a_file_stays_while_one_of_its_names_does) {
    close(make("a", 0644));
    OK(link("a", "b"));
    close(OK(open("b", O_RDONLY)));
    OK(unlink("b"));
    close(OK(open("a", O_RDWR)));
    OK(chmod("a", 0600));
    OK(truncate("a", 5));
    OK(link("a", "c"));
    OK(rename("c", "d"));
    OK(unlink("a"));
    close(OK(open("d", O_RDWR)));
}

TEST(what_has_lost_its_last_name_gets_none) {
    int fd = make("x", 0644);
    OK(unlink("x"));
    ERR(linkat(AT_FDCWD, by_proc(fd), AT_FDCWD, "y", AT_SYMLINK_FOLLOW), ENOENT);
}

TEST(a_file_without_a_name_gets_one) {
    int fd = OK(open(".", O_TMPFILE | O_RDWR, 0640));
    CHECK_EQ(write(fd, "hi", 2), 2);
    CHECK_EQ(of(fd).st_nlink, 0);
    OK(linkat(AT_FDCWD, by_proc(fd), AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    struct stat s;
    OK(stat("named", &s));
    CHECK(s.st_size == 2 && s.st_nlink == 1 && s.st_ino == of(fd).st_ino && (s.st_mode & 0777) == (0640 & ~umask(022)));
}

TEST(a_socket_has_a_node) {
    struct sockaddr_un a = {AF_UNIX, "s"};
    int server = OK(socket(AF_UNIX, SOCK_STREAM, 0)), client = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    OK(bind(server, (void *)&a, sizeof a));
    OK(listen(server, 1));
    struct stat s;
    OK(lstat("s", &s));
    CHECK(S_ISSOCK(s.st_mode));
    OK(chmod("s", 0700));
    OK(connect(client, (void *)&a, sizeof a));
    OK(rename("s", "t"));
    strcpy(a.sun_path, "t");
    client = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    OK(unlink("t"));
    ERR(connect(client, (void *)&a, sizeof a), ENOENT);
    OK(mknod("n", S_IFSOCK | 0644, 0));
    OK(lstat("n", &s));
    CHECK(S_ISSOCK(s.st_mode));
    ERR(open("n", O_RDWR), ENXIO);
}

static struct stat at(const char *name) {
    struct stat s;
    OK(lstat(name, &s));
    return s;
}

TEST(a_device_is_its_number_under_any_name) {
    umask(027);
    char text[8] = "";
    OK(mknod("null", S_IFCHR | 0666, makedev(1, 3)));
    struct stat s = at("null");
    CHECK(s.st_mode == (S_IFCHR | 0640) && s.st_rdev == makedev(1, 3) && s.st_uid == geteuid() && s.st_nlink == 1);
    int fd = OK(open("null", O_RDWR | O_TRUNC));
    CHECK_EQ(write(fd, "x", 1), 1);
    CHECK_EQ(read(fd, text, 1), 0);
    CHECK(of(fd).st_ino == s.st_ino && of(fd).st_rdev == s.st_rdev);
    OK(mknod("zero", S_IFCHR | 0600, makedev(1, 5)));
    fd = OK(open("zero", O_RDONLY));
    memset(text, 1, sizeof text);
    CHECK_EQ(read(fd, text, 4), 4);
    CHECK(text[3] == 0 && text[4] == 1);
    ERR(mknod("null", S_IFCHR | 0600, makedev(1, 5)), EEXIST);
    // Numbers that nothing stands for, and the largest ones.
    OK(mknod("c", S_IFCHR | 0600, makedev(240, 77)));
    ERR(open("c", O_RDONLY), ENXIO);
    OK(mknod("b", S_IFBLK | 0600, makedev(511, 0xfedcb)));
    CHECK(at("b").st_mode == (S_IFBLK | 0600) && at("b").st_rdev == makedev(511, 0xfedcb));
    ERR(open("b", O_RDWR), ENXIO);
}

TEST(a_device_is_an_object_like_others) {
    OK(mknod("a", S_IFCHR | 0600, makedev(1, 3)));
    ino_t number = at("a").st_ino;
    OK(chown("a", 5, 6));
    OK(chmod("a", 04711));
    struct timespec times[2] = {{1, 0}, {2, 0}};
    OK(utimensat(AT_FDCWD, "a", times, 0));
    OK(link("a", "b"));
    OK(rename("a", "c"));
    struct stat s = at("b");
    CHECK(s.st_ino == number && s.st_nlink == 2 && s.st_uid == 5 && s.st_gid == 6 && s.st_mtime == 2);
    CHECK(s.st_mode == (S_IFCHR | 04711) && s.st_rdev == makedev(1, 3));
    int fd = OK(open("c", O_RDWR));
    OK(unlink("b"));
    OK(unlink("c"));
    CHECK_EQ(of(fd).st_nlink, 0);
    OK(fchmod(fd, 0600));
    CHECK(of(fd).st_mode == (S_IFCHR | 0600));
    CHECK_EQ(write(fd, "x", 1), 1);
    // In a directory of somebody else, and one whose group is passed on.
    OK(mkdir("d", 0700));
    OK(chown("d", 7, 8));
    OK(chmod("d", 02700));
    OK(mknod("d/n", S_IFBLK | 0640, makedev(240, 1)));
    CHECK(at("d/n").st_uid == geteuid() && at("d/n").st_gid == 8);
    OK(rename("d/n", "n"));
    CHECK(at("n").st_rdev == makedev(240, 1));
    ERR(mknod("d/missing/n", S_IFCHR | 0600, makedev(1, 3)), ENOENT);
    OK(rmdir("d"));
    ERR(mknod("n/x", S_IFCHR | 0600, makedev(1, 3)), ENOTDIR);
}

TEST(a_whiteout_stays_at_the_old_name) {
    close(make("a", 0644));
    OK(syscall(SYS_renameat2, AT_FDCWD, "a", AT_FDCWD, "b", RENAME_WHITEOUT));
    struct stat s;
    OK(lstat("a", &s));
    CHECK(S_ISCHR(s.st_mode) && s.st_rdev == makedev(0, 0));
    OK(lstat("b", &s));
    CHECK(S_ISREG(s.st_mode));
    OK(unlink("a"));
}

TEST(anybody_may_leave_a_whiteout) {
    struct stat s;
    OK(chmod(".", 0777));
    int child = CHILD({
        become_nobody();
        close(make("a", 0644));
        OK(syscall(SYS_renameat2, AT_FDCWD, "a", AT_FDCWD, "b", RENAME_WHITEOUT));
    });
    EXITED(wait_for(child), 0);
    OK(lstat("a", &s));
    CHECK(S_ISCHR(s.st_mode) && s.st_rdev == makedev(0, 0));
}

TEST(a_removed_directory_lists_nothing) {
    char buf[1024];
    OK(mkdir("d", 0755));
    int fd = OK(open("d", O_RDONLY | O_DIRECTORY));
    OK(rmdir("d"));
    ERR(syscall(SYS_getdents64, fd, buf, sizeof buf), ENOENT);
    CHECK_EQ(of(fd).st_nlink, 0);
}

TEST(positions_of_a_directory_are_the_same_in_every_opening) {
    char name[8];
    for (int i = 0; i < 50; i++) {
        snprintf(name, sizeof name, "f%d", i);
        close(make(name, 0644));
    }
    DIR *a = opendir("."), *b = opendir(".");
    CHECK(a && b);
    for (int i = 0; i < 20; i++)
        readdir(a);
    long at = telldir(a);
    char wanted[256];
    strcpy(wanted, readdir(a)->d_name);
    seekdir(b, at);
    CHECK(!strcmp(readdir(b)->d_name, wanted));
}

TEST(extended_attributes) {
    char value[100];
    int fd = make("f", 0644);
    OK(fsetxattr(fd, "user.k", "value", 5, 0));
    CHECK_EQ(getxattr("f", "user.k", value, sizeof value), 5);
    CHECK(!memcmp(value, "value", 5));
    ERR(setxattr("f", "user.k", "x", 1, XATTR_CREATE), EEXIST);
    ERR(setxattr("f", "user.l", "x", 1, XATTR_REPLACE), ENODATA);
    OK(setxattr("f", "trusted.t", "1", 1, 0));
    CHECK_EQ(getxattr("f", "trusted.t", value, sizeof value), 1);
    ssize_t n = OK(listxattr("f", value, sizeof value));
    CHECK(memmem(value, n, "user.k", 7) && memmem(value, n, "trusted.t", 10));
    OK(unlink("f"));
    CHECK_EQ(fgetxattr(fd, "user.k", value, sizeof value), 5);
    OK(fremovexattr(fd, "user.k"));
    ERR(fgetxattr(fd, "user.k", value, sizeof value), ENODATA);
    OK(symlink("x", "l"));
    ERR(lsetxattr("l", "user.k", "1", 1, 0), EPERM);
}

// VFS_CAP_REVISION_2 with CAP_NET_RAW permitted.
static const unsigned char file_caps[20] = {1, 0, 0, 2, 0, 0x20};

TEST(a_change_of_the_file_takes_its_capabilities) {
    char value[100];
    for (int how = 0; how < 4; how++) {
        int fd = make("f", 0755);
        OK(write(fd, "x", 1));
        OK(fsetxattr(fd, "security.capability", file_caps, sizeof file_caps, 0));
        CHECK_EQ(getxattr("f", "security.capability", value, sizeof value), 20);
        switch (how) {
        case 0: OK(write(fd, "y", 1)); break;
        case 1: OK(ftruncate(fd, 9)); break;
        case 2: OK(chown("f", 1, 1)); break;
        default: OK(truncate("f", 0)); break;
        }
        ERR(getxattr("f", "security.capability", value, sizeof value), ENODATA);
        OK(unlink("f"));
    }
}

struct entry {
    uint16_t tag, perm;
    uint32_t id;
};
struct list {
    uint32_t version;
    struct entry entries[5];
};
#define NOBODY_NAMED 0xffffffff
// user::rw- user:1000:r-- group::r-- mask::r-- other::---
static const struct list named = {
    2, {{1, 6, NOBODY_NAMED}, {2, 4, 1000}, {4, 4, NOBODY_NAMED}, {16, 4, NOBODY_NAMED}, {32, 0, NOBODY_NAMED}}};

static void as(int id, const char *name, int how, int errno_wanted) {
    EXITED(wait_for(CHILD({
               OK(setgroups(0, NULL));
               OK(setgid(id));
               OK(setuid(id));
               if (errno_wanted)
                   ERR(access(name, how), errno_wanted);
               else
                   OK(access(name, how));
           })),
           0);
}

TEST(a_list_grants_what_it_says) {
    struct stat s;
    OK(chmod(".", 0755));
    close(make("f", 0600));
    OK(setxattr("f", ACCESS, &named, sizeof named, 0));
    OK(stat("f", &s));
    CHECK_EQ(s.st_mode & 0777, 0640);
    as(1000, "f", R_OK, 0);
    as(1000, "f", W_OK, EACCES);
    as(1001, "f", R_OK, EACCES);
    OK(chmod("f", 0600));
    as(1000, "f", R_OK, EACCES);
    struct list got;
    CHECK_EQ(getxattr("f", ACCESS, &got, sizeof got), sizeof got);
    CHECK_EQ(got.entries[3].perm, 0);
    OK(removexattr("f", ACCESS));
    ERR(getxattr("f", ACCESS, &got, sizeof got), ENODATA);
    OK(removexattr("f", ACCESS));
}

TEST(a_default_list_takes_the_umasks_place) {
    struct stat s;
    struct list got;
    OK(mkdir("d", 0755));
    OK(setxattr("d", DEFAULT, &named, sizeof named, 0));
    umask(077);
    close(OK(open("d/f", O_CREAT | O_RDWR, 0666)));
    OK(stat("d/f", &s));
    CHECK_EQ(s.st_mode & 0777, 0640);
    CHECK_EQ(getxattr("d/f", ACCESS, &got, sizeof got), sizeof got);
    OK(mkdir("d/e", 0777));
    CHECK_EQ(getxattr("d/e", DEFAULT, &got, sizeof got), sizeof got);
    CHECK(!memcmp(&got, &named, sizeof got));
}

TEST(lists_that_are_none_are_refused) {
    struct list bad = named;
    close(make("f", 0600));
    ERR(setxattr("f", DEFAULT, &named, sizeof named, 0), EACCES);
    bad.entries[3].tag = 4;
    ERR(setxattr("f", ACCESS, &bad, sizeof bad, 0), EINVAL);
    bad = named;
    bad.version = 1;
    ERR(setxattr("f", ACCESS, &bad, sizeof bad, 0), EOPNOTSUPP);
    ERR(setxattr("f", ACCESS, &named, sizeof named - 1, 0), EINVAL);
    OK(symlink("f", "l"));
    ERR(lsetxattr("l", ACCESS, &named, sizeof named, 0), EOPNOTSUPP);
    OK(chmod(".", 0777));
    EXITED(wait_for(CHILD({
               OK(setuid(1000));
               ERR(setxattr("f", ACCESS, &named, sizeof named, 0), EPERM);
           })),
           0);
}

TEST(what_can_not_be_opened_has_attributes) {
    static const char *names[] = {"fifo", "socket", "char", "block", "link"};
    char value[256];
    OK(mknod("fifo", S_IFIFO | 0600, 0));
    OK(mknod("socket", S_IFSOCK | 0600, 0));
    OK(mknod("char", S_IFCHR | 0600, makedev(240, 1)));
    OK(mknod("block", S_IFBLK | 0600, makedev(240, 1)));
    OK(symlink("nowhere", "link"));
    for (int i = 0; i < 5; i++) {
        const char *name = names[i];
        CHECK_EQ(llistxattr(name, value, sizeof value), 0);
        ERR(lgetxattr(name, "security.capability", value, sizeof value), ENODATA);
        OK(lsetxattr(name, "security.capability", file_caps, sizeof file_caps, XATTR_CREATE));
        ERR(lsetxattr(name, "security.capability", file_caps, sizeof file_caps, XATTR_CREATE), EEXIST);
        CHECK_EQ(lgetxattr(name, "security.capability", value, sizeof value), sizeof file_caps);
        CHECK(!memcmp(value, file_caps, sizeof file_caps));
        CHECK_EQ(llistxattr(name, value, sizeof value), sizeof "security.capability");
        STR_EQ(value, "security.capability");
        ERR(lsetxattr(name, "user.k", "v", 1, 0), EPERM);
        ERR(lgetxattr(name, "user.k", value, sizeof value), ENODATA);
        OK(lremovexattr(name, "security.capability"));
        ERR(lremovexattr(name, "security.capability"), ENODATA);
        if (i < 4) {
            OK(setxattr(name, ACCESS, &named, sizeof named, 0));
            CHECK_EQ(getxattr(name, ACCESS, value, sizeof value), sizeof named);
        }
    }
}

TEST(a_running_program_is_not_truncated) {
    int in = OK(open("/proc/self/exe", O_RDONLY)), out = make("run", 0755);
    char buf[65536];
    for (ssize_t n; (n = OK(read(in, buf, sizeof buf))) > 0;)
        CHECK_EQ(write(out, buf, n), n);
    close(out);
    // It writes to a pipe that is full, and so runs until it is killed.
    int ready[2], full[2];
    OK(pipe2(ready, O_CLOEXEC));
    OK(pipe2(full, O_NONBLOCK));
    while (write(full[1], buf, 4096) > 0)
        ;
    OK(fcntl(full[1], F_SETFL, 0));
    pid_t child = OK(fork());
    if (!child) {
        dup2(full[1], 1);
        execl("./run", "run", "--list", NULL);
        _exit(1);
    }
    close(ready[1]);
    CHECK_EQ(read(ready[0], buf, 1), 0);
    ERR(truncate("run", 10), ETXTBSY);
    OK(kill(child, SIGKILL));
    OK(waitpid(child, NULL, 0));
    OK(truncate("run", 10));
}

TEST(posix_fallocate_makes_a_file_as_long_as_it_says) {
    char buf[16384];
    int fd = make("f", 0600);
    OK(ftruncate(fd, 4096));
    char *p = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(p != MAP_FAILED);
    p[0] = 1;
    CHECK_EQ(posix_fallocate(fd, 0, 16384), 0);
    p[8192] = 1;
    CHECK_EQ(pread(fd, buf, sizeof buf, 0), 16384);
    CHECK_EQ(buf[8192], 1);
}

TEST(directories_and_file_systems_are_written_out) {
    int fd = make("f", 0600), dir = OK(open(".", O_RDONLY));
    OK(fsync(fd));
    OK(fdatasync(dir));
    OK(fsync(dir));
    OK(syncfs(fd));
    sync();
    int synced = OK(open("s", O_CREAT | O_RDWR | O_SYNC, 0600));
    OK(write(fd, "abc", 3));
    loff_t from = 0;
    CHECK_EQ(copy_file_range(fd, &from, synced, NULL, 3, 0), 3);
    struct iovec v = {"x", 1};
    CHECK_EQ(pwritev2(fd, &v, 1, 0, RWF_DSYNC), 1);
}

TEST(a_write_by_another_takes_set_id_bits) {
    OK(chmod(".", 0777));
    close(make("f", 06777));
    EXITED(wait_for(CHILD({
               OK(setgid(1000));
               OK(setuid(1000));
               int fd = OK(open("f", O_WRONLY));
               OK(write(fd, "x", 1));
           })),
           0);
    struct stat s;
    OK(stat("f", &s));
    CHECK_EQ(s.st_mode & 07777, 0777);
}

TEST(a_write_by_root_leaves_set_id_bits) {
    int fd = make("f", 06777);
    OK(write(fd, "x", 1));
    CHECK_EQ(of(fd).st_mode & 07777, 06777);
    OK(ftruncate(fd, 100));
    OK(truncate("f", 5));
    CHECK_EQ(of(fd).st_mode & 07777, 06777);
    // The bits are new to whoever had the file open before.
    OK(fchmod(fd, 0777));
    OK(fchmod(fd, 06755));
    OK(pwrite(fd, "x", 1, 0));
    CHECK_EQ(of(fd).st_mode & 07777, 06755);
}

TEST(a_name_space_of_attributes_is_no_attribute) {
    close(make("f", 0666));
    ERR(setxattr("f", "user.", "x", 1, 0), EINVAL);
    ERR(getxattr("f", "user.", NULL, 0), EINVAL);
    ERR(setxattr("f", "nonsense", "x", 1, 0), EOPNOTSUPP);
    OK(chmod("f", 0600));
    OK(chmod(".", 0755));
    EXITED(wait_for(CHILD(become_nobody(); ERR(setxattr("f", "user.", "x", 1, 0), EACCES);
                          ERR(setxattr("f", "nonsense", "x", 1, 0), EACCES))),
           0);
}

TEST(a_list_is_replaced_whatever_the_flags) {
    close(make("f", 0600));
    unsigned char list[28] = {2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255};
    OK(setxattr("f", ACCESS, list, sizeof list, XATTR_REPLACE));
    struct stat s;
    OK(stat("f", &s));
    CHECK_EQ(s.st_mode & 0777, 0640);
    OK(setxattr("f", ACCESS, list, sizeof list, XATTR_CREATE));
}

TEST(a_mapped_store_shows_in_the_times) {
    struct statfs fs;
    OK(statfs(".", &fs));
    int fd = make("f", 0600);
    OK(ftruncate(fd, 8192));
    struct timespec old[2] = {{1000, 0}, {1000, 0}};
    OK(futimens(fd, old));
    CHECK_EQ(of(fd).st_mtime, 1000);
    char *p = OK(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    CHECK_EQ(of(fd).st_mtime, 1000);
    p[5000] = 'x';
    OK(msync(p, 8192, MS_SYNC));
    // Files in memory do not notice.
    if (fs.f_type != 0x01021994)
        CHECK(of(fd).st_mtime > 1000);
}

// mmap(2) is an access like read(2), if it comes to a mapping.
TEST(a_mapping_is_an_access_and_a_refused_one_is_none) {
    close(make("f", 0600));
    int fd = OK(open("f", O_RDONLY));
    OK(truncate("f", 4096));
    struct timespec times[2] = {{1000, 0}, {2000, 0}};
    char byte;
    OK(futimens(fd, times));
    CHECK_EQ(read(fd, &byte, 1), 1);
    int kept = of(fd).st_atime != 1000;
    OK(futimens(fd, times));
    CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EACCES);
    CHECK_EQ(of(fd).st_atime, 1000);
    OK(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0));
    CHECK_EQ(of(fd).st_atime != 1000, kept);
}

static long long transferred(ssize_t n) {
    return n < 0 ? -errno : n;
}

// What O_DIRECT asks of a transfer it asks of every call that makes one.
TEST(direct_transfers_of_any_call_have_one_rule) {
    static char block[4096] __attribute__((aligned(4096)));
    int in = make("in", 0600);
    OK(ftruncate(in, 16384));
    int out = open("out", O_CREAT | O_WRONLY | O_DIRECT, 0600);
    if (out < 0 && errno == EINVAL)
        SKIP("no O_DIRECT here");
    OK(out);
    static const struct {
        off_t at;
        size_t len;
    } cases[] = {{0, 4096}, {4096, 4096}, {0, 1000}, {100, 4096}, {1, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        long long plain = transferred(pwrite(out, block, cases[i].len, cases[i].at));
        loff_t from = 0, to = cases[i].at;
        CHECK_EQ(transferred(copy_file_range(in, &from, out, &to, cases[i].len, 0)), plain);
        OK(lseek(out, cases[i].at, SEEK_SET));
        off_t start = 0;
        CHECK_EQ(transferred(sendfile(out, in, &start, cases[i].len)), plain);
    }
}
