// FUTEX_WAIT_REQUEUE_PI and FUTEX_CMP_REQUEUE_PI, the errors of PI operations, and memory under threads and forks.
#include "check.h"
#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>

#define PAGE 4096

static long futex(volatile void *word, int op, unsigned value, const void *t, volatile void *word2, unsigned value3) {
    return syscall(SYS_futex, word, op, value, t, word2, value3);
}

static atomic_uint condition, lock;
static atomic_int ready;
static volatile int count;

static void take_lock(void) {
    unsigned none = 0;
    if (!atomic_compare_exchange_strong(&lock, &none, gettid()))
        OK(futex(&lock, FUTEX_LOCK_PI, 0, NULL, NULL, 0));
}

static void give_lock(void) {
    unsigned own = gettid();
    if (!atomic_compare_exchange_strong(&lock, &own, 0))
        OK(futex(&lock, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0));
}

static void *waits_for_condition(void *unused) {
    (void)unused;
    unsigned value = condition;
    ready++;
    OK(futex(&condition, FUTEX_WAIT_REQUEUE_PI, value, NULL, &lock, 0));
    CHECK_EQ(lock & FUTEX_TID_MASK, (unsigned)gettid());
    int seen = count;
    usleep(100);
    count = seen + 1;
    give_lock();
    return NULL;
}

static void broadcast(int locked) {
    pthread_t t[5];
    ready = 0;
    for (int i = 0; i < 5; i++)
        pthread_create(&t[i], NULL, waits_for_condition, NULL);
    EVENTUALLY(ready == 5);
    usleep(20000);
    if (locked)
        take_lock();
    condition++;
    CHECK_EQ(futex(&condition, FUTEX_CMP_REQUEUE_PI, 1, (void *)(long)INT_MAX, &lock, condition), 5);
    if (locked)
        give_lock();
    for (int i = 0; i < 5; i++)
        pthread_join(t[i], NULL);
}

TEST(waiters_take_a_free_lock_in_turn) {
    broadcast(0);
    CHECK_EQ(count, 5);
    CHECK_EQ(lock & FUTEX_TID_MASK, 0u);
}

TEST(waiters_wait_for_the_owner) {
    broadcast(1);
    CHECK_EQ(count, 5);
}

TEST(requeue_pi_errors) {
    struct timespec soon;
    clock_gettime(CLOCK_MONOTONIC, &soon);
    ERR(futex(&condition, FUTEX_WAIT_REQUEUE_PI, condition, &soon, &lock, 0), ETIMEDOUT);
    ERR(futex(&condition, FUTEX_WAIT_REQUEUE_PI, condition + 1, &soon, &lock, 0), EAGAIN);
    ERR(futex(&condition, FUTEX_WAIT_REQUEUE_PI, condition, &soon, &condition, 0), EINVAL);
    ERR(futex(&condition, FUTEX_CMP_REQUEUE_PI, 2, (void *)1, &lock, condition), EINVAL);
    ERR(futex(&condition, FUTEX_CMP_REQUEUE_PI, 1, (void *)1, &lock, condition + 1), EAGAIN);
}

TEST(pi_lock_errors) {
    ERR(futex(&lock, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0), EPERM);
    OK(futex(&lock, FUTEX_TRYLOCK_PI, 0, NULL, NULL, 0));
    ERR(futex(&lock, FUTEX_LOCK_PI, 0, NULL, NULL, 0), EDEADLK);
    ERR(futex(&lock, FUTEX_TRYLOCK_PI, 0, NULL, NULL, 0), EDEADLK);
    give_lock();
    lock = FUTEX_TID_MASK - 15; // nobody's id
    ERR(futex(&lock, FUTEX_LOCK_PI, 0, NULL, NULL, 0), ESRCH);
}

static void *changes_mappings(void *number) {
    unsigned seed = (unsigned)(long)number;
    for (int i = 0; i < 200; i++) {
        size_t n = (1 + rand_r(&seed) % 20) * PAGE;
        char *p = OK(mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        memset(p, (int)(long)number, n);
        switch (rand_r(&seed) % 5) {
        case 0:
            OK(mprotect(p, PAGE, PROT_READ));
            break;
        case 1:
            p = OK(mremap(p, n, 2 * n, MREMAP_MAYMOVE));
            CHECK(p[n - 1] == (long)number && !p[n]);
            n *= 2;
            break;
        case 2:
            OK(madvise(p, n, MADV_DONTNEED));
            CHECK(!p[0]);
            break;
        case 3:
            CHECK(mmap(p, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
            CHECK(!p[0]);
            break;
        default:
            if (i % 4 == 0)
                EXITED(wait_for(CHILD(CHECK(p[n - 1] == (long)number); OK(munmap(p, n)))), 0);
        }
        OK(munmap(p, n));
    }
    return NULL;
}

TEST(threads_change_mappings_and_fork) {
    pthread_t t[4];
    for (long i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, changes_mappings, (void *)(i + 1));
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
}

static int recurse(int depth) {
    volatile char frame[PAGE];
    frame[0] = frame[PAGE - 1] = 1;
    return depth ? recurse(depth - 1) + frame[PAGE - 1] : 0;
}

TEST(stack_has_its_limit) {
    CHECK_EQ(recurse(1500), 1500);
    KILLED(wait_for(CHILD(recurse(5000))), SIGSEGV);
}

TEST(reservations_cost_nothing) {
    OK(mmap(NULL, 1UL << 40, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}
