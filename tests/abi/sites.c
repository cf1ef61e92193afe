// Call sites that are used often: registers, text and signals are those of the first call, also at the thousandth.
#include "check.h"
#include <sys/ptrace.h>
#include <sys/user.h>
#include <ucontext.h>

#define MANY 300

// getppid by a site of its own: `mov $110, %eax; syscall; ret`.
extern char site[], site_syscall[], site_end[];
__asm__(".pushsection .text\n"
        ".balign 4096\n"
        ".globl site, site_syscall, site_end\n"
        "site: mov $110, %eax\n"
        "site_syscall: syscall\n"
        "site_end: ret\n"
        ".balign 4096\n"
        ".popsection\n");
static const unsigned char SITE[8] = {0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0xc3};

static long (*volatile call_site)(void) = (long (*)(void))site;

static void warm_up(void) {
    long parent = getppid();
    for (int i = 0; i < MANY; i++)
        CHECK_EQ(call_site(), parent);
}

struct regs {
    unsigned long rbx, rbp, rdi, rsi, rdx, r8, r9, r10, r12, r13, r14, r15, flags, rax, rcx, red;
};

// Calls the site with every register set, and gives what they are afterwards.
void call_with(struct regs *r);
__asm__(".pushsection .text\n"
        ".globl call_with\n"
        "call_with:\n"
        "  push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15; push %rdi\n"
        "  mov %rdi, %rax\n"
        "  mov 0(%rax), %rbx; mov 8(%rax), %rbp; mov 16(%rax), %rdi; mov 24(%rax), %rsi\n"
        "  mov 32(%rax), %rdx; mov 40(%rax), %r8; mov 48(%rax), %r9; mov 56(%rax), %r10\n"
        "  mov 64(%rax), %r12; mov 72(%rax), %r13; mov 80(%rax), %r14; mov 88(%rax), %r15\n"
        "  movq $0x5a5a, -100(%rsp)\n"
        "  std; stc\n"
        "  call site\n"
        "  pushfq; cld\n"
        "  mov 8(%rsp), %r11\n"
        "  mov %rbx, 0(%r11); mov %rbp, 8(%r11); mov %rdi, 16(%r11); mov %rsi, 24(%r11)\n"
        "  mov %rdx, 32(%r11); mov %r8, 40(%r11); mov %r9, 48(%r11); mov %r10, 56(%r11)\n"
        "  mov %r12, 64(%r11); mov %r13, 72(%r11); mov %r14, 80(%r11); mov %r15, 88(%r11)\n"
        "  mov %rax, 104(%r11); mov %rcx, 112(%r11)\n"
        "  pop %rcx; mov %rcx, 96(%r11)\n"
        "  mov -100(%rsp), %rcx; mov %rcx, 120(%r11)\n"
        "  pop %rdi; pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx; ret\n"
        ".popsection\n");

TEST(registers_and_flags_are_kept) {
    for (int i = 0; i < MANY; i++) {
        struct regs r, want;
        unsigned long *words = (unsigned long *)&r;
        for (int k = 0; k < 12; k++)
            words[k] = 0x1111111111111111ul * (k + 1) + i;
        want = r;
        call_with(&r);
        CHECK(memcmp(&r, &want, 12 * 8) == 0);
        CHECK_EQ(r.rax, getppid());
        CHECK_EQ(r.rcx, (long)site_end);
        CHECK_EQ(r.flags & 0x401, 0x401);
        CHECK_EQ(r.red, 0x5a5a);
    }
}

TEST(vectors_are_kept) {
    double a = 1.5, b;
    for (int i = 0; i < MANY; i++) {
        __asm__ volatile("movq %1, %%xmm9\n call *%2\n movq %%xmm9, %0"
                         : "=r"(b)
                         : "r"(a), "r"(call_site)
                         : "rax", "rcx", "r11", "xmm9", "memory");
        CHECK(b == a);
    }
}

static void check_text(const void *text) {
    CHECK(memcmp(text, SITE, sizeof SITE) == 0);
}

TEST(text_reads_as_it_was) {
    warm_up();
    unsigned char text[8];
    int memory = OK(open("/proc/self/mem", O_RDONLY));
    CHECK_EQ(pread(memory, text, 8, (off_t)site), 8);
    check_text(text);
    for (int from = 0; from < 8; from++) {
        CHECK_EQ(pread(memory, text, 1, (off_t)site + from), 1);
        CHECK_EQ(text[0], SITE[from]);
    }
    struct iovec local = {text, 8}, remote = {site, 8};
    CHECK_EQ(process_vm_readv(getpid(), &local, 1, &remote, 1, 0), 8);
    check_text(text);
    int ends[2];
    OK(pipe(ends));
    CHECK_EQ(write(ends[1], site, 8), 8);
    CHECK_EQ(read(ends[0], text, 8), 8);
    check_text(text);
    pid_t pid = CHILD(OK(ptrace(PTRACE_TRACEME, 0, 0, 0)); raise(SIGSTOP));
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    errno = 0;
    long word = ptrace(PTRACE_PEEKTEXT, pid, site, 0);
    CHECK_EQ(errno, 0);
    check_text(&word);
    // Once somebody looks at each instruction it is all there.
    OK(ptrace(PTRACE_CONT, pid, 0, 0));
    EXITED(wait_for(pid), 0);
}

TEST(a_jump_to_the_instruction_is_a_call) {
    warm_up();
    for (int i = 0; i < MANY; i++) {
        long pid;
        __asm__ volatile("call *%1" : "=a"(pid) : "r"(site_syscall), "a"(SYS_getpid) : "rcx", "r11", "memory");
        CHECK_EQ(pid, getpid());
    }
    warm_up();
}

static struct user_regs_struct regs_of(pid_t pid) {
    struct user_regs_struct regs;
    OK(ptrace(PTRACE_GETREGS, pid, 0, &regs));
    return regs;
}

static void stopped_by(pid_t pid, int signal) {
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFSTOPPED(status));
    CHECK_EQ(WSTOPSIG(status), signal);
}

TEST(breakpoints_and_steps_at_a_busy_site) {
    int ends[2];
    char go;
    OK(pipe(ends));
    pid_t pid = CHILD({
        warm_up();
        OK(write(ends[1], "x", 1));
        for (;;)
            call_site();
    });
    CHECK_EQ(read(ends[0], &go, 1), 1);
    OK(ptrace(PTRACE_ATTACH, pid, 0, 0));
    stopped_by(pid, SIGSTOP);
    struct user_regs_struct regs = regs_of(pid);
    struct user_fpregs_struct fpregs;
    OK(ptrace(PTRACE_GETFPREGS, pid, 0, &fpregs));
    errno = 0;
    long word = ptrace(PTRACE_PEEKTEXT, pid, site, 0);
    CHECK_EQ(errno, 0);
    check_text(&word);
    OK(ptrace(PTRACE_POKETEXT, pid, site, (word & ~0xffl) | 0xcc));
    OK(ptrace(PTRACE_CONT, pid, 0, 0));
    stopped_by(pid, SIGTRAP);
    regs = regs_of(pid);
    CHECK_EQ(regs.rip, (long)site + 1);
    OK(ptrace(PTRACE_POKETEXT, pid, site, word));
    regs.rip = (long)site;
    OK(ptrace(PTRACE_SETREGS, pid, 0, &regs));
    OK(ptrace(PTRACE_SINGLESTEP, pid, 0, 0));
    stopped_by(pid, SIGTRAP);
    regs = regs_of(pid);
    CHECK_EQ(regs.rip, (long)site_syscall);
    CHECK_EQ(regs.rax, SYS_getppid);
    OK(ptrace(PTRACE_SINGLESTEP, pid, 0, 0));
    stopped_by(pid, SIGTRAP);
    CHECK_EQ(regs_of(pid).rax, getpid());
    for (int i = 0; i < 20; i++) {
        OK(ptrace(PTRACE_SYSCALL, pid, 0, 0));
        stopped_by(pid, SIGTRAP);
        regs = regs_of(pid);
        CHECK_EQ(regs.orig_rax, SYS_getppid);
        CHECK_EQ(regs.rip, (long)site_end);
        OK(ptrace(PTRACE_GETFPREGS, pid, 0, &fpregs));
    }
    OK(ptrace(PTRACE_DETACH, pid, 0, 0));
    OK(kill(pid, SIGKILL));
    KILLED(wait_for(pid), SIGKILL);
}

static volatile long handled, strange;
extern char __executable_start[], etext[];

static void note_place(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    ucontext_t *uc = context;
    unsigned long rip = uc->uc_mcontext.gregs[REG_RIP];
    // The program's own text: it is static, and the clock is not asked for.
    if (rip < (unsigned long)__executable_start || rip >= (unsigned long)etext)
        strange = rip;
    if (rip == (unsigned long)site_end && uc->uc_mcontext.gregs[REG_RAX] != getppid())
        strange = 1;
    handled++;
}

TEST(signals_find_calls_before_or_after) {
    warm_up();
    struct sigaction action = {.sa_sigaction = note_place, .sa_flags = SA_SIGINFO | SA_RESTART};
    OK(sigaction(SIGALRM, &action, NULL));
    struct itimerval often = {{0, 700}, {0, 700}};
    OK(setitimer(ITIMER_REAL, &often, NULL));
    long parent = getppid();
    for (long calls = 0; handled < 200; calls++) {
        CHECK_EQ(call_site(), parent);
        if (strange)
            FAIL("a signal found %#lx", strange);
    }
}

static void note(int signal) {
    (void)signal;
    handled++;
}

TEST(busy_sites_are_interrupted_and_restarted) {
    int ends[2];
    char byte;
    OK(pipe(ends));
    // glibc's one site for all of these.
    for (int i = 0; i < MANY; i++)
        CHECK_EQ(syscall(SYS_getppid), getppid());
    for (int restart = 0; restart < 2; restart++) {
        struct sigaction action = {.sa_handler = note, .sa_flags = restart ? SA_RESTART : 0};
        OK(sigaction(SIGALRM, &action, NULL));
        handled = 0;
        struct itimerval once = {{0, 0}, {0, 20000}};
        OK(setitimer(ITIMER_REAL, &once, NULL));
        if (restart) {
            pid_t pid = CHILD(sleep_ms(100); OK(write(ends[1], "x", 1)));
            CHECK_EQ(syscall(SYS_read, ends[0], &byte, 1), 1);
            EXITED(wait_for(pid), 0);
        } else {
            ERR(syscall(SYS_read, ends[0], &byte, 1), EINTR);
        }
        CHECK_EQ(handled, 1);
    }
    // A call with six arguments, of which the last is on the stack; and a fault in one of them.
    char *page = (char *)OK(syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    page[0] = 1;
    ERR(syscall(SYS_pipe2, page + 4096 * 1000, 0), EFAULT);
    ERR(syscall(100000), ENOSYS);
}

TEST(text_can_be_rewritten) {
    warm_up();
    OK(mprotect(site, 4096, PROT_READ | PROT_WRITE | PROT_EXEC));
    check_text(site);
    site[1] = SYS_getpid;
    CHECK_EQ(call_site(), getpid());
    OK(mprotect(site, 4096, PROT_READ | PROT_EXEC));
    for (int i = 0; i < MANY; i++)
        CHECK_EQ(call_site(), getpid());
    int memory = OK(open("/proc/self/mem", O_RDWR));
    CHECK_EQ(pwrite(memory, "\x66", 1, (off_t)site + 1), 1);
    for (int i = 0; i < MANY; i++)
        CHECK_EQ(call_site(), getuid());
    // Elsewhere it is as it is here.
    char *moved = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(moved != MAP_FAILED);
    CHECK(mremap(site, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, moved) == moved);
    CHECK_EQ(((long (*)(void))moved)(), getuid());
}

static void *calls(void *parent) {
    for (int i = 0; i < 4 * MANY; i++)
        CHECK_EQ(call_site(), (long)parent);
    return NULL;
}

TEST(threads_and_children_share_busy_sites) {
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, calls, (void *)(long)getppid()), 0);
    pid_t self = getpid();
    for (int i = 0; i < 10; i++) {
        pid_t pid = CHILD({
            for (int k = 0; k < MANY; k++)
                CHECK_EQ(call_site(), self);
        });
        EXITED(wait_for(pid), 0);
    }
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    pid_t pid = vfork();
    if (!pid) {
        if (call_site() != self)
            _exit(1);
        _exit(0);
    }
    EXITED(wait_for(pid), 0);
}

TEST(a_segment_of_the_programs_own) {
    static unsigned long words[16];
    warm_up();
    words[1] = 42;
    OK(syscall(SYS_arch_prctl, 0x1001, words)); // ARCH_SET_GS
    for (int i = 0; i < MANY; i++) {
        CHECK_EQ(call_site(), getppid());
        unsigned long word;
        __asm__ volatile("mov %%gs:8, %0" : "=r"(word));
        CHECK_EQ(word, 42);
    }
    OK(syscall(SYS_arch_prctl, 0x1001, 0));
    warm_up();
    unsigned long base = 1;
    OK(syscall(SYS_arch_prctl, 0x1004, &base));
    CHECK_EQ(base, 0);
}
