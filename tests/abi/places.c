// What a place refuses: file systems that are read-only, without programs or devices, mount points, ways that openat2(2) excludes,
// descriptors that were opened for something else, and the limit of a file's size.
#include "check.h"
#include <linux/openat2.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/xattr.h>

#define RO (MS_REMOUNT | MS_BIND | MS_RDONLY)

static void touch(const char *name, int mode) {
    int fd = OK(open(name, O_CREAT | O_WRONLY, 0600));
    OK(fchmod(fd, mode));
    close(fd);
}

// A file system of one's own at `m`, in a mount namespace of one's own.
static void own_mount(void) {
    OK(unshare(CLONE_NEWNS));
    OK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    OK(mkdir("m", 0755));
    OK(mount("x", "m", "tmpfs", 0, NULL));
}

TEST(nothing_changes_on_a_read_only_mount) {
    own_mount();
    touch("m/f", 0666);
    touch("m/g", 0666);
    OK(mkdir("m/d", 0777));
    OK(symlink("f", "m/l"));
    int path = OK(open("m/f", O_PATH)), dir = OK(open("m/d", O_RDONLY));
    OK(mount(NULL, "m", NULL, RO, NULL));
    int fd = OK(open("m/f", O_RDONLY));
    struct timespec times[2] = {{1, 0}, {2, 0}};
    ERR(open("m/f", O_WRONLY), EROFS);
    ERR(open("m/f", O_RDONLY | O_TRUNC), EROFS);
    ERR(open("m/new", O_CREAT | O_WRONLY, 0600), EROFS);
    OK(open("m/f", O_CREAT | O_RDONLY, 0600));
    ERR(open("m/d", O_TMPFILE | O_WRONLY, 0600), EROFS);
    ERR(access("m/f", W_OK), EROFS);
    OK(access("m/f", R_OK));
    ERR(truncate("m/f", 0), EROFS);
    ERR(chmod("m/f", 0600), EROFS);
    ERR(fchmod(fd, 0600), EROFS);
    ERR(fchmod(dir, 0700), EROFS);
    ERR(chown("m/f", 1, 1), EROFS);
    ERR(fchown(fd, 1, 1), EROFS);
    ERR(fchownat(path, "", 1, 1, AT_EMPTY_PATH), EROFS);
    ERR(utimensat(AT_FDCWD, "m/f", times, 0), EROFS);
    ERR(futimens(fd, times), EROFS);
    ERR(setxattr("m/f", "user.a", "1", 1, 0), EROFS);
    ERR(removexattr("m/f", "user.a"), EROFS);
    ERR(fsetxattr(fd, "trusted.a", "1", 1, 0), EROFS);
    ERR(unlink("m/f"), EROFS);
    ERR(rmdir("m/d"), EROFS);
    ERR(mkdir("m/e", 0700), EROFS);
    ERR(mkfifo("m/e", 0700), EROFS);
    ERR(symlink("f", "m/e"), EROFS);
    ERR(link("m/f", "m/e"), EROFS);
    ERR(rename("m/f", "m/e"), EROFS);
    ERR(rename("m/f", "m/g"), EROFS);
    ERR(mkdir("m/d", 0700), EEXIST); // before the mount is asked
    char old[8];
    CHECK_EQ(read(fd, old, 8), 0);
}

// This program, as m/program with that mode.
static void copy_of_this(mode_t mode) {
    char text[4096];
    ssize_t n;
    int from = OK(open("/proc/self/exe", O_RDONLY)), to = OK(open("m/program", O_CREAT | O_WRONLY, 0755));
    while ((n = OK(read(from, text, sizeof text))) > 0)
        CHECK_EQ(write(to, text, n), n);
    OK(fchmod(to, mode));
    close(to);
    close(from);
}

TEST(no_programs_and_no_devices) {
    own_mount();
    OK(chmod("m", 0777));
    copy_of_this(0755);
    OK(mknod("m/null", S_IFCHR | 0666, 0x103));
    EXITED(wait_for(CHILD(execl("m/program", "program", "--list", NULL); _exit(9))), 0);
    close(OK(open("m/null", O_RDWR)));
    int fd = OK(open("m/program", O_RDONLY));
    void *p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
    OK(mprotect(p, 4096, PROT_READ | PROT_EXEC));
    OK(munmap(p, 4096));
    OK(mount(NULL, "m", NULL, MS_REMOUNT | MS_BIND | MS_NOEXEC | MS_NODEV, NULL));
    EXITED(wait_for(CHILD(execl("m/program", "program", "--list", NULL); _exit(errno))), EACCES);
    ERR(access("m/program", X_OK), EACCES);
    OK(access("m", X_OK));
    CHECK(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED);
    CHECK_EQ(errno, EPERM);
    p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
    CHECK(p != MAP_FAILED);
    ERR(mprotect(p, 4096, PROT_READ | PROT_EXEC), EACCES);
    ERR(open("m/null", O_RDWR), EACCES);
    OK(open("m/null", O_PATH));
}

TEST(set_id_programs_of_a_nosuid_mount) {
    own_mount();
    OK(chmod("m", 0755));
    copy_of_this(04755);
    OK(mount(NULL, "m", NULL, MS_REMOUNT | MS_BIND | MS_NOSUID, NULL));
    // It says by its auxiliary vector whether it is secure.
    int ends[2];
    OK(pipe(ends));
    pid_t pid = CHILD({
        become_nobody();
        dup2(ends[1], 1);
        execl("m/program", "program", "--inline", "uid_of_this_program", NULL);
        _exit(9);
    });
    wait_for(pid);
    char text[4096];
    ssize_t n = OK(read(ends[0], text, sizeof text - 1));
    text[n] = 0;
    CHECK(strstr(text, "euid 65534"));
}

TEST(uid_of_this_program) {
    char text[32];
    int n = snprintf(text, sizeof text, "euid %d\n", geteuid());
    CHECK_EQ(write(1, text, n), n);
}

TEST(mount_points_stay) {
    own_mount();
    touch("f", 0644);
    touch("m/f", 0644);
    OK(mkdir("d", 0755));
    OK(mount("f", "f", NULL, MS_BIND, NULL));
    ERR(rmdir("m"), EBUSY);
    ERR(unlink("f"), EBUSY);
    ERR(rename("m", "n"), EBUSY);
    ERR(rename("f", "g"), EBUSY);
    touch("h", 0644);
    ERR(rename("h", "f"), EBUSY);
    ERR(rename("m/f", "x"), EXDEV);
    ERR(link("m/f", "x"), EXDEV);
    // Also between two mounts of one file system.
    OK(mkdir("again", 0755));
    OK(mount("m", "again", NULL, MS_BIND, NULL));
    ERR(rename("m/f", "again/x"), EXDEV);
    ERR(link("m/f", "again/x"), EXDEV);
    OK(umount2("again", 0));
    ERR(mount("d", "f", NULL, MS_BIND, NULL), ENOTDIR);
    ERR(mount("h", "d", NULL, MS_BIND, NULL), ENOTDIR);
    ERR(mount("m", "f", NULL, MS_MOVE, NULL), EINVAL);
    OK(mkdir("m/inside", 0755));
    ERR(mount("m", "m/inside", NULL, MS_MOVE, NULL), ELOOP);
    int fd = OK(open("m/f", O_RDONLY));
    ERR(umount2("m", 0), EBUSY);
    close(fd);
    OK(mount("y", "m/inside", "tmpfs", 0, NULL));
    ERR(umount2("m", 0), EBUSY);
    OK(umount2("m/inside", 0));
    OK(umount2("m", 0));
    OK(rmdir("m"));
}

static int open_how(const char *path, unsigned long long flags, unsigned long long resolve) {
    struct open_how how = {.flags = flags, .resolve = resolve};
    return syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
}

TEST(ways_that_are_excluded) {
    own_mount();
    touch("m/f", 0644);
    touch("f", 0644);
    OK(symlink("f", "l"));
    OK(symlink("/proc/self/fd/0", "magic"));
    int fd = OK(open("f", O_RDONLY));
    char magic[40];
    snprintf(magic, sizeof magic, "/proc/self/fd/%d", fd);
    OK(open_how("m/f", O_RDONLY, 0));
    ERR(open_how("m/f", O_RDONLY, RESOLVE_NO_XDEV), EXDEV);
    ERR(open_how("m/new", O_CREAT | O_WRONLY, RESOLVE_NO_XDEV), EXDEV);
    ERR(open_how("m", O_RDONLY, RESOLVE_NO_XDEV), EXDEV);
    OK(open_how("f", O_RDONLY, RESOLVE_NO_XDEV));
    OK(open_how(magic, O_RDONLY, 0));
    ERR(open_how(magic, O_RDONLY, RESOLVE_NO_MAGICLINKS), ELOOP);
    ERR(open_how("l", O_RDONLY, RESOLVE_NO_SYMLINKS), ELOOP);
    ERR(open_how("l", O_RDONLY | O_NOFOLLOW, 0), ELOOP);
    ERR(open_how("../f", O_RDONLY, RESOLVE_BENEATH), EXDEV);
    ERR(open_how("/etc", O_RDONLY, RESOLVE_BENEATH), EXDEV);
    ERR(open_how("magic", O_RDONLY, RESOLVE_BENEATH), EXDEV);
    ERR(open_how("f", O_RDONLY | O_DIRECTORY, 0), ENOTDIR);
    ERR(open("m", O_WRONLY), EISDIR);
    ERR(open("m", O_CREAT | O_RDONLY, 0600), EISDIR);
    ERR(open("m/", O_CREAT | O_RDONLY, 0600), EISDIR);
    int proc = OK(open("/proc/self", O_RDONLY | O_DIRECTORY));
    struct open_how how = {.flags = O_RDONLY, .resolve = RESOLVE_IN_ROOT};
    snprintf(magic, sizeof magic, "fd/%d", fd);
    ERR(syscall(SYS_openat2, proc, magic, &how, sizeof how), EXDEV);
}

TEST(descriptors_for_something_else) {
    touch("f", 0644);
    touch("g", 0644);
    OK(truncate("f", 4096));
    int r = OK(open("f", O_RDONLY)), w = OK(open("g", O_WRONLY)), a = OK(open("g", O_WRONLY | O_APPEND)), p[2], q[2];
    OK(pipe(p));
    OK(pipe(q));
    CHECK_EQ(write(p[1], "0123456789", 10), 10);
    char buffer[16];
    loff_t at = 0, to = 0;
    ERR(read(w, buffer, 1), EBADF);
    ERR(write(r, buffer, 1), EBADF);
    ERR(pread(p[0], buffer, 1, 0), ESPIPE);
    ERR(pwrite(p[1], buffer, 1, 0), ESPIPE);
    ERR(lseek(p[0], 0, SEEK_SET), ESPIPE);
    ERR(read(p[1], buffer, 1), EBADF);
    ERR(splice(p[1], NULL, w, NULL, 1, 0), EBADF);
    ERR(splice(p[0], NULL, r, NULL, 1, 0), EBADF);
    ERR(splice(w, NULL, p[1], NULL, 1, 0), EBADF);
    ERR(splice(p[0], &at, w, NULL, 1, 0), ESPIPE);
    ERR(splice(r, NULL, p[1], &to, 1, 0), ESPIPE);
    ERR(splice(p[0], NULL, a, NULL, 1, 0), EINVAL);
    ERR(tee(p[1], q[1], 1, 0), EBADF);
    ERR(tee(p[0], q[0], 1, 0), EBADF);
    struct iovec v = {buffer, 1};
    ERR(vmsplice(r, &v, 1, 0), EBADF);
    ERR(sendfile(r, r, NULL, 1), EBADF);
    ERR(sendfile(w, w, NULL, 1), EBADF);
    ERR(sendfile(w, p[0], &at, 1), ESPIPE);
    ERR(copy_file_range(w, NULL, w, NULL, 1, 0), EBADF);
    ERR(copy_file_range(r, NULL, r, NULL, 1, 0), EBADF);
    ERR(copy_file_range(r, NULL, a, NULL, 1, 0), EBADF);
    ERR(fallocate(r, 0, 0, 10), EBADF);
    ERR(fallocate(w, 0x80, 0, 10), EOPNOTSUPP);
    ERR(ftruncate(r, 0), EINVAL);
    ERR(readahead(w, 0, 1), EBADF);
    ERR(flock(OK(open("f", O_PATH)), LOCK_EX), EBADF);
    CHECK_EQ(splice(p[0], NULL, w, NULL, 10, 0), 10);
}

TEST(a_file_s_size_has_a_limit) {
    struct rlimit limit = {100, 100};
    OK(setrlimit(RLIMIT_FSIZE, &limit));
    signal(SIGXFSZ, SIG_IGN);
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    OK(ftruncate(fd, 100));
    ERR(ftruncate(fd, 101), EFBIG);
    ERR(truncate("f", 101), EFBIG);
    ERR(fallocate(fd, 0, 0, 101), EFBIG);
    ERR(pwrite(fd, "x", 1, 100), EFBIG);
    CHECK_EQ(pwrite(fd, "xyz", 3, 99), 1); // as much as there is room for
    OK(ftruncate(fd, 10));
    KILLED(wait_for(CHILD(signal(SIGXFSZ, SIG_DFL); ftruncate(fd, 101))), SIGXFSZ);
}

TEST(a_process_has_a_limit_of_mappings) {
    unsigned long most = 0;
    FILE *f = fopen("/proc/sys/vm/max_map_count", "r");
    if (!f || fscanf(f, "%lu", &most) != 1 || most > 70000)
        SKIP("the limit is unknown or large");
    fclose(f);
    char *p = mmap(NULL, 2 * 4096 * (most + 100), PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(p != MAP_FAILED);
    unsigned long n = 0;
    while (n < most + 100 && !mprotect(p + 2 * 4096 * n, 4096, PROT_NONE))
        n++;
    CHECK_EQ(errno, ENOMEM);
    CHECK(n > most / 2 - 50 && n < most / 2 + 50);
    CHECK(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED || n--);
    ERR(munmap(p + 2 * 4096 * (n + 10) + 4096, 4096), ENOMEM); // one would become two
    OK(munmap(p, 8 * 4096));
    CHECK(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
}
