// POSIX message queues: order, limits, waiting, notification, permissions, the file system.
#include "check.h"
#include <mqueue.h>
#include <poll.h>
#include <sys/vfs.h>

static char name[64];

static mqd_t make_queue(int flags, long max, long size) {
    struct mq_attr a = {.mq_maxmsg = max, .mq_msgsize = size};
    sprintf(name, "/abi-%d", getpid());
    mq_unlink(name);
    return OK(mq_open(name, O_CREAT | O_EXCL | O_RDWR | flags, 0600, &a));
}

static void done(void) {
    OK(mq_unlink(name));
}

TEST(highest_priority_first) {
    mqd_t q = make_queue(0, 4, 16);
    OK(mq_send(q, "low", 3, 0));
    OK(mq_send(q, "first", 5, 7));
    OK(mq_send(q, "second", 6, 7));
    char text[16] = {0};
    unsigned priority;
    CHECK_EQ(mq_receive(q, text, 16, &priority), 5);
    CHECK_EQ(priority, 7);
    CHECK(!memcmp(text, "first", 5));
    CHECK_EQ(mq_receive(q, text, 16, &priority), 6);
    CHECK_EQ(mq_receive(q, text, 16, NULL), 3);
    done();
}

TEST(limits_of_calls) {
    mqd_t q = make_queue(O_NONBLOCK, 1, 4);
    char text[8];
    ERR(mq_send(q, "12345", 5, 0), EMSGSIZE);
    ERR(mq_send(q, "x", 1, 32768), EINVAL);
    ERR(mq_receive(q, text, 3, NULL), EMSGSIZE);
    ERR(mq_receive(q, text, 4, NULL), EAGAIN);
    OK(mq_send(q, "1234", 4, 0));
    ERR(mq_send(q, "1", 1, 0), EAGAIN);
    ERR(mq_send(0, "1", 1, 0), EBADF);
    done();
}

TEST(opening) {
    mqd_t q = make_queue(0, 2, 8);
    CHECK_EQ(fcntl(q, F_GETFD), FD_CLOEXEC);
    ERR(mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, NULL), EEXIST);
    mqd_t reader = OK(mq_open(name, O_RDONLY));
    ERR(mq_send(reader, "1", 1, 0), EBADF);
    done();
    ERR(mq_open(name, O_RDWR), ENOENT);
    ERR(mq_unlink(name), ENOENT);
    OK(mq_send(q, "1", 1, 0)); // it lives while it is open
    char text[8];
    CHECK_EQ(mq_receive(reader, text, 8, NULL), 1);
    struct mq_attr none = {.mq_maxmsg = 0, .mq_msgsize = 8};
    ERR(mq_open("/abi-none", O_CREAT | O_RDWR, 0600, &none), EINVAL);
    ERR(mq_open("/abi/none", O_CREAT | O_RDWR, 0600, NULL), EACCES);
}

TEST(attributes) {
    mqd_t q = make_queue(0, 3, 32);
    OK(mq_send(q, "x", 1, 0));
    struct mq_attr a;
    OK(mq_getattr(q, &a));
    CHECK_EQ(a.mq_flags, 0);
    CHECK_EQ(a.mq_maxmsg, 3);
    CHECK_EQ(a.mq_msgsize, 32);
    CHECK_EQ(a.mq_curmsgs, 1);
    a.mq_flags = O_NONBLOCK;
    OK(mq_setattr(q, &a, NULL));
    CHECK(fcntl(q, F_GETFL) & O_NONBLOCK);
    a.mq_flags = O_APPEND;
    ERR(mq_setattr(q, &a, NULL), EINVAL);
    done();
}

TEST(waits_for_the_other_side) {
    mqd_t q = make_queue(0, 1, 8);
    pid_t pid = CHILD(usleep(20000); OK(mq_send(q, "late", 4, 1)));
    char text[8];
    CHECK_EQ(mq_receive(q, text, 8, NULL), 4);
    EXITED(wait_for(pid), 0);
    OK(mq_send(q, "full", 4, 0));
    pid = CHILD(usleep(20000); CHECK_EQ(mq_receive(q, text, 8, NULL), 4));
    OK(mq_send(q, "next", 4, 0));
    EXITED(wait_for(pid), 0);
    done();
}

TEST(times_out) {
    mqd_t q = make_queue(0, 1, 8);
    struct timespec until;
    OK(clock_gettime(CLOCK_REALTIME, &until));
    until.tv_nsec += 30 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    char text[8];
    ERR(mq_timedreceive(q, text, 8, NULL, &until), ETIMEDOUT);
    until.tv_nsec = 1000000000;
    ERR(mq_timedreceive(q, text, 8, NULL, &until), EINVAL);
    done();
}

static void nothing(int signal) {
    (void)signal;
}

TEST(interrupted) {
    mqd_t q = make_queue(0, 1, 8);
    struct sigaction a = {.sa_handler = nothing};
    OK(sigaction(SIGALRM, &a, NULL));
    struct itimerval soon = {.it_value = {0, 20000}};
    OK(setitimer(ITIMER_REAL, &soon, NULL));
    char text[8];
    ERR(mq_receive(q, text, 8, NULL), EINTR);
    done();
}

TEST(poll_of_a_queue) {
    mqd_t q = make_queue(0, 1, 8);
    struct pollfd f = {q, POLLIN | POLLOUT, 0};
    CHECK_EQ(poll(&f, 1, 0), 1);
    CHECK_EQ(f.revents, POLLOUT);
    OK(mq_send(q, "x", 1, 0));
    CHECK_EQ(poll(&f, 1, 0), 1);
    CHECK_EQ(f.revents, POLLIN);
    done();
}

TEST(notification) {
    mqd_t q = make_queue(0, 2, 8);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    OK(sigprocmask(SIG_BLOCK, &set, NULL));
    struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 42};
    OK(mq_notify(q, &e));
    ERR(mq_notify(q, &e), EBUSY);
    OK(mq_send(q, "x", 1, 0));
    siginfo_t info;
    struct timespec moment = {1, 0};
    CHECK_EQ(sigtimedwait(&set, &info, &moment), SIGUSR1);
    CHECK_EQ(info.si_code, SI_MESGQ);
    CHECK_EQ(info.si_value.sival_int, 42);
    CHECK_EQ(info.si_pid, getpid());
    OK(mq_notify(q, &e)); // it was used up
    OK(mq_notify(q, NULL));
    done();
}

TEST(limit_of_the_user) {
    struct rlimit small = {1000, 1000};
    OK(setrlimit(RLIMIT_MSGQUEUE, &small));
    struct mq_attr a = {.mq_maxmsg = 10, .mq_msgsize = 1000};
    ERR(mq_open("/abi-large", O_CREAT | O_RDWR, 0600, &a), EMFILE);
}

TEST(status_file) {
    mqd_t q = make_queue(0, 2, 8);
    OK(mq_send(q, "12345", 5, 0));
    char text[100] = {0};
    CHECK(pread(q, text, 99, 0) > 0);
    CHECK(!strncmp(text, "QSIZE:5 ", 8));
    struct stat s;
    OK(fstat(q, &s));
    CHECK(S_ISREG(s.st_mode));
    CHECK_EQ(s.st_mode & 0777, 0600);
    struct statfs fs;
    OK(fstatfs(q, &fs));
    CHECK_EQ(fs.f_type, 0x19800202);
    done();
}
