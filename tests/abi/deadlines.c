// Times at the ends of what a call can be given: they are refused or saturate, and never wrap around.
#include "check.h"
#include <linux/futex.h>
#include <mqueue.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

// The seconds of the largest number of nanoseconds (KTIME_MAX).
#define KTIME_SECONDS 9223372036LL

static const struct timespec refused[] = {
    {-1, 0}, {0, -1}, {0, 1000000000}, {LONG_MIN, 0}, {LONG_MAX, LONG_MAX}, {1, LONG_MIN}, {LONG_MIN, 999999999},
};
#define REFUSED (sizeof refused / sizeof *refused)

static const struct timespec longest[] = {
    {LONG_MAX, 999999999}, {LONG_MAX, 0}, {KTIME_SECONDS, 854775807}, {KTIME_SECONDS, 999999999}, {KTIME_SECONDS + 1, 0},
};
#define LONGEST (sizeof longest / sizeof *longest)

static void nothing(int signal) {
    (void)signal;
}

// A signal after 30 ms, and every 30 ms from there on, that interrupts whatever waits.
static void interrupt_soon(void) {
    struct sigaction action = {.sa_handler = nothing};
    OK(sigaction(SIGALRM, &action, NULL));
    struct itimerval soon = {{0, 30000}, {0, 30000}};
    OK(setitimer(ITIMER_REAL, &soon, NULL));
}

TEST(nanosleep_extremes) {
    interrupt_soon();
    for (size_t i = 0; i < REFUSED; i++)
        ERR(nanosleep(&refused[i], NULL), EINVAL);
    for (size_t i = 0; i < LONGEST; i++) {
        struct timespec left = {0, 0};
        ERR(nanosleep(&longest[i], &left), EINTR);
        // No point is after KTIME_MAX, so the rest is that less what the clock shows.
        struct timespec now;
        OK(clock_gettime(CLOCK_MONOTONIC, &now));
        CHECK(left.tv_sec <= KTIME_SECONDS - now.tv_sec + 1 && left.tv_sec >= KTIME_SECONDS - now.tv_sec - 2);
    }
}

TEST(clock_nanosleep_extremes) {
    interrupt_soon();
    static const clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_PROCESS_CPUTIME_ID};
    for (size_t c = 0; c < sizeof clocks / sizeof *clocks; c++) {
        for (size_t i = 0; i < REFUSED; i++) {
            CHECK_EQ(clock_nanosleep(clocks[c], 0, &refused[i], NULL), EINVAL);
            CHECK_EQ(clock_nanosleep(clocks[c], TIMER_ABSTIME, &refused[i], NULL), EINVAL);
        }
        for (size_t i = 0; i < LONGEST; i++) {
            CHECK_EQ(clock_nanosleep(clocks[c], 0, &longest[i], NULL), EINTR);
            CHECK_EQ(clock_nanosleep(clocks[c], TIMER_ABSTIME, &longest[i], NULL), EINTR);
        }
        CHECK_EQ(clock_nanosleep(clocks[c], TIMER_ABSTIME, &(struct timespec){0, 0}, NULL), 0);
        CHECK_EQ(clock_nanosleep(clocks[c], TIMER_ABSTIME, &(struct timespec){0, 1}, NULL), 0);
    }
}

// The clock of a sleep of CPU time goes on between one look and the next.
static void *burn(void *stop) {
    while (!*(volatile int *)stop) {
    }
    return NULL;
}

TEST(cpu_clock_sleep_beside_a_busy_thread) {
    int stop = 0;
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, burn, &stop), 0);
    for (int i = 0; i < 20; i++)
        CHECK_EQ(clock_nanosleep(CLOCK_PROCESS_CPUTIME_ID, 0, &(struct timespec){0, 1000000}, NULL), 0);
    stop = 1;
    pthread_join(thread, NULL);
}

TEST(posix_timer_extremes) {
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_NONE};
    OK(timer_create(CLOCK_MONOTONIC, &event, &timer));
    for (size_t i = 0; i < REFUSED; i++) {
        ERR(timer_settime(timer, 0, &(struct itimerspec){{0, 0}, refused[i]}, NULL), EINVAL);
        ERR(timer_settime(timer, TIMER_ABSTIME, &(struct itimerspec){refused[i], {1, 0}}, NULL), EINVAL);
    }
    for (size_t i = 0; i < LONGEST; i++) {
        struct itimerspec shown;
        OK(timer_settime(timer, 0, &(struct itimerspec){longest[i], longest[i]}, NULL));
        OK(timer_gettime(timer, &shown));
        CHECK_EQ(shown.it_interval.tv_sec, KTIME_SECONDS);
        CHECK_EQ(shown.it_interval.tv_nsec, 854775807);
        struct timespec now;
        OK(clock_gettime(CLOCK_MONOTONIC, &now));
        CHECK(shown.it_value.tv_sec <= KTIME_SECONDS - now.tv_sec + 1 && shown.it_value.tv_sec >= KTIME_SECONDS - now.tv_sec - 2);
    }
    OK(timer_delete(timer));
}

// An interval that is added to the time of an expiry must not wrap around: the timer would be due for ever.
TEST(posix_timer_with_the_longest_interval) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    OK(sigprocmask(SIG_BLOCK, &set, NULL));
    static const clockid_t clocks[] = {CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_PROCESS_CPUTIME_ID};
    for (size_t c = 0; c < sizeof clocks / sizeof *clocks; c++) {
        struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
        timer_t timer;
        OK(timer_create(clocks[c], &event, &timer));
        // Far in the past with a tiny interval, then just past with the longest.
        struct timespec limit = {2, 0};
        if (clocks[c] != CLOCK_PROCESS_CPUTIME_ID) {
            OK(timer_settime(timer, TIMER_ABSTIME, &(struct itimerspec){{0, 1}, {0, 1}}, NULL));
            siginfo_t info;
            CHECK_EQ(OK(sigtimedwait(&set, &info, &limit)), SIGUSR1);
            CHECK_EQ(info.si_overrun, INT_MAX);
        }
        OK(timer_settime(timer, TIMER_ABSTIME, &(struct itimerspec){{LONG_MAX, 999999999}, {0, 1}}, NULL));
        CHECK_EQ(OK(sigtimedwait(&set, NULL, &limit)), SIGUSR1);
        struct timespec moment = {0, 50000000};
        ERR(sigtimedwait(&set, NULL, &moment), EAGAIN);
        OK(timer_delete(timer));
    }
}

// An expiry that comes while the timer is still being set is one of the new setting.
TEST(a_timer_that_is_due_at_once_is_never_lost) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGALRM);
    OK(sigprocmask(SIG_BLOCK, &set, NULL));
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    timer_t timer;
    OK(timer_create(CLOCK_MONOTONIC, &event, &timer));
    struct timespec limit = {10, 0};
    for (int i = 0; i < 1000; i++) {
        OK(timer_settime(timer, TIMER_ABSTIME, &(struct itimerspec){{0, 0}, {0, 1}}, NULL));
        CHECK_EQ(OK(sigtimedwait(&set, NULL, &limit)), SIGUSR1);
        OK(setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 1}}, NULL));
        CHECK_EQ(OK(sigtimedwait(&set, NULL, &limit)), SIGALRM);
        // Of two settings the later one is waited for, also when the first is just running out.
        OK(timer_settime(timer, 0, &(struct itimerspec){{0, 0}, {0, 20000}}, NULL));
        OK(timer_settime(timer, 0, &(struct itimerspec){{0, 0}, {0, 40000}}, NULL));
        CHECK_EQ(OK(sigtimedwait(&set, NULL, &limit)), SIGUSR1);
    }
    OK(timer_delete(timer));
}

TEST(itimer_extremes) {
    static const struct timeval bad[] = {{-1, 0}, {0, -1}, {0, 1000000}, {LONG_MIN, 0}, {LONG_MAX, LONG_MAX}};
    static const int kinds[] = {ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF};
    for (size_t k = 0; k < 3; k++) {
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
            ERR(setitimer(kinds[k], &(struct itimerval){{0, 0}, bad[i]}, NULL), EINVAL);
        struct timeval most = {LONG_MAX, 999999};
        struct itimerval shown;
        OK(setitimer(kinds[k], &(struct itimerval){most, most}, NULL));
        OK(getitimer(kinds[k], &shown));
        CHECK_EQ(shown.it_interval.tv_sec, KTIME_SECONDS);
        // Linux itself wraps around where it shows the rest of a CPU timer.
        if (kinds[k] == ITIMER_REAL)
            CHECK(shown.it_value.tv_sec > KTIME_SECONDS / 2 && shown.it_value.tv_sec <= KTIME_SECONDS);
        OK(setitimer(kinds[k], &(struct itimerval){0}, NULL));
    }
}

static volatile sig_atomic_t alarms;

static void count_alarm(int signal) {
    (void)signal;
    alarms++;
}

TEST(itimer_with_the_longest_interval) {
    struct sigaction action = {.sa_handler = count_alarm};
    OK(sigaction(SIGALRM, &action, NULL));
    OK(setitimer(ITIMER_REAL, &(struct itimerval){{LONG_MAX, 999999}, {0, 1000}}, NULL));
    EVENTUALLY(alarms == 1);
    sleep_ms(50);
    CHECK_EQ(alarms, 1);
}

TEST(timerfd_extremes) {
    int fd = OK(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
    for (size_t i = 0; i < REFUSED; i++)
        ERR(timerfd_settime(fd, 0, &(struct itimerspec){{0, 0}, refused[i]}, NULL), EINVAL);
    for (size_t i = 0; i < LONGEST; i++) {
        for (int flags = 0; flags <= TFD_TIMER_ABSTIME; flags += TFD_TIMER_ABSTIME) {
            struct itimerspec shown;
            uint64_t ticks;
            OK(timerfd_settime(fd, flags, &(struct itimerspec){longest[i], longest[i]}, NULL));
            OK(timerfd_gettime(fd, &shown));
            struct timespec now;
            OK(clock_gettime(CLOCK_MONOTONIC, &now));
            CHECK_EQ(shown.it_interval.tv_sec, KTIME_SECONDS);
            CHECK(shown.it_value.tv_sec <= KTIME_SECONDS - now.tv_sec + 1 && shown.it_value.tv_sec >= KTIME_SECONDS - now.tv_sec - 2);
            ERR(read(fd, &ticks, sizeof ticks), EAGAIN);
        }
    }
    // An expiry with the longest interval is one.
    uint64_t ticks = 0;
    OK(timerfd_settime(fd, TFD_TIMER_ABSTIME, &(struct itimerspec){{LONG_MAX, 0}, {0, 1}}, NULL));
    CHECK_EQ(OK(read(fd, &ticks, sizeof ticks)), 8);
    CHECK_EQ(ticks, 1);
    ERR(read(fd, &ticks, sizeof ticks), EAGAIN);
}

static long futex(int *word, int op, int value, const struct timespec *time, int value3) {
    return syscall(SYS_futex, word, op, value, time, NULL, value3);
}

TEST(futex_extremes) {
    interrupt_soon();
    int word = 0;
    for (size_t i = 0; i < REFUSED; i++) {
        ERR(futex(&word, FUTEX_WAIT, 0, &refused[i], 0), EINVAL);
        ERR(futex(&word, FUTEX_WAIT_BITSET, 0, &refused[i], -1), EINVAL);
    }
    for (size_t i = 0; i < LONGEST; i++) {
        ERR(futex(&word, FUTEX_WAIT, 0, &longest[i], 0), EINTR);
        ERR(futex(&word, FUTEX_WAIT_BITSET, 0, &longest[i], -1), EINTR);
        ERR(futex(&word, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 0, &longest[i], -1), EINTR);
    }
    ERR(futex(&word, FUTEX_WAIT_BITSET, 0, &(struct timespec){0, 0}, -1), ETIMEDOUT);
    ERR(futex(&word, FUTEX_WAIT, 0, &(struct timespec){0, 0}, 0), ETIMEDOUT);
}

TEST(ppoll_extremes) {
    int pipes[2];
    OK(pipe(pipes));
    struct pollfd fd = {pipes[1], POLLOUT, 0};
    for (size_t i = 0; i < REFUSED; i++) {
        struct timespec time = refused[i];
        ERR(syscall(SYS_ppoll, &fd, 1, &time, NULL, 0), EINVAL);
    }
    struct timespec now;
    OK(clock_gettime(CLOCK_MONOTONIC, &now));
    // What is left of the longest time is written back: its end saturates at the last second of 64 bits.
    struct timespec time = {LONG_MAX, 999999999};
    CHECK_EQ(OK(syscall(SYS_ppoll, &fd, 1, &time, NULL, 0)), 1);
    CHECK(time.tv_sec >= LONG_MAX - now.tv_sec - 5);
    time = (struct timespec){KTIME_SECONDS * 2, 0};
    CHECK_EQ(OK(syscall(SYS_ppoll, &fd, 1, &time, NULL, 0)), 1);
    CHECK(time.tv_sec >= KTIME_SECONDS * 2 - 5 && time.tv_sec <= KTIME_SECONDS * 2);
    interrupt_soon();
    fd.fd = pipes[0];
    fd.events = POLLIN;
    time = (struct timespec){LONG_MAX, 999999999};
    ERR(syscall(SYS_ppoll, &fd, 1, &time, NULL, 0), EINTR);
}

TEST(select_extremes) {
    int pipes[2];
    OK(pipe(pipes));
    fd_set set;
    static const struct timeval bad[] = {{-1, 0}, {0, -1}, {LONG_MIN, 0}, {LONG_MAX, 2000000}, {0, LONG_MIN}, {0, -1000000}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct timeval time = bad[i];
        ERR(syscall(SYS_select, 0, NULL, NULL, NULL, &time), EINVAL);
    }
    // Microseconds carry over, also negative ones.
    struct timeval time = {1, -1000000};
    CHECK_EQ(OK(syscall(SYS_select, 0, NULL, NULL, NULL, &time)), 0);
    interrupt_soon();
    static const struct timeval most[] = {{LONG_MAX, 999999}, {0, LONG_MAX}, {KTIME_SECONDS, 999999}};
    for (size_t i = 0; i < sizeof most / sizeof *most; i++) {
        time = most[i];
        FD_ZERO(&set);
        FD_SET(pipes[0], &set);
        ERR(syscall(SYS_select, pipes[0] + 1, &set, NULL, NULL, &time), EINTR);
        CHECK(time.tv_sec > 1000000);
    }
    for (size_t i = 0; i < REFUSED; i++) {
        struct timespec wrong = refused[i];
        ERR(syscall(SYS_pselect6, 0, NULL, NULL, NULL, &wrong, NULL), EINVAL);
    }
}

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

TEST(epoll_pwait2_extremes) {
    int epoll = OK(epoll_create1(0));
    struct epoll_event event;
    if (syscall(SYS_epoll_pwait2, epoll, &event, 1, &(struct timespec){0, 0}, NULL, 0) < 0 && errno == ENOSYS)
        SKIP("no epoll_pwait2");
    for (size_t i = 0; i < REFUSED; i++)
        ERR(syscall(SYS_epoll_pwait2, epoll, &event, 1, &refused[i], NULL, 0), EINVAL);
    interrupt_soon();
    for (size_t i = 0; i < LONGEST; i++)
        ERR(syscall(SYS_epoll_pwait2, epoll, &event, 1, &longest[i], NULL, 0), EINTR);
}

TEST(sigtimedwait_extremes) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    OK(sigprocmask(SIG_BLOCK, &set, NULL));
    for (size_t i = 0; i < REFUSED; i++)
        ERR(syscall(SYS_rt_sigtimedwait, &set, NULL, &refused[i], 8), EINVAL);
    interrupt_soon();
    for (size_t i = 0; i < LONGEST; i++)
        ERR(syscall(SYS_rt_sigtimedwait, &set, NULL, &longest[i], 8), EINTR);
}

TEST(mq_extremes) {
    char name[64], text[16];
    snprintf(name, sizeof name, "/deadlines-%d", getpid());
    struct mq_attr attributes = {.mq_maxmsg = 1, .mq_msgsize = sizeof text};
    mqd_t queue = mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, &attributes);
    if (queue == (mqd_t)-1)
        SKIP("no message queues here: %s", strerror(errno));
    mq_unlink(name);
    for (size_t i = 0; i < REFUSED; i++)
        ERR(syscall(SYS_mq_timedreceive, queue, text, sizeof text, NULL, &refused[i]), EINVAL);
    ERR(syscall(SYS_mq_timedreceive, queue, text, sizeof text, NULL, &(struct timespec){0, 0}), ETIMEDOUT);
    ERR(syscall(SYS_mq_timedreceive, queue, text, sizeof text, NULL, &(struct timespec){1, 999999999}), ETIMEDOUT);
    interrupt_soon();
    for (size_t i = 0; i < LONGEST; i++)
        ERR(syscall(SYS_mq_timedreceive, queue, text, sizeof text, NULL, &longest[i]), EINTR);
    OK(mq_send(queue, "x", 1, 0));
    ERR(syscall(SYS_mq_timedsend, queue, text, 1, 0, &(struct timespec){0, 0}), ETIMEDOUT);
    for (size_t i = 0; i < LONGEST; i++)
        ERR(syscall(SYS_mq_timedsend, queue, text, 1, 0, &longest[i]), EINTR);
}

TEST(semtimedop_extremes) {
    int id = semget(IPC_PRIVATE, 1, 0600);
    if (id < 0)
        SKIP("no semaphores here: %s", strerror(errno));
    struct sembuf down = {0, -1, 0};
    interrupt_soon();
    int wrong = 0;
    for (size_t i = 0; i < REFUSED; i++)
        wrong |= syscall(SYS_semtimedop, id, &down, 1, &refused[i]) != -1 || errno != EINVAL;
    for (size_t i = 0; i < LONGEST; i++)
        wrong |= syscall(SYS_semtimedop, id, &down, 1, &longest[i]) != -1 || errno != EINTR;
    wrong |= syscall(SYS_semtimedop, id, &down, 1, &(struct timespec){0, 0}) != -1 || errno != EAGAIN;
    semctl(id, 0, IPC_RMID);
    CHECK_EQ(wrong, 0);
}

TEST(socket_timeout_extremes) {
    int pair[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    ERR(setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){0, -1}, sizeof(struct timeval)), EDOM);
    ERR(setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){0, 1000000}, sizeof(struct timeval)), EDOM);
    OK(setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){LONG_MAX, 999999}, sizeof(struct timeval)));
    struct timeval shown;
    socklen_t length = sizeof shown;
    OK(getsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &shown, &length));
    CHECK_EQ(shown.tv_sec, 0);
    CHECK_EQ(shown.tv_usec, 0);
    interrupt_soon();
    char byte;
    ERR(recv(pair[0], &byte, 1, 0), EINTR);
    OK(setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){LONG_MIN, 0}, sizeof(struct timeval)));
    ERR(recv(pair[0], &byte, 1, 0), EAGAIN);
}
