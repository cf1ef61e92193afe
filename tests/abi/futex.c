// Futexes of a process's own (FUTEX_PRIVATE_FLAG), which nobody but the process has to know of: who meets whom when some threads are traced,
// filtered or interrupted, memory that is not there yet, and what else must be as on Linux however they are carried out.
#include "check.h"
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/user.h>

static long futex(volatile void *word, long op, unsigned value, const struct timespec *t, volatile void *word2, unsigned value3) {
    return syscall(SYS_futex, word, op, value, t, word2, value3);
}

static long wake(volatile void *word, int count) {
    return futex(word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

static volatile unsigned word, word2;
static volatile pid_t waiter;

static int sleeps(pid_t tid) {
    return state_of(tid) == 'S';
}

static void *waits(void *op) {
    waiter = (pid_t)syscall(SYS_gettid);
    long result = futex(&word, (long)op, 0, NULL, NULL, ~0U);
    return (void *)(result ? (long)errno : 0);
}

static pthread_t start_waiter(long op) {
    pthread_t t;
    waiter = 0;
    CHECK_EQ(pthread_create(&t, NULL, waits, (void *)op), 0);
    EVENTUALLY(waiter && sleeps(waiter));
    return t;
}

static void end_waiter(pthread_t t, long want) {
    void *result;
    CHECK_EQ(pthread_join(t, &result), 0);
    CHECK_EQ((long)result, want);
}

TEST(private_and_shared_words_are_apart) {
    pthread_t t = start_waiter(FUTEX_WAIT_PRIVATE);
    CHECK_EQ(futex(&word, FUTEX_WAKE, 1, NULL, NULL, 0), 0);
    CHECK_EQ(wake(&word, 1), 1);
    end_waiter(t, 0);
    t = start_waiter(FUTEX_WAIT);
    CHECK_EQ(wake(&word, 1), 0);
    CHECK_EQ(futex(&word, FUTEX_WAKE, 1, NULL, NULL, 0), 1);
    end_waiter(t, 0);
}

TEST(locks_with_inheritance_are_apart) {
    static volatile unsigned lock;
    lock = 0;
    CHECK_EQ(futex(&lock, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0), 0);
    CHECK_EQ(wake(&lock, 1), 0);
    CHECK_EQ(futex(&lock, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0), 0);
    CHECK_EQ(lock, 0);
}

TEST(the_operation_has_32_bits) {
    CHECK_EQ(futex(&word, 0x500000000 | FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0), 0);
    ERR(futex(&word, 0x500000000 | FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0), EAGAIN);
    ERR(futex(&word, FUTEX_WAKE_PRIVATE | 0x10000, 1, NULL, NULL, 0), ENOSYS);
    ERR(futex(&word, FUTEX_WAKE_PRIVATE | FUTEX_CLOCK_REALTIME, 1, NULL, NULL, 0), ENOSYS);
    ERR(futex(&word, FUTEX_WAIT_PRIVATE | FUTEX_CLOCK_REALTIME, 1, NULL, NULL, 0), ENOSYS);
    ERR(futex(&word, 2 | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0), ENOSYS); // FUTEX_FD
}

TEST(bad_times_and_counts) {
    struct timespec bad[] = {{0, 1000000000}, {-1, 0}, {0, -1}};
    for (unsigned i = 0; i < 3; i++) {
        ERR(futex(&word, FUTEX_WAIT_PRIVATE, 0, &bad[i], NULL, 0), EINVAL);
        ERR(futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, &bad[i], NULL, ~0U), EINVAL);
    }
    ERR(futex(&word, FUTEX_WAIT_PRIVATE, 0, (void *)8, NULL, 0), EFAULT);
    ERR(futex(&word, FUTEX_WAIT_PRIVATE, 1, (void *)8, NULL, 0), EFAULT);
    ERR(futex(&word, FUTEX_REQUEUE_PRIVATE, -1, (void *)1, &word2, 0), EINVAL);
    ERR(futex(&word, FUTEX_REQUEUE_PRIVATE, 1, (void *)(unsigned long)-1, &word2, 0), EINVAL);
    ERR(futex((char *)&word + 2, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0), EINVAL);
    ERR(futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 1, NULL, NULL, 0), EINVAL);
    // Woken is one at least, whatever the count says.
    pthread_t t = start_waiter(FUTEX_WAIT_PRIVATE);
    CHECK_EQ(wake(&word, 0), 1);
    end_waiter(t, 0);
}

TEST(memory_that_is_not_there_or_not_writable) {
    struct timespec soon = {0, 1000000};
    volatile unsigned *page = OK(mmap(NULL, 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ERR(futex(page, FUTEX_WAIT_PRIVATE, 0, &soon, NULL, 0), EFAULT);
    CHECK_EQ(wake(page, 1), 0);
    ERR(futex(&word, FUTEX_WAKE_OP_PRIVATE, 1, (void *)1, page, FUTEX_OP(FUTEX_OP_SET, 1, 0, 0)), EFAULT);
    OK(mprotect((void *)page, 8192, PROT_READ));
    ERR(futex(page, FUTEX_WAIT_PRIVATE, 0, &soon, NULL, 0), ETIMEDOUT);
    ERR(futex(page, FUTEX_WAIT_PRIVATE, 1, &soon, NULL, 0), EAGAIN);
    ERR(futex(&word, FUTEX_WAKE_OP_PRIVATE, 1, (void *)1, page, FUTEX_OP(FUTEX_OP_SET, 1, 0, 0)), EFAULT);
    OK(mprotect((void *)page, 8192, PROT_READ | PROT_WRITE));
    CHECK_EQ(futex(&word, FUTEX_WAKE_OP_PRIVATE, 1, (void *)1, page + 1024, FUTEX_OP(FUTEX_OP_SET, 7, FUTEX_OP_CMP_EQ, 0)), 0);
    CHECK_EQ(page[1024], 7);
    OK(munmap((void *)page, 8192));
    ERR(futex(page, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0), EFAULT);
    ERR(futex(page, FUTEX_CMP_REQUEUE_PRIVATE, 1, (void *)1, &word, 0), EFAULT);
}

TEST(words_on_a_stack_that_has_yet_to_grow) {
    struct timespec soon = {0, 1000000};
    char here;
    volatile unsigned *below = (volatile unsigned *)(((unsigned long)&here - 600000) & ~4095UL);
    ERR(futex(below, FUTEX_WAIT_PRIVATE, 0, &soon, NULL, 0), ETIMEDOUT);
    ERR(futex(&word, FUTEX_CMP_REQUEUE_PRIVATE, 1, (void *)1, below - 100000, 1), EAGAIN);
    ERR(futex(below - 100000, FUTEX_CMP_REQUEUE_PRIVATE, 1, (void *)1, &word, 1), EAGAIN);
}

TEST(words_of_a_file_and_of_read_only_data) {
    struct timespec soon = {0, 1000000};
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    OK(ftruncate(fd, 4096));
    volatile unsigned *shared = OK(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    ERR(futex(shared, FUTEX_WAIT_PRIVATE, 0, &soon, NULL, 0), ETIMEDOUT);
    ERR(futex(shared + 1024, FUTEX_WAIT_PRIVATE, 0, &soon, NULL, 0), EFAULT); // behind the end of the file
    static const unsigned constant = 5;
    ERR(futex((void *)&constant, FUTEX_WAIT_PRIVATE, 5, &soon, NULL, 0), ETIMEDOUT);
    ERR(futex((void *)&constant, FUTEX_WAIT_PRIVATE, 4, &soon, NULL, 0), EAGAIN);
}

struct waitv {
    uint64_t value, address;
    uint32_t flags, reserved;
};

static struct waitv vector[3];

static void *waits_for_one(void *unused) {
    (void)unused;
    waiter = (pid_t)syscall(SYS_gettid);
    long result = syscall(449, vector, 3, 0, NULL, 0);
    return (void *)(result < 0 ? -(long)errno : result);
}

TEST(one_of_many_words_private_and_shared) {
    static volatile unsigned words[3];
    int wakes[] = {FUTEX_WAKE_PRIVATE, FUTEX_WAKE, FUTEX_WAKE_PRIVATE};
    for (int i = 0; i < 3; i++)
        vector[i] = (struct waitv){0, (uintptr_t)&words[i], 2 | (i == 1 ? 0 : 128), 0};
    struct timespec t = {0, 0};
    if (syscall(449, vector, 3, 0, &t, CLOCK_MONOTONIC) == -1 && errno == ENOSYS)
        SKIP("the host has no futex_waitv(2)");
    for (int i = 0; i < 6; i++) {
        if (i == 3) // Then all private.
            vector[1].flags = 2 | 128;
        int op = i < 3 ? wakes[i] : FUTEX_WAKE_PRIVATE;
        pthread_t t;
        void *result;
        waiter = 0;
        CHECK_EQ(pthread_create(&t, NULL, waits_for_one, NULL), 0);
        EVENTUALLY(waiter && sleeps(waiter));
        CHECK_EQ(futex(&words[i % 3], op, 1, NULL, NULL, 0), 1);
        pthread_join(t, &result);
        CHECK_EQ((long)result, i % 3);
        for (int j = 0; j < 3; j++) // It has left the others.
            CHECK_EQ(futex(&words[j], i < 3 ? wakes[j] : FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0), 0);
    }
    clock_gettime(CLOCK_MONOTONIC, &t);
    ERR(syscall(449, vector, 3, 0, &t, CLOCK_MONOTONIC), ETIMEDOUT);
    words[2] = 1;
    ERR(syscall(449, vector, 3, 0, &t, CLOCK_MONOTONIC), EAGAIN);
    vector[2].address = 8;
    ERR(syscall(449, vector, 3, 0, &t, CLOCK_MONOTONIC), EFAULT);
}

// A process of two threads, the first of which is traced from call to call.
static void traced_pair(void) {
    OK(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
    raise(SIGSTOP);
    pthread_t t = start_waiter(FUTEX_WAIT_PRIVATE);
    if (wake(&word, 5) != 1)
        _exit(2);
    end_waiter(t, 0);
    _exit(17);
}

TEST(a_traced_thread_meets_others) {
    pid_t pid = CHILD(traced_pair());
    int status, entries = 0, woken = 0, inside = 0;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    OK(ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACESYSGOOD));
    for (int signal = 0;; signal = 0) {
        OK(ptrace(PTRACE_SYSCALL, pid, NULL, signal));
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        if (WIFEXITED(status))
            break;
        if (WSTOPSIG(status) != (SIGTRAP | 0x80)) {
            signal = WSTOPSIG(status);
            continue;
        }
        struct user_regs_struct r;
        OK(ptrace(PTRACE_GETREGS, pid, NULL, &r));
        inside = !inside;
        if (r.orig_rax == SYS_futex && r.rdi == (unsigned long)&word && r.rsi == FUTEX_WAKE_PRIVATE) {
            entries += inside;
            if (!inside)
                woken = (int)r.rax;
            else
                CHECK_EQ((long)r.rax, -ENOSYS);
        }
    }
    EXITED(status, 17);
    CHECK_EQ(entries, 1);
    CHECK_EQ(woken, 1);
}

static void traced_waiter(void) {
    OK(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
    raise(SIGSTOP);
    pthread_t t;
    extern void *wakes_later(void *);
    CHECK_EQ(pthread_create(&t, NULL, wakes_later, NULL), 0);
    if (futex(&word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0))
        _exit(2);
    pthread_join(t, NULL);
    _exit(18);
}

void *wakes_later(void *unused) {
    (void)unused;
    while (wake(&word, 1) != 1)
        sleep_ms(1);
    return NULL;
}

TEST(a_traced_thread_is_woken_by_others) {
    pid_t pid = CHILD(traced_waiter());
    int status, seen = 0;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    OK(ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACESYSGOOD));
    for (int signal = 0;; signal = 0) {
        OK(ptrace(PTRACE_SYSCALL, pid, NULL, signal));
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        if (WIFEXITED(status))
            break;
        struct user_regs_struct r;
        OK(ptrace(PTRACE_GETREGS, pid, NULL, &r));
        seen += r.orig_rax == SYS_futex && r.rsi == FUTEX_WAIT_PRIVATE && r.rdi == (unsigned long)&word;
        if (WSTOPSIG(status) != (SIGTRAP | 0x80))
            signal = WSTOPSIG(status);
    }
    EXITED(status, 18);
    CHECK_EQ(seen, 2);
}

TEST(a_tracer_that_comes_in_the_middle) {
    pid_t pid = CHILD({
        pthread_t t;
        CHECK_EQ(pthread_create(&t, NULL, waits, (void *)FUTEX_WAIT_PRIVATE), 0);
        futex(&word2, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
        wake(&word, 1);
        end_waiter(t, 0);
        _exit(19);
    });
    EVENTUALLY(state_of(pid) == 'S');
    sleep_ms(20);
    int status;
    OK(ptrace(PTRACE_SEIZE, pid, NULL, NULL));
    OK(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL));
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFSTOPPED(status));
    struct user_regs_struct r;
    OK(ptrace(PTRACE_GETREGS, pid, NULL, &r));
    CHECK_EQ(r.orig_rax, SYS_futex);
    CHECK_EQ(r.rdi, (unsigned long)&word2);
    CHECK_EQ(r.rsi, FUTEX_WAIT_PRIVATE);
    CHECK_EQ((long)r.rax, -512); // ERESTARTSYS
    // It changes its mind: the word has another value now.
    errno = 0;
    OK(ptrace(PTRACE_POKEDATA, pid, &word2, (void *)1));
    OK(ptrace(PTRACE_DETACH, pid, NULL, NULL));
    EXITED(wait_for(pid), 19);
}

static void forbid_wakes_of_77(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_futex, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 77, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 55),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    OK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

static void *waits_filtered(void *unused) {
    forbid_wakes_of_77();
    return waits(unused);
}

TEST(a_filter_sees_them_and_others_are_met) {
    pthread_t t;
    waiter = 0;
    for (int i = 0; i < 3; i++) // So that the filter comes to threads that have not asked for long.
        CHECK_EQ(wake(&word, 77), 0);
    CHECK_EQ(pthread_create(&t, NULL, waits_filtered, (void *)FUTEX_WAIT_PRIVATE), 0);
    EVENTUALLY(waiter && sleeps(waiter));
    CHECK_EQ(wake(&word, 77), 1);
    end_waiter(t, 0);
    t = start_waiter(FUTEX_WAIT_PRIVATE);
    forbid_wakes_of_77();
    for (int i = 0; i < 3; i++)
        ERR(wake(&word, 77), 55);
    CHECK_EQ(wake(&word, 76), 1);
    end_waiter(t, 0);
}

static volatile int handled;

static void counts(int signal) {
    (void)signal;
    handled++;
}

static void *storms(void *target) {
    for (int i = 0; i < 3000; i++) {
        pthread_kill((pthread_t)target, SIGUSR1);
        if (i % 8 == 0)
            sched_yield();
    }
    return NULL;
}

static volatile unsigned turn;

static void *takes_turns(void *unused) {
    (void)unused;
    for (unsigned i = 0; i < 2000; i++) {
        while (turn != 2 * i + 1)
            futex(&turn, FUTEX_WAIT_PRIVATE, 2 * i, NULL, NULL, 0);
        turn = 2 * i + 2;
        wake(&turn, 1);
    }
    return NULL;
}

TEST(no_wake_is_lost_in_a_storm_of_signals) {
    for (int flags = 0; flags <= SA_RESTART; flags += SA_RESTART) {
        struct sigaction action = {.sa_handler = counts, .sa_flags = flags};
        OK(sigaction(SIGUSR1, &action, NULL));
        pthread_t t, storm[2];
        turn = 0;
        CHECK_EQ(pthread_create(&t, NULL, takes_turns, NULL), 0);
        CHECK_EQ(pthread_create(&storm[0], NULL, storms, (void *)t), 0);
        CHECK_EQ(pthread_create(&storm[1], NULL, storms, (void *)pthread_self()), 0);
        for (unsigned i = 0; i < 2000; i++) {
            turn = 2 * i + 1;
            wake(&turn, 1);
            while (turn != 2 * i + 2)
                futex(&turn, FUTEX_WAIT_PRIVATE, 2 * i + 1, NULL, NULL, 0);
        }
        pthread_join(storm[0], NULL);
        pthread_join(storm[1], NULL);
        pthread_join(t, NULL);
    }
    CHECK(handled > 0);
}

static void *wakes_and_counts(void *count) {
    long woken = 0;
    for (int i = 0; i < 500; i++) {
        long n;
        while ((n = wake(&word, 1)) != 1)
            CHECK_EQ(n, 0);
        woken += n;
    }
    *(long *)count = woken;
    return NULL;
}

TEST(as_many_return_as_were_woken) {
    // Whoever is interrupted has not been woken; whoever was woken has not been interrupted.
    struct sigaction action = {.sa_handler = counts};
    OK(sigaction(SIGUSR1, &action, NULL));
    pthread_t t, storm;
    long woken = 0, returned = 0;
    CHECK_EQ(pthread_create(&t, NULL, wakes_and_counts, &woken), 0);
    CHECK_EQ(pthread_create(&storm, NULL, storms, (void *)pthread_self()), 0);
    while (returned < 500) {
        long result = futex(&word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
        if (result == 0)
            returned++;
        else
            CHECK_EQ(errno, EINTR);
    }
    pthread_join(t, NULL);
    pthread_join(storm, NULL);
    CHECK_EQ(woken, 500);
}

TEST(a_stop_does_not_make_it_longer) {
    // Relative, and absolute on both clocks: the time goes on while the process is stopped.
    for (int i = 0; i < 3; i++) {
        pid_t pid = CHILD({
            struct timespec t = {1, 0};
            if (i > 0) {
                clock_gettime(i == 1 ? CLOCK_MONOTONIC : CLOCK_REALTIME, &t);
                t.tv_sec++;
            }
            long ops[] = {FUTEX_WAIT_PRIVATE, FUTEX_WAIT_BITSET_PRIVATE, FUTEX_WAIT_BITSET_PRIVATE | FUTEX_CLOCK_REALTIME};
            long long start = now_ms();
            long result = futex(&word, ops[i], 0, &t, NULL, ~0U);
            long long took = now_ms() - start;
            _exit(result == -1 && errno == ETIMEDOUT && took >= 990 && took < 1600 ? 0 : 1);
        });
        EVENTUALLY(state_of(pid) == 'S');
        sleep_ms(100);
        OK(kill(pid, SIGSTOP));
        EVENTUALLY(state_of(pid) == 'T');
        sleep_ms(750);
        OK(kill(pid, SIGCONT));
        EXITED(wait_for(pid), 0);
    }
}

TEST(a_signal_without_a_handler_leaves_it_waiting) {
    pthread_t t = start_waiter(FUTEX_WAIT_PRIVATE);
    for (int i = 0; i < 20; i++) {
        OK(syscall(SYS_tgkill, getpid(), waiter, SIGCHLD)); // ignored
        OK(syscall(SYS_tgkill, getpid(), waiter, SIGCONT));
    }
    EVENTUALLY(sleeps(waiter));
    CHECK_EQ(wake(&word, 1), 1);
    end_waiter(t, 0);
}

static void *waits_for_ever(void *unused) {
    (void)unused;
    for (;;)
        futex(&word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    return NULL;
}

// What the process is replaced by.
int helper(int argc, char **argv) {
    return argc == 1 && !strcmp(argv[0], "ends") ? 20 : 1;
}

TEST(a_process_ends_or_is_replaced_while_threads_wait) {
    for (int way = 0; way < 3; way++) {
        pid_t pid = CHILD({
            pthread_t t;
            for (int i = 0; i < 8; i++)
                CHECK_EQ(pthread_create(&t, NULL, waits_for_ever, NULL), 0);
            if (way == 0)
                exit(20);
            if (way == 1)
                execl("/proc/self/exe", "futex", "--helper", "ends", NULL);
            waits_for_ever(NULL);
        });
        if (way == 2) {
            EVENTUALLY(state_of(pid) == 'S');
            OK(kill(pid, SIGKILL));
            KILLED(wait_for(pid), SIGKILL);
        } else {
            EXITED(wait_for(pid), 20);
        }
    }
}

TEST(a_forked_child_has_words_of_its_own) {
    pthread_t t = start_waiter(FUTEX_WAIT_PRIVATE);
    pid_t pid = CHILD(_exit((int)wake(&word, 1)));
    EXITED(wait_for(pid), 0);
    CHECK_EQ(wake(&word, 1), 1);
    end_waiter(t, 0);
}

static int waits_in_shared_memory(void *unused) {
    (void)unused;
    return futex(&word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0) ? 1 : 21;
}

TEST(processes_that_share_memory_share_words) {
    static char stack[65536] __attribute__((aligned(16)));
    pid_t pid = OK(clone(waits_in_shared_memory, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL));
    EVENTUALLY(state_of(pid) == 'S');
    CHECK_EQ(wake(&word, 1), 1);
    EXITED(wait_for(pid), 21);
}

static volatile int steps;

static void counts_steps(int signal) {
    (void)signal;
    steps++;
}

TEST(stepping_over_it) {
    struct sigaction action = {.sa_handler = counts_steps};
    OK(sigaction(SIGTRAP, &action, NULL));
    for (int i = 0; i < 20; i++) {
        long result = SYS_futex;
        register long r10 __asm__("r10") = 0;
        steps = 0;
        __asm__ volatile("sub $128, %%rsp; pushf; orl $0x100, (%%rsp); popf; nop; syscall; nop; pushf; andl $~0x100, (%%rsp); popf; add $128, %%rsp"
                         : "+a"(result)
                         : "D"(&word), "S"((long)FUTEX_WAKE_PRIVATE), "d"(1L), "r"(r10)
                         : "rcx", "r11", "memory", "cc");
        CHECK_EQ(result, 0);
        CHECK(steps >= 4);
    }
}

// calls(state): futex(2) with the registers of `state`, which then has them as they are behind the call: rax, rdi, rsi, rdx, r10, r8, r9,
// rbx, rbp, r12, r13, r14, r15, xmm7; then how far rcx is from where it goes on, and r11 less the flags.
__asm__(".text\n"
        ".globl calls\n"
        "calls:\n"
        "    push %rbx\n    push %rbp\n    push %r12\n    push %r13\n    push %r14\n    push %r15\n"
        "    push %rdi\n"
        "    mov %rdi, %rax\n"
        "    mov 8(%rax), %rdi\n    mov 16(%rax), %rsi\n    mov 24(%rax), %rdx\n    mov 32(%rax), %r10\n"
        "    mov 40(%rax), %r8\n    mov 48(%rax), %r9\n    mov 56(%rax), %rbx\n    mov 64(%rax), %rbp\n"
        "    mov 72(%rax), %r12\n    mov 80(%rax), %r13\n    mov 88(%rax), %r14\n    mov 96(%rax), %r15\n"
        "    movq 104(%rax), %xmm7\n"
        "    std\n"
        "    mov $202, %eax\n"
        "    syscall\n"
        "1:  pushf\n"
        "    cld\n"
        "    push %rbx\n"
        "    mov 16(%rsp), %rbx\n"
        "    mov %rax, 0(%rbx)\n"
        "    mov %rdi, 8(%rbx)\n    mov %rsi, 16(%rbx)\n    mov %rdx, 24(%rbx)\n    mov %r10, 32(%rbx)\n"
        "    mov %r8, 40(%rbx)\n    mov %r9, 48(%rbx)\n    mov %rbp, 64(%rbx)\n"
        "    mov %r12, 72(%rbx)\n    mov %r13, 80(%rbx)\n    mov %r14, 88(%rbx)\n    mov %r15, 96(%rbx)\n"
        "    movq %xmm7, 104(%rbx)\n"
        "    lea 1b(%rip), %rax\n"
        "    sub %rax, %rcx\n"
        "    mov %rcx, 112(%rbx)\n"
        "    pop %rax\n"
        "    mov %rax, 56(%rbx)\n"
        "    pop %rax\n"
        "    sub %rax, %r11\n"
        "    mov %r11, 120(%rbx)\n"
        "    pop %rdi\n"
        "    pop %r15\n    pop %r14\n    pop %r13\n    pop %r12\n    pop %rbp\n    pop %rbx\n"
        "    ret\n");

void calls(unsigned long *state);

// As code that has trapped, and from a site that has been rewritten.
TEST(registers_stay) {
    struct timespec soon = {0, 100000};
    for (unsigned long i = 0; i < 200; i++) {
        unsigned long before[16], after[16];
        for (unsigned long j = 0; j < 16; j++)
            before[j] = 0x1111111111111111 * (j + 1) + i;
        before[0] = i % 2 ? 0 : -(unsigned long)ETIMEDOUT;
        before[1] = (unsigned long)&word;
        before[2] = i % 2 ? FUTEX_WAKE_PRIVATE : FUTEX_WAIT_PRIVATE;
        before[3] = 0x5500000000;
        before[4] = (unsigned long)&soon;
        before[14] = before[15] = 0;
        memcpy(after, before, sizeof before);
        calls(after);
        for (int j = 0; j < 16; j++)
            CHECK_EQ(after[j], before[j]);
    }
}
