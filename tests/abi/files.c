// Regular files and descriptors: open flags, read and write, offsets, dup, fcntl, truncation, sparse files.
#include "check.h"
#include <linux/falloc.h>
#include <sys/sendfile.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static int create(const char *name, const char *text) {
    int fd = OK(open(name, O_RDWR | O_CREAT | O_TRUNC, 0644));
    CHECK_EQ(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    OK(lseek(fd, 0, SEEK_SET));
    return fd;
}

static off_t size_of(const char *name) {
    struct stat s;
    OK(stat(name, &s));
    return s.st_size;
}

TEST(lowest_descriptor_is_used) {
    int a = OK(open("/dev/null", O_RDONLY)), b = OK(open("/dev/null", O_RDONLY));
    CHECK_EQ(b, a + 1);
    OK(close(a));
    CHECK_EQ(OK(dup(1)), a);
}

TEST(open_errors) {
    ERR(open("missing", O_RDONLY), ENOENT);
    ERR(open("", O_RDONLY), ENOENT);
    ERR(open(".", O_WRONLY), EISDIR);
    ERR(open(".", O_RDWR | O_CREAT, 0600), EISDIR);
    create("f", "x");
    ERR(open("f/", O_RDONLY), ENOTDIR);
    ERR(open("f/x", O_RDONLY), ENOTDIR);
    ERR(open("f", O_RDONLY | O_DIRECTORY), ENOTDIR);
    ERR(open("f", O_CREAT | O_EXCL | O_RDWR, 0600), EEXIST);
    ERR(open("new/", O_CREAT | O_RDWR, 0600), EISDIR);
    ERR(open("missing/new", O_CREAT | O_RDWR, 0600), ENOENT);
    ERR(syscall(SYS_open, BAD_ADDRESS, O_RDONLY), EFAULT);
}

TEST(name_lengths) {
    char name[5000];
    memset(name, 'n', sizeof name);
    name[255] = 0;
    OK(open(name, O_CREAT | O_RDWR, 0600));
    name[255] = 'n', name[256] = 0;
    ERR(open(name, O_CREAT | O_RDWR, 0600), ENAMETOOLONG);
    for (int i = 0; i < 4998; i += 2)
        name[i] = '.', name[i + 1] = '/';
    name[4095] = 0;
    OK(open(name, O_RDONLY));
    name[4095] = '/', name[4096] = 0;
    ERR(open(name, O_RDONLY), ENAMETOOLONG);
}

TEST(creation_mode_and_umask) {
    umask(027);
    OK(open("f", O_CREAT | O_RDWR, 0666));
    struct stat s;
    OK(stat("f", &s));
    CHECK_EQ(s.st_mode, S_IFREG | 0640);
    OK(open("g", O_CREAT | O_WRONLY, 07777));
    OK(stat("g", &s));
    CHECK_EQ(s.st_mode & 07777, 07750);
    CHECK_EQ(umask(077), 027);
}

TEST(created_read_only_but_open_for_writing) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0));
    CHECK_EQ(write(fd, "x", 1), 1);
}

TEST(access_mode_is_enforced) {
    int w = OK(open("f", O_CREAT | O_WRONLY, 0600)), r = OK(open("f", O_RDONLY));
    char c;
    ERR(read(w, &c, 1), EBADF);
    ERR(write(r, &c, 1), EBADF);
    // Before the buffer is looked at.
    char *nowhere = (char *)-4096;
    ERR(pread(w, nowhere, 1, 0), EBADF);
    ERR(pwrite(r, nowhere, 1, 0), EBADF);
    ERR(ftruncate(r, 0), EINVAL);
}

TEST(trunc_and_append) {
    create("f", "hello");
    int fd = OK(open("f", O_WRONLY | O_APPEND));
    CHECK_EQ(write(fd, "!", 1), 1);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 6);
    OK(lseek(fd, 0, SEEK_SET));
    CHECK_EQ(write(fd, "?", 1), 1);
    CHECK_EQ(size_of("f"), 7);
    CHECK_EQ(pwrite(fd, "x", 1, 0), 1); // Linux: appends all the same
    CHECK_EQ(size_of("f"), 8);
    OK(open("f", O_WRONLY | O_TRUNC));
    CHECK_EQ(size_of("f"), 0);
}

TEST(read_and_write_advance) {
    int fd = create("f", "abcdef");
    char text[10] = {0};
    CHECK_EQ(read(fd, text, 2), 2);
    CHECK_EQ(write(fd, "XY", 2), 2);
    CHECK_EQ(read(fd, text, 10), 2);
    STR_EQ(text, "ef");
    CHECK_EQ(read(fd, text, 10), 0);
    CHECK_EQ(read(fd, text, 0), 0);
}

TEST(lseek_rules) {
    int fd = create("f", "abc");
    CHECK_EQ(lseek(fd, 0, SEEK_END), 3);
    CHECK_EQ(lseek(fd, -1, SEEK_CUR), 2);
    ERR(lseek(fd, -5, SEEK_CUR), EINVAL);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 2);
    ERR(lseek(fd, -1, SEEK_SET), EINVAL);
    ERR(lseek(fd, 0, 99), EINVAL);
    CHECK_EQ(lseek(fd, 100, SEEK_SET), 100);
    ERR(lseek(999, 0, SEEK_SET), EBADF);
    int p[2];
    OK(pipe(p));
    ERR(lseek(p[0], 0, SEEK_CUR), ESPIPE);
    ERR(pread(p[0], &fd, 1, 0), ESPIPE);
}

// null(4): what is written is not looked at, and need not be there; an address of the kernel's is refused all the same.
TEST(devices_that_ignore_bytes_take_any) {
    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    OK(munmap(page + 4096, 4096));
    struct iovec parts[2] = {{page, 10}, {page + 4096, 100}};
    for (int i = 0; i < 2; i++) {
        int fd = OK(open(i ? "/dev/zero" : "/dev/null", O_RDWR));
        CHECK_EQ(write(fd, page + 4096, 100), 100);
        CHECK_EQ(write(fd, page + 4000, 200), 200);
        CHECK_EQ(pwrite(fd, page + 4096, 100, 5), 100);
        CHECK_EQ(writev(fd, parts, 2), 110);
        CHECK_EQ(write(fd, page, 0x7fffffff), 0x7ffff000);
        ERR(write(fd, (void *)0x800000000000, 100), EFAULT);
        close(fd);
    }
    int fd = OK(open("/dev/full", O_RDWR));
    ERR(write(fd, page + 4096, 100), ENOSPC);
    ERR(write(fd, (void *)0x800000000000, 100), EFAULT);
    close(fd);
}

TEST(hole_reads_as_zero) {
    int fd = create("f", "a");
    CHECK_EQ(pwrite(fd, "z", 1, 100000), 1);
    char text[3] = {1, 1, 1};
    CHECK_EQ(pread(fd, text, 3, 99998), 3);
    CHECK(!text[0] && !text[1] && text[2] == 'z');
    struct stat s;
    OK(fstat(fd, &s));
    CHECK_EQ(s.st_size, 100001);
    CHECK(s.st_blocks * 512 < 100000);
}

TEST(seek_hole_and_data) {
    int fd = create("f", "data");
    OK(ftruncate(fd, 1 << 20));
    off_t hole = OK(lseek(fd, 0, SEEK_HOLE));
    CHECK(hole >= 4 && hole <= 1 << 20);
    CHECK_EQ(lseek(fd, 1, SEEK_DATA), 1);
    ERR(lseek(fd, 2 << 20, SEEK_DATA), ENXIO);
}

TEST(truncate_rules) {
    int fd = create("f", "abcdef");
    OK(ftruncate(fd, 3));
    OK(ftruncate(fd, 6));
    char text[7] = {0};
    CHECK_EQ(pread(fd, text, 6, 0), 6);
    CHECK(!memcmp(text, "abc\0\0\0", 6));
    ERR(ftruncate(fd, -1), EINVAL);
    ERR(truncate(".", 0), EISDIR);
    ERR(truncate("missing", 0), ENOENT);
    OK(truncate("f", 1));
    CHECK_EQ(size_of("f"), 1);
    int p[2];
    OK(pipe(p));
    ERR(ftruncate(p[1], 0), EINVAL);
}

TEST(file_size_limit) {
    EXITED(wait_for(CHILD({
               int fd = create("f", "");
               struct rlimit limit = {10, 10};
               OK(setrlimit(RLIMIT_FSIZE, &limit));
               signal(SIGXFSZ, SIG_IGN);
               CHECK_EQ(write(fd, "0123456789abcdef", 16), 10);
               ERR(write(fd, "x", 1), EFBIG);
               ERR(ftruncate(fd, 11), EFBIG);
           })),
           0);
    KILLED(wait_for(CHILD({
               int fd = create("g", "");
               struct rlimit limit = {0, 0}, none = {0, 0};
               setrlimit(RLIMIT_CORE, &none);
               OK(setrlimit(RLIMIT_FSIZE, &limit));
               write(fd, "x", 1);
           })),
           SIGXFSZ);
}

TEST(dup_shares_the_offset) {
    int fd = create("f", "abc"), copy = OK(dup(fd));
    char c;
    CHECK_EQ(read(fd, &c, 1), 1);
    CHECK_EQ(read(copy, &c, 1), 1);
    CHECK_EQ(c, 'b');
    int other = OK(open("f", O_RDONLY));
    CHECK_EQ(read(other, &c, 1), 1);
    CHECK_EQ(c, 'a');
}

TEST(dup2_and_dup3) {
    int fd = create("f", "abc");
    CHECK_EQ(dup2(fd, 50), 50);
    CHECK_EQ(dup2(fd, fd), fd);
    ERR(dup2(999, 999), EBADF);
    ERR(dup2(fd, -1), EBADF);
    ERR(dup2(fd, 5000), EBADF); // beyond RLIMIT_NOFILE
    ERR(dup3(fd, fd, 0), EINVAL);
    ERR(dup3(fd, 51, 1), EINVAL);
    CHECK_EQ(dup3(fd, 51, O_CLOEXEC), 51);
    CHECK_EQ(fcntl(51, F_GETFD), FD_CLOEXEC);
    CHECK_EQ(fcntl(50, F_GETFD), 0);
}

TEST(fcntl_dupfd) {
    int fd = create("f", "abc");
    CHECK_EQ(fcntl(fd, F_DUPFD, 70), 70);
    CHECK_EQ(fcntl(fd, F_DUPFD, 70), 71);
    CHECK_EQ(fcntl(fd, F_DUPFD_CLOEXEC, 70), 72);
    CHECK_EQ(fcntl(72, F_GETFD), FD_CLOEXEC);
    ERR(fcntl(fd, F_DUPFD, -1), EINVAL);
    ERR(fcntl(fd, F_DUPFD, 100000), EINVAL);
}

TEST(fcntl_status_flags) {
    int fd = create("f", "");
    int flags = OK(fcntl(fd, F_GETFL));
    CHECK_EQ(flags & O_ACCMODE, O_RDWR);
    CHECK(!(flags & O_CREAT));
    OK(fcntl(fd, F_SETFL, O_APPEND | O_NONBLOCK | O_WRONLY));
    flags = OK(fcntl(fd, F_GETFL));
    CHECK_EQ(flags & (O_ACCMODE | O_APPEND | O_NONBLOCK), O_RDWR | O_APPEND | O_NONBLOCK);
    ERR(fcntl(fd, 9999), EINVAL);
    ERR(fcntl(999, F_GETFL), EBADF);
}

TEST(descriptor_limit) {
    struct rlimit limit = {20, 20};
    OK(setrlimit(RLIMIT_NOFILE, &limit));
    int fd;
    while ((fd = open("/dev/null", O_RDONLY)) >= 0)
        CHECK(fd < 20);
    CHECK_EQ(errno, EMFILE);
    ERR(dup(0), EMFILE);
    int p[2];
    ERR(pipe(p), EMFILE);
}

TEST(close_range) {
    for (int i = 100; i < 110; i++)
        OK(dup2(1, i));
    OK(syscall(SYS_close_range, 102, 104, 0));
    ERR(fcntl(103, F_GETFD), EBADF);
    OK(fcntl(105, F_GETFD));
    OK(syscall(SYS_close_range, 105, ~0U, 4)); // CLOSE_RANGE_CLOEXEC
    CHECK_EQ(fcntl(109, F_GETFD), FD_CLOEXEC);
    ERR(syscall(SYS_close_range, 5, 4, 0), EINVAL);
}

TEST(close_twice) {
    int fd = OK(dup(1));
    OK(close(fd));
    ERR(close(fd), EBADF);
    ERR(close(-1), EBADF);
}

TEST(vectored_io) {
    int fd = create("f", "");
    struct iovec out[] = {{"one", 3}, {"", 0}, {"two", 3}};
    CHECK_EQ(writev(fd, out, 3), 6);
    char a[4] = {0}, b[10] = {0};
    struct iovec in[] = {{a, 3}, {b, 9}};
    CHECK_EQ(preadv(fd, in, 2, 0), 6);
    STR_EQ(a, "one");
    STR_EQ(b, "two");
    ERR(writev(fd, out, -1), EINVAL);
    ERR(writev(fd, out, 1025), EINVAL);
    CHECK_EQ(writev(fd, out, 0), 0);
    ERR(writev(fd, BAD_ADDRESS, 1), EFAULT);
    struct iovec huge[] = {{a, 1}, {a, (size_t)-1}};
    ERR(readv(fd, huge, 2), EINVAL);
    struct iovec half[] = {{"three", 5}, {BAD_ADDRESS, 5}};
    CHECK_EQ(pwritev(fd, half, 2, 0), 5);
    CHECK_EQ(preadv2(fd, in, 2, 0, 0), 6);
    ERR(preadv2(fd, in, 2, 0, 0x10000), EOPNOTSUPP);
}

TEST(many_buffers_and_one_that_ends_early) {
    static char out[1024][3], in[1024][3];
    static struct iovec to[1024], from[1024];
    int fd = create("f", "");
    for (int i = 0; i < 1024; i++) {
        snprintf(out[i], 3, "%02x", i & 255);
        from[i] = (struct iovec){out[i], i % 4};
        to[1023 - i] = (struct iovec){in[i], i % 4};
    }
    CHECK_EQ(writev(fd, from, 1024), 1024 * 6 / 4);
    CHECK_EQ(preadv(fd, to, 1024, 0), 1024 * 6 / 4);
    // The file begins with "0", "02", "03\0".
    CHECK(!memcmp(in[1023], "002", 3) && !memcmp(in[1022], "03", 2) && in[1021][0] == 0);
    // Three pages, of which the one in the middle is not there.
    char *pages = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(pages != MAP_FAILED);
    OK(munmap(pages + 4096, 4096));
    memset(pages, 'p', 4096);
    struct iovec early[] = {{out[0], 2}, {pages + 4092, 8}, {out[0], 2}};
    int ends[2];
    OK(pipe(ends));
    CHECK_EQ(preadv(fd, early, 3, 0), 6);
    CHECK(!memcmp(pages + 4092, "203", 4));
    struct iovec gone[] = {{out[0], 2}, {pages + 4096, 8}, {out[0], 2}};
    CHECK_EQ(preadv(fd, gone, 3, 0), 2);
    CHECK_EQ(pwritev(fd, gone, 3, 0), 2);
    struct iovec whole[] = {{pages + 4000, 96}, {pages + 8192, 4096}, {pages + 4000, 96}};
    CHECK_EQ(writev(ends[1], whole, 3), 4288);
    CHECK_EQ(readv(ends[0], whole, 3), 4288);
}

TEST(huge_counts_are_cut) {
    int fd = create("f", "abc");
    char *p = OK(mmap(NULL, 1UL << 32, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    CHECK_EQ(read(fd, p, 1UL << 32), 3);
    ERR(read(fd, p, -1), EFAULT);
}

TEST(stat_fields) {
    int fd = create("f", "hello");
    OK(link("f", "g"));
    struct stat s;
    OK(fstat(fd, &s));
    CHECK_EQ(s.st_mode, S_IFREG | 0644);
    CHECK_EQ(s.st_nlink, 2);
    CHECK_EQ(s.st_size, 5);
    CHECK_EQ(s.st_uid, 0);
    CHECK(s.st_blksize >= 512);
    CHECK(s.st_ino);
    struct stat t;
    OK(stat("g", &t));
    CHECK_EQ(s.st_ino, t.st_ino);
    CHECK_EQ(s.st_dev, t.st_dev);
    CHECK(time(NULL) - s.st_mtime < 100);
}

TEST(statx_fields) {
    create("f", "hello");
    struct statx s;
    OK(statx(AT_FDCWD, "f", 0, STATX_BASIC_STATS, &s));
    CHECK_EQ(s.stx_size, 5);
    CHECK_EQ(s.stx_mode, S_IFREG | 0644);
    CHECK_EQ(s.stx_mask & STATX_BASIC_STATS, STATX_BASIC_STATS);
    ERR(statx(AT_FDCWD, "missing", 0, STATX_BASIC_STATS, &s), ENOENT);
    ERR(statx(AT_FDCWD, "f", 0x10, STATX_BASIC_STATS, &s), EINVAL);
    ERR(statx(AT_FDCWD, "f", 0, 0x80000000, &s), EINVAL);
    ERR(statx(AT_FDCWD, "", 0, STATX_BASIC_STATS, &s), ENOENT);
    OK(statx(1, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &s));
}

TEST(times_change) {
    int fd = create("f", "x");
    struct timespec old[2] = {{1000, 5}, {2000, 7}};
    OK(futimens(fd, old));
    struct stat s;
    OK(fstat(fd, &s));
    CHECK_EQ(s.st_atim.tv_sec, 1000);
    CHECK_EQ(s.st_mtim.tv_sec, 2000);
    CHECK_EQ(s.st_mtim.tv_nsec, 7);
    CHECK(s.st_ctime > 10000);
    CHECK_EQ(pwrite(fd, "y", 1, 0), 1);
    OK(fstat(fd, &s));
    CHECK(s.st_mtime > 10000);
    struct timespec some[2] = {{0, UTIME_OMIT}, {3000, 0}};
    OK(utimensat(AT_FDCWD, "f", some, 0));
    OK(fstat(fd, &s));
    CHECK_EQ(s.st_atime, 1000);
    CHECK_EQ(s.st_mtime, 3000);
    some[1].tv_nsec = UTIME_NOW;
    OK(utimensat(AT_FDCWD, "f", some, 0));
    OK(fstat(fd, &s));
    CHECK(s.st_mtime > 10000);
    some[1].tv_nsec = 2000000000;
    ERR(utimensat(AT_FDCWD, "f", some, 0), EINVAL);
    ERR(utimensat(AT_FDCWD, "missing", NULL, 0), ENOENT);
}

TEST(fsync_family) {
    int fd = create("f", "x");
    OK(fsync(fd));
    OK(fdatasync(fd));
    OK(syncfs(fd));
    ERR(fsync(999), EBADF);
    int p[2];
    OK(pipe(p));
    ERR(fsync(p[0]), EINVAL);
}

TEST(fallocate_grows) {
    int fd = create("f", "x");
    OK(fallocate(fd, 0, 0, 8192));
    CHECK_EQ(size_of("f"), 8192);
    OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 20000));
    CHECK_EQ(size_of("f"), 8192);
    ERR(fallocate(fd, 0, 0, 0), EINVAL);
    ERR(fallocate(fd, 0, -1, 5), EINVAL);
    int r = OK(open("f", O_RDONLY));
    ERR(fallocate(r, 0, 0, 10), EBADF);
    int p[2];
    OK(pipe(p));
    ERR(fallocate(p[1], 0, 0, 10), ESPIPE);
}

TEST(fallocate_punches_holes) {
    int fd = create("f", "");
    char page[8192];
    memset(page, 'x', sizeof page);
    CHECK_EQ(write(fd, page, sizeof page), (ssize_t)sizeof page);
    OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
    CHECK_EQ(pread(fd, page, 8192, 0), 8192);
    CHECK(!page[0] && !page[4095] && page[4096] == 'x');
}

TEST(sendfile_copies) {
    int in = create("in", "0123456789"), out = create("out", "");
    CHECK_EQ(sendfile(out, in, NULL, 4), 4);
    CHECK_EQ(lseek(in, 0, SEEK_CUR), 4);
    off_t at = 8;
    CHECK_EQ(sendfile(out, in, &at, 100), 2);
    CHECK_EQ(at, 10);
    CHECK_EQ(lseek(in, 0, SEEK_CUR), 4);
    STR_EQ(slurp("out"), "012389");
    CHECK_EQ(sendfile(out, in, &at, 100), 0);
    int p[2];
    OK(pipe(p));
    at = 0;
    CHECK_EQ(sendfile(p[1], in, &at, 10), 10);
    ERR(sendfile(out, p[0], NULL, 5), EINVAL);
    ERR(sendfile(999, in, NULL, 5), EBADF);
}

TEST(copy_file_range_copies) {
    int in = create("in", "0123456789"), out = create("out", "");
    loff_t from = 2, to = 1;
    CHECK_EQ(copy_file_range(in, &from, out, &to, 5, 0), 5);
    CHECK_EQ(from, 7);
    CHECK_EQ(to, 6);
    CHECK_EQ(size_of("out"), 6);
    ERR(copy_file_range(in, NULL, out, NULL, 5, 1), EINVAL);
    int p[2];
    OK(pipe(p));
    ERR(copy_file_range(in, NULL, p[1], NULL, 5, 0), EINVAL);
}

TEST(splice_between_file_and_pipe) {
    int in = create("in", "0123456789"), out = create("out", "");
    int p[2];
    OK(pipe(p));
    loff_t from = 3;
    CHECK_EQ(splice(in, &from, p[1], NULL, 4, 0), 4);
    CHECK_EQ(from, 7);
    CHECK_EQ(splice(p[0], NULL, out, NULL, 100, 0), 4);
    STR_EQ(slurp("out"), "3456");
    ERR(splice(in, NULL, out, NULL, 1, 0), EINVAL);
    ERR(splice(p[0], &from, out, NULL, 1, 0), ESPIPE);
}

TEST(read_of_a_directory) {
    int fd = OK(open(".", O_RDONLY));
    char c;
    ERR(read(fd, &c, 1), EISDIR);
    ERR(write(fd, &c, 1), EBADF);
}

TEST(o_path_is_only_a_place) {
    create("f", "abc");
    int fd = OK(open("f", O_PATH));
    char c;
    ERR(read(fd, &c, 1), EBADF);
    ERR(fchmod(fd, 0600), EBADF);
    ERR(ftruncate(fd, 0), EBADF);
    struct stat s;
    OK(fstat(fd, &s));
    CHECK(fcntl(fd, F_GETFL) & O_PATH);
    char path[40];
    sprintf(path, "/proc/self/fd/%d", fd);
    int reopened = OK(open(path, O_RDONLY));
    CHECK_EQ(read(reopened, &c, 1), 1);
    OK(symlink("f", "l"));
    int link = OK(open("l", O_PATH | O_NOFOLLOW));
    char target[10];
    CHECK_EQ(readlinkat(link, "", target, 10), 1);
}

// O_DIRECT is for regular files of file systems that have such transfers; of a pipe that is open it makes packets.
TEST(o_direct_is_for_files_that_have_it) {
    OK(mkdir("d", 0755));
    OK(mkfifo("p", 0644));
    create("f", "abc");
    const char *without[] = {"d", "p", "/dev/null", "/proc/self/status", "/proc", "/proc/self/ns/uts"};
    for (unsigned i = 0; i < sizeof without / sizeof *without; i++) {
        ERR(open(without[i], O_RDONLY | O_NONBLOCK | O_DIRECT), EINVAL);
        int fd = OK(open(without[i], O_RDONLY | O_NONBLOCK));
        if (!strcmp(without[i], "p"))
            OK(fcntl(fd, F_SETFL, O_DIRECT));
        else
            ERR(fcntl(fd, F_SETFL, O_DIRECT), EINVAL);
        CHECK_EQ(!!(fcntl(fd, F_GETFL) & O_DIRECT), !strcmp(without[i], "p"));
        OK(close(fd));
    }
    // The type is looked at first, and a path is no opening.
    ERR(open("d", O_WRONLY | O_DIRECT), EISDIR);
    OK(close(OK(open("d", O_PATH | O_DIRECT))));
    int sockets[2], pipes[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets));
    ERR(fcntl(sockets[0], F_SETFL, O_DIRECT), EINVAL);
    OK(pipe(pipes));
    char path[40];
    sprintf(path, "/proc/self/fd/%d", pipes[0]);
    ERR(open(path, O_RDONLY | O_DIRECT), EINVAL);
    int fd = open("f", O_RDWR | O_DIRECT | O_TRUNC);
    if (fd < 0 && errno == EINVAL)
        SKIP("not on this file system");
    OK(fd);
    static char block[4096] __attribute__((aligned(4096)));
    CHECK_EQ(write(fd, block, sizeof block), sizeof block);
    CHECK_EQ(pread(fd, block, sizeof block, 0), sizeof block);
    CHECK_EQ(pread(fd, block, 100, 4096), 0);
    OK(close(fd));
    fd = OK(open("f", O_RDWR));
    OK(fcntl(fd, F_SETFL, O_DIRECT));
    CHECK(fcntl(fd, F_GETFL) & O_DIRECT);
}

TEST(o_tmpfile) {
    int fd = open(".", O_TMPFILE | O_RDWR, 0600);
    if (fd < 0 && errno == EOPNOTSUPP)
        SKIP("not on this file system");
    OK(fd);
    CHECK_EQ(write(fd, "t", 1), 1);
    struct stat s;
    OK(fstat(fd, &s));
    CHECK_EQ(s.st_nlink, 0);
    char path[40];
    sprintf(path, "/proc/self/fd/%d", fd);
    OK(linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    STR_EQ(slurp("named"), "t");
}

TEST(nofollow_refuses_a_symlink) {
    create("f", "x");
    OK(symlink("f", "l"));
    ERR(open("l", O_RDONLY | O_NOFOLLOW), ELOOP);
    ERR(open("l", O_RDONLY | O_CREAT | O_EXCL, 0600), EEXIST);
    OK(symlink("target", "dangling"));
    OK(open("dangling", O_CREAT | O_RDWR, 0600)); // creates the target
    CHECK_EQ(size_of("target"), 0);
}

TEST(an_unlinked_file_lives_on) {
    int fd = create("f", "abc");
    OK(unlink("f"));
    char c;
    CHECK_EQ(read(fd, &c, 1), 1);
    CHECK_EQ(write(fd, "x", 1), 1);
    struct stat s;
    OK(fstat(fd, &s));
    CHECK_EQ(s.st_nlink, 0);
    char path[40], target[200] = {0};
    sprintf(path, "/proc/self/fd/%d", fd);
    OK(readlink(path, target, sizeof target - 1));
    CHECK(strstr(target, "/f (deleted)"));
}

TEST(device_nodes) {
    char text[16];
    int fd = OK(open("/dev/null", O_RDWR));
    CHECK_EQ(read(fd, text, 16), 0);
    CHECK_EQ(write(fd, text, 16), 16);
    fd = OK(open("/dev/zero", O_RDWR));
    memset(text, 1, 16);
    CHECK_EQ(read(fd, text, 16), 16);
    CHECK_EQ(text[15], 0);
    CHECK_EQ(write(fd, text, 16), 16);
    fd = OK(open("/dev/full", O_RDWR));
    CHECK_EQ(read(fd, text, 16), 16);
    ERR(write(fd, text, 1), ENOSPC);
    fd = OK(open("/dev/urandom", O_RDONLY));
    CHECK_EQ(read(fd, text, 16), 16);
    struct stat s;
    OK(stat("/dev/null", &s));
    CHECK(S_ISCHR(s.st_mode));
    CHECK_EQ(s.st_rdev, 0x103);
}

TEST(fionread) {
    int fd = create("f", "abcdef"), left = 0;
    lseek(fd, 2, SEEK_SET);
    OK(ioctl(fd, FIONREAD, &left));
    CHECK_EQ(left, 4);
    ERR(ioctl(fd, TIOCGWINSZ, &left), ENOTTY);
    ERR(ioctl(999, FIONREAD, &left), EBADF);
    int on = 1;
    OK(ioctl(fd, FIONBIO, &on));
    CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
    OK(ioctl(fd, FIOCLEX));
    CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
}

TEST(fadvise_and_readahead) {
    int fd = create("f", "abc");
    CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    CHECK_EQ(posix_fadvise(fd, 0, 0, 99), EINVAL);
    int p[2];
    OK(pipe(p));
    CHECK_EQ(posix_fadvise(p[0], 0, 0, POSIX_FADV_NORMAL), ESPIPE);
}

TEST(statfs_of_places) {
    struct { long type, bsize; char rest[200]; } s;
    OK(syscall(SYS_statfs, "/proc", &s));
    CHECK_EQ(s.type, 0x9fa0);
    OK(syscall(SYS_statfs, "/tmp", &s));
    CHECK_EQ(s.type, 0x01021994);
    CHECK_EQ(s.bsize, 4096);
    ERR(syscall(SYS_statfs, "/missing", &s), ENOENT);
    ERR(syscall(SYS_fstatfs, 999, &s), EBADF);
}

TEST(copy_file_range_of_what_is_not_there) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0600));
    OK(write(fd, "abc", 3));
    // The ranges overlap only as far as the file goes.
    loff_t from = 3, to = 1;
    CHECK_EQ(copy_file_range(fd, &from, fd, &to, 100, 0), 0);
    from = 1, to = 2;
    ERR(copy_file_range(fd, &from, fd, &to, 100, 0), EINVAL);
}

TEST(flags_and_names_come_before_descriptors) {
    ERR(openat(99, "f", O_CREAT | O_EXCL | O_DIRECTORY, 0600), EINVAL);
    ERR(mkdirat(99, "", 0700), ENOENT);
    ERR(unlinkat(99, "", 0), ENOENT);
    ERR(openat(99, "", O_RDONLY), ENOENT);
    ERR(openat(99, "f", O_RDONLY), EBADF);
}
