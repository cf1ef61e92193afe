// What a call takes out of an object when it can't copy it to its caller; and how such a call waits.
#include "check.h"
#include <mqueue.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/msg.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>

// An address that the compiler does not know to be bad.
static void *volatile nowhere = BAD_ADDRESS;

// The last `room` bytes of a page, with an address behind it that nobody can use.
static char *edge(size_t room) {
    char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(pages != MAP_FAILED);
    OK(mprotect(pages + 4096, 4096, PROT_NONE));
    return pages + 4096 - room;
}

static int ready_eventfd(int epoll, uint32_t events, int data) {
    int fd = OK(eventfd(1, EFD_NONBLOCK));
    struct epoll_event event = {.events = EPOLLIN | events, .data.u64 = data};
    OK(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
    return fd;
}

TEST(epoll_keeps_an_edge_it_could_not_give) {
    static const uint32_t kinds[] = {0, EPOLLET, EPOLLONESHOT, EPOLLET | EPOLLONESHOT};
    for (size_t i = 0; i < 4; i++) {
        int epoll = OK(epoll_create1(0));
        struct epoll_event event;
        ready_eventfd(epoll, kinds[i], 7);
        ERR(epoll_wait(epoll, nowhere, 1, 0), EFAULT);
        ERR(epoll_wait(epoll, nowhere, 1, -1), EFAULT);
        CHECK_EQ(OK(epoll_wait(epoll, &event, 1, 0)), 1);
        CHECK_EQ(event.data.u64, 7);
        CHECK_EQ(OK(epoll_wait(epoll, &event, 1, 0)), kinds[i] ? 0 : 1);
    }
}

TEST(epoll_gives_what_fits) {
    int epoll = OK(epoll_create1(0));
    for (int i = 0; i < 4; i++)
        ready_eventfd(epoll, i % 2 ? EPOLLET : EPOLLONESHOT, i);
    // Room for two and a half.
    struct epoll_event *events = (void *)edge(sizeof *events * 5 / 2);
    CHECK_EQ(OK(epoll_wait(epoll, events, 4, 0)), 2);
    CHECK_EQ(events[0].data.u64, 0);
    CHECK_EQ(events[1].data.u64, 1);
    struct epoll_event rest[4];
    CHECK_EQ(OK(epoll_wait(epoll, rest, 4, 0)), 2);
    CHECK_EQ(rest[0].data.u64 + rest[1].data.u64, 5);
    CHECK_EQ(OK(epoll_wait(epoll, rest, 4, 0)), 0);
}

TEST(epoll_bad_buffer_waits_for_an_event) {
    int epoll = OK(epoll_create1(0));
    CHECK_EQ(OK(epoll_wait(epoll, nowhere, 1, 0)), 0);
    CHECK_EQ(OK(epoll_wait(epoll, nowhere, 1, 10)), 0);
}

TEST(directory_entries_that_could_not_be_given) {
    for (int i = 0; i < 8; i++) {
        char name[32];
        snprintf(name, sizeof name, "entry-%d", i);
        close(OK(open(name, O_CREAT | O_WRONLY, 0600)));
    }
    int fd = OK(open(".", O_RDONLY | O_DIRECTORY));
    ERR(syscall(SYS_getdents64, fd, nowhere, 4096), EFAULT);
    ERR(syscall(SYS_getdents64, fd, nowhere, 8), EINVAL);
    char *room = edge(100), buffer[4096];
    int found = 0;
    for (int turn = 0;; turn++) {
        // At first as much as fits before the edge, though more room is promised.
        char *to = turn < 2 ? room : buffer;
        long length = OK(syscall(SYS_getdents64, fd, to, sizeof buffer));
        if (!length)
            break;
        CHECK(turn >= 2 || length <= 100);
        for (char *at = to; at < to + length; at += *(unsigned short *)(at + 16))
            found += !strncmp(at + 19, "entry-", 6);
    }
    CHECK_EQ(found, 8);
    CHECK_EQ(OK(syscall(SYS_getdents64, fd, nowhere, 4096)), 0);
}

// An object that has nothing says so before it looks at the buffer.
TEST(nothing_to_read_comes_before_a_bad_buffer) {
    int pipes[2], pair[2];
    OK(pipe2(pipes, O_NONBLOCK));
    OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair));
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    OK(sigprocmask(SIG_BLOCK, &set, NULL));
    int fds[] = {pipes[0], pair[0], OK(eventfd(0, EFD_NONBLOCK)), OK(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)),
                 OK(signalfd(-1, &set, SFD_NONBLOCK))};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        ERR(read(fds[i], nowhere, 128), EAGAIN);
    int datagrams[2];
    OK(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, datagrams));
    ERR(recv(datagrams[0], nowhere, 16, 0), EAGAIN);
    close(pipes[1]);
    CHECK_EQ(OK(read(pipes[0], nowhere, 16)), 0);
    close(pair[1]);
    CHECK_EQ(OK(read(pair[0], nowhere, 16)), 0);
}

TEST(end_of_file_comes_before_a_bad_buffer) {
    int fd = OK(open("file", O_CREAT | O_RDWR | O_TRUNC, 0600));
    CHECK_EQ(OK(read(fd, nowhere, 16)), 0);
    CHECK_EQ(OK(pread(fd, nowhere, 16, 100)), 0);
    OK(write(fd, "abcd", 4));
    CHECK_EQ(OK(read(fd, nowhere, 16)), 0);
    ERR(pread(fd, nowhere, 16, 0), EFAULT);
    OK(lseek(fd, 0, SEEK_SET));
    ERR(read(fd, nowhere, 4), EFAULT);
    CHECK_EQ(OK(lseek(fd, 0, SEEK_CUR)), 0);
    int null = OK(open("/dev/null", O_RDWR));
    CHECK_EQ(OK(read(null, nowhere, 16)), 0);
    int directory = OK(open(".", O_RDONLY));
    ERR(read(directory, nowhere, 16), EISDIR);
}

TEST(streams_keep_bytes_they_could_not_give) {
    int pipes[2], pair[2];
    char buffer[8];
    OK(pipe(pipes));
    OK(write(pipes[1], "abcd", 4));
    ERR(read(pipes[0], nowhere, 4), EFAULT);
    CHECK_EQ(OK(read(pipes[0], buffer, 8)), 4);
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    OK(write(pair[1], "abcd", 4));
    ERR(read(pair[0], nowhere, 4), EFAULT);
    CHECK_EQ(OK(read(pair[0], buffer, 8)), 4);
}

// These lose what they can't give.
TEST(counters_lose_what_they_could_not_give) {
    uint64_t value;
    int event = OK(eventfd(3, EFD_NONBLOCK));
    ERR(read(event, nowhere, 8), EFAULT);
    ERR(read(event, &value, 8), EAGAIN);
    int timer = OK(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
    OK(timerfd_settime(timer, TFD_TIMER_ABSTIME, &(struct itimerspec){{0, 0}, {0, 1}}, NULL));
    ERR(read(timer, nowhere, 8), EFAULT);
    ERR(read(timer, &value, 8), EAGAIN);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    OK(sigprocmask(SIG_BLOCK, &set, NULL));
    int signals = OK(signalfd(-1, &set, SFD_NONBLOCK));
    OK(raise(SIGUSR1));
    struct signalfd_siginfo info;
    ERR(read(signals, nowhere, sizeof info), EFAULT);
    ERR(read(signals, &info, sizeof info), EAGAIN);
}

TEST(datagrams_are_lost) {
    int pair[2];
    char buffer[8];
    OK(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair));
    OK(send(pair[1], "abcd", 4, 0));
    ERR(recv(pair[0], nowhere, 4, 0), EFAULT);
    ERR(recv(pair[0], buffer, 8, 0), EAGAIN);
    OK(send(pair[1], "abcd", 4, 0));
    ERR(recv(pair[0], nowhere, 4, MSG_PEEK), EFAULT);
    CHECK_EQ(OK(recv(pair[0], buffer, 8, 0)), 4);
    // Also one that fits in part; one that fits whole is not.
    OK(send(pair[1], "abcd", 4, 0));
    ERR(recv(pair[0], edge(2), 8, 0), EFAULT);
    ERR(recv(pair[0], buffer, 8, 0), EAGAIN);
    OK(send(pair[1], "abcd", 4, 0));
    CHECK_EQ(OK(recv(pair[0], edge(4), 8, 0)), 4);
}

TEST(messages_signals_and_children_are_lost) {
    char name[64], text[16];
    snprintf(name, sizeof name, "/takes-%d", getpid());
    struct mq_attr attributes = {.mq_maxmsg = 1, .mq_msgsize = sizeof text};
    mqd_t queue = mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0600, &attributes);
    if (queue != (mqd_t)-1) {
        mq_unlink(name);
        OK(mq_send(queue, "x", 1, 0));
        ERR(syscall(SYS_mq_timedreceive, queue, nowhere, sizeof text, NULL, NULL), EFAULT);
        ERR(syscall(SYS_mq_timedreceive, queue, text, sizeof text, NULL, NULL), EAGAIN);
    }
    int id = msgget(IPC_PRIVATE, 0600);
    if (id >= 0) {
        struct { long kind; char text[8]; } message = {1, "abc"};
        int wrong = msgsnd(id, &message, 4, 0) || msgrcv(id, nowhere, 8, 0, IPC_NOWAIT) != -1 || errno != EFAULT;
        wrong |= msgrcv(id, &message, 8, 0, IPC_NOWAIT) != -1 || errno != ENOMSG;
        msgctl(id, IPC_RMID, NULL);
        CHECK_EQ(wrong, 0);
    }
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    OK(sigprocmask(SIG_BLOCK, &set, NULL));
    OK(raise(SIGUSR1));
    struct timespec none = {0, 0};
    ERR(syscall(SYS_rt_sigtimedwait, &set, nowhere, &none, 8), EFAULT);
    ERR(syscall(SYS_rt_sigtimedwait, &set, NULL, &none, 8), EAGAIN);
    pid_t child = CHILD();
    ERR(syscall(SYS_wait4, child, nowhere, 0, NULL), EFAULT);
    ERR(syscall(SYS_wait4, child, NULL, 0, NULL), ECHILD);
}

TEST(accepted_connection_is_lost) {
    int listener = OK(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "listener"};
    OK(bind(listener, (void *)&address, sizeof address));
    OK(listen(listener, 1));
    int client = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    OK(connect(client, (void *)&address, sizeof address));
    socklen_t length = sizeof address;
    ERR(accept(listener, nowhere, &length), EFAULT);
    ERR(accept(listener, NULL, NULL), EAGAIN);
    char byte;
    CHECK_EQ(OK(read(client, &byte, 1)), 0);
}

static void nothing(int signal) {
    (void)signal;
}

// A signal that the call's own mask lets in ends also a call that does not wait.
TEST(signal_ends_a_poll_without_time) {
    struct sigaction action = {.sa_handler = nothing};
    OK(sigaction(SIGUSR1, &action, NULL));
    sigset_t set, none;
    sigemptyset(&none);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    OK(sigprocmask(SIG_BLOCK, &set, NULL));
    struct timespec now = {0, 0};
    OK(raise(SIGUSR1));
    ERR(ppoll(NULL, 0, &now, &none), EINTR);
    OK(raise(SIGUSR1));
    ERR(pselect(0, NULL, NULL, NULL, &now, &none), EINTR);
    // With something to tell the signal stays where it is; epoll has no time to look for one.
    struct pollfd bad = {999, POLLIN, 0};
    OK(raise(SIGUSR1));
    CHECK_EQ(OK(ppoll(&bad, 1, &now, &none)), 1);
    int epoll = OK(epoll_create1(0));
    struct epoll_event event;
    CHECK_EQ(OK(epoll_pwait(epoll, &event, 1, 0, &none)), 0);
}

// A vfork(2) parent sleeps until its child has gone, whatever signals come, and handles them then.
static volatile sig_atomic_t handled;

static void count_signal(int signal) {
    (void)signal;
    handled++;
}

TEST(vfork_parent_handles_signals_after_its_child) {
    struct sigaction action = {.sa_handler = count_signal};
    OK(sigaction(SIGUSR1, &action, NULL));
    pid_t parent = getpid();
    pid_t child = vfork();
    if (!child) {
        syscall(SYS_kill, parent, SIGUSR1);
        struct timespec moment = {0, 50000000};
        syscall(SYS_nanosleep, &moment, NULL);
        _exit(handled);
    }
    CHECK(child > 0);
    CHECK_EQ(handled, 1);
    EXITED(wait_for(child), 0);
}
