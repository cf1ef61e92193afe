// Clocks and timers: clock_*, nanosleep, itimers, POSIX timers, timerfd, alarm, times, rusage.
#include "check.h"
#include <poll.h>
#include <sys/timerfd.h>
#include <sys/times.h>

static volatile sig_atomic_t count;
static siginfo_t last;

static void note(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    last = *info;
    count++;
}

static void handle(int signal) {
    struct sigaction action = {.sa_sigaction = note, .sa_flags = SA_SIGINFO};
    OK(sigaction(signal, &action, NULL));
}

static long long ns(clockid_t clock) {
    struct timespec t;
    OK(clock_gettime(clock, &t));
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

TEST(clocks_exist) {
    static const clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID,
                                       CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME};
    for (size_t i = 0; i < sizeof clocks / sizeof *clocks; i++) {
        struct timespec t;
        OK(syscall(SYS_clock_gettime, clocks[i], &t));
        OK(syscall(SYS_clock_getres, clocks[i], &t));
        OK(syscall(SYS_clock_getres, clocks[i], NULL));
    }
    struct timespec t;
    ERR(syscall(SYS_clock_gettime, 99, &t), EINVAL);
    ERR(syscall(SYS_clock_gettime, CLOCK_REALTIME, BAD_ADDRESS), EFAULT);
    ERR(syscall(SYS_clock_getres, 99, &t), EINVAL);
}

TEST(time_calls_agree) {
    struct timeval v;
    OK(gettimeofday(&v, NULL));
    time_t t = time(NULL);
    CHECK(t - v.tv_sec <= 1);
    CHECK(ns(CLOCK_REALTIME) / 1000000000 - t <= 1);
    CHECK_EQ(syscall(SYS_time, NULL) - t <= 1, 1);
}

TEST(monotonic_does_not_go_back) {
    long long before = ns(CLOCK_MONOTONIC);
    for (int i = 0; i < 1000; i++) {
        long long t = ns(CLOCK_MONOTONIC);
        CHECK(t >= before);
        before = t;
    }
}

TEST(cpu_clock_counts_work_only) {
    long long before = ns(CLOCK_PROCESS_CPUTIME_ID);
    sleep_ms(60);
    long long slept = ns(CLOCK_PROCESS_CPUTIME_ID) - before;
    CHECK(slept < 40000000);
    while (ns(CLOCK_PROCESS_CPUTIME_ID) - before - slept <= 10000000) {
    }
    CHECK(ns(CLOCK_THREAD_CPUTIME_ID) <= ns(CLOCK_PROCESS_CPUTIME_ID) + 10000000);
}

TEST(cpu_clock_of_another_process) {
    clockid_t clock;
    CHECK_EQ(clock_getcpuclockid(getpid(), &clock), 0);
    CHECK(ns(clock) >= 0);
    struct timespec t;
    ERR(clock_gettime(~(1 << 21) * 8 | 2, &t), EINVAL);
}

TEST(nanosleep_rules) {
    struct timespec t = {0, 20000000};
    long long start = ns(CLOCK_MONOTONIC);
    OK(nanosleep(&t, NULL));
    CHECK(ns(CLOCK_MONOTONIC) - start >= 20000000);
    t.tv_nsec = 1000000000;
    ERR(nanosleep(&t, NULL), EINVAL);
    t = (struct timespec){-1, 0};
    ERR(nanosleep(&t, NULL), EINVAL);
    ERR(syscall(SYS_nanosleep, BAD_ADDRESS, NULL), EFAULT);
    t = (struct timespec){0, 0};
    OK(nanosleep(&t, NULL));
}

TEST(clock_nanosleep_absolute) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_nsec += 20000000;
    if (t.tv_nsec >= 1000000000)
        t.tv_sec++, t.tv_nsec -= 1000000000;
    CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL), 0);
    CHECK(ns(CLOCK_MONOTONIC) >= t.tv_sec * 1000000000LL + t.tv_nsec);
    t.tv_sec = 0;
    CHECK_EQ(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &t, NULL), 0);
    CHECK_EQ(clock_nanosleep(99, 0, &t, NULL), EINVAL);
    CHECK_EQ(syscall(SYS_clock_nanosleep, CLOCK_THREAD_CPUTIME_ID, 0, &t, NULL), -1);
}

TEST(clock_nanosleep_interrupted) {
    handle(SIGALRM);
    ualarm(20000, 0);
    struct timespec t = {5, 0}, rest = {0};
    CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &rest), EINTR);
    CHECK_EQ(rest.tv_sec, 4);
}

TEST(alarm_returns_the_rest) {
    CHECK_EQ(alarm(100), 0);
    unsigned rest = alarm(0);
    CHECK(rest == 100 || rest == 99);
    CHECK_EQ(alarm(0), 0);
}

TEST(itimer_real_repeats) {
    handle(SIGALRM);
    struct itimerval t = {{0, 5000}, {0, 5000}}, now;
    OK(setitimer(ITIMER_REAL, &t, NULL));
    EVENTUALLY(count >= 3);
    OK(getitimer(ITIMER_REAL, &now));
    CHECK_EQ(now.it_interval.tv_usec, 5000);
    CHECK(now.it_value.tv_usec <= 5000);
    t = (struct itimerval){0};
    OK(setitimer(ITIMER_REAL, &t, &now));
    CHECK_EQ(now.it_interval.tv_usec, 5000);
    CHECK_EQ(last.si_code, SI_KERNEL);
    ERR(setitimer(99, &t, NULL), EINVAL);
    t.it_value.tv_usec = 1000000;
    ERR(setitimer(ITIMER_REAL, &t, NULL), EINVAL);
}

TEST(itimer_virtual_and_prof) {
    handle(SIGVTALRM);
    struct itimerval t = {{0, 0}, {0, 20000}};
    OK(setitimer(ITIMER_VIRTUAL, &t, NULL));
    while (!count) {
    }
    CHECK_EQ(count, 1);
    handle(SIGPROF);
    OK(setitimer(ITIMER_PROF, &t, NULL));
    while (count < 2) {
    }
    CHECK_EQ(count, 2);
}

TEST(itimer_is_not_inherited_by_fork) {
    struct itimerval t = {{0, 0}, {100, 0}};
    OK(setitimer(ITIMER_REAL, &t, NULL));
    EXITED(wait_for(CHILD(OK(getitimer(ITIMER_REAL, &t)); CHECK_EQ(t.it_value.tv_sec, 0))), 0);
}

TEST(posix_timer_signals) {
    handle(SIGUSR1);
    struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 42};
    timer_t id;
    OK(timer_create(CLOCK_MONOTONIC, &e, &id));
    struct itimerspec t = {{0, 0}, {0, 5000000}};
    OK(timer_settime(id, 0, &t, NULL));
    EVENTUALLY(count == 1);
    CHECK_EQ(last.si_code, SI_TIMER);
    CHECK_EQ(last.si_value.sival_int, 42);
    OK(timer_gettime(id, &t));
    CHECK_EQ(t.it_value.tv_nsec, 0);
    OK(timer_delete(id));
    ERR(timer_delete(id), EINVAL);
}

TEST(posix_timer_overrun) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    timer_t id;
    OK(timer_create(CLOCK_MONOTONIC, &e, &id));
    struct itimerspec t = {{0, 2000000}, {0, 2000000}};
    OK(timer_settime(id, 0, &t, NULL));
    sleep_ms(40);
    siginfo_t info;
    CHECK_EQ(sigwaitinfo(&set, &info), SIGUSR1);
    CHECK(info.si_overrun >= 5);
    CHECK_EQ(timer_getoverrun(id), info.si_overrun);
}

TEST(posix_timer_goes_on_after_its_signal_was_ignored) {
    struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    timer_t id;
    OK(timer_create(CLOCK_MONOTONIC, &e, &id));
    CHECK(signal(SIGUSR1, SIG_IGN) != SIG_ERR);
    struct itimerspec t = {{0, 2000000}, {0, 2000000}};
    OK(timer_settime(id, 0, &t, NULL));
    sleep_ms(20);
    handle(SIGUSR1);
    EVENTUALLY(count > 0);
}

// A signal of a timer is queued besides one of the same number that is pending already.
TEST(posix_timer_signal_is_its_own) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    OK(kill(getpid(), SIGUSR1));
    struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 42};
    timer_t id;
    OK(timer_create(CLOCK_MONOTONIC, &e, &id));
    struct itimerspec t = {{0, 2000000}, {0, 2000000}};
    OK(timer_settime(id, 0, &t, NULL));
    sleep_ms(20);
    siginfo_t info;
    CHECK_EQ(sigwaitinfo(&set, &info), SIGUSR1);
    CHECK_EQ(info.si_code, SI_USER);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(sigwaitinfo(&set, &info), SIGUSR1);
        CHECK_EQ(info.si_code, SI_TIMER);
        CHECK_EQ(info.si_value.sival_int, 42);
    }
}

TEST(posix_timer_none_and_absolute) {
    struct sigevent e = {.sigev_notify = SIGEV_NONE};
    timer_t id;
    OK(timer_create(CLOCK_REALTIME, &e, &id));
    struct itimerspec t = {{0, 0}, {100, 0}}, old;
    OK(timer_settime(id, 0, &t, NULL));
    OK(timer_gettime(id, &old));
    CHECK(old.it_value.tv_sec >= 99 && old.it_value.tv_sec <= 100);
    clock_gettime(CLOCK_REALTIME, &t.it_value);
    t.it_value.tv_sec += 50;
    OK(timer_settime(id, TIMER_ABSTIME, &t, &old));
    CHECK(old.it_value.tv_sec >= 99);
    OK(timer_gettime(id, &t));
    CHECK(t.it_value.tv_sec >= 49 && t.it_value.tv_sec <= 50);
    t.it_value.tv_nsec = -1;
    ERR(timer_settime(id, 0, &t, NULL), EINVAL);
}

TEST(posix_timer_for_one_thread) {
    handle(SIGUSR1);
    struct sigevent e = {.sigev_notify = 4, .sigev_signo = SIGUSR1}; // SIGEV_THREAD_ID
    *(pid_t *)((char *)&e + 16) = syscall(SYS_gettid);
    int id;
    OK(syscall(SYS_timer_create, CLOCK_MONOTONIC, &e, &id));
    struct itimerspec t = {{0, 0}, {0, 1000000}};
    OK(syscall(SYS_timer_settime, id, 0, &t, NULL));
    EVENTUALLY(count == 1);
    *(pid_t *)((char *)&e + 16) = 1 << 21;
    ERR(syscall(SYS_timer_create, CLOCK_MONOTONIC, &e, &id), EINVAL);
}

TEST(posix_timer_errors) {
    timer_t id;
    struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = 99};
    ERR(timer_create(CLOCK_MONOTONIC, &e, &id), EINVAL);
    e.sigev_signo = SIGUSR1;
    ERR(syscall(SYS_timer_create, 99, &e, &id), EINVAL);
    struct itimerspec t = {0};
    ERR(syscall(SYS_timer_settime, 9999, 0, &t, NULL), EINVAL);
    ERR(syscall(SYS_timer_gettime, 9999, &t), EINVAL);
}

TEST(posix_timers_end_with_exec_and_fork) {
    struct sigevent e = {.sigev_notify = SIGEV_NONE};
    int id;
    OK(syscall(SYS_timer_create, CLOCK_REALTIME, &e, &id));
    struct itimerspec t;
    EXITED(wait_for(CHILD(ERR(syscall(SYS_timer_gettime, id, &t), EINVAL))), 0);
}

TEST(timerfd_once) {
    int fd = OK(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
    uint64_t n;
    ERR(read(fd, &n, 8), EAGAIN);
    struct itimerspec t = {{0, 0}, {0, 10000000}};
    OK(timerfd_settime(fd, 0, &t, NULL));
    struct pollfd f = {fd, POLLIN, 0};
    CHECK_EQ(poll(&f, 1, 5000), 1);
    CHECK_EQ(read(fd, &n, 8), 8);
    CHECK_EQ(n, 1);
    ERR(read(fd, &n, 8), EAGAIN);
    ERR(read(fd, &n, 4), EINVAL);
}

TEST(timerfd_repeats_and_counts) {
    int fd = OK(timerfd_create(CLOCK_MONOTONIC, 0));
    struct itimerspec t = {{0, 5000000}, {0, 1}};
    OK(timerfd_settime(fd, 0, &t, NULL));
    sleep_ms(40);
    uint64_t n;
    CHECK_EQ(read(fd, &n, 8), 8);
    CHECK(n >= 5 && n < 200);
    CHECK_EQ(read(fd, &n, 8), 8);
    CHECK(n >= 1);
    OK(timerfd_gettime(fd, &t));
    CHECK_EQ(t.it_interval.tv_nsec, 5000000);
    CHECK(t.it_value.tv_nsec > 0 && t.it_value.tv_nsec <= 5000000);
}

TEST(timerfd_absolute_in_the_past) {
    int fd = OK(timerfd_create(CLOCK_REALTIME, 0));
    struct itimerspec t = {{0, 0}, {1000, 0}};
    OK(timerfd_settime(fd, TFD_TIMER_ABSTIME, &t, NULL));
    uint64_t n;
    CHECK_EQ(read(fd, &n, 8), 8);
    CHECK_EQ(n, 1);
}

TEST(timerfd_disarm_and_errors) {
    int fd = OK(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
    struct itimerspec t = {{1, 0}, {100, 0}}, old;
    OK(timerfd_settime(fd, 0, &t, NULL));
    t = (struct itimerspec){0};
    OK(timerfd_settime(fd, 0, &t, &old));
    CHECK(old.it_value.tv_sec >= 99);
    OK(timerfd_gettime(fd, &old));
    CHECK_EQ(old.it_value.tv_sec, 0);
    ERR(timerfd_create(99, 0), EINVAL);
    ERR(timerfd_create(CLOCK_MONOTONIC, 0x4), EINVAL);
    ERR(timerfd_settime(0, 0, &t, NULL), EINVAL);
    ERR(timerfd_settime(fd, 64, &t, NULL), EINVAL);
    t.it_value.tv_nsec = 1000000000;
    ERR(timerfd_settime(fd, 0, &t, NULL), EINVAL);
}

TEST(times_and_rusage) {
    struct tms t;
    do
        OK(times(&t));
    while (t.tms_utime + t.tms_stime < 3);
    struct rusage r;
    OK(getrusage(RUSAGE_SELF, &r));
    CHECK(r.ru_utime.tv_usec + r.ru_stime.tv_usec > 10000);
    CHECK(r.ru_maxrss > 100);
    OK(getrusage(RUSAGE_THREAD, &r));
    ERR(getrusage(99, &r), EINVAL);
    CHECK_EQ(sysconf(_SC_CLK_TCK), 100);
}

TEST(cpu_limit_sends_sigxcpu) {
    pid_t pid = CHILD({
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        struct rlimit limit = {1, 2};
        OK(setrlimit(RLIMIT_CPU, &limit));
        for (;;) {
        }
    });
    KILLED(wait_for(pid), SIGXCPU);
}

TEST(settime_needs_a_capability) {
    EXITED(wait_for(CHILD(become_nobody(); struct timespec t = {1, 0}; ERR(clock_settime(CLOCK_REALTIME, &t), EPERM))), 0);
}
