// Pipes, FIFOs, eventfds, timerfds, signalfds, epolls, pidfds.
#include "check.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

TEST(a_pipe_with_contents) {
    int ends[2], packets[2];
    char b[100];
    struct stat before, after;
    CHECK(!pipe(ends) && !pipe2(packets, O_DIRECT));
    CHECK_EQ(write(ends[1], "hello", 5), 5);
    CHECK_EQ(fcntl(ends[1], F_SETPIPE_SZ, 16384), 16384);
    CHECK(write(packets[1], "abc", 3) == 3 && write(packets[1], "de", 2) == 2);
    CHECK(!fstat(ends[0], &before));
    RESTORED();
    CHECK(!fstat(ends[1], &after) && after.st_ino == before.st_ino);
    CHECK_EQ(fcntl(ends[0], F_GETPIPE_SZ), 16384);
    CHECK(read(ends[0], b, 100) == 5 && !memcmp(b, "hello", 5));
    CHECK(read(packets[0], b, 100) == 3 && read(packets[0], b, 100) == 2);
    CHECK_EQ(write(ends[1], "x", 1), 1);
    close(ends[1]);
    CHECK(read(ends[0], b, 100) == 1 && read(ends[0], b, 100) == 0);
    close(packets[0]);
    signal(SIGPIPE, SIG_IGN);
    CHECK(write(packets[1], "x", 1) < 0 && errno == EPIPE);
}

TEST(a_reader_that_waits) {
    int ends[2];
    char b[10];
    CHECK(!pipe(ends));
    pid_t child = fork();
    if (!child) {
        close(ends[1]);
        CHECK(read(ends[0], b, 10) == 2 && !memcmp(b, "go", 2));
        CHECK_EQ(read(ends[0], b, 10), 0);
        _exit(0);
    }
    close(ends[0]);
    RESTORED();
    CHECK_EQ(write(ends[1], "go", 2), 2);
    close(ends[1]);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

TEST(a_fifo) {
    char b[10];
    CHECK(!mkfifo("/dev/shm/checkpoint-fifo", 0600));
    int r = open("/dev/shm/checkpoint-fifo", O_RDONLY | O_NONBLOCK), w = open("/dev/shm/checkpoint-fifo", O_WRONLY);
    CHECK(r >= 0 && w >= 0);
    CHECK_EQ(write(w, "one", 3), 3);
    RESTORED();
    int again = open("/dev/shm/checkpoint-fifo", O_WRONLY | O_NONBLOCK);
    CHECK(again >= 0 && write(again, "two", 3) == 3);
    CHECK(read(r, b, 10) == 6 && !memcmp(b, "onetwo", 6));
    CHECK(read(r, b, 10) < 0 && errno == EAGAIN);
    close(w);
    close(again);
    CHECK_EQ(read(r, b, 10), 0);
    CHECK(!unlink("/dev/shm/checkpoint-fifo"));
}

TEST(eventfds) {
    uint64_t n;
    int all = eventfd(5, 0), one = eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK);
    CHECK(all >= 0 && one >= 0);
    RESTORED();
    CHECK(read(all, &n, 8) == 8 && n == 5);
    for (int i = 0; i < 3; i++)
        CHECK(read(one, &n, 8) == 8 && n == 1);
    CHECK(read(one, &n, 8) < 0 && errno == EAGAIN);
}

TEST(timerfds) {
    uint64_t n;
    struct itimerspec soon = {{0, 0}, {2, 0}}, often = {{0, 100000000}, {0, 1}}, left;
    int once = timerfd_create(CLOCK_MONOTONIC, 0), every = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK);
    int day = timerfd_create(CLOCK_REALTIME, 0), off = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    CHECK(!timerfd_settime(once, 0, &soon, NULL) && !timerfd_settime(every, 0, &often, NULL));
    struct itimerspec at = {{0, 0}, {time(NULL) + 3, 0}};
    CHECK(!timerfd_settime(day, TFD_TIMER_ABSTIME, &at, NULL));
    READY();
    CHECK(read(once, &n, 8) == 8 && n == 1);
    CHECK(!timerfd_gettime(once, &left) && !left.it_value.tv_sec && !left.it_value.tv_nsec);
    CHECK(read(every, &n, 8) == 8 && n >= 5);
    CHECK(!timerfd_gettime(every, &left) && left.it_interval.tv_nsec == 100000000);
    CHECK(read(day, &n, 8) == 8 && n == 1 && now_ms(CLOCK_REALTIME) >= at.it_value.tv_sec * 1000);
    CHECK(read(off, &n, 8) < 0 && errno == EAGAIN);
}

TEST(an_epoll) {
    struct epoll_event e, events[8];
    int level = eventfd(1, 0), edge = eventfd(1, 0), once = eventfd(1, 0), quiet = eventfd(0, 0);
    int ep = epoll_create1(EPOLL_CLOEXEC), outer = epoll_create1(0);
    struct { int fd; uint32_t events; } watched[] = {{level, EPOLLIN}, {edge, EPOLLIN | EPOLLET}, {once, EPOLLIN | EPOLLONESHOT}, {quiet, EPOLLIN | EPOLLET}};
    for (int i = 0; i < 4; i++) {
        e = (struct epoll_event){watched[i].events, {.u64 = 100 + i}};
        CHECK(!epoll_ctl(ep, EPOLL_CTL_ADD, watched[i].fd, &e));
    }
    e = (struct epoll_event){EPOLLIN, {.u64 = 7}};
    CHECK(!epoll_ctl(outer, EPOLL_CTL_ADD, ep, &e));
    CHECK_EQ(epoll_wait(ep, events, 8, 0), 3);
    RESTORED();
    // The edge and the one shot have been given.
    CHECK(epoll_wait(ep, events, 8, 0) == 1 && events[0].data.u64 == 100);
    CHECK(epoll_wait(outer, events, 8, 0) == 1 && events[0].data.u64 == 7);
    CHECK(!eventfd_write(quiet, 1) && !eventfd_write(edge, 1));
    CHECK_EQ(epoll_wait(ep, events, 8, 0), 3);
    e = (struct epoll_event){EPOLLIN, {.u64 = 9}};
    CHECK(!epoll_ctl(ep, EPOLL_CTL_MOD, once, &e));
    CHECK(!epoll_ctl(ep, EPOLL_CTL_DEL, level, NULL));
    CHECK(epoll_wait(ep, events, 8, 0) == 1 && events[0].data.u64 == 9);
    close(once);
    CHECK_EQ(epoll_wait(ep, events, 8, 0), 0);
}

TEST(an_epoll_that_is_waited_for) {
    struct epoll_event e = {EPOLLIN, {.u64 = 1}};
    int ends[2], ep = epoll_create1(0);
    CHECK(!pipe(ends) && !epoll_ctl(ep, EPOLL_CTL_ADD, ends[0], &e));
    pid_t child = fork();
    if (!child) {
        AWAIT();
        CHECK_EQ(write(ends[1], "x", 1), 1);
        _exit(0);
    }
    READY();
    CHECK(epoll_wait(ep, &e, 1, 20000) == 1 && e.events == EPOLLIN);
    CHECK_EQ(waitpid(child, NULL, 0), child);
}

TEST(a_signalfd) {
    struct signalfd_siginfo info;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    CHECK(!sigprocmask(SIG_BLOCK, &set, NULL));
    int fd = signalfd(-1, &set, SFD_NONBLOCK);
    CHECK(fd >= 0 && !kill(getpid(), SIGUSR1));
    RESTORED();
    CHECK(read(fd, &info, sizeof info) == sizeof info && info.ssi_signo == SIGUSR1);
    CHECK_EQ(info.ssi_pid, getpid());
    CHECK(read(fd, &info, sizeof info) < 0 && errno == EAGAIN);
    pthread_kill(pthread_self(), SIGUSR2);
    CHECK(read(fd, &info, sizeof info) == sizeof info && info.ssi_signo == SIGUSR2);
}

TEST(pidfds) {
    int status, ended;
    pid_t child = fork();
    if (!child) {
        AWAIT();
        pause();
    }
    pid_t zombie = fork();
    if (!zombie)
        _exit(3);
    int fd = syscall(SYS_pidfd_open, child, 0), gone = syscall(SYS_pidfd_open, zombie, 0);
    struct pollfd poll_gone = {gone, POLLIN, 0}, poll_child = {fd, POLLIN, 0};
    CHECK(fd >= 0 && gone >= 0 && poll(&poll_gone, 1, 10000) == 1);
    RESTORED();
    ended = poll(&poll_gone, 1, 0);
    CHECK(ended == 1 && poll(&poll_child, 1, 0) == 0);
    CHECK(!syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0));
    CHECK_EQ(poll(&poll_child, 1, 10000), 1);
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    CHECK(waitpid(zombie, &status, 0) == zombie && WEXITSTATUS(status) == 3);
}

TEST(a_second_name_when_the_first_is_gone) {
    // As sem_open(3) makes a file.
    int fd = open("/dev/shm/first", O_RDWR | O_CREAT | O_EXCL, 0600);
    CHECK(fd >= 0 && write(fd, "text", 4) == 4);
    char *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(map != MAP_FAILED && !link("/dev/shm/first", "/dev/shm/second") && !unlink("/dev/shm/first"));
    RESTORED();
    int other = open("/dev/shm/second", O_RDWR);
    char text[8];
    CHECK(other >= 0 && pread(other, text, 8, 0) == 4 && !memcmp(text, "text", 4));
    map[0] = 'T';
    CHECK(pread(other, text, 8, 0) == 4 && !memcmp(text, "Text", 4));
    CHECK(pwrite(fd, "s", 1, 4) == 1 && pread(other, text, 8, 0) == 5 && text[4] == 's');
    struct stat one, two;
    CHECK(!fstat(fd, &one) && !fstat(other, &two) && one.st_ino == two.st_ino && one.st_nlink == 1);
    CHECK(!unlink("/dev/shm/second"));
}
