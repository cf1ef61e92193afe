// Handlers that begin where a system call ends: at a site that is called so often that it may be rewritten, the registers and the extended
// state that a handler finds and gives back, several at once, stacks that can't take a frame, and signals from all sides meanwhile.
#include "check.h"
#include <immintrin.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>

// So often that call sites are rewritten on the way.
enum { TIMES = 60 };

struct kept {
    unsigned long rbx, rbp, r8, r9, r10, r12, r13, r14, r15, rsp;
};

// tgkill(pid, tid, signal) with known values in all other registers: gives what it gives, the registers after it and xmm13 to xmm15.
long raise_with(long pid, long tid, long signal, const unsigned long xmm[6], struct kept *after, unsigned long out[6]);
__asm__(".text\n.globl raise_with\nraise_with:\n"
        "    push %rbx\n    push %rbp\n    push %r12\n    push %r13\n    push %r14\n    push %r15\n"
        "    push %r8\n    push %r9\n"
        "    movups (%rcx), %xmm13\n    movups 16(%rcx), %xmm14\n    movups 32(%rcx), %xmm15\n"
        "    mov $0xb0b, %ebx\n    mov $0xb1b, %ebp\n    mov $0x808, %r8d\n    mov $0x909, %r9d\n    mov $0x1010, %r10d\n"
        "    mov $0x1212, %r12d\n    mov $0x1313, %r13d\n    mov $0x1414, %r14d\n    mov $0x1515, %r15d\n"
        "    stc\n"
        ".globl raise_site\nraise_site:\n"
        "    mov $234, %eax\n    syscall\n"
        ".globl raised\nraised:\n"
        "    mov 8(%rsp), %rcx\n"
        "    jc 1f\n    xor %ecx, %ecx\n1:\n"
        "    mov %rbx, (%rcx)\n    mov %rbp, 8(%rcx)\n    mov %r8, 16(%rcx)\n    mov %r9, 24(%rcx)\n    mov %r10, 32(%rcx)\n"
        "    mov %r12, 40(%rcx)\n    mov %r13, 48(%rcx)\n    mov %r14, 56(%rcx)\n    mov %r15, 64(%rcx)\n    mov %rsp, 72(%rcx)\n"
        "    mov (%rsp), %rcx\n"
        "    movups %xmm13, (%rcx)\n    movups %xmm14, 16(%rcx)\n    movups %xmm15, 32(%rcx)\n"
        "    pop %r9\n    pop %r8\n    pop %r15\n    pop %r14\n    pop %r13\n    pop %r12\n    pop %rbp\n    pop %rbx\n    ret\n");
extern char raised[];

static const unsigned long STATE[6] = {11, 12, 13, 14, 15, 16};

// Raises a signal by that site; checks that the call comes back as if nothing had been.
static void raise_and_check(int signal) {
    struct kept k = {0};
    unsigned long out[6] = {0};
    CHECK_EQ(raise_with(getpid(), gettid(), signal, STATE, &k, out), 0);
    CHECK(k.rbx == 0xb0b && k.rbp == 0xb1b && k.r8 == 0x808 && k.r9 == 0x909 && k.r10 == 0x1010);
    CHECK(k.r12 == 0x1212 && k.r13 == 0x1313 && k.r14 == 0x1414 && k.r15 == 0x1515);
    CHECK(!memcmp(out, STATE, sizeof out));
}

static volatile int calls;
static void (*volatile then)(ucontext_t *);

static void on_signal(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    calls++;
    if (then)
        then(context);
}

static void handle(int signal, int flags) {
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | flags};
    OK(sigaction(signal, &action, NULL));
}

static void look(ucontext_t *context) {
    greg_t *r = context->uc_mcontext.gregs;
    CHECK_EQ(r[REG_RIP], (greg_t)raised);
    CHECK_EQ(r[REG_RAX], 0);
    CHECK_EQ(r[REG_RBX], 0xb0b);
    CHECK_EQ(r[REG_RBP], 0xb1b);
    CHECK(r[REG_R8] == 0x808 && r[REG_R9] == 0x909 && r[REG_R10] == 0x1010);
    CHECK(r[REG_R12] == 0x1212 && r[REG_R13] == 0x1313 && r[REG_R14] == 0x1414 && r[REG_R15] == 0x1515);
    CHECK_EQ(r[REG_RDI], getpid());
    CHECK_EQ(r[REG_RSI], gettid());
    CHECK_EQ(r[REG_RDX], SIGUSR1);
    // As `syscall` leaves them.
    CHECK_EQ(r[REG_RCX], (greg_t)raised);
    CHECK_EQ(r[REG_R11], r[REG_EFL]);
    CHECK_EQ(r[REG_EFL] & 1, 1);
    CHECK(!memcmp(context->uc_mcontext.fpregs->_xmm[13].element, STATE, sizeof STATE));
    // Aligned as a function's that has just been called, and beyond the red zone.
    CHECK_EQ((unsigned long)context % 16, 0);
    CHECK(r[REG_RSP] - 128 >= (long)((char *)context->uc_mcontext.fpregs + 512));
}

TEST(a_call_that_raises_shows_all_of_its_state) {
    handle(SIGUSR1, 0);
    then = look;
    for (int i = 0; i < TIMES; i++)
        raise_and_check(SIGUSR1);
    CHECK_EQ(calls, TIMES);
}

// Two at once: the second one's frame has the first instruction of the first one's handler.
static volatile long second_at;

static void first(int signal) {
    (void)signal;
    calls++;
}

static void second(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    ucontext_t *c = context;
    second_at = c->uc_mcontext.gregs[REG_RIP];
    CHECK_EQ(c->uc_mcontext.fpregs->mxcsr, 0x1f80);
    unsigned long zero[6] = {0};
    CHECK(!memcmp(c->uc_mcontext.fpregs->_xmm[13].element, zero, sizeof zero));
    calls++;
}

TEST(a_handler_is_interrupted_before_its_first_instruction) {
    OK(sigaction(SIGUSR1, &(struct sigaction){.sa_handler = first}, NULL));
    OK(sigaction(SIGUSR2, &(struct sigaction){.sa_sigaction = second, .sa_flags = SA_SIGINFO}, NULL));
    sigset_t both, old;
    sigemptyset(&both);
    sigaddset(&both, SIGUSR1);
    sigaddset(&both, SIGUSR2);
    for (int i = 0; i < TIMES; i++) {
        calls = 0;
        second_at = 0;
        OK(sigprocmask(SIG_BLOCK, &both, &old));
        raise(SIGUSR1);
        raise(SIGUSR2);
        CHECK_EQ(calls, 0);
        OK(sigprocmask(SIG_SETMASK, &old, NULL));
        CHECK_EQ(calls, 2);
        CHECK_EQ(second_at, (long)first);
        // With the two the other way about, and a site that keeps its state.
        raise_and_check(SIGUSR1);
    }
}

// What a handler writes to the frame counts, also where the processor says that those registers are as at its start.
static void write_xmm(ucontext_t *context) { context->uc_mcontext.fpregs->_xmm[15].element[0] = 77; }

static void outer(int signal) {
    (void)signal;
    long result = SYS_tgkill, pid = getpid(), tid = gettid(), number = SIGUSR1;
    unsigned out[4];
    __asm__ volatile("syscall\nmovups %%xmm15, %1"
                     : "+a"(result), "=m"(out)
                     : "D"(pid), "S"(tid), "d"(number)
                     : "xmm15", "rcx", "r11", "memory");
    CHECK_EQ(out[0], 77);
    raise_and_check(SIGWINCH);
}

TEST(a_handler_gives_registers_that_were_not_in_use) {
    handle(SIGUSR1, 0);
    then = write_xmm;
    OK(sigaction(SIGUSR2, &(struct sigaction){.sa_handler = outer}, NULL));
    for (int i = 0; i < TIMES; i++)
        raise_and_check(SIGUSR2);
    CHECK_EQ(calls, TIMES);
}

// A stack that is in a file that has become shorter: nobody can write a frame there.
static char *cut_stack(void) {
    int fd = memfd_create("stack", 0);
    OK(fd);
    OK(ftruncate(fd, 64 << 10));
    char *at = mmap(NULL, 64 << 10, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(at != MAP_FAILED);
    at[0] = at[(64 << 10) - 1] = 1;
    OK(ftruncate(fd, 0));
    return at;
}

static sigjmp_buf back;
static int code;

static void leave(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    code = info->si_code;
    siglongjmp(back, 1);
}

static void raise_often(void) {
    for (int i = 0; i < TIMES; i++)
        raise_and_check(SIGUSR1);
}

TEST(a_stack_that_takes_no_frame_is_a_fault) {
    for (int kind = 0; kind < 3; kind++) {
        pid_t child = CHILD({
            handle(SIGUSR1, SA_ONSTACK);
            raise_often();
            char *bad = kind == 0   ? cut_stack()
                        : kind == 1 ? mmap(NULL, 64 << 10, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                                    : mmap(NULL, 64 << 10, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            OK(sigaltstack(&(stack_t){.ss_sp = bad, .ss_size = 64 << 10}, NULL));
            raise_and_check(SIGUSR1);
        });
        KILLED(wait_for(child), SIGSEGV);
    }
}

TEST(the_fault_can_be_handled_where_there_is_a_stack) {
    OK(sigaction(SIGSEGV, &(struct sigaction){.sa_sigaction = leave, .sa_flags = SA_SIGINFO}, NULL));
    handle(SIGUSR1, SA_ONSTACK);
    raise_often();
    char *bad = cut_stack();
    OK(sigaltstack(&(stack_t){.ss_sp = bad, .ss_size = 64 << 10}, NULL));
    for (int i = 0; i < TIMES; i++) {
        if (sigsetjmp(back, 1) == 0) {
            raise_and_check(SIGUSR1);
            CHECK(!"came back");
        }
        CHECK_EQ(code, 0x80); // SI_KERNEL
    }
    CHECK_EQ(calls, TIMES);
    OK(sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL));
    raise_and_check(SIGUSR1);
    CHECK_EQ(calls, TIMES + 1);
}

TEST(a_handler_that_is_nowhere_is_a_fault) {
    static const unsigned long nowhere[] = {0x10, 0x8000000000000000, 0xffffffffff600001, 0x7ffffffff000};
    for (unsigned i = 0; i < sizeof nowhere / sizeof nowhere[0]; i++) {
        pid_t child = CHILD({
            handle(SIGUSR1, 0);
            raise_often();
            struct sigaction action;
            OK(sigaction(SIGUSR1, NULL, &action));
            action.sa_handler = (void (*)(int))nowhere[i];
            OK(sigaction(SIGUSR1, &action, NULL));
            raise_and_check(SIGUSR1);
        });
        KILLED(wait_for(child), SIGSEGV);
    }
}

// A stack that another thread takes away and gives back all the time: each raise is handled, or the process ends by a fault.
static char *shaken;
static volatile int shakes;

static void *shake(void *unused) {
    (void)unused;
    while (shakes) {
        mprotect(shaken, 64 << 10, PROT_NONE);
        mprotect(shaken, 64 << 10, PROT_READ | PROT_WRITE);
    }
    return NULL;
}

TEST(a_stack_may_go_at_any_time) {
    for (int round = 0; round < 20; round++) {
        pid_t child = CHILD({
            handle(SIGUSR1, SA_ONSTACK);
            raise_often();
            shaken = mmap(NULL, 64 << 10, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            CHECK(shaken != MAP_FAILED);
            OK(sigaltstack(&(stack_t){.ss_sp = shaken, .ss_size = 64 << 10}, NULL));
            shakes = 1;
            pthread_t t;
            CHECK_EQ(pthread_create(&t, NULL, shake, NULL), 0);
            for (int i = 0; i < 300; i++)
                raise_and_check(SIGUSR1);
            CHECK_EQ(calls, TIMES + 300);
        });
        int status = wait_for(child);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSEGV)
            EXITED(status, 0);
    }
}

// Signals of other threads and of a timer, while a thread raises its own: none is lost, and no state is.
enum { SENT = 3000 };
static volatile int queued, ticks, done;
static pthread_t raiser;

static void count_queued(int signal) {
    (void)signal;
    queued++;
}

static void count_tick(int signal) {
    (void)signal;
    ticks++;
}

static void *send_queued(void *unused) {
    (void)unused;
    for (int i = 0; i < SENT; i++) {
        while (pthread_sigqueue(raiser, SIGRTMIN, (union sigval){0}) != 0)
            sched_yield();
        if (i % 16 == 0)
            sched_yield();
    }
    done = 1;
    return NULL;
}

TEST(signals_come_from_all_sides) {
    raiser = pthread_self();
    handle(SIGUSR1, 0);
    OK(sigaction(SIGRTMIN, &(struct sigaction){.sa_handler = count_queued, .sa_flags = SA_RESTART}, NULL));
    OK(sigaction(SIGALRM, &(struct sigaction){.sa_handler = count_tick, .sa_flags = SA_RESTART}, NULL));
    sigset_t own, old;
    sigemptyset(&own);
    sigaddset(&own, SIGALRM);
    OK(sigprocmask(SIG_BLOCK, &own, &old));
    pthread_t t;
    CHECK_EQ(pthread_create(&t, NULL, send_queued, NULL), 0);
    OK(sigprocmask(SIG_SETMASK, &old, NULL));
    OK(setitimer(ITIMER_REAL, &(struct itimerval){{0, 300}, {0, 300}}, NULL));
    int made = 0;
    while (!done || made < TIMES) {
        raise_and_check(SIGUSR1);
        made++;
    }
    OK(setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 0}}, NULL));
    pthread_join(t, NULL);
    CHECK_EQ(calls, made);
    EVENTUALLY(queued == SENT);
    CHECK(ticks > 0);
}
