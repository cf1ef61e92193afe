// Call sites that are used often: registers, text and signals are those of the first call, also at the thousandth.
#include "check.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
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

// A call whose number comes from elsewhere: `syscall; ret`, and what Go's linker has between functions.
extern char short_site[], short_end[], short_padding[], short_last[];
__asm__(".pushsection .text\n"
        ".balign 4096\n"
        ".globl short_site, short_end, short_padding, short_last\n"
        "short_site: syscall\n"
        "short_end: ret\n"
        "short_padding: .fill 29, 1, 0xcc\n"
        "short_last: ret\n"
        ".balign 4096\n"
        ".popsection\n");

static long short_call(long number) {
    __asm__ volatile("call short_site" : "+a"(number) : : "rcx", "r11", "memory");
    return number;
}

static void warm_up_short(void) {
    for (int i = 0; i < MANY; i++) {
        CHECK_EQ(short_call(SYS_getppid), getppid());
        CHECK_EQ(short_call(SYS_getpid), getpid());
        CHECK_EQ(short_call(1 << 20), -ENOSYS);
    }
}

TEST(short_sites_read_as_they_were) {
    unsigned char want[32] = {0x0f, 0x05, 0xc3}, text[32];
    memset(want + 3, 0xcc, 29);
    warm_up_short();
    int memory = OK(open("/proc/self/mem", O_RDWR));
    CHECK_EQ(pread(memory, text, 32, (off_t)short_site), 32);
    CHECK(memcmp(text, want, 32) == 0);
    for (int i = 0; i < 32; i++) {
        CHECK_EQ(pread(memory, text, 1, (off_t)short_site + i), 1);
        CHECK_EQ(text[0], want[i]);
    }
    // What is written stays, and the call is made whatever becomes of the bytes between functions.
    for (int i = 31; i >= 3; i--) {
        CHECK_EQ(pwrite(memory, "\xf4", 1, (off_t)short_site + i), 1);
        warm_up_short();
        CHECK_EQ(pread(memory, text, 32, (off_t)short_site), 32);
        want[i] = 0xf4;
        CHECK(memcmp(text, want, 32) == 0);
    }
    CHECK_EQ(pwrite(memory, "\x90\x90", 2, (off_t)short_site), 2);
    CHECK_EQ(short_call(SYS_getppid), SYS_getppid);
}

static void note_short_place(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    ucontext_t *uc = context;
    greg_t *regs = uc->uc_mcontext.gregs;
    if (regs[REG_RIP] >= (long)short_padding && regs[REG_RIP] < (long)short_last)
        strange = regs[REG_RIP];
    if (regs[REG_RIP] < (long)__executable_start || regs[REG_RIP] >= (long)etext)
        strange = regs[REG_RIP];
    if (regs[REG_RIP] == (long)short_site && regs[REG_RAX] != SYS_getppid)
        strange = 1;
    if (regs[REG_RIP] == (long)short_end && regs[REG_RAX] != getppid())
        strange = 2;
    handled++;
}

TEST(signals_find_short_calls_before_or_after) {
    warm_up_short();
    struct sigaction action = {.sa_sigaction = note_short_place, .sa_flags = SA_SIGINFO | SA_RESTART};
    OK(sigaction(SIGALRM, &action, NULL));
    struct itimerval often = {{0, 700}, {0, 700}};
    OK(setitimer(ITIMER_REAL, &often, NULL));
    long parent = getppid();
    while (handled < 200) {
        CHECK_EQ(short_call(SYS_getppid), parent);
        if (strange)
            FAIL("a signal found %#lx", strange);
    }
}

TEST(steps_at_a_busy_short_site) {
    int ends[2];
    char go;
    OK(pipe(ends));
    pid_t pid = CHILD({
        warm_up_short();
        OK(write(ends[1], "x", 1));
        for (;;)
            short_call(SYS_getppid);
    });
    CHECK_EQ(read(ends[0], &go, 1), 1);
    OK(ptrace(PTRACE_ATTACH, pid, 0, 0));
    stopped_by(pid, SIGSTOP);
    for (int seen = 0; seen < 3;) {
        OK(ptrace(PTRACE_SINGLESTEP, pid, 0, 0));
        stopped_by(pid, SIGTRAP);
        struct user_regs_struct regs = regs_of(pid);
        CHECK(regs.rip < (unsigned long)short_padding || regs.rip >= (unsigned long)short_last);
        if (regs.rip != (unsigned long)short_site)
            continue;
        OK(ptrace(PTRACE_SINGLESTEP, pid, 0, 0));
        stopped_by(pid, SIGTRAP);
        CHECK_EQ(regs_of(pid).rax, getpid());
        seen++;
    }
    OK(kill(pid, SIGKILL));
    KILLED(wait_for(pid), SIGKILL);
}

TEST(short_sites_in_programs_that_step_themselves) {
    warm_up_short();
    signal(SIGTRAP, note);
    // The trap flag, set around one call.
    long result = SYS_getppid;
    __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq\n call short_site\n pushfq; andq $~0x100, (%%rsp); popfq"
                     : "+a"(result)
                     :
                     : "rcx", "r11", "memory", "cc");
    CHECK_EQ(result, getppid());
    CHECK(handled >= 2);
}

static void *short_calls(void *parent) {
    for (int i = 0; i < 4 * MANY; i++)
        CHECK_EQ(short_call(SYS_getppid), (long)parent);
    return NULL;
}

TEST(threads_and_children_share_short_sites) {
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, short_calls, (void *)(long)getppid()), 0);
    pid_t self = getpid();
    for (int i = 0; i < 10; i++) {
        pid_t pid = CHILD({
            for (int k = 0; k < MANY; k++)
                CHECK_EQ(short_call(SYS_getppid), self);
        });
        EXITED(wait_for(pid), 0);
    }
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

TEST(reads_of_the_c_library) {
    unsigned char before[256], after[256], byte;
    int memory = OK(open("/proc/self/mem", O_RDONLY)), zero = OK(open("/dev/zero", O_RDONLY));
    off_t around = (off_t)(long)&read - 128;
    CHECK_EQ(pread(memory, before, 256, around), 256);
    for (int i = 0; i < 2 * MANY; i++) {
        byte = 1;
        CHECK_EQ(read(zero, &byte, 1), 1);
        CHECK_EQ(byte, 0);
        ERR(read(-1, &byte, 1), EBADF);
    }
    CHECK_EQ(pread(memory, after, 256, around), 256);
    CHECK(memcmp(before, after, 256) == 0);
    // A wait in it is interrupted as any other.
    int ends[2];
    OK(pipe(ends));
    struct sigaction action = {.sa_handler = note};
    OK(sigaction(SIGALRM, &action, NULL));
    struct itimerval once = {{0, 0}, {0, 20000}};
    OK(setitimer(ITIMER_REAL, &once, NULL));
    ERR(read(ends[0], &byte, 1), EINTR);
    CHECK_EQ(handled, 1);
}

// Calls that a sandbox may answer without asking anybody: what they give follows what changes it at once.
static void warm_up_ids(void) {
    for (int i = 0; i < MANY; i++) {
        CHECK_EQ(short_call(SYS_getpid), getpid());
        CHECK_EQ(short_call(SYS_gettid), syscall(SYS_gettid));
        CHECK_EQ(short_call(SYS_getppid), getppid());
        CHECK_EQ(short_call(SYS_getuid), getuid());
        CHECK_EQ(short_call(SYS_geteuid), geteuid());
        CHECK_EQ(short_call(SYS_getgid), getgid());
        CHECK_EQ(short_call(SYS_getegid), getegid());
    }
}

static void *ids_of_a_thread(void *tid) {
    warm_up_ids();
    CHECK_EQ(short_call(SYS_getpid), getpid());
    CHECK(short_call(SYS_gettid) != (long)tid);
    return NULL;
}

TEST(busy_ids_are_each_threads_own) {
    long pid = getpid(), tid = syscall(SYS_gettid);
    warm_up_ids();
    for (int i = 0; i < 3; i++) {
        pthread_t thread;
        CHECK_EQ(pthread_create(&thread, NULL, ids_of_a_thread, (void *)tid), 0);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        EXITED(wait_for(CHILD({
                   CHECK_EQ(short_call(SYS_getppid), pid);
                   CHECK(short_call(SYS_getpid) != pid);
                   warm_up_ids();
               })),
               0);
    }
    CHECK_EQ(short_call(SYS_gettid), tid);
}

TEST(a_busy_child_sees_its_new_parent) {
    OK(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
    int ends[2];
    char byte;
    OK(pipe(ends));
    pid_t self = getpid();
    pid_t pid = CHILD({
        pid_t parent = getpid();
        CHILD({
            for (int i = 0; i < MANY; i++)
                CHECK_EQ(short_call(SYS_getppid), parent);
            OK(write(ends[1], "x", 1));
            // Without any other call.
            while (short_call(SYS_getppid) == parent)
                ;
            CHECK_EQ(short_call(SYS_getppid), self);
            OK(write(ends[1], "y", 1));
        });
        CHECK_EQ(read(ends[0], &byte, 1), 1);
    });
    EXITED(wait_for(pid), 0);
    CHECK_EQ(read(ends[0], &byte, 1), 1);
    CHECK_EQ(byte, 'y');
    int status;
    CHECK(waitpid(-1, &status, 0) > 0);
    EXITED(status, 0);
}

TEST(busy_ids_follow_their_owner) {
    if (getuid() != 0)
        SKIP("it changes its ids");
    warm_up_ids();
    EXITED(wait_for(CHILD({
               for (int i = 1; i < 50; i++) {
                   OK(setresgid(1000 + i, 2000 + i, 0));
                   CHECK_EQ(short_call(SYS_getgid), 1000 + i);
                   CHECK_EQ(short_call(SYS_getegid), 2000 + i);
                   OK(setresuid(1000 + i, 0, 0));
                   CHECK_EQ(short_call(SYS_getuid), 1000 + i);
                   CHECK_EQ(short_call(SYS_geteuid), 0);
               }
               OK(setresuid(-1, 3000, -1));
               CHECK_EQ(short_call(SYS_geteuid), 3000);
               warm_up_ids();
           })),
           0);
}

TEST(busy_ids_follow_a_new_namespace) {
    EXITED(wait_for(CHILD({
               warm_up_ids();
               long uid = getuid();
               if (unshare(CLONE_NEWUSER) != 0)
                   _exit(0);
               CHECK_EQ(short_call(SYS_getuid), 65534);
               for (int i = 0; i < MANY; i++)
                   CHECK_EQ(short_call(SYS_getuid), 65534);
               // Who writes the map is another process, as often.
               pid_t self = getpid();
               char path[64], map[64];
               snprintf(path, sizeof path, "/proc/%d/uid_map", self);
               snprintf(map, sizeof map, "77 %ld 1", uid);
               int file = OK(open(path, O_WRONLY));
               OK(write(file, map, strlen(map)));
               CHECK_EQ(short_call(SYS_getuid), 77);
               warm_up_ids();
           })),
           0);
}

static volatile int busy;

static void *asks_until_refused(void *unused) {
    (void)unused;
    while (short_call(SYS_getuid) != -EDOM)
        busy = 1;
    return NULL;
}

TEST(busy_ids_are_filtered) {
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getuid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EDOM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof program / sizeof program[0], program};
    warm_up_ids();
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, asks_until_refused, NULL), 0);
    while (!busy)
        ;
    OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    // SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC.
    OK(syscall(SYS_seccomp, 1, 1, &filter));
    CHECK_EQ(short_call(SYS_getuid), -EDOM);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    for (int i = 0; i < MANY; i++) {
        CHECK_EQ(short_call(SYS_getuid), -EDOM);
        CHECK_EQ(short_call(SYS_getpid), getpid());
    }
}

TEST(a_tracer_sees_busy_ids) {
    int ends[2];
    char byte;
    OK(pipe(ends));
    pid_t pid = CHILD({
        warm_up_ids();
        OK(write(ends[1], "x", 1));
        for (;;)
            short_call(SYS_getpid);
    });
    CHECK_EQ(read(ends[0], &byte, 1), 1);
    OK(ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACESYSGOOD));
    OK(ptrace(PTRACE_INTERRUPT, pid, 0, 0));
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    for (int i = 0; i < 20; i++) {
        OK(ptrace(PTRACE_SYSCALL, pid, 0, 0));
        stopped_by(pid, SIGTRAP | 0x80);
        struct user_regs_struct regs = regs_of(pid);
        CHECK_EQ(regs.orig_rax, SYS_getpid);
    }
    OK(ptrace(PTRACE_DETACH, pid, 0, 0));
    OK(kill(pid, SIGKILL));
    KILLED(wait_for(pid), SIGKILL);
}
