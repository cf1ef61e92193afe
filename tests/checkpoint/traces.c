// ptrace(2): tracers and tracees go on with each other, wherever the tracee has stopped or waits.
#include "check.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/user.h>

static volatile int watched;
static volatile sig_atomic_t got;

static void handler(int signal) {
    got = signal;
}

// A child that asks to be traced, stops, and does `body`.
static pid_t traced(int (*body)(void), long options) {
    pid_t child = fork();
    if (!child) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        _exit(body());
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    CHECK(!ptrace(PTRACE_SETOPTIONS, child, NULL, options | PTRACE_O_EXITKILL));
    return child;
}

static int next_stop(pid_t child, int request, long signal) {
    CHECK(!ptrace(request, child, NULL, signal));
    int status;
    CHECK_EQ(waitpid(child, &status, __WALL), child);
    return status;
}

static void ends_with(pid_t child, int request, int code) {
    int status = next_stop(child, request, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != code)
        FAIL("it ended with %#x instead of code %d", status, code);
}

static struct user_regs_struct registers(pid_t child) {
    struct user_regs_struct regs;
    CHECK(!ptrace(PTRACE_GETREGS, child, NULL, &regs));
    return regs;
}

static int forty_two(void) {
    return 42;
}

static int shows_signals(void) {
    signal(SIGUSR1, handler);
    signal(SIGUSR2, handler);
    raise(SIGUSR1);
    return got;
}

static int asks_for_parent(void) {
    return syscall(SYS_getppid) == 4711 ? 3 : 4;
}

TEST(a_stopped_tracee) {
    pid_t child = traced(forty_two, 0);
    struct user_regs_struct before = registers(child);
    RESTORED();
    struct user_regs_struct after = registers(child);
    CHECK(!memcmp(&before, &after, sizeof before));
    siginfo_t info;
    CHECK(!ptrace(PTRACE_GETSIGINFO, child, NULL, &info) && info.si_signo == SIGSTOP);
    int status;
    CHECK_EQ(waitpid(child, &status, WNOHANG), 0);
    ends_with(child, PTRACE_CONT, 42);
}

TEST(a_stop_that_nobody_has_waited_for) {
    pid_t child = traced(shows_signals, 0);
    CHECK(!ptrace(PTRACE_CONT, child, NULL, NULL));
    siginfo_t info;
    CHECK(!waitid(P_PID, child, &info, WSTOPPED | WNOWAIT) && info.si_status == SIGUSR1);
    RESTORED();
    int status;
    CHECK(waitpid(child, &status, WNOHANG) == child && WSTOPSIG(status) == SIGUSR1);
    ends_with(child, PTRACE_CONT, 0);
}

TEST(a_signal_is_exchanged_for_another) {
    pid_t child = traced(shows_signals, 0);
    CHECK_EQ(WSTOPSIG(next_stop(child, PTRACE_CONT, 0)), SIGUSR1);
    RESTORED();
    CHECK(!ptrace(PTRACE_CONT, child, NULL, (long)SIGUSR2));
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), SIGUSR2);
}

TEST(a_tracee_before_a_call) {
    pid_t child = traced(asks_for_parent, PTRACE_O_TRACESYSGOOD);
    while (next_stop(child, PTRACE_SYSCALL, 0) >> 8 != (SIGTRAP | 0x80) || registers(child).orig_rax != SYS_getppid) {
    }
    RESTORED();
    struct user_regs_struct regs = registers(child);
    CHECK(regs.orig_rax == SYS_getppid && (long)regs.rax == -ENOSYS);
    // Behind the call the tracer lies.
    CHECK_EQ(next_stop(child, PTRACE_SYSCALL, 0) >> 8, SIGTRAP | 0x80);
    regs = registers(child);
    CHECK_EQ(regs.rax, getpid());
    regs.rax = 4711;
    CHECK(!ptrace(PTRACE_SETREGS, child, NULL, &regs));
    ends_with(child, PTRACE_CONT, 3);
}

TEST(a_call_that_the_tracer_has_changed) {
    pid_t child = traced(asks_for_parent, PTRACE_O_TRACESYSGOOD);
    while (next_stop(child, PTRACE_SYSCALL, 0) >> 8 != (SIGTRAP | 0x80) || registers(child).orig_rax != SYS_getppid) {
    }
    struct user_regs_struct regs = registers(child);
    regs.orig_rax = SYS_exit_group;
    regs.rdi = 77;
    CHECK(!ptrace(PTRACE_SETREGS, child, NULL, &regs));
    RESTORED();
    ends_with(child, PTRACE_CONT, 77);
}

TEST(a_tracee_behind_a_call) {
    pid_t child = traced(asks_for_parent, PTRACE_O_TRACESYSGOOD);
    while (next_stop(child, PTRACE_SYSCALL, 0) >> 8 != (SIGTRAP | 0x80) || registers(child).orig_rax != SYS_getppid) {
    }
    CHECK_EQ(next_stop(child, PTRACE_SYSCALL, 0) >> 8, SIGTRAP | 0x80);
    RESTORED();
    struct user_regs_struct regs = registers(child);
    CHECK_EQ(regs.rax, getpid());
    regs.rax = 4711;
    CHECK(!ptrace(PTRACE_SETREGS, child, NULL, &regs));
    ends_with(child, PTRACE_CONT, 3);
}

static int ends_of_a_pipe[2];

static int reads(void) {
    char byte;
    return read(ends_of_a_pipe[0], &byte, 1) == 1 ? byte : 1;
}

TEST(a_tracee_that_waits_in_a_call) {
    CHECK(!pipe(ends_of_a_pipe));
    pid_t child = traced(reads, PTRACE_O_TRACESYSGOOD);
    while (next_stop(child, PTRACE_SYSCALL, 0) >> 8 != (SIGTRAP | 0x80) || registers(child).orig_rax != SYS_read) {
    }
    CHECK(!ptrace(PTRACE_SYSCALL, child, NULL, NULL));
    RESTORED();
    int status;
    CHECK_EQ(waitpid(child, &status, WNOHANG), 0);
    CHECK_EQ(write(ends_of_a_pipe[1], "x", 1), 1);
    CHECK(waitpid(child, &status, 0) == child && status >> 8 == (SIGTRAP | 0x80));
    CHECK(registers(child).rax == 1 && registers(child).orig_rax == SYS_read);
    ends_with(child, PTRACE_CONT, 'x');
}

TEST(a_tracer_that_waits) {
    CHECK(!pipe(ends_of_a_pipe));
    pid_t child = traced(reads, 0), writer = fork();
    if (!writer) {
        AWAIT();
        _exit(write(ends_of_a_pipe[1], "y", 1) != 1);
    }
    READY();
    ends_with(child, PTRACE_CONT, 'y');
    int status;
    CHECK(waitpid(writer, &status, 0) == writer && !status);
    AWAIT();
}

static int forks(void) {
    pid_t child = fork();
    if (!child)
        _exit(5);
    int status;
    return waitpid(child, &status, 0) == child ? WEXITSTATUS(status) + 1 : 1;
}

static void an_event(int (*body)(void), long option, int event, int code) {
    pid_t child = traced(body, option);
    int status = next_stop(child, PTRACE_CONT, 0);
    CHECK_EQ(status >> 8, SIGTRAP | event << 8);
    RESTORED();
    unsigned long made;
    CHECK(!ptrace(PTRACE_GETEVENTMSG, child, NULL, &made) && made > 0);
    // It is traced as well, and begins with a stop.
    CHECK(waitpid(made, &status, __WALL) == (pid_t)made && WIFSTOPPED(status));
    CHECK(!ptrace(PTRACE_CONT, made, NULL, NULL));
    CHECK(waitpid(made, &status, __WALL) == (pid_t)made && WEXITSTATUS(status) == 5);
    status = next_stop(child, PTRACE_CONT, 0);
    if (WIFSTOPPED(status) && WSTOPSIG(status) == SIGCHLD)
        status = next_stop(child, PTRACE_CONT, SIGCHLD);
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), code);
}

TEST(an_event_of_fork) {
    an_event(forks, PTRACE_O_TRACEFORK, PTRACE_EVENT_FORK, 6);
}

static int vforks(void) {
    pid_t child = vfork();
    if (!child)
        _exit(5);
    int status;
    return child > 0 && waitpid(child, &status, 0) == child ? WEXITSTATUS(status) + 2 : 1;
}

TEST(an_event_of_vfork) {
    an_event(vforks, PTRACE_O_TRACEVFORK, PTRACE_EVENT_VFORK, 7);
}

static int executes(void) {
    char *arguments[] = {"/proc/self/exe", "--list", NULL};
    int null = open("/dev/null", O_WRONLY);
    dup2(null, 1);
    execv(arguments[0], arguments);
    return 1;
}

TEST(an_event_of_exec) {
    pid_t child = traced(executes, PTRACE_O_TRACEEXEC);
    CHECK_EQ(next_stop(child, PTRACE_CONT, 0) >> 8, SIGTRAP | PTRACE_EVENT_EXEC << 8);
    RESTORED();
    unsigned long was;
    CHECK(!ptrace(PTRACE_GETEVENTMSG, child, NULL, &was) && was == (unsigned long)child);
    CHECK_EQ(registers(child).orig_rax, SYS_execve);
    ends_with(child, PTRACE_CONT, 0);
}

TEST(an_event_of_exit) {
    pid_t child = traced(forty_two, PTRACE_O_TRACEEXIT);
    CHECK_EQ(next_stop(child, PTRACE_CONT, 0) >> 8, SIGTRAP | PTRACE_EVENT_EXIT << 8);
    RESTORED();
    unsigned long code;
    CHECK(!ptrace(PTRACE_GETEVENTMSG, child, NULL, &code) && code == 42 << 8);
    CHECK_EQ(registers(child).orig_rax, SYS_exit_group);
    ends_with(child, PTRACE_CONT, 42);
}

static int is_filtered(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | 9),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        return 1;
    return syscall(SYS_getppid) == getpid() ? 8 : 9;
}

TEST(an_event_of_a_filter) {
    pid_t child = traced(is_filtered, PTRACE_O_TRACESECCOMP);
    CHECK_EQ(next_stop(child, PTRACE_CONT, 0) >> 8, SIGTRAP | PTRACE_EVENT_SECCOMP << 8);
    RESTORED();
    unsigned long data;
    CHECK(!ptrace(PTRACE_GETEVENTMSG, child, NULL, &data) && data == 9);
    struct user_regs_struct regs = registers(child);
    CHECK_EQ(regs.orig_rax, SYS_getppid);
    regs.orig_rax = SYS_getpid;
    CHECK(!ptrace(PTRACE_SETREGS, child, NULL, &regs));
    ends_with(child, PTRACE_CONT, 8);
}

TEST(a_seized_process_that_is_stopped_and_listened_to) {
    pid_t child = fork();
    if (!child) {
        AWAIT();
        _exit(12);
    }
    CHECK(!ptrace(PTRACE_SEIZE, child, NULL, PTRACE_O_EXITKILL));
    int status;
    CHECK(!kill(child, SIGSTOP) && waitpid(child, &status, 0) == child && WSTOPSIG(status) == SIGSTOP && status >> 16 == 0);
    CHECK_EQ(next_stop(child, PTRACE_CONT, SIGSTOP) >> 8, SIGSTOP | PTRACE_EVENT_STOP << 8);
    CHECK(!ptrace(PTRACE_LISTEN, child, NULL, NULL));
    RESTORED();
    CHECK_EQ(waitpid(child, &status, WNOHANG), 0);
    struct user_regs_struct regs;
    CHECK(ptrace(PTRACE_GETREGS, child, NULL, &regs) == -1 && errno == ESRCH);
    CHECK(!kill(child, SIGCONT));
    CHECK(waitpid(child, &status, 0) == child && status >> 8 == (SIGTRAP | PTRACE_EVENT_STOP << 8));
    CHECK_EQ(WSTOPSIG(next_stop(child, PTRACE_CONT, 0)), SIGCONT);
    ends_with(child, PTRACE_CONT, 12);
}

TEST(a_seized_process_that_runs) {
    pid_t child = fork();
    if (!child) {
        while (!__atomic_load_n(&check_shared->go, __ATOMIC_SEQ_CST)) {
        }
        for (;;)
            pause();
    }
    CHECK(!ptrace(PTRACE_SEIZE, child, NULL, PTRACE_O_EXITKILL));
    RESTORED();
    int status;
    CHECK(!ptrace(PTRACE_INTERRUPT, child, NULL, NULL));
    CHECK(waitpid(child, &status, 0) == child && status >> 8 == (SIGTRAP | PTRACE_EVENT_STOP << 8));
    CHECK(!ptrace(PTRACE_DETACH, child, NULL, NULL));
    CHECK(!kill(child, SIGTERM) && waitpid(child, &status, 0) == child && WTERMSIG(status) == SIGTERM);
}

TEST(steps_are_counted_on) {
    pid_t child = traced(forty_two, 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(WSTOPSIG(next_stop(child, PTRACE_SINGLESTEP, 0)), SIGTRAP);
    uint64_t rip = registers(child).rip;
    RESTORED();
    CHECK_EQ(registers(child).rip, rip);
    CHECK_EQ(WSTOPSIG(next_stop(child, PTRACE_SINGLESTEP, 0)), SIGTRAP);
    CHECK(registers(child).rip != rip);
    ends_with(child, PTRACE_CONT, 42);
}

static int writes_later(void) {
    while (!__atomic_load_n(&check_shared->go, __ATOMIC_SEQ_CST)) {
    }
    watched = 9;
    return watched;
}

TEST(a_watchpoint) {
    pid_t child = traced(writes_later, 0);
    CHECK(!ptrace(PTRACE_POKEUSER, child, offsetof(struct user, u_debugreg[0]), &watched));
    // Four bytes, written, slot 0.
    CHECK(!ptrace(PTRACE_POKEUSER, child, offsetof(struct user, u_debugreg[7]), 1 | 0xdL << 16));
    CHECK(!ptrace(PTRACE_CONT, child, NULL, NULL));
    RESTORED();
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
    CHECK(ptrace(PTRACE_PEEKUSER, child, offsetof(struct user, u_debugreg[6]), NULL) & 1);
    CHECK_EQ((int)ptrace(PTRACE_PEEKDATA, child, &watched, NULL), 9);
    ends_with(child, PTRACE_CONT, 9);
}

TEST(a_stranger_has_ended_that_was_traced) {
    // The tracee's parent waits for it after its tracer.
    int ends[2];
    CHECK(!pipe(ends));
    pid_t parent = fork();
    if (!parent) {
        pid_t child = fork();
        if (!child) {
            for (;;)
                pause();
        }
        int status;
        CHECK(write(ends[1], &child, sizeof child) == sizeof child);
        _exit(waitpid(child, &status, 0) == child && WIFSIGNALED(status) ? WTERMSIG(status) : 1);
    }
    pid_t child;
    CHECK(read(ends[0], &child, sizeof child) == sizeof child);
    CHECK(!ptrace(PTRACE_SEIZE, child, NULL, NULL) && !kill(child, SIGKILL));
    siginfo_t info;
    CHECK(!waitid(P_PID, child, &info, WEXITED | WNOWAIT | __WALL));
    RESTORED();
    int status;
    CHECK_EQ(waitpid(parent, &status, WNOHANG), 0);
    CHECK(waitpid(child, &status, __WALL) == child && WIFSIGNALED(status));
    CHECK(waitpid(parent, &status, 0) == parent && WEXITSTATUS(status) == SIGKILL);
}

static void *tracee_thread(void *tid) {
    *(pid_t *)tid = gettid();
    AWAIT();
    return NULL;
}

TEST(a_process_whose_first_thread_has_ended) {
    int ends[2];
    CHECK(!pipe(ends));
    pid_t child = fork();
    if (!child) {
        static pid_t other;
        pthread_t thread;
        pthread_create(&thread, NULL, tracee_thread, &other);
        while (!other)
            usleep(1000);
        CHECK(write(ends[1], &other, sizeof other) == sizeof other);
        pthread_exit(NULL);
    }
    pid_t other;
    CHECK(read(ends[0], &other, sizeof other) == sizeof other);
    char name[60], text[2000];
    snprintf(name, sizeof name, "/proc/%d/stat", child);
    for (;;) {
        int fd = open(name, O_RDONLY);
        ssize_t n = read(fd, text, sizeof text - 1);
        CHECK(n > 0 && !close(fd));
        text[n] = 0;
        if (strstr(text, ") Z "))
            break;
        usleep(1000);
    }
    CHECK(!ptrace(PTRACE_SEIZE, other, NULL, PTRACE_O_TRACEEXIT));
    RESTORED();
    int status;
    CHECK(waitpid(other, &status, __WALL) == other && status >> 8 == (SIGTRAP | PTRACE_EVENT_EXIT << 8));
    CHECK(!ptrace(PTRACE_CONT, other, NULL, NULL));
    CHECK(waitpid(other, &status, __WALL) == other && WIFEXITED(status));
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), 0);
}

TEST(memory_by_its_file) {
    static volatile int word = 3;
    pid_t child = traced(forty_two, 0);
    char name[60];
    snprintf(name, sizeof name, "/proc/%d/mem", child);
    int fd = open(name, O_RDWR), value = 7;
    CHECK(fd >= 0);
    RESTORED();
    CHECK(pread(fd, &value, sizeof value, (uintptr_t)&word) == sizeof value && value == 3);
    value = 5;
    CHECK(pwrite(fd, &value, sizeof value, (uintptr_t)&word) == sizeof value);
    CHECK_EQ((int)ptrace(PTRACE_PEEKDATA, child, &word, NULL), 5);
    ends_with(child, PTRACE_CONT, 42);
}
