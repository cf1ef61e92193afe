// Memory that is written to while it is saved. The sandbox goes on, and is restored from the image as well: both have to be right.
//
// A writer changes its memory step by step, and counts the steps there. What a step does follows from its number: so the number says
// what all memory has to be.
//
// Saving takes as long as it takes: the harness ends the input when it is done.
#define PAUSE() end_of_input()
static void end_of_input(void);
#include "check.h"

#define CHUNKS 384
#define CHUNK_PAGES 64
#define PAGES (CHUNKS * CHUNK_PAGES)
#define CHUNK_BYTES (CHUNK_PAGES * 4096ul)

static void end_of_input(void) {
    char byte;
    while (read(0, &byte, 1) > 0 || errno == EINTR)
        errno = 0;
}

static unsigned char *memory;
static volatile uint32_t *done; // in memory that is saved otherwise, as all that is small

struct step {
    int kind, chunk, other, page;
};

static struct step step_of(uint32_t number) {
    uint32_t x = number * 2654435761u;
    x ^= x >> 15;
    x *= 2246822519u;
    x ^= x >> 13;
    struct step s = {x % 64, (x >> 6) % CHUNKS, (x >> 3) % CHUNKS, (x >> 8) % PAGES};
    if (s.other == s.chunk)
        s.other = (s.chunk + 1) % CHUNKS;
    return s;
}

static volatile uint32_t *words(int page) {
    return (volatile uint32_t *)(memory + page * 4096ul);
}

static void put(int page, uint32_t value) {
    words(page)[0] = words(page)[1023] = value;
}

static void fresh(int chunk) {
    CHECK(mmap(memory + chunk * CHUNK_BYTES, CHUNK_BYTES, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED);
}

static void make(uint32_t number) {
    struct step s = step_of(number);
    unsigned char *chunk = memory + s.chunk * CHUNK_BYTES, *other = memory + s.other * CHUNK_BYTES;
    int status;
    pid_t child;
    switch (s.kind) {
    case 0:
        CHECK_EQ(madvise(chunk, CHUNK_BYTES, MADV_DONTNEED), 0);
        break;
    case 1:
        fresh(s.chunk);
        break;
    case 2:
        // What was there is elsewhere, and nothing is left.
        CHECK(mremap(chunk, CHUNK_BYTES, CHUNK_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, other) == other);
        fresh(s.chunk);
        break;
    case 3:
        memset(chunk, 0, CHUNK_BYTES);
        break;
    case 4:
        CHECK_EQ(mprotect(chunk, CHUNK_BYTES, PROT_READ), 0);
        CHECK_EQ(mprotect(chunk, CHUNK_BYTES, PROT_READ | PROT_WRITE), 0);
        break;
    case 5:
        child = fork();
        if (!child)
            _exit(0);
        put(s.page, number);
        CHECK_EQ(waitpid(child, &status, 0), child);
        break;
    default:
        put(s.page, number);
    }
}

static void replay(uint32_t *values, uint32_t number) {
    struct step s = step_of(number);
    uint32_t *chunk = values + s.chunk * CHUNK_PAGES;
    switch (s.kind) {
    case 2:
        memcpy(values + s.other * CHUNK_PAGES, chunk, CHUNK_PAGES * sizeof *values);
        // fall through
    case 0:
    case 1:
    case 3:
        memset(chunk, 0, CHUNK_PAGES * sizeof *values);
        break;
    case 4:
        break;
    default:
        values[s.page] = number;
    }
}

static void write_and_check(int steps_at_once, int pause_us) {
    memory = mmap(NULL, PAGES * 4096ul, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    done = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int page = 0; page < PAGES; page++)
        put(page, page + 1);
    uint32_t number = 1000000;
    *done = number;
    READY();
    while (!__atomic_load_n(&check_shared->go, __ATOMIC_SEQ_CST)) {
        for (int i = 0; i < steps_at_once; i++) {
            make(number + 1);
            *done = ++number;
        }
        if (pause_us)
            usleep(pause_us);
    }
    uint32_t *values = malloc(PAGES * sizeof *values);
    for (int page = 0; page < PAGES; page++)
        values[page] = page + 1;
    for (uint32_t n = 1000001; n <= *done; n++)
        replay(values, n);
    for (int page = 0; page < PAGES; page++)
        if (words(page)[0] != values[page] || words(page)[1023] != values[page])
            FAIL("page %d after step %u: %u, %u, not %u", page, *done, words(page)[0], words(page)[1023], values[page]);
}

TEST(a_writer_that_is_caught_up_with) {
    write_and_check(4, 1000);
}

TEST(a_writer_that_is_too_fast) {
    write_and_check(1, 0);
}

// What no copy of the process has, beside what it has.
TEST(memory_that_children_do_not_have) {
    size_t len = 80 << 20;
    unsigned char *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(p, 1, len);
    CHECK_EQ(madvise(p + (8 << 20), 1 << 20, MADV_DONTFORK), 0);
    CHECK_EQ(madvise(p + (16 << 20), 1 << 20, MADV_WIPEONFORK), 0);
    CHECK_EQ(mprotect(p + (24 << 20), 1 << 20, PROT_NONE), 0);
    volatile uint32_t *both[] = {(void *)p, (void *)(p + (8 << 20)), (void *)(p + (16 << 20))};
    for (int i = 0; i < 3; i++)
        *both[i] = 1;
    READY();
    for (uint32_t n = 1; !__atomic_load_n(&check_shared->go, __ATOMIC_SEQ_CST); n++)
        for (int i = 0; i < 3; i++) {
            CHECK_EQ(*both[i], n);
            *both[i] = n + 1;
        }
    CHECK_EQ(mprotect(p + (24 << 20), 1 << 20, PROT_READ), 0);
    for (size_t i = 4; i < len; i++)
        CHECK((i >> 20 == 8 || i >> 20 == 16) && (i & 0xfffff) < 4 ? 1 : p[i] == 1);
}
