// Call sites that several threads come to use at a time, while others compute, change the text's protection, and fork; and
// busy calls that change memory.
#include "check.h"
#include <sys/mman.h>
#include <sys/time.h>

#define PAGE 4096ul
#define SITES 256
#define THREADS 4

// 256 long sites and 256 short ones, each with bytes behind it that are never executed.
extern char long_sites[], short_sites[];
__asm__(".pushsection .text\n"
        ".balign 4096\n"
        "long_sites:\n"
        ".rept 256\n"
        "  .balign 32\n"
        "  mov $110, %eax; syscall; ret\n"
        ".endr\n"
        ".balign 4096\n"
        "short_sites:\n"
        ".rept 256\n"
        "  .balign 32\n"
        "  syscall; ret\n"
        "  .fill 16, 1, 0xcc\n"
        ".endr\n"
        ".balign 4096\n"
        ".popsection\n");

static long call(const char *sites, int i) {
    long number = SYS_getppid;
    __asm__ volatile("call *%1" : "+a"(number) : "r"(sites + 32 * i) : "rcx", "r11", "memory");
    return number;
}

static volatile int stop;
static volatile unsigned long computed;

static void *computes(void *unused) {
    while (!stop)
        computed++;
    return unused;
}

// Each begins with another site, so that some are used first by one and some by another.
static void *calls_all(void *begin) {
    long parent = getppid();
    for (int round = 0; round < 8; round++)
        for (int i = 0; i < SITES; i++)
            for (int k = 0; k < 5; k++) {
                int site = (i + (int)(long)begin) % SITES;
                CHECK_EQ(call(long_sites, site), parent);
                CHECK_EQ(call(short_sites, site), parent);
            }
    return NULL;
}

static void with_threads(void (*meanwhile)(void)) {
    pthread_t computing, threads[THREADS];
    stop = 0;
    CHECK_EQ(pthread_create(&computing, NULL, computes, NULL), 0);
    for (long i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, calls_all, (void *)(i * SITES / THREADS / 2)), 0);
    meanwhile();
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    stop = 1;
    CHECK_EQ(pthread_join(computing, NULL), 0);
    CHECK(computed > 0);
}

static void nothing(void) {}

TEST(many_sites_while_others_run) { with_threads(nothing); }

static void makes_writable(void) {
    for (int i = 0; i < 40; i++) {
        char *text = (i & 1 ? short_sites : long_sites) + (i / 2 % 2) * 4096;
        OK(mprotect(text, 4096, PROT_READ | PROT_WRITE | PROT_EXEC));
        // As it was, also where it has been used.
        unsigned char want[] = {0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0xc3};
        for (int k = 0; k < 4096; k += 32)
            if (i & 1)
                CHECK(!memcmp(text + k, want + 5, 3));
            else
                CHECK(!memcmp(text + k, want, 8));
        OK(mprotect(text, 4096, PROT_READ | PROT_EXEC));
    }
}

TEST(text_becomes_writable_under_many) { with_threads(makes_writable); }

static void forks(void) {
    pid_t self = getpid();
    for (int i = 0; i < 10; i++) {
        pid_t pid = CHILD({
            for (int site = 0; site < SITES; site++) {
                CHECK_EQ(call(long_sites, site), self);
                CHECK_EQ(call(short_sites, site), self);
            }
        });
        EXITED(wait_for(pid), 0);
    }
}

TEST(many_are_inherited_as_they_are_written) { with_threads(forks); }

static void writes_and_forks(void) {
    for (int i = 0; i < 8; i++) {
        makes_writable();
        if (i % 4 == 0)
            forks();
    }
}

TEST(many_are_inherited_while_they_are_put_back) { with_threads(writes_and_forks); }

static volatile sig_atomic_t ticks;

static void on_tick(int signal) {
    (void)signal;
    ticks++;
}

// Calls that change mappings, in a loop: what they have done is there when they return, whatever interrupts them.
static void changes_memory(int rounds) {
    for (int i = 0; i < rounds; i++) {
        volatile char *p = (char *)OK(mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        p[0] = p[PAGE] = 1;
        OK(mprotect((char *)p, PAGE, PROT_READ));
        ERR(syscall(SYS_read, -1, p, 1), EBADF);
        OK(mprotect((char *)p, PAGE, PROT_READ | PROT_WRITE));
        p[0] = 2;
        OK(madvise((char *)p + PAGE, PAGE, MADV_DONTNEED));
        CHECK_EQ(p[0] + p[PAGE], 2);
        char *end = (char *)syscall(SYS_brk, 0);
        CHECK_EQ(syscall(SYS_brk, end + PAGE), (long)end + PAGE);
        *(volatile char *)end = 1;
        CHECK_EQ(syscall(SYS_brk, end), (long)end);
        OK(munmap((char *)p, 4 * PAGE));
        unsigned char resident;
        ERR(mincore((char *)p, PAGE, &resident), ENOMEM);
    }
}

TEST(busy_changes_of_memory) { changes_memory(500); }

TEST(busy_changes_of_memory_are_interrupted) {
    struct sigaction action = {.sa_handler = on_tick};
    OK(sigaction(SIGALRM, &action, NULL));
    struct itimerval often = {{0, 200}, {0, 200}}, never = {{0, 0}, {0, 0}};
    ticks = 0;
    OK(setitimer(ITIMER_REAL, &often, NULL));
    changes_memory(500);
    while (ticks < 20)
        changes_memory(1);
    OK(setitimer(ITIMER_REAL, &never, NULL));
}

static void *changes(void *unused) {
    for (int i = 0; i < 200; i++) {
        volatile char *p = (char *)OK(mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        p[0] = 1;
        OK(mprotect((char *)p, PAGE, PROT_READ));
        OK(mprotect((char *)p, PAGE, PROT_READ | PROT_WRITE));
        p[0] = 2;
        OK(madvise((char *)p, PAGE, MADV_DONTNEED));
        CHECK_EQ(p[0], 0);
        OK(munmap((char *)p, 2 * PAGE));
    }
    return unused;
}

static void change_together(void) {
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, changes, NULL), 0);
    for (int i = 0; i < 2; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

TEST(busy_changes_of_shared_memory) { with_threads(change_together); }

TEST(a_call_that_cannot_be_done_in_a_busy_process) {
    // Too large for the host, or not there: an error, and the thread goes on.
    for (int i = 0; i < 100; i++) {
        ERR(munmap((void *)1, PAGE), EINVAL);
        ERR(mprotect((void *)PAGE, PAGE, PROT_READ), ENOMEM);
        ERR(madvise((void *)PAGE, PAGE, MADV_DONTNEED), ENOMEM);
        CHECK(mmap(NULL, 1ul << 50, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
        changes_memory(1);
    }
}
