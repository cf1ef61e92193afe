// Signals: sending, masks, pending ones, handlers and their flags, queues, waiting for them, faults.
#include "check.h"
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <ucontext.h>

static volatile sig_atomic_t count, last;
static siginfo_t last_info;

static void note(int signal, siginfo_t *info, void *context) {
    (void)context;
    if (info)
        last_info = *info;
    last = signal;
    count++;
}

static void handle(int signal, int flags) {
    struct sigaction action = {.sa_sigaction = note, .sa_flags = SA_SIGINFO | flags};
    OK(sigaction(signal, &action, NULL));
}

static sigset_t set_of(int signal) {
    sigset_t set;
    sigemptyset(&set);
    if (signal)
        sigaddset(&set, signal);
    return set;
}

static void block(int signal) {
    sigset_t set = set_of(signal);
    OK(sigprocmask(SIG_BLOCK, &set, NULL));
}

static void unblock(int signal) {
    sigset_t set = set_of(signal);
    OK(sigprocmask(SIG_UNBLOCK, &set, NULL));
}

static int pending(int signal) {
    sigset_t set;
    OK(sigpending(&set));
    return sigismember(&set, signal);
}

TEST(raise_runs_the_handler) {
    handle(SIGUSR1, 0);
    raise(SIGUSR1);
    CHECK_EQ(count, 1);
    CHECK_EQ(last, SIGUSR1);
}

TEST(kill_fills_siginfo) {
    handle(SIGUSR1, 0);
    OK(kill(getpid(), SIGUSR1));
    CHECK_EQ(last_info.si_signo, SIGUSR1);
    CHECK_EQ(last_info.si_code, SI_USER);
    CHECK_EQ(last_info.si_pid, getpid());
    CHECK_EQ(last_info.si_uid, getuid());
}

TEST(tgkill_fills_siginfo) {
    handle(SIGUSR1, 0);
    OK(syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1));
    CHECK_EQ(last_info.si_code, SI_TKILL);
    CHECK_EQ(last_info.si_pid, getpid());
}

TEST(kill_errors) {
    ERR(kill(1 << 21, SIGTERM), ESRCH);
    ERR(kill(getpid(), 65), EINVAL);
    ERR(kill(getpid(), -1), EINVAL);
    OK(kill(getpid(), 0));
    ERR(kill(-(1 << 21), 0), ESRCH);
    ERR(kill(INT_MIN, 0), ESRCH);
    ERR(syscall(SYS_tgkill, 0, 1, 0), EINVAL);
    ERR(syscall(SYS_tgkill, getpid(), 1 << 21, 0), ESRCH);
    ERR(syscall(SYS_tkill, -1, 0), EINVAL);
}

TEST(kill_needs_permission) {
    pid_t parent = getpid();
    EXITED(wait_for(CHILD({
               become_nobody();
               ERR(kill(parent, 0), EPERM);
               ERR(kill(parent, SIGTERM), EPERM);
               ERR(kill(1, SIGTERM), EPERM);
               OK(kill(getpid(), 0));
           })),
           0);
}

TEST(kill_of_a_group) {
    handle(SIGUSR1, 0);
    pid_t a = CHILD(for (;;) pause()), b = CHILD(for (;;) pause());
    OK(setpgid(a, a));
    OK(setpgid(b, a));
    OK(kill(-a, SIGTERM));
    KILLED(wait_for(a), SIGTERM);
    KILLED(wait_for(b), SIGTERM);
    CHECK_EQ(count, 0);
}

TEST(kill_zero_is_the_own_group) {
    handle(SIGUSR1, 0);
    pid_t a = CHILD(CHECK_EQ(kill(0, SIGUSR1), 0));
    wait_for(a);
    CHECK_EQ(count, 1);
}

TEST(ignored_signals_do_nothing) {
    signal(SIGTERM, SIG_IGN);
    raise(SIGTERM);
    CHECK(!pending(SIGTERM));
}

TEST(default_actions) {
    static const struct { int signal, kills; } table[] = {
        {SIGHUP, 1}, {SIGINT, 1}, {SIGQUIT, 1}, {SIGILL, 1}, {SIGTRAP, 1}, {SIGABRT, 1}, {SIGBUS, 1}, {SIGFPE, 1},
        {SIGKILL, 1}, {SIGUSR1, 1}, {SIGSEGV, 1}, {SIGUSR2, 1}, {SIGPIPE, 1}, {SIGALRM, 1}, {SIGTERM, 1},
        {SIGSTKFLT, 1}, {SIGCHLD, 0}, {SIGCONT, 0}, {SIGURG, 0}, {SIGXCPU, 1}, {SIGXFSZ, 1}, {SIGVTALRM, 1},
        {SIGPROF, 1}, {SIGWINCH, 0}, {SIGIO, 1}, {SIGPWR, 1}, {SIGSYS, 1}, {40, 1}, {64, 1},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        pid_t pid = CHILD({
            struct rlimit none = {0, 0};
            setrlimit(RLIMIT_CORE, &none);
            signal(table[i].signal, SIG_DFL);
            raise(table[i].signal);
            _exit(50);
        });
        int status = wait_for(pid);
        if (table[i].kills ? !WIFSIGNALED(status) || WTERMSIG(status) != table[i].signal
                           : !WIFEXITED(status) || WEXITSTATUS(status) != 50)
            FAIL("signal %d: wait status %#x", table[i].signal, status);
    }
}

TEST(stop_signals_stop) {
    static const int signals[] = {SIGSTOP, SIGTSTP};
    for (int i = 0; i < 2; i++) {
        pid_t pid = CHILD(raise(signals[i]); _exit(4));
        int status;
        CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
        CHECK(WIFSTOPPED(status));
        CHECK_EQ(WSTOPSIG(status), signals[i]);
        OK(kill(pid, SIGCONT));
        EXITED(wait_for(pid), 4);
    }
}

TEST(tty_stops_spare_an_orphaned_group) {
    // A new session is an orphaned group: SIGTSTP does nothing there.
    EXITED(wait_for(CHILD(CHECK(setsid() > 0); raise(SIGTSTP); raise(SIGTTIN); raise(SIGTTOU))), 0);
}

TEST(cont_and_stop_cancel_each_other) {
    block(SIGCONT);
    block(SIGTSTP);
    raise(SIGTSTP);
    CHECK(pending(SIGTSTP));
    raise(SIGCONT);
    CHECK(!pending(SIGTSTP));
    CHECK(pending(SIGCONT));
    raise(SIGTSTP);
    CHECK(!pending(SIGCONT));
    raise(SIGCONT);
}

TEST(blocked_signals_stay_pending) {
    handle(SIGUSR1, 0);
    block(SIGUSR1);
    raise(SIGUSR1);
    CHECK_EQ(count, 0);
    CHECK(pending(SIGUSR1));
    unblock(SIGUSR1);
    CHECK_EQ(count, 1);
    CHECK(!pending(SIGUSR1));
}

TEST(standard_signals_do_not_queue) {
    handle(SIGUSR1, 0);
    block(SIGUSR1);
    for (int i = 0; i < 5; i++)
        raise(SIGUSR1);
    unblock(SIGUSR1);
    CHECK_EQ(count, 1);
}

static int order[64];

static void note_order(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    order[count++] = info->si_value.sival_int;
}

TEST(realtime_signals_queue_in_order) {
    struct sigaction action = {.sa_sigaction = note_order, .sa_flags = SA_SIGINFO};
    OK(sigaction(SIGRTMIN, &action, NULL));
    block(SIGRTMIN);
    for (int i = 0; i < 20; i++)
        OK(sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = i}));
    unblock(SIGRTMIN);
    CHECK_EQ(count, 20);
    for (int i = 0; i < 20; i++)
        CHECK_EQ(order[i], i);
}

TEST(lower_signals_come_first) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 2);
    sigaddset(&set, SIGRTMIN + 1);
    sigaddset(&set, SIGUSR2);
    OK(sigprocmask(SIG_BLOCK, &set, NULL));
    raise(SIGRTMIN + 2);
    raise(SIGRTMIN + 1);
    raise(SIGUSR2);
    siginfo_t info;
    CHECK_EQ(sigwaitinfo(&set, &info), SIGUSR2);
    CHECK_EQ(sigwaitinfo(&set, &info), SIGRTMIN + 1);
    CHECK_EQ(sigwaitinfo(&set, &info), SIGRTMIN + 2);
}

TEST(sigqueue_carries_a_value) {
    handle(SIGUSR2, 0);
    OK(sigqueue(getpid(), SIGUSR2, (union sigval){.sival_int = 77}));
    CHECK_EQ(last_info.si_code, SI_QUEUE);
    CHECK_EQ(last_info.si_value.sival_int, 77);
    CHECK_EQ(last_info.si_pid, getpid());
}

TEST(sigqueue_may_not_pretend) {
    siginfo_t info = {.si_code = SI_USER};
    pid_t pid = CHILD(pause());
    ERR(syscall(SYS_rt_sigqueueinfo, pid, SIGUSR1, &info), EPERM);
    info.si_code = SI_TKILL;
    ERR(syscall(SYS_rt_sigqueueinfo, pid, SIGUSR1, &info), EPERM);
    ERR(syscall(SYS_rt_sigqueueinfo, pid, SIGUSR1, BAD_ADDRESS), EFAULT);
    OK(kill(pid, SIGKILL));
    wait_for(pid);
}

TEST(sigpending_limit) {
    struct rlimit limit = {5, 5};
    OK(setrlimit(RLIMIT_SIGPENDING, &limit));
    block(SIGRTMIN);
    int queued = 0;
    while (queued < 100 && !sigqueue(getpid(), SIGRTMIN, (union sigval){0}))
        queued++;
    CHECK(queued <= 5);
    ERR(sigqueue(getpid(), SIGRTMIN, (union sigval){0}), EAGAIN);
}

static volatile sig_atomic_t depth, deepest;

static void nest(int signal) {
    depth++;
    if (depth > deepest)
        deepest = depth;
    if (deepest < 3 && count++ < 3)
        raise(signal);
    depth--;
}

TEST(without_nodefer_handlers_do_not_nest) {
    struct sigaction action = {.sa_handler = nest};
    OK(sigaction(SIGUSR1, &action, NULL));
    raise(SIGUSR1);
    CHECK_EQ(deepest, 1);
    CHECK_EQ(count, 4); // the fourth time it raises nothing
}

TEST(nodefer_lets_handlers_nest) {
    struct sigaction action = {.sa_handler = nest, .sa_flags = SA_NODEFER};
    OK(sigaction(SIGUSR1, &action, NULL));
    raise(SIGUSR1);
    CHECK_EQ(deepest, 3);
}

static sigset_t mask_inside;

static void read_mask(int signal) {
    (void)signal;
    sigprocmask(SIG_BLOCK, NULL, &mask_inside);
}

TEST(sa_mask_holds_during_the_handler) {
    struct sigaction action = {.sa_handler = read_mask};
    sigaddset(&action.sa_mask, SIGUSR2);
    sigaddset(&action.sa_mask, SIGKILL);
    OK(sigaction(SIGUSR1, &action, NULL));
    raise(SIGUSR1);
    CHECK(sigismember(&mask_inside, SIGUSR1));
    CHECK(sigismember(&mask_inside, SIGUSR2));
    CHECK(!sigismember(&mask_inside, SIGTERM));
    sigset_t after;
    sigprocmask(SIG_BLOCK, NULL, &after);
    CHECK(!sigismember(&after, SIGUSR1) && !sigismember(&after, SIGUSR2));
}

TEST(resethand_resets) {
    handle(SIGUSR1, SA_RESETHAND);
    raise(SIGUSR1);
    struct sigaction now;
    OK(sigaction(SIGUSR1, NULL, &now));
    CHECK(now.sa_handler == SIG_DFL);
    CHECK_EQ(count, 1);
}

TEST(sigaction_returns_the_old_one) {
    struct sigaction action = {.sa_sigaction = note, .sa_flags = SA_SIGINFO | SA_RESTART | SA_NODEFER}, old;
    sigaddset(&action.sa_mask, SIGHUP);
    OK(sigaction(SIGUSR1, &action, NULL));
    OK(sigaction(SIGUSR1, NULL, &old));
    CHECK(old.sa_sigaction == note);
    CHECK_EQ(old.sa_flags & (SA_SIGINFO | SA_RESTART | SA_NODEFER), SA_SIGINFO | SA_RESTART | SA_NODEFER);
    CHECK(sigismember(&old.sa_mask, SIGHUP));
}

TEST(sigaction_errors) {
    struct sigaction action = {.sa_handler = SIG_IGN};
    ERR(sigaction(SIGKILL, &action, NULL), EINVAL);
    ERR(sigaction(SIGSTOP, &action, NULL), EINVAL);
    ERR(sigaction(65, &action, NULL), EINVAL);
    ERR(sigaction(0, &action, NULL), EINVAL);
    ERR(syscall(SYS_rt_sigaction, SIGUSR1, BAD_ADDRESS, NULL, 8), EFAULT);
    ERR(syscall(SYS_rt_sigaction, SIGUSR1, NULL, NULL, 4), EINVAL);
    struct sigaction old;
    OK(sigaction(SIGKILL, NULL, &old));
}

TEST(ignoring_discards_what_is_pending) {
    block(SIGUSR1);
    raise(SIGUSR1);
    signal(SIGUSR1, SIG_IGN);
    CHECK(!pending(SIGUSR1));
}

TEST(default_ignore_discards_too) {
    handle(SIGCHLD, 0);
    block(SIGCHLD);
    raise(SIGCHLD);
    CHECK(pending(SIGCHLD));
    signal(SIGCHLD, SIG_DFL);
    CHECK(!pending(SIGCHLD));
}

TEST(blocked_ignored_signal_is_kept_for_sigwait) {
    // sig_ignored(): a blocked signal is never discarded at once, it might be waited for.
    block(SIGCHLD);
    raise(SIGCHLD);
    CHECK(pending(SIGCHLD));
}

TEST(kill_and_stop_cannot_be_blocked) {
    sigset_t all, now;
    sigfillset(&all);
    OK(sigprocmask(SIG_SETMASK, &all, NULL));
    OK(sigprocmask(SIG_BLOCK, NULL, &now));
    CHECK(!sigismember(&now, SIGKILL) && !sigismember(&now, SIGSTOP));
    CHECK(sigismember(&now, SIGTERM));
}

TEST(sigprocmask_errors) {
    sigset_t set = set_of(SIGUSR1);
    ERR(syscall(SYS_rt_sigprocmask, 77, &set, NULL, 8), EINVAL);
    ERR(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, NULL, 16), EINVAL);
    ERR(syscall(SYS_rt_sigprocmask, SIG_BLOCK, BAD_ADDRESS, NULL, 8), EFAULT);
    // How is not looked at without a set.
    OK(syscall(SYS_rt_sigprocmask, 77, NULL, &set, 8));
}

TEST(mask_is_inherited_pending_is_not) {
    block(SIGUSR1);
    raise(SIGUSR1);
    EXITED(wait_for(CHILD({
               sigset_t set;
               sigprocmask(SIG_BLOCK, NULL, &set);
               CHECK(sigismember(&set, SIGUSR1));
               CHECK(!pending(SIGUSR1));
           })),
           0);
}

TEST(sigsuspend_swaps_the_mask) {
    handle(SIGUSR1, 0);
    block(SIGUSR1);
    raise(SIGUSR1);
    sigset_t none = set_of(0);
    ERR(sigsuspend(&none), EINTR);
    CHECK_EQ(count, 1);
    sigset_t now;
    sigprocmask(SIG_BLOCK, NULL, &now);
    CHECK(sigismember(&now, SIGUSR1));
}

TEST(pause_returns_after_a_handler) {
    handle(SIGALRM, SA_RESTART);
    ualarm(10000, 0);
    ERR(pause(), EINTR);
}

TEST(sigwaitinfo_takes_it) {
    block(SIGUSR1);
    OK(kill(getpid(), SIGUSR1));
    sigset_t set = set_of(SIGUSR1);
    siginfo_t info;
    CHECK_EQ(sigwaitinfo(&set, &info), SIGUSR1);
    CHECK_EQ(info.si_code, SI_USER);
    CHECK(!pending(SIGUSR1));
}

TEST(sigtimedwait_times_out) {
    sigset_t set = set_of(SIGUSR1);
    block(SIGUSR1);
    struct timespec t = {0, 20000000};
    long long start = now_ms();
    ERR(sigtimedwait(&set, NULL, &t), EAGAIN);
    CHECK(now_ms() - start >= 19);
    t.tv_nsec = 0;
    ERR(sigtimedwait(&set, NULL, &t), EAGAIN);
    t.tv_nsec = 1000000000;
    ERR(sigtimedwait(&set, NULL, &t), EINVAL);
}

TEST(sigtimedwait_is_interrupted_by_another) {
    handle(SIGALRM, SA_RESTART);
    block(SIGUSR1);
    sigset_t set = set_of(SIGUSR1);
    ualarm(10000, 0);
    struct timespec t = {5, 0};
    ERR(sigtimedwait(&set, NULL, &t), EINTR);
}

TEST(sigwait_wakes_from_another_process) {
    block(SIGUSR1);
    pid_t parent = getpid();
    pid_t pid = CHILD(usleep(10000); OK(kill(parent, SIGUSR1)));
    sigset_t set = set_of(SIGUSR1);
    siginfo_t info;
    CHECK_EQ(sigwaitinfo(&set, &info), SIGUSR1);
    CHECK_EQ(info.si_pid, pid);
    wait_for(pid);
}

// What an init has no handler for is dropped, but not what it has blocked: by that small inits live.
TEST(sigtimedwait_of_an_init) {
    pid_t pid = syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0);
    if (pid < 0 && errno == EPERM)
        SKIP("new pid namespaces take a privilege");
    OK(pid);
    if (pid == 0) {
        CHECK_EQ(getpid(), 1);
        block(SIGCHLD);
        block(SIGTERM);
        sigset_t set = set_of(SIGCHLD);
        sigaddset(&set, SIGTERM);
        if (OK(fork()) == 0) {
            usleep(20000);
            kill(1, SIGTERM);
            usleep(20000);
            _exit(0);
        }
        struct timespec t = {5, 0};
        CHECK_EQ(sigtimedwait(&set, NULL, &t), SIGTERM);
        CHECK_EQ(sigtimedwait(&set, NULL, &t), SIGCHLD);
        raise(SIGUSR1);
        _exit(7);
    }
    EXITED(wait_for(pid), 7);
}

TEST(sigpipe_of_a_pipe) {
    int p[2];
    OK(pipe(p));
    close(p[0]);
    pid_t pid = CHILD(write(p[1], "x", 1));
    KILLED(wait_for(pid), SIGPIPE);
    signal(SIGPIPE, SIG_IGN);
    ERR(write(p[1], "x", 1), EPIPE);
}

TEST(read_is_interrupted) {
    handle(SIGALRM, 0);
    int p[2];
    OK(pipe(p));
    ualarm(10000, 0);
    char c;
    ERR(read(p[0], &c, 1), EINTR);
}

static int restart_pipe[2];

static void fill_pipe(int signal) {
    (void)signal;
    count++;
    if (write(restart_pipe[1], "r", 1) != 1)
        _exit(1);
}

TEST(read_is_restarted) {
    struct sigaction action = {.sa_handler = fill_pipe, .sa_flags = SA_RESTART};
    OK(sigaction(SIGALRM, &action, NULL));
    OK(pipe(restart_pipe));
    ualarm(10000, 0);
    char c;
    CHECK_EQ(read(restart_pipe[0], &c, 1), 1);
    CHECK_EQ(count, 1);
}

TEST(ignored_signals_interrupt_nothing) {
    signal(SIGALRM, SIG_IGN);
    ualarm(10000, 0);
    struct timespec t = {0, 60000000}, rest;
    OK(nanosleep(&t, &rest));
}

TEST(stop_and_continue_do_not_disturb_a_read) {
    int p[2], q[2];
    OK(pipe(p));
    OK(pipe(q));
    pid_t pid = CHILD({
        char c;
        CHECK_EQ(write(q[1], "r", 1), 1);
        CHECK_EQ(read(p[0], &c, 1), 1);
    });
    char c;
    CHECK_EQ(read(q[0], &c, 1), 1);
    sleep_ms(10);
    OK(kill(pid, SIGSTOP));
    int status;
    CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
    OK(kill(pid, SIGCONT));
    CHECK_EQ(write(p[1], "x", 1), 1);
    EXITED(wait_for(pid), 0);
}

TEST(nanosleep_reports_what_is_left) {
    handle(SIGALRM, SA_RESTART); // makes no difference to nanosleep
    ualarm(20000, 0);
    struct timespec t = {5, 0}, rest = {0};
    ERR(nanosleep(&t, &rest), EINTR);
    CHECK_EQ(rest.tv_sec, 4);
}

TEST(nanosleep_continues_after_a_stop) {
    long long start = now_ms();
    pid_t pid = CHILD({
        struct timespec t = {0, 150000000};
        OK(nanosleep(&t, NULL));
    });
    sleep_ms(20);
    OK(kill(pid, SIGSTOP));
    sleep_ms(20);
    OK(kill(pid, SIGCONT));
    EXITED(wait_for(pid), 0);
    CHECK(now_ms() - start >= 149);
}

TEST(handler_runs_on_the_right_thread) {
    handle(SIGUSR1, 0);
    OK(syscall(SYS_tkill, syscall(SYS_gettid), SIGUSR1));
    CHECK_EQ(count, 1);
}

static volatile pid_t handler_tid;

static void note_tid(int signal) {
    (void)signal;
    handler_tid = syscall(SYS_gettid);
}

static void *waits_for_signal(void *argument) {
    *(volatile pid_t *)argument = syscall(SYS_gettid);
    while (!handler_tid)
        usleep(1000);
    return NULL;
}

TEST(process_signal_goes_to_a_thread_that_wants_it) {
    signal(SIGUSR1, note_tid);
    static volatile pid_t tid;
    pthread_t t;
    pthread_create(&t, NULL, waits_for_signal, (void *)&tid);
    EVENTUALLY(tid);
    block(SIGUSR1);
    OK(kill(getpid(), SIGUSR1));
    pthread_join(t, NULL);
    CHECK_EQ(handler_tid, tid);
}

TEST(signal_zero_in_sets_is_refused_or_ignored) {
    sigset_t set;
    memset(&set, 0xff, sizeof set);
    OK(sigprocmask(SIG_SETMASK, &set, NULL));
    raise(SIGTERM);
    CHECK(pending(SIGTERM));
}

TEST(signalfd_reads_signals) {
    block(SIGUSR1);
    sigset_t set = set_of(SIGUSR1);
    int fd = OK(signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
    struct signalfd_siginfo info;
    ERR(read(fd, &info, sizeof info), EAGAIN);
    OK(sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 9}));
    CHECK_EQ(read(fd, &info, sizeof info), sizeof info);
    CHECK_EQ(info.ssi_signo, SIGUSR1);
    CHECK_EQ(info.ssi_code, SI_QUEUE);
    CHECK_EQ(info.ssi_int, 9);
    CHECK_EQ(info.ssi_pid, getpid());
    CHECK(!pending(SIGUSR1));
    ERR(read(fd, &info, sizeof info - 1), EINVAL);
}

TEST(signalfd_reads_several) {
    block(SIGRTMIN);
    sigset_t set = set_of(SIGRTMIN);
    int fd = OK(signalfd(-1, &set, 0));
    for (int i = 0; i < 3; i++)
        OK(sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = i}));
    struct signalfd_siginfo info[5];
    CHECK_EQ(read(fd, info, sizeof info), 3 * sizeof *info);
    CHECK_EQ(info[2].ssi_int, 2);
}

TEST(signalfd_changes_its_mask) {
    block(SIGUSR1);
    block(SIGUSR2);
    sigset_t set = set_of(SIGUSR1);
    int fd = OK(signalfd(-1, &set, SFD_NONBLOCK));
    set = set_of(SIGUSR2);
    CHECK_EQ(signalfd(fd, &set, 0), fd);
    raise(SIGUSR1);
    struct signalfd_siginfo info;
    ERR(read(fd, &info, sizeof info), EAGAIN);
    raise(SIGUSR2);
    CHECK_EQ(read(fd, &info, sizeof info), sizeof info);
    ERR(signalfd(1, &set, 0), EINVAL);
    ERR(signalfd(999, &set, 0), EBADF);
    ERR(signalfd(-1, &set, 0x4), EINVAL);
}
