// Descriptors and open files of the root.
#include "check.h"
#include <dirent.h>

TEST(a_file_with_its_position) {
    char a[100], b[100];
    int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_EQ(read(fd, a, 10), 10);
    int same = dup(fd);
    CHECK_EQ(dup2(fd, 77), 77);
    RESTORED();
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 10);
    CHECK_EQ(pread(fd, b, 10, 0), 10);
    CHECK(!memcmp(a, b, 10));
    // One description behind all of them.
    CHECK_EQ(lseek(same, 3, SEEK_SET), 3);
    CHECK_EQ(lseek(77, 0, SEEK_CUR), 3);
    CHECK(fcntl(fd, F_GETFD) == FD_CLOEXEC && fcntl(77, F_GETFD) == 0);
    CHECK_EQ(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
}

TEST(a_directory_half_read) {
    DIR *dir = opendir("/");
    CHECK(dir && readdir(dir));
    RESTORED();
    int entries = 0;
    while (readdir(dir))
        entries++;
    CHECK(entries > 3);
    rewinddir(dir);
    CHECK(readdir(dir));
}

TEST(devices_and_proc) {
    int null = open("/dev/null", O_RDWR), zero = open("/dev/zero", O_RDONLY), stat = open("/proc/self/stat", O_RDONLY);
    int path = open("/etc", O_PATH);
    CHECK(null >= 0 && zero >= 0 && stat >= 0 && path >= 0);
    RESTORED();
    char b[200] = {1};
    CHECK_EQ(write(null, "x", 1), 1);
    CHECK_EQ(read(null, b, 1), 0);
    CHECK_EQ(read(zero, b, 4), 4);
    CHECK(!b[0]);
    CHECK(read(stat, b, 199) > 10 && atoi(b) == getpid());
    CHECK(openat(path, "passwd", O_RDONLY) >= 0);
}

TEST(a_table_that_is_shared) {
    int fd = open("/etc/passwd", O_RDONLY);
    pid_t child = syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, 0);
    if (!child) {
        AWAIT();
        close(fd);
        _exit(0);
    }
    READY();
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(fcntl(fd, F_GETFD) == -1 && errno == EBADF);
}

TEST(the_program_can_be_found) {
    char path[100];
    RESTORED();
    ssize_t n = readlink("/proc/self/exe", path, sizeof path);
    CHECK(n >= 10 && !memcmp(path + n - 10, "/bin/files", 10));
}
