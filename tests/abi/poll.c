// Waiting for descriptors: poll, ppoll, select, pselect, epoll; eventfd.
#include "check.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/timerfd.h>

static volatile sig_atomic_t count;

static void note(int signal) {
    (void)signal;
    count++;
}

static void handle(int signal, int flags) {
    struct sigaction action = {.sa_handler = note, .sa_flags = flags};
    OK(sigaction(signal, &action, NULL));
}

TEST(poll_timeout) {
    int p[2];
    OK(pipe(p));
    struct pollfd f = {p[0], POLLIN, 0x77};
    long long start = now_ms();
    CHECK_EQ(poll(&f, 1, 30), 0);
    CHECK(now_ms() - start >= 29);
    CHECK_EQ(f.revents, 0);
    CHECK_EQ(poll(NULL, 0, 1), 0);
}

TEST(poll_special_descriptors) {
    struct pollfd f[] = {{-1, POLLIN, 9}, {999, POLLIN, 0}};
    CHECK_EQ(poll(f, 2, 0), 1);
    CHECK_EQ(f[0].revents, 0);
    CHECK_EQ(f[1].revents, POLLNVAL);
    ERR(poll(BAD_ADDRESS, 1, 0), EFAULT);
    ERR(poll(f, 100000, 0), EINVAL); // more than RLIMIT_NOFILE
}

TEST(poll_of_a_regular_file) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    struct pollfd f = {fd, POLLIN | POLLOUT | POLLPRI, 0};
    CHECK_EQ(poll(&f, 1, 1000), 1);
    CHECK_EQ(f.revents, POLLIN | POLLOUT);
}

TEST(poll_wakes) {
    int p[2];
    OK(pipe(p));
    pid_t pid = CHILD(usleep(10000); write(p[1], "x", 1));
    struct pollfd f = {p[0], POLLIN, 0};
    CHECK_EQ(poll(&f, 1, 5000), 1);
    EXITED(wait_for(pid), 0);
}

TEST(poll_is_interrupted_whatever_the_flags) {
    handle(SIGALRM, SA_RESTART);
    ualarm(10000, 0);
    ERR(poll(NULL, 0, 5000), EINTR);
}

TEST(ppoll_mask) {
    handle(SIGUSR1, 0);
    sigset_t set, none;
    sigemptyset(&none);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    OK(sigprocmask(SIG_BLOCK, &set, NULL));
    raise(SIGUSR1);
    struct timespec t = {5, 0};
    ERR(ppoll(NULL, 0, &t, &none), EINTR);
    CHECK_EQ(count, 1);
    sigset_t now;
    sigprocmask(SIG_BLOCK, NULL, &now);
    CHECK(sigismember(&now, SIGUSR1));
    t.tv_nsec = 1000000000;
    ERR(ppoll(NULL, 0, &t, NULL), EINVAL);
}

TEST(ppoll_ready_leaves_the_signal_pending) {
    handle(SIGUSR1, 0);
    int fd = OK(eventfd(1, 0));
    sigset_t set, none, now;
    sigemptyset(&none);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    OK(sigprocmask(SIG_BLOCK, &set, NULL));
    struct pollfd f = {fd, POLLIN, 0};
    CHECK_EQ(ppoll(&f, 1, NULL, &none), 1);
    sigprocmask(SIG_BLOCK, NULL, &now);
    CHECK(sigismember(&now, SIGUSR1));
}

TEST(select_sets) {
    int p[2];
    OK(pipe(p));
    fd_set r, w;
    FD_ZERO(&r);
    FD_ZERO(&w);
    FD_SET(p[0], &r);
    FD_SET(p[1], &w);
    struct timeval t = {0, 0};
    CHECK_EQ(select(p[1] + 1, &r, &w, NULL, &t), 1);
    CHECK(!FD_ISSET(p[0], &r) && FD_ISSET(p[1], &w));
    CHECK_EQ(write(p[1], "x", 1), 1);
    FD_SET(p[0], &r);
    CHECK_EQ(select(p[1] + 1, &r, &w, NULL, NULL), 2);
    close(p[1]);
    FD_ZERO(&w);
    FD_SET(p[1], &w);
    ERR(select(p[1] + 1, NULL, &w, NULL, &t), EBADF);
    ERR(select(-1, NULL, NULL, NULL, &t), EINVAL);
    t.tv_sec = -1;
    ERR(select(0, NULL, NULL, NULL, &t), EINVAL);
}

TEST(select_updates_the_timeout) {
    struct timeval t = {0, 20000};
    CHECK_EQ(select(0, NULL, NULL, NULL, &t), 0);
    CHECK(t.tv_sec == 0 && t.tv_usec == 0);
    int p[2];
    OK(pipe(p));
    CHECK_EQ(write(p[1], "x", 1), 1);
    fd_set r;
    FD_ZERO(&r);
    FD_SET(p[0], &r);
    t.tv_sec = 100;
    CHECK_EQ(select(p[0] + 1, &r, NULL, NULL, &t), 1);
    CHECK(t.tv_sec == 99 || (t.tv_sec == 100 && t.tv_usec == 0));
}

TEST(pselect_leaves_the_timeout) {
    struct timespec t = {0, 5000000};
    CHECK_EQ(pselect(0, NULL, NULL, NULL, &t, NULL), 0);
    CHECK_EQ(t.tv_nsec, 5000000);
}

TEST(eventfd_counts) {
    int fd = OK(eventfd(3, EFD_NONBLOCK));
    uint64_t value;
    CHECK_EQ(read(fd, &value, 8), 8);
    CHECK_EQ(value, 3);
    ERR(read(fd, &value, 8), EAGAIN);
    value = 5;
    CHECK_EQ(write(fd, &value, 8), 8);
    CHECK_EQ(write(fd, &value, 8), 8);
    CHECK_EQ(read(fd, &value, 8), 8);
    CHECK_EQ(value, 10);
    ERR(read(fd, &value, 4), EINVAL);
    ERR(write(fd, &value, 4), EINVAL);
    value = UINT64_MAX;
    ERR(write(fd, &value, 8), EINVAL);
    value = UINT64_MAX - 1;
    CHECK_EQ(write(fd, &value, 8), 8);
    value = 1;
    ERR(write(fd, &value, 8), EAGAIN);
    struct pollfd f = {fd, POLLIN | POLLOUT, 0};
    CHECK_EQ(poll(&f, 1, 0), 1);
    CHECK_EQ(f.revents, POLLIN);
    ERR(eventfd(0, 0x4), EINVAL);
}

TEST(eventfd_semaphore) {
    int fd = OK(eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK));
    uint64_t value;
    CHECK_EQ(read(fd, &value, 8), 8);
    CHECK_EQ(value, 1);
    CHECK_EQ(read(fd, &value, 8), 8);
    ERR(read(fd, &value, 8), EAGAIN);
}

TEST(eventfd_blocks_and_wakes) {
    int fd = OK(eventfd(0, 0));
    pid_t pid = CHILD(usleep(10000); uint64_t one = 1; CHECK_EQ(write(fd, &one, 8), 8));
    uint64_t value;
    CHECK_EQ(read(fd, &value, 8), 8);
    EXITED(wait_for(pid), 0);
}

static int ep;

static void add(int fd, uint32_t events) {
    struct epoll_event e = {.events = events, .data.fd = fd};
    OK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
}

static int ready(struct epoll_event *e) {
    return OK(epoll_wait(ep, e, 8, 0));
}

static void bump(int fd) {
    uint64_t one = 1;
    CHECK_EQ(write(fd, &one, 8), 8);
}

TEST(epoll_level) {
    ep = OK(epoll_create1(EPOLL_CLOEXEC));
    int fd = OK(eventfd(0, 0));
    add(fd, EPOLLIN);
    struct epoll_event e[8];
    CHECK_EQ(ready(e), 0);
    bump(fd);
    CHECK_EQ(ready(e), 1);
    CHECK_EQ(e[0].data.fd, fd);
    CHECK_EQ(e[0].events, EPOLLIN);
    CHECK_EQ(ready(e), 1);
    uint64_t value;
    read(fd, &value, 8);
    CHECK_EQ(ready(e), 0);
}

TEST(epoll_edge) {
    ep = OK(epoll_create1(0));
    int fd = OK(eventfd(0, 0));
    add(fd, EPOLLIN | EPOLLET);
    struct epoll_event e[8];
    bump(fd);
    CHECK_EQ(ready(e), 1);
    CHECK_EQ(ready(e), 0);
    bump(fd); // a new edge though it was readable already
    CHECK_EQ(ready(e), 1);
}

TEST(epoll_edge_of_a_pipe) {
    ep = OK(epoll_create1(0));
    int p[2];
    OK(pipe(p));
    CHECK_EQ(write(p[1], "abc", 3), 3);
    add(p[0], EPOLLIN | EPOLLET);
    struct epoll_event e[8];
    CHECK_EQ(ready(e), 1); // ready when added
    char c;
    CHECK_EQ(read(p[0], &c, 1), 1);
    CHECK_EQ(ready(e), 0); // reading a part is no edge
    CHECK_EQ(write(p[1], "d", 1), 1);
    CHECK_EQ(ready(e), 1);
}

TEST(epoll_oneshot) {
    ep = OK(epoll_create1(0));
    int fd = OK(eventfd(1, 0));
    add(fd, EPOLLIN | EPOLLONESHOT);
    struct epoll_event e[8], again = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 7};
    CHECK_EQ(ready(e), 1);
    bump(fd);
    CHECK_EQ(ready(e), 0);
    OK(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &again));
    CHECK_EQ(ready(e), 1);
    CHECK_EQ(e[0].data.u64, 7);
}

TEST(epoll_ctl_errors) {
    ep = OK(epoll_create1(0));
    int fd = OK(eventfd(0, 0)), file = OK(open("f", O_CREAT | O_RDWR, 0600));
    struct epoll_event e = {.events = EPOLLIN};
    ERR(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &e), ENOENT);
    ERR(epoll_ctl(ep, EPOLL_CTL_DEL, fd, &e), ENOENT);
    OK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
    ERR(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e), EEXIST);
    ERR(epoll_ctl(ep, EPOLL_CTL_ADD, file, &e), EPERM);
    ERR(epoll_ctl(ep, EPOLL_CTL_ADD, ep, &e), EINVAL);
    ERR(epoll_ctl(ep, EPOLL_CTL_ADD, 999, &e), EBADF);
    ERR(epoll_ctl(999, EPOLL_CTL_ADD, fd, &e), EBADF);
    ERR(epoll_ctl(fd, EPOLL_CTL_ADD, ep, &e), EINVAL);
    ERR(epoll_ctl(ep, 99, fd, &e), EINVAL);
    ERR(epoll_ctl(ep, EPOLL_CTL_MOD, fd, BAD_ADDRESS), EFAULT);
    ERR(epoll_create1(0x1), EINVAL);
    ERR(epoll_create(0), EINVAL);
    ERR(epoll_wait(ep, &e, 0, 0), EINVAL);
    ERR(epoll_wait(fd, &e, 1, 0), EINVAL);
}

TEST(epoll_max_events) {
    ep = OK(epoll_create1(0));
    for (int i = 0; i < 5; i++)
        add(OK(eventfd(1, 0)), EPOLLIN);
    struct epoll_event e[8];
    CHECK_EQ(epoll_wait(ep, e, 3, 0), 3);
    int first = e[0].data.fd;
    // Level-triggered entries rotate: the next call starts with those not told yet.
    CHECK_EQ(epoll_wait(ep, e, 2, 0), 2);
    CHECK(e[0].data.fd != first);
    CHECK_EQ(epoll_wait(ep, e, 8, 0), 5);
}

TEST(epoll_timeout_and_interrupt) {
    ep = OK(epoll_create1(0));
    struct epoll_event e;
    long long start = now_ms();
    CHECK_EQ(epoll_wait(ep, &e, 1, 20), 0);
    CHECK(now_ms() - start >= 19);
    handle(SIGALRM, SA_RESTART);
    ualarm(10000, 0);
    ERR(epoll_wait(ep, &e, 1, -1), EINTR);
}

TEST(epoll_pwait_mask) {
    ep = OK(epoll_create1(0));
    handle(SIGUSR1, 0);
    sigset_t set, none;
    sigemptyset(&none);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    OK(sigprocmask(SIG_BLOCK, &set, NULL));
    raise(SIGUSR1);
    struct epoll_event e;
    ERR(epoll_pwait(ep, &e, 1, 5000, &none), EINTR);
    CHECK_EQ(count, 1);
}

TEST(epoll_pwait2_has_nanoseconds) {
    ep = OK(epoll_create1(0));
    struct epoll_event e;
    struct timespec t = {0, 5000000};
    CHECK_EQ(syscall(441, ep, &e, 1, &t, NULL, 8), 0);
    t.tv_nsec = -1;
    ERR(syscall(441, ep, &e, 1, &t, NULL, 8), EINVAL);
}

TEST(epoll_nested) {
    int inner = OK(epoll_create1(0)), fd = OK(eventfd(0, 0));
    ep = inner;
    add(fd, EPOLLIN);
    ep = OK(epoll_create1(0));
    add(inner, EPOLLIN);
    struct epoll_event e[8];
    CHECK_EQ(ready(e), 0);
    bump(fd);
    CHECK_EQ(ready(e), 1);
    CHECK_EQ(e[0].data.fd, inner);
    struct pollfd f = {ep, POLLIN, 0};
    CHECK_EQ(poll(&f, 1, 0), 1);
}

TEST(epoll_loops_are_refused) {
    int a = OK(epoll_create1(0)), b = OK(epoll_create1(0));
    struct epoll_event e = {.events = EPOLLIN};
    OK(epoll_ctl(a, EPOLL_CTL_ADD, b, &e));
    ERR(epoll_ctl(b, EPOLL_CTL_ADD, a, &e), ELOOP);
}

TEST(epoll_forgets_closed_files) {
    ep = OK(epoll_create1(0));
    int fd = OK(eventfd(1, 0));
    add(fd, EPOLLIN);
    int copy = OK(dup(fd));
    close(fd);
    struct epoll_event e[8];
    CHECK_EQ(ready(e), 1); // the description lives on
    close(copy);
    CHECK_EQ(ready(e), 0);
}

TEST(epoll_hang_up_is_always_told) {
    ep = OK(epoll_create1(0));
    int p[2];
    OK(pipe(p));
    add(p[0], 0);
    struct epoll_event e[8];
    CHECK_EQ(ready(e), 0);
    close(p[1]);
    CHECK_EQ(ready(e), 1);
    CHECK_EQ(e[0].events, EPOLLHUP);
}

TEST(epoll_exclusive_rules) {
    ep = OK(epoll_create1(0));
    int fd = OK(eventfd(0, 0));
    add(fd, EPOLLIN | EPOLLEXCLUSIVE);
    struct epoll_event e = {.events = EPOLLIN | EPOLLEXCLUSIVE};
    ERR(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &e), EINVAL);
    int other = OK(eventfd(0, 0));
    e.events = EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT;
    ERR(epoll_ctl(ep, EPOLL_CTL_ADD, other, &e), EINVAL);
}

static void *waits(void *result) {
    struct epoll_event e;
    *(int *)result = epoll_wait(ep, &e, 1, 5000);
    return NULL;
}

TEST(epoll_wakes_a_thread) {
    ep = OK(epoll_create1(0));
    int fd = OK(eventfd(0, 0)), result = -5;
    pthread_t t;
    pthread_create(&t, NULL, waits, &result);
    sleep_ms(10);
    add(fd, EPOLLIN); // added while it waits
    bump(fd);
    pthread_join(t, NULL);
    CHECK_EQ(result, 1);
}

TEST(epoll_edge_wakes_one_thread_per_event) {
    ep = OK(epoll_create1(0));
    int fd = OK(eventfd(0, 0)), result[2] = {-5, -5};
    add(fd, EPOLLIN | EPOLLET);
    pthread_t t[2];
    for (int i = 0; i < 2; i++)
        pthread_create(&t[i], NULL, waits, &result[i]);
    sleep_ms(10);
    bump(fd);
    sleep_ms(10);
    bump(fd);
    for (int i = 0; i < 2; i++) {
        pthread_join(t[i], NULL);
        CHECK_EQ(result[i], 1);
    }
}
