// What is refused to whom: rules that deny, each with a caller who is refused and one who is not, so that a rule which is turned round or
// taken away is noticed. Those that other programs have (permissions, signals, userns, ...) are not here.
#include "check.h"
#include <linux/capability.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/xattr.h>

#define AS_NOBODY(...) EXITED(wait_for(CHILD(become_nobody(); __VA_ARGS__)), 0)
#define PAGE 4096L

static void touch(const char *name, int mode) {
    int fd = OK(open(name, O_CREAT | O_WRONLY, 0600));
    OK(fchmod(fd, mode));
    close(fd);
}

static int links_are_protected(void) {
    FILE *f = fopen("/proc/sys/fs/protected_hardlinks", "r");
    int value = 0;
    int is_set = f && fscanf(f, "%d", &value) == 1 && value == 1;
    if (f)
        fclose(f);
    return is_set;
}

TEST(hard_links_of_what_others_own) {
    if (!links_are_protected())
        SKIP("protected_hardlinks is off");
    OK(chmod(".", 0777));
    touch("plain", 0666);
    touch("readable", 0644);
    touch("writable", 0622);
    touch("setuid", 04666);
    touch("setgid", 02676);
    touch("locking", 02666); // the set-group bit without the group's x is no set-id
    OK(mkfifo("fifo", 0666));
    OK(chmod("fifo", 0666));
    OK(symlink("plain", "symlink"));
    touch("own", 04600);
    OK(chown("own", 65534, 65534));
    OK(chmod("own", 04600));
    AS_NOBODY({
        OK(link("plain", "a"));
        OK(link("locking", "b"));
        OK(link("own", "c"));
        ERR(link("readable", "d"), EPERM);
        ERR(link("writable", "d"), EPERM);
        ERR(link("setuid", "d"), EPERM);
        ERR(link("setgid", "d"), EPERM);
        ERR(link("fifo", "d"), EPERM);
        ERR(link("symlink", "d"), EPERM);
        OK(linkat(AT_FDCWD, "symlink", AT_FDCWD, "d", AT_SYMLINK_FOLLOW));
    });
    // Who may do anything to files may do this.
    OK(link("setuid", "e"));
    OK(link("fifo", "f"));
    OK(link("own", "g"));
}

TEST(a_link_needs_the_directory) {
    OK(chmod(".", 0755));
    touch("plain", 0666);
    OK(mkdir("open", 0777));
    OK(chmod("open", 0777));
    OK(mkdir("search", 0));
    OK(chmod("search", 0711));
    OK(mkdir("write", 0));
    OK(chmod("write", 0722));
    AS_NOBODY({
        ERR(link("plain", "x"), EACCES);
        ERR(link("plain", "search/x"), EACCES);
        ERR(link("plain", "write/x"), EACCES);
        ERR(symlink("plain", "search/x"), EACCES);
        ERR(mkfifo("search/x", 0600), EACCES);
        ERR(mkdir("search/x", 0700), EACCES);
        OK(symlink("plain", "open/x"));
    });
}

TEST(a_sticky_directory_keeps_what_others_own) {
    OK(chmod(".", 0755));
    OK(mkdir("t", 0777));
    OK(chmod("t", 01777));
    OK(mkdir("t/d", 0777));
    touch("t/f", 0666);
    touch("t/mine", 0666);
    OK(chown("t/mine", 65534, 65534));
    OK(mkdir("u", 0777));
    OK(chown("u", 65534, 65534));
    OK(chmod("u", 01777));
    touch("u/f", 0666);
    AS_NOBODY({
        ERR(rmdir("t/d"), EPERM);
        ERR(unlink("t/f"), EPERM);
        ERR(syscall(SYS_renameat2, AT_FDCWD, "t/mine", AT_FDCWD, "t/f", 2), EPERM);
        ERR(syscall(SYS_renameat2, AT_FDCWD, "t/f", AT_FDCWD, "t/mine", 2), EPERM);
        ERR(rename("t/mine", "t/f"), EPERM);
        OK(unlink("u/f")); // the directory's owner
    });
    // A capability, whoever has it; none, whoever one is.
    EXITED(wait_for(CHILD({
               OK(setresuid(0, 65533, 0));
               ERR(unlink("t/f"), EPERM);
               OK(setresuid(0, 0, 0));
               OK(unlink("t/f"));
           })),
           0);
}

TEST(a_directory_of_others_that_moves_needs_to_be_written) {
    OK(chmod(".", 0777));
    OK(mkdir("from", 0777));
    OK(chmod("from", 0777));
    OK(mkdir("to", 0777));
    OK(chmod("to", 0777));
    OK(mkdir("from/d", 0755));
    OK(mkdir("to/mine", 0755));
    OK(chown("to/mine", 65534, 65534));
    AS_NOBODY({
        ERR(rename("from/d", "to/d"), EACCES); // its `..` would change
        OK(rename("from/d", "from/e"));
        ERR(syscall(SYS_renameat2, AT_FDCWD, "to/mine", AT_FDCWD, "from/e", 2), EACCES);
        OK(rename("to/mine", "from/mine"));
    });
}

TEST(attributes_by_name_space) {
    OK(chmod(".", 0777));
    touch("f", 0666);
    touch("r", 0644);
    OK(mkdir("sticky", 0777));
    OK(chmod("sticky", 01777));
    OK(mkdir("open", 0777));
    OK(chmod("open", 0777));
    if (setxattr("f", "user.a", "1", 1, 0) && errno == EOPNOTSUPP)
        SKIP("no extended attributes here");
    char buffer[16];
    AS_NOBODY({
        OK(setxattr("f", "user.b", "1", 1, 0));
        ERR(setxattr("r", "user.b", "1", 1, 0), EACCES);
        ERR(removexattr("r", "user.b"), EACCES);
        ERR(setxattr("sticky", "user.b", "1", 1, 0), EPERM);
        OK(setxattr("open", "user.b", "1", 1, 0));
        ERR(setxattr("f", "trusted.a", "1", 1, 0), EPERM);
        ERR(getxattr("f", "trusted.a", buffer, 16), ENODATA);
        ERR(removexattr("f", "trusted.a"), EPERM);
        ERR(setxattr("f", "security.capability", "\0\0\0\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20, 0), EPERM);
        ERR(removexattr("f", "security.capability"), EPERM);
        ERR(setxattr("f", "security.a", "1", 1, 0), EPERM);
        ERR(removexattr("f", "system.posix_acl_access"), EPERM);
    });
    touch("secret", 0600);
    OK(setxattr("secret", "user.a", "1", 1, 0));
    AS_NOBODY(ERR(getxattr("secret", "user.a", buffer, 16), EACCES));
    OK(setxattr("sticky", "user.b", "1", 1, 0));
}

TEST(flags_that_take_the_owner) {
    OK(chmod(".", 0755));
    touch("f", 0666);
    touch("mine", 0666);
    OK(chown("mine", 65534, 65534));
    AS_NOBODY({
        ERR(open("f", O_RDONLY | O_NOATIME), EPERM);
        int fd = OK(open("f", O_RDONLY));
        ERR(fcntl(fd, F_SETFL, O_NOATIME), EPERM);
        OK(open("mine", O_RDONLY | O_NOATIME));
        fd = OK(open("mine", O_RDONLY));
        OK(fcntl(fd, F_SETFL, O_NOATIME));
        ERR(fcntl(OK(open("f", O_RDONLY)), F_SETLEASE, F_RDLCK), EACCES);
    });
}

static void clears(const char *what, int mode, int want, int (*change)(int fd)) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0600));
    OK(ftruncate(fd, 0));
    OK(pwrite(fd, "0123456789", 10, 0) - 10);
    OK(fchown(fd, 0, 0));
    OK(fchmod(fd, mode));
    close(fd);
    EXITED(wait_for(CHILD(become_nobody(); int fd2 = OK(open("f", O_RDWR)); OK(change(fd2)))), 0);
    struct stat s;
    OK(stat("f", &s));
    if ((s.st_mode & 07777) != (mode_t)want)
        FAIL("%s: mode %o, want %o", what, s.st_mode & 07777, want);
}

static int by_write(int fd) {
    return write(fd, "x", 1) == 1 ? 0 : -1;
}

static int by_truncate(int fd) {
    return ftruncate(fd, 3);
}

static int by_fallocate(int fd) {
    return fallocate(fd, 0, 0, 100);
}

static int by_splice(int fd) {
    int ends[2];
    if (pipe(ends) || write(ends[1], "x", 1) != 1)
        return -1;
    return splice(ends[0], NULL, fd, NULL, 1, 0) == 1 ? 0 : -1;
}

static int by_vector(int fd) {
    struct iovec v = {"xy", 2};
    return pwritev2(fd, &v, 1, 2, 0) == 2 ? 0 : -1;
}

TEST(who_changes_a_file_takes_its_set_id_bits) {
    OK(chmod(".", 0755));
    clears("write", 06777, 0777, by_write);
    clears("truncate", 06777, 0777, by_truncate);
    clears("fallocate", 06777, 0777, by_fallocate);
    clears("splice", 06777, 0777, by_splice);
    clears("pwritev2", 06777, 0777, by_vector);
    clears("a mode without them", 0777, 0777, by_write);
}

TEST(an_owner_s_chown_takes_set_id_bits) {
    OK(chmod(".", 0755));
    touch("f", 0755);
    OK(chown("f", 65534, 65534));
    OK(chmod("f", 06755));
    AS_NOBODY({
        struct stat s;
        OK(chown("f", 65534, 65534));
        OK(stat("f", &s));
        CHECK_EQ(s.st_mode & 07777, 0755);
        ERR(chown("f", 65533, -1), EPERM);
        ERR(chown("f", -1, 5), EPERM);
    });
    OK(chmod("f", 06755));
    OK(chown("f", -1, -1)); // root's, of nothing
    struct stat s;
    OK(stat("f", &s));
    CHECK_EQ(s.st_mode & 07777, 0755);
}

// A page that grows down, with nothing below it but one page at the end of so many that are free, which may be used or not.
static char *growing(long free_pages, int prot_below) {
    long size = (free_pages + 2) * PAGE;
    char *low = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(low != MAP_FAILED);
    OK(munmap(low + PAGE, size - PAGE));
    OK(mprotect(low, PAGE, prot_below));
    char *top = low + size - PAGE;
    CHECK(mmap(top, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0) == top);
    return top;
}

TEST(a_stack_grows_to_its_limit) {
    struct rlimit limit = {512 << 10, RLIM_INFINITY};
    EXITED(wait_for(CHILD({
               volatile char *top = growing(4096, PROT_NONE);
               OK(setrlimit(RLIMIT_STACK, &limit));
               top[-(256 << 10)] = 1;
               top[-(507 << 10)] = 1;
           })),
           0);
    KILLED(wait_for(CHILD({
               volatile char *top = growing(4096, PROT_NONE);
               OK(setrlimit(RLIMIT_STACK, &limit));
               top[-(513 << 10)] = 1;
           })),
           SIGSEGV);
    // Nor beyond what all memory together may be.
    KILLED(wait_for(CHILD({
               volatile char *top = growing(4096, PROT_NONE);
               struct rlimit all = {PAGE, PAGE};
               OK(setrlimit(RLIMIT_AS, &all));
               top[-PAGE] = 1;
           })),
           SIGSEGV);
}

TEST(a_stack_keeps_away_from_what_is_below) {
    // A gap of 256 pages stays between it and a mapping that can be used.
    EXITED(wait_for(CHILD(volatile char *top = growing(1024, PROT_READ); top[-700 * PAGE] = 1)), 0);
    KILLED(wait_for(CHILD(volatile char *top = growing(1024, PROT_READ); top[-900 * PAGE] = 1)), SIGSEGV);
    EXITED(wait_for(CHILD(volatile char *top = growing(1024, PROT_NONE); top[-900 * PAGE] = 1)), 0);
    // What does not grow down does not.
    KILLED(wait_for(CHILD({
               volatile char *top = growing(64, PROT_NONE);
               CHECK(mmap((char *)top, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == top);
               top[-1] = 1;
           })),
           SIGSEGV);
}

TEST(memory_of_the_address_space_s_limit) {
    char *p = mmap(NULL, 16 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct rlimit limit;
    OK(getrlimit(RLIMIT_AS, &limit));
    limit.rlim_cur = 4 * PAGE;
    EXITED(wait_for(CHILD({
               OK(setrlimit(RLIMIT_AS, &limit));
               CHECK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
               CHECK_EQ(errno, ENOMEM);
               CHECK(mremap(p, 16 * PAGE, 64 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED);
               CHECK_EQ(errno, ENOMEM);
               CHECK(mremap(p, 16 * PAGE, 8 * PAGE, 0) == p);
               // What takes the place of something is no more than before.
               CHECK(mmap(p, 4 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED);
               CHECK_EQ(errno, ENOMEM);
               void *end = sbrk(0);
               CHECK_EQ(syscall(SYS_brk, (char *)end + (1 << 20)), (long)end);
           })),
           0);
}

TEST(data_that_becomes_writable_counts) {
    long size = 64 * PAGE;
    char *p = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *shared = mmap(NULL, size, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct rlimit limit;
    OK(getrlimit(RLIMIT_DATA, &limit));
    EXITED(wait_for(CHILD({
               limit.rlim_cur = PAGE;
               OK(setrlimit(RLIMIT_DATA, &limit));
               ERR(mprotect(p, size, PROT_READ | PROT_WRITE), ENOMEM);
               OK(mprotect(shared, size, PROT_READ | PROT_WRITE));
               OK(mprotect(p, size, PROT_NONE));
               CHECK(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
               CHECK_EQ(errno, ENOMEM);
               CHECK(mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
               CHECK(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
           })),
           0);
}

TEST(locked_memory_has_a_limit_for_all_ways) {
    struct rlimit limit = {4 * PAGE, 4 * PAGE};
    EXITED(wait_for(CHILD({
               OK(setrlimit(RLIMIT_MEMLOCK, &limit));
               become_nobody();
               char *p = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
               ERR(mlock(p, 5 * PAGE), ENOMEM);
               OK(mlock(p, 4 * PAGE));
               OK(mlock(p, 4 * PAGE)); // those that are locked count once
               ERR(mlock(p + 4 * PAGE, PAGE), ENOMEM);
               CHECK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0) == MAP_FAILED);
               CHECK_EQ(errno, EAGAIN);
               ERR(mlockall(MCL_CURRENT), ENOMEM);
               OK(munlock(p, 16 * PAGE));
               OK(mlock(p, PAGE));
               CHECK(mremap(p, PAGE, PAGE, 0) == p);
               OK(munmap(p + PAGE, 15 * PAGE));
               CHECK(mremap(p, PAGE, 8 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED);
               CHECK_EQ(errno, EAGAIN);
           })),
           0);
    limit.rlim_cur = limit.rlim_max = 0;
    EXITED(wait_for(CHILD({
               OK(setrlimit(RLIMIT_MEMLOCK, &limit));
               become_nobody();
               char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
               ERR(mlock(p, PAGE), EPERM);
               ERR(mlockall(MCL_FUTURE), EPERM);
               CHECK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0) == MAP_FAILED);
               CHECK_EQ(errno, EPERM);
           })),
           0);
}

TEST(protections_that_the_file_does_not_give) {
    touch("f", 0666);
    OK(truncate("f", PAGE));
    int fd = OK(open("f", O_RDONLY));
    char *p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(p != MAP_FAILED);
    ERR(mprotect(p, PAGE, PROT_READ | PROT_WRITE), EACCES);
    OK(mprotect(p, PAGE, PROT_NONE));
    ERR(mprotect(p, PAGE, PROT_WRITE), EACCES);
    OK(mprotect(p, PAGE, PROT_READ));
    // One's own copy may be changed.
    char *copy = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
    OK(mprotect(copy, PAGE, PROT_READ | PROT_WRITE));
    *copy = 1;
    int writer = OK(open("f", O_WRONLY));
    CHECK(mmap(NULL, PAGE, PROT_WRITE, MAP_PRIVATE, writer, 0) == MAP_FAILED);
    CHECK_EQ(errno, EACCES);
    CHECK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
    CHECK_EQ(errno, EACCES);
}

TEST(seals_bind_everybody) {
    int fd = OK(memfd_create("x", MFD_ALLOW_SEALING));
    OK(ftruncate(fd, 2 * PAGE));
    OK(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_GROW));
    ERR(write(fd, "x", 1), EPERM);
    ERR(pwrite(fd, "x", 1, 0), EPERM);
    ERR(ftruncate(fd, 3 * PAGE), EPERM);
    ERR(fallocate(fd, 0, 0, 3 * PAGE), EPERM);
    ERR(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), EPERM);
    OK(ftruncate(fd, PAGE));
    CHECK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
    CHECK_EQ(errno, EPERM);
    char *p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(p != MAP_FAILED);
    ERR(mprotect(p, PAGE, PROT_READ | PROT_WRITE), EACCES);
    char *copy = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    CHECK(copy != MAP_FAILED);
    *copy = 1;
    OK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL));
    ERR(ftruncate(fd, 0), EPERM);
    ERR(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EPERM);
    fd = OK(memfd_create("x", MFD_ALLOW_SEALING));
    OK(ftruncate(fd, PAGE));
    OK(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW));
    CHECK_EQ(pwrite(fd, "x", 1, PAGE - 1), 1);
    ERR(pwrite(fd, "x", 1, PAGE), EPERM);
    ERR(fallocate(fd, 0, 0, 2 * PAGE), EPERM);
    OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, PAGE));
    OK(ftruncate(fd, 0));
    int plain = OK(memfd_create("y", 0));
    ERR(fcntl(plain, F_ADD_SEALS, F_SEAL_WRITE), EPERM);
}

// Whether something is mapped there, or may come to be: a stack grows for the kernel, too.
static int is_near_a_mapping(unsigned long at, unsigned long (*maps)[2], int count) {
    for (int i = 0; i < count; i++)
        if (at + (64 << 20) >= maps[i][0] && at < maps[i][1])
            return 1;
    return 0;
}

TEST(addresses_of_nothing_are_refused_by_all_calls) {
    static unsigned long maps[200][2];
    int count = 0;
    char line[512];
    FILE *f = fopen("/proc/self/maps", "r");
    CHECK(f != NULL);
    while (count < 200 && fgets(line, sizeof line, f))
        count += sscanf(line, "%lx-%lx", &maps[count][0], &maps[count][1]) == 2;
    fclose(f);
    int zero = OK(open("/dev/zero", O_RDONLY)), ends[2], tried = 0;
    OK(pipe2(ends, O_NONBLOCK));
    // The upper end of the address space, which a sandbox may have uses of its own for.
    for (unsigned long at = 0x7ffe00000000; at < 0x800000000000; at += at < 0x7ffe01000000 ? PAGE : 1 << 20) {
        if (is_near_a_mapping(at, maps, count))
            continue;
        struct iovec one = {(void *)at, 1};
        tried++;
        ERR(read(zero, (void *)at, 1), EFAULT);
        ERR(write(ends[1], (void *)at, 1), EFAULT);
        ERR(readv(zero, &one, 1), EFAULT);
        ERR(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, at), EFAULT);
        ERR(syscall(SYS_nanosleep, at, NULL), EFAULT);
        ERR(open((void *)at, O_RDONLY), EFAULT);
    }
    CHECK(tried > 1000);
}
