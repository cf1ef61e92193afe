// Memory: mmap, munmap, mprotect, mremap, brk, madvise, msync, mlock, mincore, memfd, limits, EFAULT.
#include "check.h"

#define PAGE 4096
#define MB (1 << 20)

static char *map(size_t pages, int protection, int flags) {
    return OK(mmap(NULL, pages * PAGE, protection, flags | MAP_ANONYMOUS, -1, 0));
}

static char *map_rw(size_t pages) {
    return map(pages, PROT_READ | PROT_WRITE, MAP_PRIVATE);
}

static int file_of(size_t bytes) {
    static int number;
    char name[20];
    sprintf(name, "file%d", number++);
    int fd = OK(open(name, O_RDWR | O_CREAT | O_TRUNC, 0600));
    for (size_t i = 0; i < bytes; i++) {
        char c = 'a' + i / PAGE % 26;
        CHECK_EQ(write(fd, &c, 1), 1);
    }
    return fd;
}

// Whether the page can be read, as the kernel sees it.
static int readable(const void *p) {
    int fd[2];
    OK(pipe(fd));
    int good = write(fd[1], p, 1) == 1;
    close(fd[0]);
    close(fd[1]);
    return good;
}

static int writable(void *p) {
    int fd = OK(open("/dev/zero", O_RDONLY));
    int good = read(fd, p, 1) == 1;
    close(fd);
    return good;
}

TEST(anonymous_is_zero) {
    char *p = map_rw(16);
    for (int i = 0; i < 16 * PAGE; i++)
        CHECK(!p[i]);
}

TEST(mmap_errors) {
    ERR(mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), EINVAL);
    ERR(mmap(NULL, PAGE, PROT_READ, MAP_ANONYMOUS, -1, 0), EINVAL);
    ERR(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, -1, 0), EBADF);
    ERR(mmap((void *)1, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), EINVAL);
    ERR(mmap(NULL, (size_t)-1, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), ENOMEM);
    ERR(mmap(NULL, 1UL << 47, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), ENOMEM);
    ERR(mmap((void *)(1UL << 47), PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), ENOMEM);
    int fd = file_of(10);
    ERR(syscall(SYS_mmap, NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 1), EINVAL);
    int p[2];
    OK(pipe(p));
    ERR(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, p[0], 0), ENODEV);
}

TEST(mmap_needs_the_right_open_mode) {
    file_of(10);
    int w = OK(open("file0", O_WRONLY)), r = OK(open("file0", O_RDONLY));
    ERR(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, w, 0), EACCES);
    ERR(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, r, 0), EACCES);
    char *p = OK(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, r, 0));
    ERR(mprotect(p, PAGE, PROT_READ | PROT_WRITE), EACCES);
    OK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, r, 0));
    int d = OK(open(".", O_RDONLY));
    ERR(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, d, 0), ENODEV);
}

TEST(hint_is_taken_if_free) {
    char *p = map_rw(4);
    OK(munmap(p, 4 * PAGE));
    CHECK(mmap(p, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == p);
    CHECK(mmap(p, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != p);
}

TEST(fixed_replaces) {
    char *p = map_rw(3);
    memset(p, 1, 3 * PAGE);
    CHECK(mmap(p + PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p + PAGE);
    CHECK_EQ(p[0], 1);
    CHECK_EQ(p[PAGE], 0);
    CHECK_EQ(p[2 * PAGE], 1);
}

TEST(fixed_noreplace_does_not) {
    char *p = map_rw(1);
    ERR(mmap(p, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0), EEXIST);
}

TEST(low_32_bit) {
    char *p = OK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0));
    CHECK((uintptr_t)p < 1UL << 31);
}

TEST(populate_and_noreserve) {
    char *p = map(64, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_POPULATE);
    unsigned char in[64];
    OK(mincore(p, 64 * PAGE, in));
    CHECK(in[0] & 1 && in[63] & 1);
    char *big = map((1UL << 36) / PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE);
    big[1UL << 35] = 1;
    OK(munmap(big, 1UL << 36));
}

TEST(shared_anonymous_is_shared) {
    char *p = map(1, PROT_READ | PROT_WRITE, MAP_SHARED);
    EXITED(wait_for(CHILD(p[5] = 9; OK(mprotect(p, PAGE, PROT_NONE)))), 0);
    CHECK_EQ(p[5], 9);
}

TEST(shared_file_writes_through) {
    int fd = file_of(PAGE);
    char *p = OK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    p[3] = 'Z';
    char c;
    CHECK_EQ(pread(fd, &c, 1, 3), 1);
    CHECK_EQ(c, 'Z');
    CHECK_EQ(pwrite(fd, "Y", 1, 4), 1);
    CHECK_EQ(p[4], 'Y');
}

TEST(shared_file_between_two_mappings) {
    int fd = file_of(PAGE);
    char *p = OK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    char *q = OK(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0));
    p[9] = 'q';
    CHECK_EQ(q[9], 'q');
}

TEST(private_file_does_not_write_through) {
    int fd = file_of(PAGE);
    char *p = OK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
    CHECK_EQ(p[0], 'a');
    p[0] = 'Z';
    char c;
    CHECK_EQ(pread(fd, &c, 1, 0), 1);
    CHECK_EQ(c, 'a');
}

TEST(file_mapping_survives_close_and_unlink) {
    int fd = file_of(PAGE);
    char *p = OK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    OK(close(fd));
    OK(unlink("file0"));
    p[1] = 'x';
    CHECK_EQ(p[0], 'a');
}

TEST(file_offset) {
    int fd = file_of(3 * PAGE);
    char *p = OK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 2 * PAGE));
    CHECK_EQ(p[0], 'c');
}

TEST(rest_of_the_last_page_is_zero) {
    int fd = file_of(10);
    char *p = OK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    CHECK_EQ(p[9], 'a');
    CHECK_EQ(p[10], 0);
    p[20] = 'x'; // goes nowhere
    struct stat s;
    OK(fstat(fd, &s));
    CHECK_EQ(s.st_size, 10);
}

TEST(truncation_is_seen_by_mappings) {
    int fd = file_of(2 * PAGE);
    char *p = OK(mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, fd, 0));
    CHECK_EQ(p[PAGE], 'b');
    OK(ftruncate(fd, PAGE));
    CHECK(!readable(p + PAGE));
    OK(ftruncate(fd, 2 * PAGE));
    CHECK_EQ(p[PAGE], 0);
}

TEST(munmap_in_the_middle) {
    char *p = map_rw(5);
    OK(munmap(p + 2 * PAGE, PAGE));
    CHECK(readable(p + PAGE) && !readable(p + 2 * PAGE) && readable(p + 3 * PAGE));
    OK(munmap(p, 5 * PAGE)); // over the hole
    CHECK(!readable(p));
}

TEST(munmap_errors) {
    char *p = map_rw(1);
    ERR(munmap(p + 1, PAGE), EINVAL);
    ERR(munmap(p, 0), EINVAL);
    ERR(munmap((void *)(1UL << 47), PAGE), EINVAL);
    OK(munmap(p, 1)); // rounded up
    CHECK(!readable(p));
    OK(munmap(p, PAGE)); // nothing there is fine
}

TEST(mprotect_changes) {
    char *p = map_rw(4);
    OK(mprotect(p + PAGE, PAGE, PROT_READ));
    CHECK(writable(p) && !writable(p + PAGE) && writable(p + 2 * PAGE));
    OK(mprotect(p + PAGE, PAGE, PROT_NONE));
    CHECK(!readable(p + PAGE));
    OK(mprotect(p, 4 * PAGE, PROT_READ | PROT_WRITE));
    CHECK(writable(p + PAGE));
}

TEST(mprotect_errors) {
    char *p = map_rw(3);
    ERR(mprotect(p + 1, PAGE, PROT_READ), EINVAL);
    OK(munmap(p + PAGE, PAGE));
    ERR(mprotect(p, 3 * PAGE, PROT_READ), ENOMEM);
    CHECK(!writable(p)); // what came before the hole has changed
    CHECK(writable(p + 2 * PAGE));
    OK(mprotect(p, 0, PROT_NONE));
    ERR(mprotect(p, PAGE, PROT_READ | PROT_GROWSUP | PROT_GROWSDOWN), EINVAL);
}

TEST(code_can_be_written_and_run) {
    unsigned char *p = (unsigned char *)map_rw(1);
    memcpy(p, "\xb8\x2a\x00\x00\x00\xc3", 6); // mov $42, %eax; ret
    OK(mprotect(p, PAGE, PROT_READ | PROT_EXEC));
    CHECK_EQ(((int (*)(void))p)(), 42);
    OK(mprotect(p, PAGE, PROT_READ | PROT_WRITE));
    p[1] = 43;
    OK(mprotect(p, PAGE, PROT_READ | PROT_EXEC));
    CHECK_EQ(((int (*)(void))p)(), 43);
}

TEST(writable_code_with_a_system_call) {
    unsigned char *p = (unsigned char *)map(1, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE);
    memcpy(p, "\xb8\x27\x00\x00\x00\x0f\x05\xc3", 8); // mov $39, %eax; syscall; ret
    for (int i = 0; i < 10; i++)
        CHECK_EQ(((int (*)(void))p)(), getpid());
    p[1] = 0x6e; // getppid: changed code is the code that runs
    CHECK_EQ(((int (*)(void))p)(), getppid());
}

TEST(mremap_grows_and_shrinks) {
    char *p = map_rw(4);
    p[0] = 'x';
    OK(munmap(p + 2 * PAGE, 2 * PAGE));
    char *q = OK(mremap(p, 2 * PAGE, 4 * PAGE, 0)); // in place
    CHECK(q == p);
    CHECK_EQ(q[3 * PAGE], 0);
    q = OK(mremap(p, 4 * PAGE, PAGE, 0));
    CHECK(q == p && !readable(p + PAGE));
}

TEST(mremap_moves) {
    char *p = map_rw(4);
    memset(p, 7, PAGE);
    ERR(mremap(p, PAGE, 8 * PAGE, 0), ENOMEM);
    char *q = OK(mremap(p, PAGE, 8 * PAGE, MREMAP_MAYMOVE));
    CHECK(q != p);
    CHECK_EQ(q[PAGE - 1], 7);
    CHECK_EQ(q[7 * PAGE], 0);
    CHECK(!readable(p));
    CHECK(readable(p + PAGE));
}

// An area that was moved and has grown since is one area, and moves as one.
TEST(mremap_moves_what_has_moved_and_grown) {
    char *room = OK(mmap(NULL, 40 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    char *p = OK(mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    memset(p, 1, 2 * PAGE);
    OK(munmap(room + PAGE, 20 * PAGE));
    CHECK(mremap(p, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room + 2 * PAGE) == room + 2 * PAGE);
    p = OK(mremap(room + 2 * PAGE, 2 * PAGE, 4 * PAGE, 0));
    memset(p + 2 * PAGE, 2, 2 * PAGE);
    char *target = room + 10 * PAGE;
    CHECK(mremap(p, 4 * PAGE, 8 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target) == target);
    CHECK(target[0] == 1 && target[2 * PAGE - 1] == 1 && target[2 * PAGE] == 2 && target[4 * PAGE - 1] == 2);
    CHECK(target[4 * PAGE] == 0 && target[8 * PAGE - 1] == 0);
    OK(munmap(room, 40 * PAGE));
}

TEST(mremap_fixed) {
    char *p = map_rw(2), *target = map_rw(2);
    memset(p, 3, 2 * PAGE);
    memset(target, 4, 2 * PAGE);
    CHECK(mremap(p, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target) == target);
    CHECK_EQ(target[PAGE], 3);
    CHECK(!readable(p));
}

TEST(mremap_dontunmap) {
    char *p = map_rw(2);
    memset(p, 3, 2 * PAGE);
    char *q = OK(mremap(p, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL));
    CHECK_EQ(q[0], 3);
    CHECK_EQ(p[0], 0);
}

TEST(mremap_errors) {
    char *p = map_rw(2);
    ERR(mremap(p + 1, PAGE, PAGE, 0), EINVAL);
    ERR(mremap(p, PAGE, 0, 0), EINVAL);
    ERR(mremap(p, PAGE, PAGE, 0x100), EINVAL);
    ERR(mremap(p, PAGE, PAGE, MREMAP_FIXED, p), EINVAL);
    ERR(mremap(p, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, p), EINVAL); // overlaps
    OK(munmap(p, PAGE));
    ERR(mremap(p, PAGE, 2 * PAGE, MREMAP_MAYMOVE), EFAULT);
}

TEST(mremap_of_a_file) {
    int fd = file_of(3 * PAGE);
    char *p = OK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, PAGE));
    char *q = OK(mremap(p, PAGE, 2 * PAGE, MREMAP_MAYMOVE));
    CHECK_EQ(q[0], 'b');
    CHECK_EQ(q[PAGE], 'c');
}

TEST(brk_moves) {
    char *start = (char *)syscall(SYS_brk, 0);
    CHECK((char *)syscall(SYS_brk, start + 10 * PAGE) == start + 10 * PAGE);
    start[9 * PAGE] = 1;
    CHECK((char *)syscall(SYS_brk, start) == start);
    CHECK((char *)syscall(SYS_brk, start + 10 * PAGE) == start + 10 * PAGE);
    CHECK_EQ(start[9 * PAGE], 0); // fresh again
    CHECK((char *)syscall(SYS_brk, 16) == start + 10 * PAGE); // a failure returns what is
    CHECK((char *)syscall(SYS_brk, start) == start);
}

TEST(data_limit_stops_brk) {
    char *start = (char *)syscall(SYS_brk, 0);
    struct rlimit limit = {PAGE, PAGE};
    OK(setrlimit(RLIMIT_DATA, &limit));
    CHECK((char *)syscall(SYS_brk, start + 64 * MB) == start);
}

TEST(address_space_limit) {
    struct rlimit limit = {64 * MB, 64 * MB};
    OK(setrlimit(RLIMIT_AS, &limit));
    ERR(mmap(NULL, 128 * MB, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), ENOMEM);
    OK(mmap(NULL, MB, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

TEST(dontneed_drops_anonymous_pages) {
    char *p = map_rw(2);
    memset(p, 1, 2 * PAGE);
    OK(madvise(p, PAGE, MADV_DONTNEED));
    CHECK_EQ(p[0], 0);
    CHECK_EQ(p[PAGE], 1);
}

TEST(dontneed_rereads_private_files) {
    int fd = file_of(PAGE);
    char *p = OK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
    p[0] = 'Z';
    OK(madvise(p, PAGE, MADV_DONTNEED));
    CHECK_EQ(p[0], 'a');
}

TEST(madvise_errors) {
    char *p = map_rw(2);
    ERR(madvise(p + 1, PAGE, MADV_DONTNEED), EINVAL);
    ERR(madvise(p, PAGE, 9999), EINVAL);
    OK(munmap(p + PAGE, PAGE));
    ERR(madvise(p, 2 * PAGE, MADV_DONTNEED), ENOMEM);
    OK(madvise(p, 0, MADV_DONTNEED));
}

TEST(madvise_hints_are_accepted) {
    char *p = map_rw(2);
    static const int hints[] = {MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED, MADV_FREE, MADV_DONTDUMP, MADV_DODUMP};
    for (size_t i = 0; i < sizeof hints / sizeof *hints; i++)
        OK(madvise(p, 2 * PAGE, hints[i]));
}

TEST(dontfork_and_wipeonfork) {
    char *p = map_rw(2);
    memset(p, 1, 2 * PAGE);
    OK(madvise(p, PAGE, MADV_DONTFORK));
    OK(madvise(p + PAGE, PAGE, MADV_WIPEONFORK));
    EXITED(wait_for(CHILD(CHECK(!readable(p)); CHECK_EQ(p[PAGE], 0))), 0);
    CHECK_EQ(p[PAGE], 1);
}

TEST(msync) {
    int fd = file_of(PAGE);
    char *p = OK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    OK(msync(p, PAGE, MS_SYNC));
    OK(msync(p, PAGE, MS_ASYNC));
    ERR(msync(p, PAGE, MS_SYNC | MS_ASYNC), EINVAL);
    ERR(msync(p + 1, PAGE, MS_SYNC), EINVAL);
    OK(munmap(p, PAGE));
    ERR(msync(p, PAGE, MS_SYNC), ENOMEM);
}

TEST(mlock_family) {
    char *p = map_rw(2);
    OK(mlock(p, PAGE));
    OK(munlock(p, PAGE));
    OK(mlock2(p, PAGE, MLOCK_ONFAULT));
    ERR(mlock2(p, PAGE, 8), EINVAL);
    OK(munlockall());
    OK(munmap(p + PAGE, PAGE));
    ERR(mlock(p, 2 * PAGE), ENOMEM);
    ERR(mlockall(0), EINVAL);
}

TEST(mlock_limit) {
    EXITED(wait_for(CHILD({
               struct rlimit limit = {PAGE, PAGE};
               OK(setrlimit(RLIMIT_MEMLOCK, &limit));
               become_nobody();
               char *p = map_rw(4);
               ERR(mlock(p, 4 * PAGE), ENOMEM);
               limit.rlim_cur = 0;
               OK(setrlimit(RLIMIT_MEMLOCK, &limit));
               ERR(mlock(p, PAGE), EPERM);
           })),
           0);
}

TEST(mincore_errors) {
    char *p = map_rw(2);
    unsigned char in[2];
    ERR(mincore(p + 1, PAGE, in), EINVAL);
    ERR(syscall(SYS_mincore, p, PAGE, BAD_ADDRESS), EFAULT);
    OK(munmap(p, PAGE));
    ERR(mincore(p, 2 * PAGE, in), ENOMEM);
}

TEST(memfd_basics) {
    int fd = OK(memfd_create("name", 0));
    OK(ftruncate(fd, 2 * PAGE));
    char *p = OK(mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    p[PAGE] = 'm';
    char c;
    CHECK_EQ(pread(fd, &c, 1, PAGE), 1);
    CHECK_EQ(c, 'm');
    char link[100] = {0}, path[40];
    sprintf(path, "/proc/self/fd/%d", fd);
    OK(readlink(path, link, sizeof link - 1));
    STR_EQ(link, "/memfd:name (deleted)");
    ERR(memfd_create("x", 0x8000), EINVAL);
    ERR(syscall(SYS_memfd_create, BAD_ADDRESS, 0), EFAULT);
}

TEST(memfd_seals) {
    int fd = OK(memfd_create("sealed", MFD_ALLOW_SEALING));
    CHECK_EQ(write(fd, "abc", 3), 3);
    CHECK_EQ(fcntl(fd, F_GET_SEALS), 0);
    OK(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK));
    ERR(ftruncate(fd, 10), EPERM);
    ERR(ftruncate(fd, 1), EPERM);
    ERR(pwrite(fd, "x", 1, 3), EPERM);
    CHECK_EQ(pwrite(fd, "x", 1, 0), 1);
    ERR(pwrite(fd, "xxxxx", 5, 0), EPERM);
    OK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL));
    ERR(pwrite(fd, "x", 1, 0), EPERM);
    ERR(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), EPERM);
    ERR(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW), EPERM);
    int plain = OK(memfd_create("plain", 0));
    CHECK_EQ(fcntl(plain, F_GET_SEALS), F_SEAL_SEAL);
}

TEST(memfd_write_seal_needs_no_mapping) {
    int fd = OK(memfd_create("sealed", MFD_ALLOW_SEALING));
    OK(ftruncate(fd, PAGE));
    char *p = OK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    ERR(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
    OK(munmap(p, PAGE));
    OK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
}

TEST(efault_of_a_read_is_partial) {
    char *p = map_rw(2);
    OK(munmap(p + PAGE, PAGE));
    int fd = file_of(100);
    CHECK_EQ(pread(fd, p + PAGE - 10, 100, 0), 10);
    ERR(pread(fd, p + PAGE, 100, 0), EFAULT);
    CHECK_EQ(p[PAGE - 1], 'a');
}

TEST(efault_of_a_file_write_is_partial) {
    char *p = map_rw(2);
    OK(munmap(p + PAGE, PAGE));
    int fd = OK(open("out", O_RDWR | O_CREAT, 0600));
    CHECK_EQ(write(fd, p + PAGE - 10, 100), 10);
    ERR(write(fd, p + PAGE, 1), EFAULT);
    OK(write(fd, p + PAGE, 0));
}

TEST(efault_of_a_pipe_write) {
    char *p = map_rw(2);
    OK(munmap(p + PAGE, PAGE));
    int fd[2];
    OK(pipe(fd));
    ERR(write(fd[1], p + PAGE, 1), EFAULT);
    OK(fcntl(fd[0], F_SETFL, O_NONBLOCK));
    char c;
    ERR(read(fd[0], &c, 1), EAGAIN);
}

TEST(kernel_addresses_are_efault) {
    int fd = file_of(1);
    ERR(pread(fd, (void *)0xffffffff80000000, 1, 0), EFAULT);
    ERR(pread(fd, (void *)(1UL << 47), 1, 0), EFAULT);
    ERR(open((char *)0xffffffff80000000, O_RDONLY), EFAULT);
    ERR(pread(fd, (void *)-1, 1, 0), EFAULT);
}

TEST(strings_may_end_at_a_page_edge) {
    char *p = map_rw(2);
    OK(munmap(p + PAGE, PAGE));
    strcpy(p + PAGE - 2, "/");
    struct stat s;
    OK(stat(p + PAGE - 2, &s));
    p[PAGE - 1] = 'x'; // no terminator before the edge
    ERR(stat(p + PAGE - 2, &s), EFAULT);
}

TEST(system_calls_write_to_fresh_memory) {
    char *p = map_rw(4);
    int fd = file_of(3 * PAGE);
    CHECK_EQ(pread(fd, p, 3 * PAGE, 0), 3 * PAGE);
    CHECK_EQ(p[2 * PAGE], 'c');
}

TEST(system_calls_write_to_cow_memory) {
    char *p = map_rw(1);
    p[0] = 1;
    int fd = file_of(1);
    EXITED(wait_for(CHILD(CHECK_EQ(pread(fd, p, 1, 0), 1); CHECK_EQ(p[0], 'a'))), 0);
    CHECK_EQ(p[0], 1);
}

TEST(system_calls_do_not_write_read_only_memory) {
    char *p = map(1, PROT_READ, MAP_PRIVATE);
    int fd = file_of(1);
    ERR(pread(fd, p, 1, 0), EFAULT);
    char *x = map(1, PROT_EXEC, MAP_PRIVATE);
    OK(write(OK(open("/dev/null", O_WRONLY)), x, 1));
}

TEST(stack_grows) {
    EXITED(wait_for(CHILD({
               volatile char *here = (volatile char *)__builtin_frame_address(0);
               volatile char *p = __builtin_alloca(4 * MB);
               p[0] = 1;
               (void)here;
           })),
           0);
}

TEST(stack_grows_for_the_kernel_too) {
    volatile char *p = __builtin_alloca(2 * MB);
    int fd = file_of(1);
    CHECK_EQ(pread(fd, (void *)p, 1, 0), 1);
}

TEST(process_vm_readv_own_child) {
    static char secret[8] = "before";
    int p[2];
    OK(pipe(p));
    pid_t pid = CHILD(strcpy(secret, "inside"); CHECK_EQ(write(p[1], "x", 1), 1); pause());
    char c, text[8];
    CHECK_EQ(read(p[0], &c, 1), 1);
    struct iovec local = {text, 7}, remote = {secret, 7};
    CHECK_EQ(process_vm_readv(pid, &local, 1, &remote, 1, 0), 7);
    STR_EQ(text, "inside");
    remote.iov_base = BAD_ADDRESS;
    ERR(process_vm_readv(pid, &local, 1, &remote, 1, 0), EFAULT);
    ERR(process_vm_readv(1 << 21, &local, 1, &remote, 1, 0), ESRCH);
    OK(kill(pid, SIGKILL));
    wait_for(pid);
}

TEST(maps_shows_mappings) {
    char *p = map(2, PROT_READ, MAP_PRIVATE);
    char line[64];
    sprintf(line, "%lx-", (unsigned long)p);
    char *found = strstr(slurp("/proc/self/maps"), line);
    // The kernel may have merged it with a neighbour, but not with one of another protection.
    if (found)
        CHECK(strstr(found, " r--p "));
    CHECK(strstr(slurp("/proc/self/maps"), "[stack]"));
    CHECK(strstr(slurp("/proc/self/maps"), "/bin/memory"));
}

TEST(membarrier) {
    long commands = OK(syscall(SYS_membarrier, 0, 0, 0));
    CHECK(commands & 1);
    OK(syscall(SYS_membarrier, 1 << 4, 0, 0)); // register private expedited
    OK(syscall(SYS_membarrier, 1 << 3, 0, 0));
    ERR(syscall(SYS_membarrier, 1 << 30, 0, 0), EINVAL);
}

TEST(sysv_shared_memory) {
    int id = syscall(SYS_shmget, 0, PAGE, 01000 | 0600);
    OK(id);
    char *p = (char *)OK(syscall(SYS_shmat, id, NULL, 0));
    OK(syscall(SYS_shmctl, id, 0, NULL)); // IPC_RMID
    EXITED(wait_for(CHILD(p[0] = 3)), 0);
    CHECK_EQ(p[0], 3);
    OK(syscall(SYS_shmdt, p));
    ERR(syscall(SYS_shmdt, p), EINVAL);
    ERR(syscall(SYS_shmat, id, NULL, 0), EINVAL);
}
