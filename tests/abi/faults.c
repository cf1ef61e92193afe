// Signals from the hardware, their siginfo and context, alternate stacks, sigreturn, register state.
#include "check.h"
#include <immintrin.h>
#include <setjmp.h>
#include <ucontext.h>

static sigjmp_buf back;
static siginfo_t info;
static volatile sig_atomic_t seen;
static volatile greg_t trap_number, error_code;

static void jump(int signal, siginfo_t *i, void *context) {
    seen = signal;
    info = *i;
    ucontext_t *c = context;
    trap_number = c->uc_mcontext.gregs[REG_TRAPNO];
    error_code = c->uc_mcontext.gregs[REG_ERR];
    siglongjmp(back, 1);
}

static void handle(int signal, int flags) {
    struct sigaction action = {.sa_sigaction = jump, .sa_flags = SA_SIGINFO | flags};
    OK(sigaction(signal, &action, NULL));
}

#define FAULT(SIGNAL, ...)                                                      \
    do {                                                                        \
        seen = 0;                                                               \
        handle(SIGNAL, 0);                                                      \
        if (!sigsetjmp(back, 1)) {                                              \
            __VA_ARGS__;                                                        \
        }                                                                       \
        CHECK_EQ(seen, SIGNAL);                                                 \
    } while (0)

TEST(null_read) {
    FAULT(SIGSEGV, (void)*(volatile int *)NULL);
    CHECK_EQ(info.si_code, SEGV_MAPERR);
    CHECK(info.si_addr == NULL);
    CHECK_EQ(trap_number, 14);
    CHECK_EQ(error_code, 4);
}

TEST(unmapped_write) {
    char *page = OK(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    OK(munmap(page, 4096));
    FAULT(SIGSEGV, *(volatile char *)(page + 123) = 1);
    CHECK_EQ(info.si_code, SEGV_MAPERR);
    CHECK(info.si_addr == page + 123);
    CHECK_EQ(error_code, 6);
}

TEST(read_only_write) {
    char *page = OK(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    (void)*(volatile char *)page;
    FAULT(SIGSEGV, *(volatile char *)(page + 5) = 1);
    CHECK_EQ(info.si_code, SEGV_ACCERR);
    CHECK(info.si_addr == page + 5);
    CHECK_EQ(error_code, 7);
}

TEST(prot_none_read) {
    char *page = OK(mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    FAULT(SIGSEGV, (void)*(volatile char *)page);
    CHECK_EQ(info.si_code, SEGV_ACCERR);
}

TEST(execution_of_data) {
    char *page = OK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    page[0] = 0xc3;
    FAULT(SIGSEGV, ((void (*)(void))page)());
    CHECK_EQ(info.si_code, SEGV_ACCERR);
    CHECK(info.si_addr == page);
}

TEST(non_canonical_address) {
    FAULT(SIGSEGV, (void)*(volatile char *)0x8000000000000000);
    CHECK_EQ(info.si_code, SI_KERNEL);
    CHECK(info.si_addr == NULL);
    CHECK_EQ(trap_number, 13);
}

TEST(beyond_end_of_file) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    OK(ftruncate(fd, 100));
    char *page = OK(mmap(NULL, 8192, PROT_READ, MAP_SHARED, fd, 0));
    (void)*(volatile char *)(page + 4095);
    FAULT(SIGBUS, (void)*(volatile char *)(page + 4096));
    CHECK_EQ(info.si_code, BUS_ADRERR);
    CHECK(info.si_addr == page + 4096);
}

TEST(division_by_zero) {
    FAULT(SIGFPE, __asm__ volatile("xor %%ecx, %%ecx; idiv %%ecx" ::: "eax", "ecx", "edx", "cc"));
    CHECK_EQ(info.si_code, FPE_INTDIV);
    CHECK(info.si_addr != NULL);
    CHECK_EQ(trap_number, 0);
}

TEST(illegal_instruction) {
    FAULT(SIGILL, __asm__ volatile("ud2"));
    CHECK_EQ(info.si_code, ILL_ILLOPN);
    CHECK_EQ(trap_number, 6);
}

TEST(privileged_instruction) {
    FAULT(SIGSEGV, __asm__ volatile("hlt"));
    CHECK_EQ(info.si_code, SI_KERNEL);
}

TEST(breakpoint) {
    FAULT(SIGTRAP, __asm__ volatile("int3"));
    CHECK_EQ(info.si_code, SI_KERNEL);
    CHECK_EQ(trap_number, 3);
}

TEST(single_step) {
    FAULT(SIGTRAP, __asm__ volatile("pushf; orl $0x100, (%%rsp); popf; nop; nop" ::: "memory", "cc"));
    CHECK_EQ(info.si_code, TRAP_TRACE);
    CHECK_EQ(trap_number, 1);
}

TEST(sse_exception) {
    unsigned mxcsr = _mm_getcsr();
    volatile double zero = 0, one = 1;
    FAULT(SIGFPE, _mm_setcsr(mxcsr & ~_MM_MASK_DIV_ZERO); one = one / zero);
    CHECK_EQ(info.si_code, FPE_FLTDIV);
    _mm_setcsr(mxcsr);
}

TEST(blocked_fault_kills) {
    pid_t pid = CHILD({
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        handle(SIGSEGV, 0);
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGSEGV);
        sigprocmask(SIG_BLOCK, &set, NULL);
        (void)*(volatile int *)NULL;
    });
    KILLED(wait_for(pid), SIGSEGV);
}

TEST(ignored_fault_kills) {
    pid_t pid = CHILD(signal(SIGSEGV, SIG_IGN); (void)*(volatile int *)NULL);
    KILLED(wait_for(pid), SIGSEGV);
}

static char *protected_page;
static volatile int repairs;

static void repair(int signal, siginfo_t *i, void *context) {
    (void)signal, (void)i, (void)context;
    repairs++;
    mprotect(protected_page, 4096, PROT_READ | PROT_WRITE);
}

TEST(handler_repairs_and_returns) {
    protected_page = OK(mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    struct sigaction action = {.sa_sigaction = repair, .sa_flags = SA_SIGINFO};
    OK(sigaction(SIGSEGV, &action, NULL));
    protected_page[7] = 'x';
    CHECK_EQ(protected_page[7], 'x');
    CHECK_EQ(repairs, 1);
}

static void skip_instruction(int signal, siginfo_t *i, void *context) {
    (void)signal, (void)i;
    ucontext_t *c = context;
    c->uc_mcontext.gregs[REG_RIP] += 2; // ud2
    c->uc_mcontext.gregs[REG_RAX] = 77;
}

TEST(handler_changes_registers) {
    struct sigaction action = {.sa_sigaction = skip_instruction, .sa_flags = SA_SIGINFO};
    OK(sigaction(SIGILL, &action, NULL));
    long value;
    __asm__ volatile("ud2" : "=a"(value));
    CHECK_EQ(value, 77);
}

static stack_t alternate;
static volatile char *volatile handler_stack;
static stack_t stack_in_context;
static stack_t stack_in_handler;

static void note_stack(int signal, siginfo_t *i, void *context) {
    (void)signal, (void)i;
    char here;
    handler_stack = &here;
    stack_in_context = ((ucontext_t *)context)->uc_stack;
    sigaltstack(NULL, &stack_in_handler);
}

static int on_alternate(volatile char *p) {
    return p >= (char *)alternate.ss_sp && p < (char *)alternate.ss_sp + alternate.ss_size;
}

TEST(altstack_is_used_with_sa_onstack) {
    alternate = (stack_t){.ss_sp = malloc(65536), .ss_size = 65536};
    OK(sigaltstack(&alternate, NULL));
    struct sigaction action = {.sa_sigaction = note_stack, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    OK(sigaction(SIGUSR1, &action, NULL));
    raise(SIGUSR1);
    CHECK(on_alternate(handler_stack));
    CHECK(stack_in_context.ss_sp == alternate.ss_sp);
    CHECK_EQ(stack_in_handler.ss_flags, SS_ONSTACK);
    action.sa_flags = SA_SIGINFO;
    OK(sigaction(SIGUSR1, &action, NULL));
    raise(SIGUSR1);
    CHECK(!on_alternate(handler_stack));
    stack_t now;
    OK(sigaltstack(NULL, &now));
    CHECK_EQ(now.ss_flags, 0);
}

TEST(altstack_errors) {
    stack_t small = {.ss_sp = malloc(4096), .ss_size = 100};
    ERR(sigaltstack(&small, NULL), ENOMEM);
    small.ss_flags = 0x40;
    small.ss_size = 65536;
    ERR(sigaltstack(&small, NULL), EINVAL);
    ERR(syscall(SYS_sigaltstack, BAD_ADDRESS, NULL), EFAULT);
    stack_t off = {.ss_flags = SS_DISABLE};
    OK(sigaltstack(&off, NULL));
}

static int change_result, change_errno;

static void change_stack(int signal) {
    (void)signal;
    stack_t other = {.ss_sp = alternate.ss_sp, .ss_size = 32768};
    change_result = sigaltstack(&other, NULL);
    change_errno = errno;
}

TEST(altstack_in_use_cannot_change) {
    alternate = (stack_t){.ss_sp = malloc(65536), .ss_size = 65536};
    OK(sigaltstack(&alternate, NULL));
    struct sigaction action = {.sa_handler = change_stack, .sa_flags = SA_ONSTACK};
    OK(sigaction(SIGUSR1, &action, NULL));
    raise(SIGUSR1);
    CHECK_EQ(change_result, -1);
    CHECK_EQ(change_errno, EPERM);
}

TEST(altstack_autodisarm) {
    alternate = (stack_t){.ss_sp = malloc(65536), .ss_size = 65536, .ss_flags = (int)(1U << 31)};
    OK(sigaltstack(&alternate, NULL));
    struct sigaction action = {.sa_sigaction = note_stack, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    OK(sigaction(SIGUSR1, &action, NULL));
    raise(SIGUSR1);
    CHECK(on_alternate(handler_stack));
    CHECK_EQ(stack_in_handler.ss_flags, SS_DISABLE);
    stack_t now;
    OK(sigaltstack(NULL, &now));
    CHECK_EQ(now.ss_flags, (int)(1U << 31)); // sigreturn arms it again
}

static int recurse(int depth) {
    volatile char waste[4096];
    waste[0] = depth;
    return depth < 0 ? 0 : recurse(depth + 1) + waste[0];
}

TEST(stack_overflow_on_the_altstack) {
    struct rlimit limit = {1 << 20, RLIM_INFINITY};
    OK(setrlimit(RLIMIT_STACK, &limit));
    alternate = (stack_t){.ss_sp = malloc(65536), .ss_size = 65536};
    OK(sigaltstack(&alternate, NULL));
    handle(SIGSEGV, SA_ONSTACK);
    if (!sigsetjmp(back, 1))
        recurse(0);
    CHECK_EQ(seen, SIGSEGV);
    CHECK_EQ(info.si_code, SEGV_MAPERR);
}

TEST(stack_overflow_without_altstack_kills) {
    pid_t pid = CHILD({
        struct rlimit limit = {1 << 20, RLIM_INFINITY};
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        OK(setrlimit(RLIMIT_STACK, &limit));
        handle(SIGSEGV, 0);
        _exit(recurse(0));
    });
    KILLED(wait_for(pid), SIGSEGV);
}

static void count_one(int signal) {
    (void)signal;
    __asm__ volatile("pxor %%xmm0, %%xmm0; pxor %%xmm7, %%xmm7; pxor %%xmm15, %%xmm15" ::: "xmm0", "xmm7", "xmm15");
    seen++;
}

TEST(vector_registers_survive_a_handler) {
    signal(SIGUSR1, count_one);
    long pid = getpid(), value0, value7, value15;
    __asm__ volatile("movq %[a], %%xmm0; movq %[a], %%xmm7; movq %[a], %%xmm15\n"
                     "mov $62, %%eax; mov $10, %%esi; syscall\n" // kill(pid, SIGUSR1)
                     "movq %%xmm0, %[x]; movq %%xmm7, %[y]; movq %%xmm15, %[z]"
                     : [x] "=&r"(value0), [y] "=&r"(value7), [z] "=&r"(value15)
                     : [a] "r"(0x123456789abcdefL), "D"(pid)
                     : "rax", "rsi", "rcx", "r11", "memory", "xmm0", "xmm7", "xmm15");
    CHECK_EQ(seen, 1);
    CHECK_EQ(value0, 0x123456789abcdefL);
    CHECK_EQ(value7, 0x123456789abcdefL);
    CHECK_EQ(value15, 0x123456789abcdefL);
}

TEST(registers_survive_a_system_call) {
    long b, d, s8, s9, s10, s12, s13, s14, s15;
    register long r8 __asm__("r8") = 8, r9 __asm__("r9") = 9, r10 __asm__("r10") = 10;
    register long r12 __asm__("r12") = 12, r13 __asm__("r13") = 13, r14 __asm__("r14") = 14, r15 __asm__("r15") = 15;
    long result = 39; // getpid
    b = 3, d = 4;
    __asm__ volatile("syscall"
                     : "+a"(result), "+b"(b), "+d"(d), "+r"(r8), "+r"(r9), "+r"(r10), "+r"(r12), "+r"(r13), "+r"(r14), "+r"(r15)
                     :
                     : "rcx", "r11", "memory");
    s8 = r8, s9 = r9, s10 = r10, s12 = r12, s13 = r13, s14 = r14, s15 = r15;
    CHECK_EQ(result, getpid());
    CHECK_EQ(b, 3);
    CHECK_EQ(d, 4);
    CHECK_EQ(s8, 8);
    CHECK_EQ(s9, 9);
    CHECK_EQ(s10, 10);
    CHECK_EQ(s12, 12);
    CHECK_EQ(s13, 13);
    CHECK_EQ(s14, 14);
    CHECK_EQ(s15, 15);
}

TEST(system_call_sets_rcx_and_r11) {
    long rcx, r11, rip;
    __asm__ volatile("mov $39, %%eax; syscall; 1: lea 1b(%%rip), %%rdx"
                     : "=c"(rcx), "=d"(rip)
                     :
                     : "rax", "r11", "memory");
    (void)r11;
    CHECK_EQ(rcx, rip);
}

TEST(flags_survive_a_system_call) {
    unsigned long flags;
    __asm__ volatile("std; stc; mov $39, %%eax; syscall; pushf; pop %0; cld"
                     : "=r"(flags)
                     :
                     : "rax", "rcx", "r11", "memory", "cc");
    CHECK_EQ(flags & 0x401, 0x401);
}

TEST(upper_half_of_the_number_is_enosys) {
    ERR(syscall(100000), ENOSYS);
    ERR(syscall(-1), ENOSYS);
    ERR(syscall(0x40000000L + 39), ENOSYS); // x32, which this kernel may lack
}

TEST(red_zone_survives_a_handler) {
    signal(SIGUSR1, count_one);
    long pid = getpid(), value;
    __asm__ volatile("movq %[a], -16(%%rsp)\n"
                     "mov $62, %%eax; mov $10, %%esi; syscall\n"
                     "movq -16(%%rsp), %[x]"
                     : [x] "=&r"(value)
                     : [a] "r"(0x55aa55aa55aaL), "D"(pid)
                     : "rax", "rsi", "rcx", "r11", "memory");
    CHECK_EQ(seen, 1);
    CHECK_EQ(value, 0x55aa55aa55aaL);
}

static void spoil_stack(int signal, siginfo_t *i, void *context) {
    (void)signal, (void)i;
    ucontext_t *c = context;
    c->uc_mcontext.fpregs = (void *)0x1000;
}

TEST(sigreturn_with_a_bad_frame_kills) {
    pid_t pid = CHILD({
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        struct sigaction action = {.sa_sigaction = spoil_stack, .sa_flags = SA_SIGINFO};
        OK(sigaction(SIGUSR1, &action, NULL));
        raise(SIGUSR1);
    });
    KILLED(wait_for(pid), SIGSEGV);
}

static void set_mask_in_context(int signal, siginfo_t *i, void *context) {
    (void)signal, (void)i;
    sigaddset(&((ucontext_t *)context)->uc_sigmask, SIGUSR2);
}

TEST(sigreturn_restores_the_mask_of_the_frame) {
    struct sigaction action = {.sa_sigaction = set_mask_in_context, .sa_flags = SA_SIGINFO};
    OK(sigaction(SIGUSR1, &action, NULL));
    raise(SIGUSR1);
    sigset_t now;
    sigprocmask(SIG_BLOCK, NULL, &now);
    CHECK(sigismember(&now, SIGUSR2) == 1);
}

TEST(vdso_clock_agrees_with_the_call) {
    for (int i = 0; i < 100; i++) {
        struct timespec a, b, c;
        clock_gettime(CLOCK_MONOTONIC, &a);
        OK(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &b));
        clock_gettime(CLOCK_MONOTONIC, &c);
        long long x = a.tv_sec * 1000000000LL + a.tv_nsec, y = b.tv_sec * 1000000000LL + b.tv_nsec,
                  z = c.tv_sec * 1000000000LL + c.tv_nsec;
        CHECK(x <= y && y <= z);
    }
}
