// Address spaces: what is mapped and what is in it.
#include "check.h"

static int initialised = 17;
static int zero[4096];

static void pattern(unsigned char *p, size_t n, int seed) {
    for (size_t i = 0; i < n; i++)
        p[i] = (unsigned char)(i * 31 + i / 4096 + seed);
}

static int has_pattern(const unsigned char *p, size_t n, int seed) {
    for (size_t i = 0; i < n; i++)
        if (p[i] != (unsigned char)(i * 31 + i / 4096 + seed))
            return 0;
    return 1;
}

TEST(data_and_bss_and_stack_and_heap) {
    int local = 5;
    char *heap = malloc(300000);
    initialised = 18;
    zero[3000] = 7;
    memset(heap, 9, 300000);
    RESTORED();
    CHECK_EQ(initialised, 18);
    CHECK_EQ(zero[3000] + zero[2999] + zero[0], 7);
    CHECK_EQ(local, 5);
    CHECK(heap[0] == 9 && heap[299999] == 9);
    free(heap);
    char *more = malloc(500000);
    memset(more, 1, 500000);
    free(more);
}

TEST(sparse_anonymous_memory) {
    size_t len = 64 << 20;
    unsigned char *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(p != MAP_FAILED);
    pattern(p, 8192, 1);
    pattern(p + (10 << 20), 4096, 2);
    pattern(p + len - 4096, 4096, 3);
    RESTORED();
    CHECK(has_pattern(p, 8192, 1));
    CHECK(has_pattern(p + (10 << 20), 4096, 2));
    CHECK(has_pattern(p + len - 4096, 4096, 3));
    CHECK(!p[8192] && !p[1 << 20] && !p[len - 4097]);
    p[20 << 20] = 4;
    CHECK_EQ(p[20 << 20], 4);
}

TEST(dontneed_gives_zeros) {
    size_t len = 1 << 20;
    unsigned char *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pattern(p, len, 1);
    RESTORED();
    CHECK_EQ(madvise(p + 8192, 16384, MADV_DONTNEED), 0);
    CHECK(has_pattern(p, 8192, 1));
    for (int i = 8192; i < 24576; i++)
        CHECK_EQ(p[i], 0);
    CHECK_EQ(p[24576], (unsigned char)(24576 * 31 + 6 + 1));
    p[9000] = 3;
    CHECK_EQ(p[9000], 3);
    CHECK_EQ(madvise(p + 65536, 4096, MADV_FREE), 0);
    p[65536] = 1;
    CHECK_EQ(p[65536], 1);
    CHECK_EQ(madvise(p, len, MADV_DONTNEED), 0);
    CHECK(!p[0] && !p[9000] && !p[len - 1]);
}

TEST(mremap_moves_and_grows) {
    size_t len = 256 << 10;
    unsigned char *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pattern(p, len, 5);
    // Something behind it that must not show through.
    unsigned char *behind = mmap(p + len, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pattern(behind, 4096, 9);
    RESTORED();
    unsigned char *q = mremap(p, len, 4 * len, MREMAP_MAYMOVE);
    CHECK(q != MAP_FAILED);
    CHECK(has_pattern(q, len, 5));
    for (size_t i = len; i < 4 * len; i++)
        CHECK_EQ(q[i], 0);
    memset(q, 1, 4 * len);
    unsigned char *r = mremap(q, 4 * len, 8 * len, MREMAP_MAYMOVE);
    CHECK(r != MAP_FAILED && r[4 * len - 1] == 1 && r[4 * len] == 0);
    CHECK_EQ(munmap(r, 8 * len), 0);
}

TEST(a_child_copies_on_write) {
    size_t len = 128 << 10;
    unsigned char *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pattern(p, len, 6);
    RESTORED();
    pid_t child = fork();
    if (!child) {
        if (!has_pattern(p, len, 6))
            _exit(1);
        memset(p, 0, len);
        _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    CHECK(has_pattern(p, len, 6));
    CHECK_EQ(madvise(p, len, MADV_WIPEONFORK), 0);
    CHECK(has_pattern(p, len, 6));
    child = fork();
    if (!child)
        _exit(p[100] != 0);
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
}

TEST(shared_memory_stays_shared) {
    volatile int *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    p[100000] = 1;
    pid_t child = fork();
    if (!child) {
        AWAIT();
        while (p[100000] != 3)
            usleep(1000);
        p[200000] = 4;
        _exit(0);
    }
    p[5] = 2;
    RESTORED();
    CHECK(p[5] == 2 && p[100000] == 1);
    p[100000] = 3;
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(p[200000], 4);
}

TEST(protections_hold) {
    unsigned char *p = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pattern(p, 16384, 8);
    CHECK_EQ(mprotect(p, 4096, PROT_READ), 0);
    CHECK_EQ(mprotect(p + 4096, 4096, PROT_NONE), 0);
    RESTORED();
    int fd[2];
    CHECK_EQ(pipe(fd), 0);
    CHECK_EQ(write(fd[1], "x", 1), 1);
    CHECK(read(fd[0], p, 1) == -1 && errno == EFAULT);
    CHECK(write(fd[1], p + 4096, 1) == -1 && errno == EFAULT);
    CHECK_EQ(mprotect(p, 8192, PROT_READ | PROT_WRITE), 0);
    CHECK(has_pattern(p, 16384, 8));
}

static const unsigned char code[] = {0xb8, 42, 0, 0, 0, 0xc3}; // mov eax, 42; ret

TEST(code_that_was_made) {
    unsigned char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(p, code, sizeof code);
    CHECK_EQ(mprotect(p, 4096, PROT_READ | PROT_EXEC), 0);
    RESTORED();
    CHECK_EQ(((int (*)(void))p)(), 42);
}

TEST(the_heap_grows_by_brk) {
    char *old = sbrk(65536);
    memset(old, 3, 65536);
    RESTORED();
    char *more = sbrk(1 << 20);
    CHECK(more != (void *)-1);
    CHECK(old[65535] == 3 && more[0] == 0);
    memset(more, 1, 1 << 20);
    CHECK_EQ(brk(old), 0);
}

TEST(a_file_mapped_privately) {
    int fd = open("/bin/memory", O_RDONLY);
    unsigned char *p = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0), first[8192];
    close(fd);
    memcpy(first, p, 8192);
    p[4096] = first[4096] + 1;
    RESTORED();
    CHECK_EQ(p[4096], (unsigned char)(first[4096] + 1));
    CHECK(!memcmp(p, first, 4096) && !memcmp(p + 4097, first + 4097, 4095));
    CHECK_EQ(madvise(p + 4096, 4096, MADV_DONTNEED), 0);
    CHECK(!memcmp(p, first, 8192));
}

// Pages that differ from a file's, many in a row: of them the host is shown the image itself.
TEST(much_of_a_file_mapped_privately) {
    enum { PAGE = 4096, FIRST = 8, LAST = 40, ALL = 64 };
    int fd = open("/bin/memory", O_RDONLY), status;
    unsigned char *file = malloc(2 * ALL * PAGE);
    CHECK_EQ(pread(fd, file, 2 * ALL * PAGE, 0), 2 * ALL * PAGE);
    unsigned char *p = mmap(NULL, ALL * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    unsigned char *fixed = mmap(NULL, ALL * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    close(fd);
    pattern(p + FIRST * PAGE, (LAST - FIRST) * PAGE, 4);
    pattern(fixed, ALL * PAGE, 5);
    CHECK_EQ(mprotect(fixed, ALL * PAGE, PROT_READ), 0);
    RESTORED();
    CHECK(!memcmp(p, file, FIRST * PAGE) && !memcmp(p + LAST * PAGE, file + LAST * PAGE, (ALL - LAST) * PAGE));
    CHECK(has_pattern(p + FIRST * PAGE, (LAST - FIRST) * PAGE, 4) && has_pattern(fixed, ALL * PAGE, 5));
    pid_t child = fork();
    if (!child) {
        if (!has_pattern(p + FIRST * PAGE, (LAST - FIRST) * PAGE, 4))
            _exit(1);
        memset(p, 0, ALL * PAGE);
        _exit(0);
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    CHECK(has_pattern(p + FIRST * PAGE, (LAST - FIRST) * PAGE, 4));
    // What is given up is the file's again, and nothing beside it.
    CHECK_EQ(madvise(p + 30 * PAGE, 4 * PAGE, MADV_DONTNEED), 0);
    CHECK(!memcmp(p + 30 * PAGE, file + 30 * PAGE, 4 * PAGE));
    CHECK(has_pattern(p + FIRST * PAGE, (30 - FIRST) * PAGE, 4));
    CHECK(memcmp(p + 34 * PAGE, file + 34 * PAGE, PAGE));
    CHECK_EQ(madvise(p + 34 * PAGE, (ALL - 34) * PAGE, MADV_DONTNEED), 0);
    CHECK(!memcmp(p + 30 * PAGE, file + 30 * PAGE, (ALL - 30) * PAGE));
    // What moves away leaves the file, and what grows shows more of it.
    unsigned char *q = mremap(p + FIRST * PAGE, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
    CHECK(q != MAP_FAILED && has_pattern(q, 4 * PAGE, 4));
    CHECK(!memcmp(p, file, (FIRST + 4) * PAGE));
    unsigned char *r = mremap(p, ALL * PAGE, 2 * ALL * PAGE, MREMAP_MAYMOVE);
    CHECK(r != MAP_FAILED && !memcmp(r, file, (FIRST + 4) * PAGE));
    CHECK(!memcmp(r + 30 * PAGE, file + 30 * PAGE, (2 * ALL - 30) * PAGE));
    // It could not be written to, and can.
    CHECK_EQ(mprotect(fixed + PAGE, PAGE, PROT_READ | PROT_WRITE), 0);
    fixed[PAGE] ^= 1;
    CHECK(!has_pattern(fixed, ALL * PAGE, 5));
    fixed[PAGE] ^= 1;
    CHECK(has_pattern(fixed, ALL * PAGE, 5));
    free(file);
}

TEST(mappings_are_listed_as_before) {
    char before[1 << 16], after[1 << 16];
    unsigned char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pattern(p, 1 << 20, 1);
    for (int i = 0; i < 2; i++) {
        char *text = i ? after : before;
        int fd = open("/proc/self/maps", O_RDONLY), n = 0, r;
        while ((r = read(fd, text + n, sizeof before - 1 - n)) > 0)
            n += r;
        text[n] = 0;
        close(fd);
        if (!i)
            RESTORED();
    }
    // Devices and inode numbers of files may be others: names and places are compared.
    char *a, *b, *x = strtok_r(before, "\n", &a), *y = strtok_r(after, "\n", &b);
    for (; x && y; x = strtok_r(NULL, "\n", &a), y = strtok_r(NULL, "\n", &b)) {
        CHECK(!strncmp(x, y, strcspn(x, " ") + 5));
        CHECK(!strcmp(strrchr(x, ' '), strrchr(y, ' ')));
    }
    CHECK(!x && !y);
}
