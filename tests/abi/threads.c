// Threads and futexes: clone of threads, join by clear_child_tid, futex operations, PI, robust lists, TLS, rseq.
#include "check.h"
#include <asm/prctl.h>
#include <linux/futex.h>
#include <sys/prctl.h>

static long futex(volatile void *word, int op, unsigned value, const struct timespec *t, volatile void *word2, unsigned value3) {
    return syscall(SYS_futex, word, op, value, t, word2, value3);
}

static volatile unsigned word, word2;

TEST(create_and_join) {
    pthread_t t[20];
    void *result;
    for (long i = 0; i < 20; i++)
        CHECK_EQ(pthread_create(&t[i], NULL, (void *(*)(void *))(void *)labs, (void *)i), 0);
    for (long i = 0; i < 20; i++) {
        CHECK_EQ(pthread_join(t[i], &result), 0);
        CHECK_EQ((long)result, i);
    }
}

static void *same_pid(void *tid) {
    *(pid_t *)tid = syscall(SYS_gettid);
    return (void *)(long)getpid();
}

TEST(threads_share_the_pid) {
    pthread_t t;
    pid_t tid;
    void *pid;
    pthread_create(&t, NULL, same_pid, &tid);
    pthread_join(t, &pid);
    CHECK_EQ((long)pid, getpid());
    CHECK(tid != getpid());
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static volatile long counter;

static void *counts(void *unused) {
    (void)unused;
    for (int i = 0; i < 20000; i++) {
        pthread_mutex_lock(&mutex);
        counter++;
        pthread_mutex_unlock(&mutex);
    }
    return NULL;
}

TEST(mutex_excludes) {
    pthread_t t[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, counts, NULL);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    CHECK_EQ(counter, 80000);
}

static void *waits_for_turn(void *argument) {
    long turn = (long)argument;
    pthread_mutex_lock(&mutex);
    while (counter != turn)
        pthread_cond_wait(&condition, &mutex);
    counter++;
    pthread_cond_broadcast(&condition);
    pthread_mutex_unlock(&mutex);
    return NULL;
}

TEST(condition_variables) {
    pthread_t t[20];
    for (long i = 0; i < 20; i++)
        pthread_create(&t[i], NULL, waits_for_turn, (void *)(19 - i));
    for (int i = 0; i < 20; i++)
        pthread_join(t[i], NULL);
    CHECK_EQ(counter, 20);
}

TEST(barrier) {
    pthread_barrier_t b;
    pthread_barrier_init(&b, NULL, 4);
    pthread_t t[3];
    for (int i = 0; i < 3; i++)
        pthread_create(&t[i], NULL, (void *(*)(void *))(void *)pthread_barrier_wait, &b);
    pthread_barrier_wait(&b);
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
}

static __thread int local = 5;

static void *changes_local(void *unused) {
    (void)unused;
    CHECK_EQ(local, 5);
    local = 9;
    return NULL;
}

TEST(thread_local_storage) {
    pthread_t t;
    local = 6;
    pthread_create(&t, NULL, changes_local, NULL);
    pthread_join(t, NULL);
    CHECK_EQ(local, 6);
}

TEST(arch_prctl_fs_and_gs) {
    unsigned long fs, gs;
    OK(syscall(SYS_arch_prctl, ARCH_GET_FS, &fs));
    CHECK(fs);
    OK(syscall(SYS_arch_prctl, ARCH_SET_GS, 0x123000));
    OK(syscall(SYS_arch_prctl, ARCH_GET_GS, &gs));
    CHECK_EQ(gs, 0x123000);
    ERR(syscall(SYS_arch_prctl, ARCH_SET_GS, 1UL << 47), EPERM);
    ERR(syscall(SYS_arch_prctl, ARCH_SET_FS, -1L), EPERM);
    ERR(syscall(SYS_arch_prctl, 0x9999, 0), EINVAL);
    ERR(syscall(SYS_arch_prctl, ARCH_GET_FS, BAD_ADDRESS), EFAULT);
}

TEST(gs_points_where_it_should) {
    static long value = 77;
    OK(syscall(SYS_arch_prctl, ARCH_SET_GS, &value));
    long got;
    sched_yield();
    __asm__("mov %%gs:0, %0" : "=r"(got));
    CHECK_EQ(got, 77);
}

TEST(wait_with_another_value) {
    word = 1;
    ERR(futex(&word, FUTEX_WAIT, 0, NULL, NULL, 0), EAGAIN);
    ERR(futex(&word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0), EAGAIN);
}

TEST(wait_times_out) {
    struct timespec t = {0, 20000000};
    long long start = now_ms();
    ERR(futex(&word, FUTEX_WAIT_PRIVATE, 0, &t, NULL, 0), ETIMEDOUT);
    CHECK(now_ms() - start >= 19);
    ERR(futex(&word, FUTEX_WAIT, 0, &t, NULL, 0), ETIMEDOUT);
    t.tv_nsec = 1000000000;
    ERR(futex(&word, FUTEX_WAIT, 0, &t, NULL, 0), EINVAL);
}

TEST(wait_bitset_has_an_absolute_timeout) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec -= 1;
    ERR(futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, &t, NULL, ~0U), ETIMEDOUT);
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_sec -= 1;
    ERR(futex(&word, FUTEX_WAIT_BITSET_PRIVATE | FUTEX_CLOCK_REALTIME, 0, &t, NULL, ~0U), ETIMEDOUT);
    ERR(futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, NULL, NULL, 0), EINVAL);
}

TEST(futex_errors) {
    ERR(futex((char *)&word + 1, FUTEX_WAIT, 0, NULL, NULL, 0), EINVAL);
    ERR(futex((char *)&word + 1, FUTEX_WAKE, 1, NULL, NULL, 0), EINVAL);
    ERR(futex((void *)4096, FUTEX_WAIT, 0, NULL, NULL, 0), EFAULT);
    ERR(futex((void *)(1UL << 47), FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0), EFAULT);
    ERR(futex(&word, 99, 0, NULL, NULL, 0), ENOSYS);
    ERR(futex((void *)4096, FUTEX_WAKE, 1, NULL, NULL, 0), EFAULT);
    CHECK_EQ(futex(&word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0), 0);
}

static void *waits_on_word(void *argument) {
    return (void *)futex(&word, (int)(long)argument, 0, NULL, NULL, ~0U);
}

static int wait_until_asleep(pid_t tid) {
    char path[64];
    for (int i = 0; i < 2000; i++) {
        sprintf(path, "/proc/self/task/%d/stat", tid);
        char *text = slurp(path), *end = strrchr(text, ')');
        if (end && end[2] == 'S')
            return 1;
        sleep_ms(1);
    }
    return 0;
}

static volatile pid_t waiter_tid;

static void *announces_and_waits(void *argument) {
    waiter_tid = syscall(SYS_gettid);
    return waits_on_word(argument);
}

TEST(wake_wakes_so_many) {
    pthread_t t[4];
    for (int i = 0; i < 4; i++) {
        waiter_tid = 0;
        pthread_create(&t[i], NULL, announces_and_waits, (void *)(long)FUTEX_WAIT_PRIVATE);
        EVENTUALLY(waiter_tid);
        CHECK(wait_until_asleep(waiter_tid));
    }
    CHECK_EQ(futex(&word, FUTEX_WAKE_PRIVATE, 2, NULL, NULL, 0), 2);
    CHECK_EQ(futex(&word, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0), 2);
    CHECK_EQ(futex(&word, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
}

static void *waits_on_bit(void *argument) {
    waiter_tid = syscall(SYS_gettid);
    return (void *)futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, NULL, NULL, (unsigned)(long)argument);
}

TEST(wake_bitset_selects) {
    pthread_t a, b;
    pthread_create(&a, NULL, waits_on_bit, (void *)1L);
    EVENTUALLY(waiter_tid && wait_until_asleep(waiter_tid));
    waiter_tid = 0;
    pthread_create(&b, NULL, waits_on_bit, (void *)2L);
    EVENTUALLY(waiter_tid && wait_until_asleep(waiter_tid));
    CHECK_EQ(futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 10, NULL, NULL, 2), 1);
    CHECK_EQ(pthread_join(b, NULL), 0);
    CHECK_EQ(futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 10, NULL, NULL, 4), 0);
    CHECK_EQ(futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 10, NULL, NULL, 1), 1);
    pthread_join(a, NULL);
}

TEST(requeue_moves_waiters) {
    pthread_t t[3];
    for (int i = 0; i < 3; i++) {
        waiter_tid = 0;
        pthread_create(&t[i], NULL, announces_and_waits, (void *)(long)FUTEX_WAIT_PRIVATE);
        EVENTUALLY(waiter_tid && wait_until_asleep(waiter_tid));
    }
    ERR(futex(&word, FUTEX_CMP_REQUEUE_PRIVATE, 1, (void *)10, &word2, 55), EAGAIN);
    CHECK_EQ(futex(&word, FUTEX_CMP_REQUEUE_PRIVATE, 1, (void *)10, &word2, 0), 3);
    CHECK_EQ(futex(&word, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0), 0);
    CHECK_EQ(futex(&word2, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0), 2);
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
}

TEST(wake_op_changes_and_wakes) {
    pthread_t t;
    waiter_tid = 0;
    pthread_create(&t, NULL, announces_and_waits, (void *)(long)FUTEX_WAIT_PRIVATE);
    EVENTUALLY(waiter_tid && wait_until_asleep(waiter_tid));
    word2 = 5;
    CHECK_EQ(futex(&word, FUTEX_WAKE_OP_PRIVATE, 1, (void *)1, &word2, FUTEX_OP(FUTEX_OP_ADD, 3, FUTEX_OP_CMP_EQ, 5)), 1);
    CHECK_EQ(word2, 8);
    pthread_join(t, NULL);
    CHECK_EQ(futex(&word, FUTEX_WAKE_OP, 1, (void *)1, &word2, FUTEX_OP(FUTEX_OP_XOR, 1, FUTEX_OP_CMP_GT, 0)), 0);
    CHECK_EQ(word2, 9);
    ERR(futex(&word, FUTEX_WAKE_OP, 1, (void *)1, (void *)4096, FUTEX_OP(FUTEX_OP_SET, 1, 0, 0)), EFAULT);
}

TEST(shared_futex_across_processes) {
    volatile unsigned *shared = OK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    pid_t pid = CHILD({
        while (!*shared)
            futex(shared, FUTEX_WAIT, 0, NULL, NULL, 0);
    });
    EVENTUALLY(state_of(pid) == 'S');
    *shared = 1;
    CHECK_EQ(futex(shared, FUTEX_WAKE, 1, NULL, NULL, 0), 1);
    EXITED(wait_for(pid), 0);
}

TEST(shared_futex_of_a_file_at_two_addresses) {
    int fd = OK(memfd_create("f", 0));
    OK(ftruncate(fd, 4096));
    volatile unsigned *a = OK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    volatile unsigned *b = OK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    pid_t pid = CHILD(while (!*a) futex(a, FUTEX_WAIT, 0, NULL, NULL, 0));
    EVENTUALLY(state_of(pid) == 'S');
    *b = 1;
    CHECK_EQ(futex(b, FUTEX_WAKE, 1, NULL, NULL, 0), 1);
    EXITED(wait_for(pid), 0);
}

TEST(private_and_shared_keys_of_private_memory_meet) {
    // For private memory both forms mean the same word.
    waiter_tid = 0;
    pthread_t t;
    pthread_create(&t, NULL, announces_and_waits, (void *)(long)FUTEX_WAIT);
    EVENTUALLY(waiter_tid && wait_until_asleep(waiter_tid));
    CHECK_EQ(futex(&word, FUTEX_WAKE, 1, NULL, NULL, 0), 1);
    pthread_join(t, NULL);
}

static void nothing(int signal) {
    (void)signal;
}

TEST(wait_is_interrupted) {
    struct sigaction action = {.sa_handler = nothing};
    OK(sigaction(SIGALRM, &action, NULL));
    ualarm(20000, 0);
    ERR(futex(&word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0), EINTR);
    struct timespec t = {5, 0};
    ualarm(20000, 0);
    ERR(futex(&word, FUTEX_WAIT_PRIVATE, 0, &t, NULL, 0), EINTR);
}

static void changes_word(int signal) {
    (void)signal;
    word = 1;
}

TEST(wait_is_restarted) {
    struct sigaction action = {.sa_handler = changes_word, .sa_flags = SA_RESTART};
    OK(sigaction(SIGALRM, &action, NULL));
    ualarm(20000, 0);
    ERR(futex(&word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0), EAGAIN); // the second time it sees the change
    word = 0;
    ualarm(20000, 0);
    struct timespec t = {5, 0};
    ERR(futex(&word, FUTEX_WAIT_PRIVATE, 0, &t, NULL, 0), EINTR); // not with a timeout
}

TEST(clear_child_tid_wakes) {
    static char stack[65536];
    static volatile pid_t tid;
    tid = 1;
    int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_CHILD_CLEARTID;
    extern int nap_and_end(void *);
    OK(clone(nap_and_end, stack + sizeof stack, flags, NULL, NULL, NULL, &tid));
    while (tid)
        futex(&tid, FUTEX_WAIT, 1, NULL, NULL, 0);
    CHECK_EQ(tid, 0);
}

int nap_and_end(void *unused) {
    (void)unused;
    struct timespec t = {0, 10000000};
    syscall(SYS_nanosleep, &t, NULL);
    syscall(SYS_exit, 0);
    return 0;
}

TEST(priority_inheriting_mutex) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    CHECK_EQ(pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT), 0);
    CHECK_EQ(pthread_mutex_init(&mutex, &attributes), 0);
    pthread_t t[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, counts, NULL);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    CHECK_EQ(counter, 80000);
}

TEST(pi_operations) {
    OK(futex(&word, FUTEX_LOCK_PI, 0, NULL, NULL, 0));
    CHECK_EQ(word, (unsigned)syscall(SYS_gettid));
    ERR(futex(&word, FUTEX_LOCK_PI, 0, NULL, NULL, 0), EDEADLK);
    ERR(futex(&word, FUTEX_TRYLOCK_PI, 0, NULL, NULL, 0), EDEADLK);
    OK(futex(&word, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0));
    CHECK_EQ(word, 0);
    ERR(futex(&word, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0), EPERM);
    word = 1 << 21; // no such thread
    ERR(futex(&word, FUTEX_LOCK_PI, 0, NULL, NULL, 0), ESRCH);
}

TEST(robust_mutex_of_a_dead_process) {
    pthread_mutex_t *m = OK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(m, &attributes);
    EXITED(wait_for(CHILD(pthread_mutex_lock(m))), 0);
    CHECK_EQ(pthread_mutex_lock(m), EOWNERDEAD);
    CHECK_EQ(pthread_mutex_consistent(m), 0);
    CHECK_EQ(pthread_mutex_unlock(m), 0);
}

TEST(robust_mutex_wakes_a_waiter) {
    pthread_mutex_t *m = OK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(m, &attributes);
    int p[2];
    OK(pipe(p));
    pid_t pid = CHILD(pthread_mutex_lock(m); write(p[1], "x", 1); usleep(30000));
    char c;
    CHECK_EQ(read(p[0], &c, 1), 1);
    CHECK_EQ(pthread_mutex_lock(m), EOWNERDEAD);
    wait_for(pid);
}

TEST(robust_list_calls) {
    void *head;
    size_t length;
    OK(syscall(SYS_get_robust_list, 0, &head, &length));
    CHECK_EQ(length, 24);
    ERR(syscall(SYS_set_robust_list, head, 23), EINVAL);
    ERR(syscall(SYS_get_robust_list, 1 << 21, &head, &length), ESRCH);
}

static volatile int stop;

static void *spins(void *unused) {
    (void)unused;
    while (!stop) {
    }
    return NULL;
}

TEST(busy_threads_do_not_starve_others) {
    pthread_t t[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, spins, NULL);
    // Ends at all.
    sleep_ms(20);
    stop = 1;
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
}

TEST(spinning_thread_can_be_killed) {
    pid_t pid = CHILD(for (;;) {});
    sleep_ms(5);
    OK(kill(pid, SIGTERM));
    KILLED(wait_for(pid), SIGTERM);
}

TEST(spinning_process_can_be_stopped) {
    pid_t pid = CHILD(for (;;) {});
    OK(kill(pid, SIGSTOP));
    int status;
    CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
    OK(kill(pid, SIGKILL));
    wait_for(pid);
}

TEST(thread_names) {
    OK(prctl(PR_SET_NAME, "a_very_long_name_here"));
    char name[17] = "";
    OK(prctl(PR_GET_NAME, name));
    STR_EQ(name, "a_very_long_nam");
    STR_EQ(slurp("/proc/self/comm"), "a_very_long_nam\n");
}

TEST(cancellation) {
    pthread_t t;
    pthread_create(&t, NULL, (void *(*)(void *))(void *)pause, NULL);
    sleep_ms(10);
    CHECK_EQ(pthread_cancel(t), 0);
    void *result;
    CHECK_EQ(pthread_join(t, &result), 0);
    CHECK(result == PTHREAD_CANCELED);
}

TEST(many_threads) {
    enum { COUNT = 200 };
    pthread_t t[COUNT];
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 65536);
    for (int i = 0; i < COUNT; i++)
        CHECK_EQ(pthread_create(&t[i], &attributes, same_pid, &(pid_t){0}), 0);
    for (int i = 0; i < COUNT; i++)
        CHECK_EQ(pthread_join(t[i], NULL), 0);
}

struct raw_rseq {
    uint32_t cpu_id_start, cpu_id;
    uint64_t rseq_cs;
    uint32_t flags, pad[3];
} __attribute__((aligned(32)));

static void *uses_rseq(void *result) {
    // glibc has registered its own area for this thread: a second one is refused.
    static struct raw_rseq area;
    long got = syscall(SYS_rseq, &area, 32, 0, 0x53053053);
    *(long *)result = got == -1 ? errno : got;
    return NULL;
}

TEST(rseq_is_registered_by_libc) {
    long result;
    pthread_t t;
    pthread_create(&t, NULL, uses_rseq, &result);
    pthread_join(t, NULL);
    CHECK(result == EINVAL || result == EPERM || result == EBUSY);
    ERR(syscall(SYS_rseq, 1, 32, 0, 0), EINVAL);
}

TEST(futex_waitv) {
    struct { uint64_t value, address; uint32_t flags, reserved; } waiters[2] = {
        {0, (uintptr_t)&word, 2 | 128, 0}, {0, (uintptr_t)&word2, 2 | 128, 0}};
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    ERR(syscall(449, waiters, 2, 0, &t, CLOCK_MONOTONIC), ETIMEDOUT);
    waiters[1].value = 5;
    ERR(syscall(449, waiters, 2, 0, &t, CLOCK_MONOTONIC), EAGAIN);
    ERR(syscall(449, waiters, 0, 0, &t, CLOCK_MONOTONIC), EINVAL);
}
