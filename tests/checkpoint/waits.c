// Signals, timers, and calls that wait through the checkpoint.
#include "check.h"
#include <poll.h>
#include <sys/select.h>
#include <sys/time.h>

static volatile sig_atomic_t seen, seen_value;

static void handler(int signal, siginfo_t *info, void *context) {
    (void)context;
    seen = signal;
    seen_value = info->si_value.sival_int;
}

static void handle(int signal, int flags) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
    sigaddset(&action.sa_mask, SIGUSR2);
    CHECK_EQ(sigaction(signal, &action, NULL), 0);
}

TEST(pending_signals_and_handlers) {
    sigset_t blocked, got;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    sigaddset(&blocked, SIGRTMIN + 3);
    CHECK_EQ(sigprocmask(SIG_BLOCK, &blocked, NULL), 0);
    handle(SIGUSR1, 0);
    handle(SIGRTMIN + 3, SA_RESTART);
    kill(getpid(), SIGUSR1);
    union sigval value = {.sival_int = 4711};
    sigqueue(getpid(), SIGRTMIN + 3, value);
    value.sival_int = 4712;
    sigqueue(getpid(), SIGRTMIN + 3, value);
    RESTORED();
    sigprocmask(SIG_BLOCK, NULL, &got);
    CHECK(sigismember(&got, SIGUSR1) && !sigismember(&got, SIGUSR2));
    sigpending(&got);
    CHECK(sigismember(&got, SIGUSR1) && sigismember(&got, SIGRTMIN + 3));
    siginfo_t info;
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, SIGRTMIN + 3);
    CHECK_EQ(sigwaitinfo(&one, &info), SIGRTMIN + 3);
    CHECK_EQ(info.si_value.sival_int, 4711);
    sigprocmask(SIG_UNBLOCK, &one, NULL);
    CHECK(seen == SIGRTMIN + 3 && seen_value == 4712);
    sigprocmask(SIG_UNBLOCK, &blocked, NULL);
    CHECK_EQ(seen, SIGUSR1);
    struct sigaction action;
    sigaction(SIGRTMIN + 3, NULL, &action);
    CHECK(action.sa_sigaction == handler && action.sa_flags & SA_RESTART && sigismember(&action.sa_mask, SIGUSR2));
}

TEST(an_alternate_stack) {
    static char memory[65536];
    stack_t stack = {.ss_sp = memory, .ss_size = sizeof memory}, got;
    CHECK_EQ(sigaltstack(&stack, NULL), 0);
    handle(SIGUSR1, SA_ONSTACK);
    RESTORED();
    CHECK_EQ(sigaltstack(NULL, &got), 0);
    CHECK(got.ss_sp == memory && got.ss_size == sizeof memory && !got.ss_flags);
    raise(SIGUSR1);
    CHECK_EQ(seen, SIGUSR1);
}

// Each waits for 2 s from before the checkpoint on: what was left of it is waited for afterwards. What lies between counts for neither the wait
// nor the clock.
#define WAIT_MS 2000
static int64_t began;

static void begin(void) {
    began = now_ms(CLOCK_MONOTONIC);
    READY();
}

static void finished(void) {
    int64_t took = now_ms(CLOCK_MONOTONIC) - began;
    CHECK(took >= WAIT_MS && took < WAIT_MS + 20000);
    // It has not begun anew after the pause.
    CHECK(__atomic_load_n(&check_shared->go, __ATOMIC_SEQ_CST));
}

TEST(nanosleep_goes_on) {
    struct timespec t = {WAIT_MS / 1000, 0};
    begin();
    CHECK_EQ(nanosleep(&t, NULL), 0);
    finished();
}

TEST(poll_goes_on) {
    begin();
    CHECK_EQ(poll(NULL, 0, WAIT_MS), 0);
    finished();
}

TEST(select_goes_on) {
    struct timeval t = {WAIT_MS / 1000, 0};
    begin();
    CHECK_EQ(select(0, NULL, NULL, NULL, &t), 0);
    CHECK(t.tv_sec == 0 && t.tv_usec == 0);
    finished();
}

TEST(futex_wait_goes_on) {
    uint32_t word = 1;
    struct timespec t = {WAIT_MS / 1000, 0};
    begin();
    CHECK(syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 1, &t, NULL, 0) == -1 && errno == ETIMEDOUT);
    finished();
}

TEST(sigtimedwait_goes_on) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    struct timespec t = {WAIT_MS / 1000, 0};
    begin();
    CHECK(sigtimedwait(&set, NULL, &t) == -1 && errno == EAGAIN);
    finished();
}

TEST(ppoll_keeps_its_mask) {
    sigset_t blocked, none;
    sigemptyset(&none);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGALRM);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    handle(SIGALRM, 0);
    pid_t self = getpid(), child = fork();
    if (!child) {
        AWAIT();
        usleep(200000);
        kill(self, SIGALRM);
        _exit(0);
    }
    READY();
    struct timespec t = {20, 0};
    CHECK(ppoll(NULL, 0, &t, &none) == -1 && errno == EINTR);
    CHECK_EQ(seen, SIGALRM);
    sigset_t now;
    sigprocmask(SIG_BLOCK, NULL, &now);
    CHECK(sigismember(&now, SIGALRM));
}

TEST(pause_is_ended_by_a_signal) {
    handle(SIGUSR1, SA_RESTART);
    pid_t self = getpid(), child = fork();
    if (!child) {
        AWAIT();
        usleep(100000);
        kill(self, SIGUSR1);
        _exit(0);
    }
    READY();
    CHECK(pause() == -1 && errno == EINTR);
    CHECK_EQ(seen, SIGUSR1);
}

TEST(wait_for_a_child) {
    pid_t child = fork();
    if (!child) {
        AWAIT();
        _exit(3);
    }
    READY();
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(WEXITSTATUS(status), 3);
}

TEST(interval_timers_go_on) {
    handle(SIGVTALRM, 0);
    // SIGALRM is the frame's, by alarm(2), which is this timer.
    struct itimerval t = {{0, 0}, {25, 0}}, got;
    CHECK_EQ(setitimer(ITIMER_REAL, &t, NULL), 0);
    struct itimerval virtual = {{0, 0}, {0, 50000}};
    RESTORED();
    CHECK_EQ(getitimer(ITIMER_REAL, &got), 0);
    CHECK(got.it_value.tv_sec < 25 && got.it_value.tv_sec >= 20);
    CHECK_EQ(setitimer(ITIMER_VIRTUAL, &virtual, NULL), 0);
    while (!seen) {
    }
    CHECK_EQ(seen, SIGVTALRM);
}

TEST(posix_timers_go_on) {
    handle(SIGUSR1, 0);
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 99};
    CHECK_EQ(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    struct itimerspec t = {{0, 0}, {2, 0}}, got;
    CHECK_EQ(timer_settime(timer, 0, &t, NULL), 0);
    RESTORED();
    CHECK_EQ(timer_gettime(timer, &got), 0);
    CHECK(got.it_value.tv_sec < 2);
    while (!seen)
        usleep(1000);
    CHECK(seen == SIGUSR1 && seen_value == 99);
    CHECK_EQ(timer_delete(timer), 0);
}

TEST(clocks_do_not_go_back) {
    int64_t monotonic = now_ms(CLOCK_MONOTONIC), boot = now_ms(CLOCK_BOOTTIME), real = now_ms(CLOCK_REALTIME);
    RESTORED();
    CHECK(now_ms(CLOCK_MONOTONIC) >= monotonic && now_ms(CLOCK_BOOTTIME) >= boot && now_ms(CLOCK_REALTIME) >= real);
}
