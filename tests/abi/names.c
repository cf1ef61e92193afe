// Names in directories: mkdir, unlink, rename, link, symlinks, path walk, *at calls, getdents, cwd.
#include "check.h"
#include <linux/fs.h>
#include <linux/openat2.h>

static void touch(const char *name) {
    close(OK(open(name, O_CREAT | O_WRONLY, 0644)));
}

static int exists(const char *name) {
    struct stat s;
    return lstat(name, &s) == 0;
}

static ino_t inode(const char *name) {
    struct stat s;
    OK(lstat(name, &s));
    return s.st_ino;
}

static int links(const char *name) {
    struct stat s;
    OK(lstat(name, &s));
    return s.st_nlink;
}

TEST(mkdir_rules) {
    umask(022);
    OK(mkdir("d", 0777));
    struct stat s;
    OK(stat("d", &s));
    CHECK_EQ(s.st_mode, S_IFDIR | 0755);
    ERR(mkdir("d", 0777), EEXIST);
    ERR(mkdir("missing/d", 0777), ENOENT);
    touch("f");
    ERR(mkdir("f", 0777), EEXIST);
    ERR(mkdir("f/d", 0777), ENOTDIR);
    OK(mkdir("slash/", 0777));
    ERR(mkdir("", 0777), ENOENT);
    ERR(mkdir(".", 0777), EEXIST);
    ERR(mkdir("/", 0777), EEXIST);
    OK(symlink("nowhere", "l"));
    ERR(mkdir("l", 0777), EEXIST);
}

TEST(mkdir_keeps_the_sticky_bit_only) {
    umask(0);
    OK(mkdir("d", 07777));
    struct stat s;
    OK(stat("d", &s));
    CHECK_EQ(s.st_mode & 07777, 01777);
}

TEST(setgid_directory_gives_its_group) {
    OK(mkdir("d", 0755));
    OK(chown("d", 0, 4321));
    OK(chmod("d", 02755));
    touch("d/f");
    OK(mkdir("d/sub", 0755));
    struct stat s;
    OK(stat("d/f", &s));
    CHECK_EQ(s.st_gid, 4321);
    OK(stat("d/sub", &s));
    CHECK_EQ(s.st_gid, 4321);
    CHECK(s.st_mode & S_ISGID);
}

TEST(rmdir_rules) {
    OK(mkdir("d", 0755));
    touch("d/f");
    ERR(rmdir("d"), ENOTEMPTY);
    OK(unlink("d/f"));
    ERR(rmdir("d/."), EINVAL);
    ERR(rmdir("d/.."), ENOTEMPTY);
    OK(rmdir("d"));
    ERR(rmdir("d"), ENOENT);
    touch("f");
    ERR(rmdir("f"), ENOTDIR);
    OK(symlink(".", "l"));
    ERR(rmdir("l"), ENOTDIR);
    ERR(rmdir("/"), EBUSY);
}

TEST(unlink_rules) {
    OK(mkdir("d", 0755));
    ERR(unlink("d"), EISDIR);
    ERR(unlink("missing"), ENOENT);
    touch("f");
    ERR(unlink("f/"), ENOTDIR);
    OK(symlink("f", "l"));
    OK(unlink("l"));
    CHECK(exists("f"));
    ERR(unlinkat(AT_FDCWD, "d", 0), EISDIR);
    OK(unlinkat(AT_FDCWD, "d", AT_REMOVEDIR));
    ERR(unlinkat(AT_FDCWD, "f", AT_REMOVEDIR), ENOTDIR);
    ERR(unlinkat(AT_FDCWD, "f", 0x1), EINVAL);
}

TEST(removed_directory_stays_usable_but_empty) {
    OK(mkdir("d", 0755));
    int fd = OK(open("d", O_RDONLY));
    OK(chdir("d"));
    OK(rmdir("../d"));
    ERR(openat(fd, "new", O_CREAT | O_WRONLY, 0600), ENOENT);
    ERR(mkdir("sub", 0755), ENOENT);
    char text[200];
    ERR(syscall(SYS_getcwd, text, sizeof text), ENOENT);
    OK(chdir(".."));
}

TEST(link_rules) {
    touch("f");
    OK(link("f", "g"));
    CHECK_EQ(links("f"), 2);
    CHECK_EQ(inode("f"), inode("g"));
    ERR(link("f", "g"), EEXIST);
    ERR(link("missing", "h"), ENOENT);
    ERR(link(".", "h"), EPERM);
    OK(symlink("f", "l"));
    OK(link("l", "m")); // links the symlink itself
    CHECK_EQ(links("f"), 2);
    OK(linkat(AT_FDCWD, "l", AT_FDCWD, "n", AT_SYMLINK_FOLLOW));
    CHECK_EQ(links("f"), 3);
    OK(unlink("f"));
    CHECK_EQ(links("g"), 2);
    ERR(link("g", "/dev/shm/x"), EXDEV);
}

TEST(symlink_rules) {
    OK(symlink("target", "l"));
    ERR(symlink("x", "l"), EEXIST);
    ERR(symlink("", "m"), ENOENT);
    char text[10];
    CHECK_EQ(readlink("l", text, 10), 6);
    CHECK(!memcmp(text, "target", 6));
    CHECK_EQ(readlink("l", text, 3), 3);
    ERR(readlink("l", text, 0), EINVAL);
    touch("f");
    ERR(readlink("f", text, 10), EINVAL);
    ERR(readlink("missing", text, 10), ENOENT);
    struct stat s;
    OK(lstat("l", &s));
    CHECK_EQ(s.st_mode, S_IFLNK | 0777);
    CHECK_EQ(s.st_size, 6);
    ERR(stat("l", &s), ENOENT);
}

TEST(symlink_walks) {
    OK(mkdir("d", 0755));
    OK(mkdir("d/e", 0755));
    touch("d/f");
    OK(symlink("d/e", "l"));
    CHECK_EQ(inode("l/../f"), inode("d/f")); // `..` is of the target
    OK(symlink("../d", "d/back"));
    CHECK(exists("d/back/back/back/f"));
    OK(symlink("/", "root"));
    CHECK(exists("root/proc/self"));
}

TEST(symlink_loops) {
    OK(symlink("b", "a"));
    OK(symlink("a", "b"));
    struct stat s;
    ERR(stat("a", &s), ELOOP);
    ERR(open("a", O_RDONLY), ELOOP);
    ERR(stat("a/x", &s), ELOOP);
    OK(lstat("a", &s));
}

TEST(forty_symlinks_are_the_limit) {
    touch("l0");
    char from[10], to[10];
    for (int i = 1; i <= 41; i++) {
        sprintf(from, "l%d", i);
        sprintf(to, "l%d", i - 1);
        OK(symlink(to, from));
    }
    struct stat s;
    OK(stat("l40", &s));
    ERR(stat("l41", &s), ELOOP);
}

TEST(trailing_slashes) {
    touch("f");
    OK(mkdir("d", 0755));
    OK(symlink("d", "l"));
    OK(symlink("f", "m"));
    struct stat s;
    OK(lstat("d///", &s));
    ERR(lstat("f/", &s), ENOTDIR);
    OK(lstat("l/", &s));
    CHECK(S_ISDIR(s.st_mode)); // the slash follows the link
    ERR(lstat("m/", &s), ENOTDIR);
    ERR(stat("f/.", &s), ENOTDIR);
    OK(stat("d/.", &s));
}

TEST(rename_basics) {
    touch("a");
    ino_t number = inode("a");
    OK(rename("a", "b"));
    CHECK(!exists("a"));
    CHECK_EQ(inode("b"), number);
    ERR(rename("a", "c"), ENOENT);
    touch("c");
    OK(rename("b", "c"));
    CHECK_EQ(inode("c"), number);
    OK(rename("c", "c"));
    ERR(rename("c", "missing/c"), ENOENT);
    ERR(rename("c", "/proc/c"), EXDEV);
}

TEST(rename_of_two_links_to_one_file_does_nothing) {
    touch("a");
    OK(link("a", "b"));
    OK(rename("a", "b"));
    CHECK(exists("a") && exists("b"));
}

TEST(rename_of_directories) {
    OK(mkdir("d", 0755));
    OK(mkdir("d/e", 0755));
    OK(mkdir("empty", 0755));
    touch("f");
    ERR(rename("d", "d/e/x"), EINVAL);
    ERR(rename("d", "f"), ENOTDIR);
    ERR(rename("f", "d"), EISDIR);
    ERR(rename("empty", "d"), ENOTEMPTY);
    OK(rename("d", "empty"));
    CHECK(exists("empty/e"));
    ERR(rename("empty/.", "x"), EBUSY);
    ERR(rename("f", "x/"), ENOTDIR);
    OK(rename("empty", "y/"));
}

TEST(rename_moves_parents) {
    OK(mkdir("a", 0755));
    OK(mkdir("b", 0755));
    OK(mkdir("a/d", 0755));
    int fd = OK(open("a/d", O_RDONLY));
    OK(rename("a/d", "b/d"));
    struct stat s, t;
    OK(fstatat(fd, "..", &s, 0));
    OK(stat("b", &t));
    CHECK_EQ(s.st_ino, t.st_ino);
}

TEST(renameat2_flags) {
    touch("a");
    touch("b");
    ino_t a = inode("a"), b = inode("b");
    ERR(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_NOREPLACE), EEXIST);
    OK(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_EXCHANGE));
    CHECK_EQ(inode("a"), b);
    CHECK_EQ(inode("b"), a);
    ERR(renameat2(AT_FDCWD, "a", AT_FDCWD, "missing", RENAME_EXCHANGE), ENOENT);
    ERR(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_EXCHANGE | RENAME_NOREPLACE), EINVAL);
    ERR(renameat2(AT_FDCWD, "", AT_FDCWD, "b", RENAME_EXCHANGE | RENAME_NOREPLACE), EINVAL);
    ERR(renameat2(AT_FDCWD, "", AT_FDCWD, "b", RENAME_EXCHANGE | 4), EINVAL);
    ERR(renameat2(AT_FDCWD, "a/x", AT_FDCWD, "", 0), ENOTDIR);
    ERR(renameat2(AT_FDCWD, "a/x", -1, "b", 0), ENOTDIR);
    ERR(renameat2(AT_FDCWD, "a", AT_FDCWD, "", 0), ENOENT);
    ERR(renameat2(AT_FDCWD, "a", -1, "b", 0), EBADF);
    ERR(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", 64), EINVAL);
    OK(renameat2(AT_FDCWD, "a", AT_FDCWD, "c", RENAME_NOREPLACE));
}

TEST(directory_link_counts) {
    OK(mkdir("d", 0755));
    struct stat s;
    OK(stat("d", &s));
    if (s.st_nlink == 1)
        SKIP("this file system does not count");
    CHECK_EQ(s.st_nlink, 2);
    OK(mkdir("d/e", 0755));
    CHECK_EQ(links("d"), 3);
    OK(rmdir("d/e"));
    CHECK_EQ(links("d"), 2);
}

TEST(at_calls_use_their_directory) {
    OK(mkdir("d", 0755));
    int d = OK(open("d", O_RDONLY | O_DIRECTORY));
    close(OK(openat(d, "f", O_CREAT | O_WRONLY, 0600)));
    CHECK(exists("d/f"));
    OK(mkdirat(d, "e", 0755));
    OK(symlinkat("f", d, "l"));
    OK(linkat(d, "f", d, "g", 0));
    OK(renameat(d, "g", AT_FDCWD, "g"));
    CHECK(exists("g"));
    OK(faccessat(d, "f", R_OK, 0));
    OK(fchmodat(d, "f", 0400, 0));
    OK(unlinkat(d, "l", 0));
    int f = OK(open("d/f", O_RDONLY));
    ERR(openat(f, "x", O_RDONLY), ENOTDIR);
    ERR(openat(999, "x", O_RDONLY), EBADF);
    OK(openat(999, "/proc", O_RDONLY)); // not looked at
    ERR(openat(f, "", O_RDONLY), ENOENT);
}

TEST(getdents_lists_everything) {
    for (int i = 0; i < 300; i++) {
        char name[20];
        sprintf(name, "file-%d", i);
        touch(name);
    }
    OK(mkdir("dir", 0755));
    OK(symlink("x", "link"));
    DIR *directory = opendir(".");
    CHECK(directory);
    struct dirent *entry;
    int files = 0, dots = 0, others = 0;
    while ((entry = readdir(directory))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            dots++;
        else if (!strncmp(entry->d_name, "file-", 5)) {
            files++;
            CHECK_EQ(entry->d_ino, inode(entry->d_name));
            CHECK(entry->d_type == DT_REG || entry->d_type == DT_UNKNOWN);
        } else
            others++;
    }
    CHECK_EQ(files, 300);
    CHECK_EQ(dots, 2);
    CHECK_EQ(others, 2);
    rewinddir(directory);
    CHECK(readdir(directory));
}

TEST(getdents_errors) {
    char buffer[1000];
    int d = OK(open(".", O_RDONLY));
    touch("a_file_with_quite_a_long_name_indeed");
    ERR(syscall(SYS_getdents64, d, buffer, 10), EINVAL);
    ERR(syscall(SYS_getdents64, 999, buffer, 1000), EBADF);
    int f = OK(open("a_file_with_quite_a_long_name_indeed", O_RDONLY));
    ERR(syscall(SYS_getdents64, f, buffer, 1000), ENOTDIR);
    ERR(syscall(SYS_getdents64, d, BAD_ADDRESS, 1000), EFAULT);
}

TEST(removal_while_reading) {
    for (int i = 0; i < 200; i++) {
        char name[20];
        sprintf(name, "file-%d", i);
        touch(name);
    }
    DIR *directory = opendir(".");
    struct dirent *entry;
    int removed = 0;
    while ((entry = readdir(directory)))
        if (entry->d_name[0] == 'f') {
            OK(unlink(entry->d_name));
            removed++;
        }
    CHECK_EQ(removed, 200);
}

TEST(chdir_and_getcwd) {
    OK(mkdir("d", 0755));
    OK(mkdir("d/e", 0755));
    char before[300], text[300];
    CHECK(getcwd(before, sizeof before));
    OK(chdir("d/e"));
    CHECK(getcwd(text, sizeof text));
    CHECK(!strncmp(text, before, strlen(before)) && !strcmp(text + strlen(before), "/d/e"));
    OK(rename("../../d", "../../moved"));
    CHECK(getcwd(text, sizeof text));
    CHECK(strstr(text, "/moved/e"));
    int fd = OK(open("/proc", O_RDONLY));
    OK(fchdir(fd));
    CHECK(getcwd(text, sizeof text));
    STR_EQ(text, "/proc");
    ERR(syscall(SYS_getcwd, text, 3), ERANGE);
    ERR(chdir("/missing"), ENOENT);
    ERR(chdir("/proc/version"), ENOTDIR);
    ERR(fchdir(999), EBADF);
    OK(chdir("/../.."));
    CHECK(getcwd(text, sizeof text));
    STR_EQ(text, "/");
}

TEST(chroot_changes_the_root) {
    OK(mkdir("jail", 0755));
    touch("jail/inside");
    EXITED(wait_for(CHILD({
               int proc = OK(open("/proc", O_PATH)), inside = OK(open("jail/inside", O_RDONLY));
               OK(chroot("jail"));
               OK(chdir("/"));
               CHECK(exists("/inside") && exists("/../../inside"));
               char text[100];
               CHECK(getcwd(text, sizeof text));
               STR_EQ(text, "/");
               char link[32], target[100] = {0};
               snprintf(link, sizeof link, "self/fd/%d", inside);
               OK(readlinkat(proc, link, target, sizeof target - 1));
               STR_EQ(target, "/inside");
           })),
           0);
    EXITED(wait_for(CHILD(become_nobody(); ERR(chroot("/"), EPERM))), 0);
    ERR(chroot("jail/inside"), ENOTDIR);
}

TEST(mknod_kinds) {
    OK(mknod("fifo", S_IFIFO | 0600, 0));
    OK(mknod("plain", S_IFREG | 0600, 0));
    OK(mknod("bare", 0600, 0));
    struct stat s;
    OK(stat("fifo", &s));
    CHECK(S_ISFIFO(s.st_mode));
    OK(stat("bare", &s));
    CHECK(S_ISREG(s.st_mode));
    ERR(mknod("fifo", S_IFIFO | 0600, 0), EEXIST);
    ERR(mknod("dir", S_IFDIR | 0700, 0), EPERM);
    ERR(mknod("odd", 0130000, 0), EINVAL);
    OK(mknod("socket", S_IFSOCK | 0600, 0));
    ERR(open("socket", O_RDONLY), ENXIO);
}

TEST(openat2_resolve) {
    OK(mkdir("d", 0755));
    touch("d/f");
    OK(symlink("/proc", "d/out"));
    OK(symlink("f", "d/in"));
    int d = OK(open("d", O_RDONLY));
    struct open_how how = {.flags = O_RDONLY, .resolve = RESOLVE_BENEATH};
    OK(syscall(SYS_openat2, d, "f", &how, sizeof how));
    OK(syscall(SYS_openat2, d, "in", &how, sizeof how));
    ERR(syscall(SYS_openat2, d, "../d/f", &how, sizeof how), EXDEV);
    ERR(syscall(SYS_openat2, d, "out", &how, sizeof how), EXDEV);
    how.resolve = RESOLVE_NO_SYMLINKS;
    ERR(syscall(SYS_openat2, d, "in", &how, sizeof how), ELOOP);
    how.resolve = RESOLVE_IN_ROOT;
    OK(syscall(SYS_openat2, d, "/f", &how, sizeof how));
    ERR(syscall(SYS_openat2, d, "out", &how, sizeof how), ENOENT);
    how.resolve = 1 << 20;
    ERR(syscall(SYS_openat2, d, "f", &how, sizeof how), EINVAL);
    how = (struct open_how){.flags = O_RDONLY, .mode = 0600};
    ERR(syscall(SYS_openat2, d, "f", &how, sizeof how), EINVAL);
    ERR(syscall(SYS_openat2, d, "f", &how, 8), EINVAL);
}

TEST(dot_dot_at_the_root) {
    CHECK_EQ(inode("/"), inode("/.."));
    CHECK_EQ(inode("/proc/.."), inode("/"));
}

TEST(proc_self_fd_names) {
    touch("f");
    int fd = OK(open("f", O_RDONLY));
    char path[40], target[300] = {0}, cwd[200];
    sprintf(path, "/proc/self/fd/%d", fd);
    OK(readlink(path, target, sizeof target - 1));
    CHECK(getcwd(cwd, sizeof cwd));
    CHECK(!strncmp(target, cwd, strlen(cwd)) && !strcmp(target + strlen(cwd), "/f"));
    OK(rename("f", "renamed"));
    memset(target, 0, sizeof target);
    OK(readlink(path, target, sizeof target - 1));
    CHECK(strstr(target, "/renamed"));
}

TEST(a_name_that_is_too_long_is_looked_up_last) {
    char name[300];
    memset(name, 'n', 299);
    name[299] = 0;
    ERR(rename(name, "nothing/f"), ENOENT);
    ERR(rename(name, "f"), ENAMETOOLONG);
    ERR(mkdir(name, 0700), ENAMETOOLONG);
    ERR(open(name, O_CREAT | O_RDWR, 0600), ENAMETOOLONG);
}
