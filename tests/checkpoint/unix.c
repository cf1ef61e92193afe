// UNIX sockets: connections, listeners with what they have not accepted, datagrams, descriptors in flight, credentials.
#include "check.h"
#include <poll.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

static struct sockaddr_un name_of(const char *text, socklen_t *len) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    // One that begins with @ is abstract.
    strcpy(a.sun_path, text);
    *len = offsetof(struct sockaddr_un, sun_path) + strlen(text) + (*text != '@');
    if (*text == '@')
        a.sun_path[0] = 0;
    return a;
}

static int bound(int type, const char *text) {
    socklen_t len;
    struct sockaddr_un a = name_of(text, &len);
    int s = socket(AF_UNIX, type, 0);
    CHECK(s >= 0 && !bind(s, (void *)&a, len));
    return s;
}

static int connected(int type, const char *text) {
    socklen_t len;
    struct sockaddr_un a = name_of(text, &len);
    int s = socket(AF_UNIX, type, 0);
    CHECK(s >= 0 && !connect(s, (void *)&a, len));
    return s;
}

// Sends bytes with descriptors.
static void send_fds(int s, const char *text, const int *fds, int n) {
    char control[CMSG_SPACE(4 * sizeof(int))] = {0};
    struct iovec iov = {(void *)text, strlen(text)};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(n * sizeof(int))};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    *c = (struct cmsghdr){.cmsg_len = CMSG_LEN(n * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(c), fds, n * sizeof(int));
    CHECK_EQ(sendmsg(s, &m, 0), (ssize_t)strlen(text));
}

// Receives bytes; gives how many descriptors came.
static int receive_fds(int s, char *text, int room, ssize_t *len, int *fds, struct ucred *creds) {
    char control[200];
    struct iovec iov = {text, room};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    int n = 0;
    *len = recvmsg(s, &m, MSG_DONTWAIT);
    for (struct cmsghdr *c = *len < 0 ? NULL : CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        if (c->cmsg_type == SCM_RIGHTS) {
            n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            memcpy(fds, CMSG_DATA(c), n * sizeof(int));
        }
        if (c->cmsg_type == SCM_CREDENTIALS && creds)
            memcpy(creds, CMSG_DATA(c), sizeof *creds);
    }
    return n;
}

TEST(a_pair_with_data_both_ways) {
    int ends[2];
    char b[100];
    struct stat before, after;
    CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, ends) && !fstat(ends[0], &before));
    CHECK(write(ends[0], "hello", 5) == 5 && write(ends[0], " there", 6) == 6 && write(ends[1], "back", 4) == 4);
    RESTORED();
    CHECK(!fstat(ends[0], &after) && after.st_ino == before.st_ino && after.st_mode == before.st_mode);
    int waiting;
    CHECK(!ioctl(ends[1], FIONREAD, &waiting) && waiting == 11);
    CHECK(read(ends[1], b, 100) == 11 && !memcmp(b, "hello there", 11));
    CHECK(read(ends[0], b, 100) == 4 && !memcmp(b, "back", 4));
    CHECK(write(ends[0], "more", 4) == 4 && read(ends[1], b, 100) == 4);
    close(ends[0]);
    CHECK_EQ(read(ends[1], b, 100), 0);
    CHECK(send(ends[1], "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
}

TEST(a_peer_that_is_gone) {
    int ends[2], reset[2];
    char b[100];
    CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, ends) && !socketpair(AF_UNIX, SOCK_STREAM, 0, reset));
    CHECK(write(ends[0], "last words", 10) == 10 && write(reset[1], "unread", 6) == 6);
    close(ends[0]);
    close(reset[0]);
    RESTORED();
    CHECK(read(ends[1], b, 100) == 10 && !memcmp(b, "last words", 10) && read(ends[1], b, 100) == 0);
    CHECK(read(reset[1], b, 100) < 0 && errno == ECONNRESET);
    struct pollfd p = {ends[1], POLLIN | POLLOUT | POLLRDHUP, 0};
    CHECK(poll(&p, 1, 0) == 1 && p.revents & POLLHUP && p.revents & POLLRDHUP);
}

TEST(halves_that_are_shut) {
    int ends[2];
    char b[10];
    CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    CHECK(write(ends[0], "x", 1) == 1 && !shutdown(ends[0], SHUT_WR));
    RESTORED();
    CHECK(send(ends[0], "y", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
    CHECK(read(ends[1], b, 10) == 1 && read(ends[1], b, 10) == 0);
    CHECK(write(ends[1], "z", 1) == 1 && read(ends[0], b, 10) == 1);
}

TEST(a_full_stream) {
    int ends[2];
    static char b[4096];
    long sent = 0, got = 0;
    CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends));
    for (ssize_t n; (n = write(ends[0], b, sizeof b)) > 0;)
        sent += n;
    CHECK_EQ(errno, EAGAIN);
    struct pollfd p = {ends[0], POLLOUT, 0};
    int ep = epoll_create1(0);
    struct epoll_event e = {EPOLLOUT | EPOLLET, {.u64 = 5}};
    CHECK(!epoll_ctl(ep, EPOLL_CTL_ADD, ends[0], &e) && epoll_wait(ep, &e, 1, 0) == 0);
    RESTORED();
    CHECK(poll(&p, 1, 0) == 0 && write(ends[0], b, 1) < 0 && errno == EAGAIN);
    for (ssize_t n; (n = read(ends[1], b, sizeof b)) > 0;)
        got += n;
    CHECK_EQ(got, sent);
    CHECK(poll(&p, 1, 0) == 1 && epoll_wait(ep, &e, 1, 0) == 1 && e.data.u64 == 5);
    CHECK_EQ(write(ends[0], b, sizeof b), (ssize_t)sizeof b);
}

TEST(a_writer_that_waits) {
    int ends[2], size = 4096;
    static char b[100000];
    CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, ends) && !setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &size, 4));
    pid_t child = fork();
    if (!child) {
        close(ends[1]);
        // The one that waits at the checkpoint ends with the part that is sent, as by a signal.
        for (ssize_t n, sent = 0; sent < (ssize_t)sizeof b; sent += n)
            CHECK((n = write(ends[0], b, sizeof b - sent)) > 0);
        _exit(0);
    }
    close(ends[0]);
    usleep(20000);
    RESTORED();
    long got = 0;
    for (ssize_t n; (n = read(ends[1], b, sizeof b)) > 0;)
        got += n;
    int status;
    CHECK_EQ(got, (long)sizeof b);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

TEST(a_listener_at_a_path) {
    const char *path = "/dev/shm/checkpoint-listener";
    char b[100];
    unlink(path);
    int s = bound(SOCK_STREAM, path);
    CHECK(!listen(s, 5));
    int first = connected(SOCK_STREAM, path), second = connected(SOCK_STREAM, path), gone = connected(SOCK_STREAM, path);
    CHECK(write(first, "one", 3) == 3 && write(second, "two", 3) == 3 && write(gone, "three", 5) == 5);
    close(gone);
    RESTORED();
    int value;
    socklen_t len = sizeof value;
    CHECK(!getsockopt(s, SOL_SOCKET, SO_ACCEPTCONN, &value, &len) && value == 1);
    int a = accept(s, NULL, NULL), c = accept(s, NULL, NULL), d = accept(s, NULL, NULL);
    CHECK(read(a, b, 100) == 3 && !memcmp(b, "one", 3) && read(c, b, 100) == 3 && !memcmp(b, "two", 3));
    CHECK(read(d, b, 100) == 5 && read(d, b, 100) == 0);
    CHECK(write(a, "answer", 6) == 6 && read(first, b, 100) == 6);
    struct ucred creds;
    len = sizeof creds;
    CHECK(!getsockopt(a, SOL_SOCKET, SO_PEERCRED, &creds, &len) && creds.pid == getpid() && creds.uid == getuid());
    // And new ones still find it.
    int third = connected(SOCK_STREAM, path), e = accept(s, NULL, NULL);
    CHECK(e >= 0 && write(third, "x", 1) == 1 && read(e, b, 100) == 1);
    struct sockaddr_un name;
    len = sizeof name;
    CHECK(!getpeername(first, (void *)&name, &len) && !strcmp(name.sun_path, path));
    CHECK(!unlink(path));
}

TEST(an_abstract_listener) {
    char b[10];
    int s = bound(SOCK_SEQPACKET, "@checkpoint-abstract");
    CHECK(!listen(s, 1));
    int early = connected(SOCK_SEQPACKET, "@checkpoint-abstract");
    CHECK(send(early, "abc", 3, 0) == 3 && send(early, "", 0, 0) == 0 && send(early, "de", 2, 0) == 2);
    RESTORED();
    int late = connected(SOCK_SEQPACKET, "@checkpoint-abstract"), a = accept(s, NULL, NULL), c = accept(s, NULL, NULL);
    CHECK(recv(a, b, 10, 0) == 3 && recv(a, b, 10, 0) == 0 && recv(a, b, 10, 0) == 2 && send(late, "x", 1, 0) == 1 && recv(c, b, 10, 0) == 1);
    int t = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    socklen_t len;
    struct sockaddr_un name = name_of("@checkpoint-abstract", &len);
    CHECK(bind(t, (void *)&name, len) < 0 && errno == EADDRINUSE);
    close(s);
    CHECK(!bind(t, (void *)&name, len));
}

TEST(an_accept_that_waits) {
    int s = bound(SOCK_STREAM, "@checkpoint-waits");
    CHECK(!listen(s, 1));
    pid_t child = fork();
    if (!child) {
        AWAIT();
        int c = connected(SOCK_STREAM, "@checkpoint-waits");
        CHECK_EQ(write(c, "x", 1), 1);
        _exit(0);
    }
    READY();
    char b;
    int a = accept(s, NULL, NULL);
    CHECK(a >= 0 && read(a, &b, 1) == 1);
    CHECK_EQ(waitpid(child, NULL, 0), child);
}

TEST(a_name_that_was_unlinked) {
    const char *path = "/dev/shm/checkpoint-unlinked";
    unlink(path);
    int s = bound(SOCK_STREAM, path), c;
    CHECK(!listen(s, 5) && (c = connected(SOCK_STREAM, path)) >= 0 && !unlink(path));
    RESTORED();
    struct sockaddr_un name;
    socklen_t len = sizeof name;
    CHECK(!getsockname(s, (void *)&name, &len) && !strcmp(name.sun_path, path));
    CHECK(accept(s, NULL, NULL) >= 0);
    int again = bound(SOCK_STREAM, path);
    CHECK(!listen(again, 5) && connected(SOCK_STREAM, path) >= 0 && accept(again, NULL, NULL) >= 0 && !unlink(path));
}

TEST(datagrams) {
    char b[100];
    int to = bound(SOCK_DGRAM, "@checkpoint-datagrams"), from = bound(SOCK_DGRAM, "@checkpoint-sender");
    int peer = connected(SOCK_DGRAM, "@checkpoint-datagrams"), gone = connected(SOCK_DGRAM, "@checkpoint-datagrams");
    socklen_t len;
    struct sockaddr_un name = name_of("@checkpoint-datagrams", &len), sender;
    CHECK(sendto(from, "first", 5, 0, (void *)&name, len) == 5 && send(peer, "", 0, 0) == 0 && send(gone, "3", 1, 0) == 1);
    close(gone);
    RESTORED();
    len = sizeof sender;
    CHECK(recvfrom(to, b, 100, 0, (void *)&sender, &len) == 5 && !memcmp(sender.sun_path, "\0checkpoint-sender", 18));
    CHECK(recv(to, b, 100, 0) == 0 && recv(to, b, 100, 0) == 1 && recv(to, b, 100, MSG_DONTWAIT) < 0 && errno == EAGAIN);
    CHECK(send(peer, "again", 5, 0) == 5 && recv(to, b, 100, 0) == 5);
    close(to);
    CHECK(send(peer, "x", 1, 0) < 0 && errno == ECONNREFUSED);
}

TEST(a_full_datagram_queue) {
    char b[10];
    int n = 0, to = bound(SOCK_DGRAM, "@checkpoint-full"), peer = connected(SOCK_DGRAM, "@checkpoint-full"), ep = epoll_create1(0);
    while (send(peer, "x", 1, MSG_DONTWAIT) == 1)
        n++;
    struct epoll_event e = {EPOLLOUT | EPOLLET, {.u64 = 5}};
    CHECK(errno == EAGAIN && !epoll_ctl(ep, EPOLL_CTL_ADD, peer, &e) && epoll_wait(ep, &e, 1, 0) == 0);
    RESTORED();
    CHECK(send(peer, "x", 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
    for (; n; n--)
        CHECK_EQ(recv(to, b, 10, MSG_DONTWAIT), 1);
    CHECK(epoll_wait(ep, &e, 1, 0) == 1 && e.data.u64 == 5);
}

TEST(descriptors_in_flight) {
    int ends[2], pipes[2], got[4], in_queue[2];
    char b[100];
    ssize_t len;
    CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, ends) && !pipe(pipes) && !socketpair(AF_UNIX, SOCK_DGRAM, 0, in_queue));
    CHECK(write(pipes[1], "in the pipe", 11) == 11);
    send_fds(in_queue[0], "nested", &pipes[1], 1);
    CHECK_EQ(write(ends[0], "before", 6), 6);
    send_fds(ends[0], "with", (int[]){pipes[0], in_queue[1]}, 2);
    CHECK_EQ(write(ends[0], "after", 5), 5);
    close(pipes[0]);
    close(pipes[1]);
    close(in_queue[1]);
    RESTORED();
    // A read ends behind the bytes that descriptors came with.
    CHECK(receive_fds(ends[1], b, 100, &len, got, NULL) == 2 && len == 10 && !memcmp(b, "beforewith", 10));
    CHECK(read(got[0], b, 100) == 11 && !memcmp(b, "in the pipe", 11));
    CHECK(receive_fds(got[1], b, 100, &len, got + 2, NULL) == 1 && len == 6);
    CHECK(write(got[2], "x", 1) == 1 && read(got[0], b, 100) == 1);
    CHECK(receive_fds(ends[1], b, 100, &len, got, NULL) == 0 && len == 5);
    close(got[2]);
    CHECK_EQ(read(got[0], b, 100), 0);
}

TEST(a_socket_in_its_own_queue) {
    int ends[2], got;
    char b[100];
    ssize_t len;
    CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    send_fds(ends[0], "me", &ends[1], 1);
    RESTORED();
    CHECK(receive_fds(ends[1], b, 100, &len, &got, NULL) == 1 && len == 2);
    CHECK(write(ends[0], "x", 1) == 1 && read(got, b, 100) == 1);
    // Nobody can receive this one any more.
    send_fds(ends[0], "me", &ends[1], 1);
    close(ends[1]);
    close(got);
    close(ends[0]);
}

// Sockets that lie in each other's queues, deeper than anything should recurse.
TEST(a_long_chain) {
    enum { DEPTH = 3000 };
    int inner[2], outer[2], got;
    char b[10];
    ssize_t len;
    CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, inner) && write(inner[0], "core", 4) == 4);
    close(inner[0]);
    for (int i = 0; i < DEPTH; i++) {
        CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, outer));
        send_fds(outer[0], "x", &inner[1], 1);
        close(inner[1]);
        close(outer[0]);
        inner[1] = outer[1];
    }
    RESTORED();
    for (int i = 0; i < DEPTH; i++) {
        CHECK(receive_fds(inner[1], b, 10, &len, &got, NULL) == 1 && len == 1);
        close(inner[1]);
        inner[1] = got;
    }
    CHECK(read(inner[1], b, 10) == 4 && !memcmp(b, "core", 4));
}

TEST(credentials) {
    int ends[2], on = 1, packets[2], status;
    char b[10];
    ssize_t len;
    struct ucred creds = {0};
    CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, ends) && !socketpair(AF_UNIX, SOCK_SEQPACKET, 0, packets));
    CHECK(!setsockopt(ends[1], SOL_SOCKET, SO_PASSCRED, &on, 4) && !setsockopt(packets[1], SOL_SOCKET, SO_PASSCRED, &on, 4));
    // The number of a process that is gone by then.
    pid_t child = fork();
    if (!child)
        _exit(write(ends[0], "child", 5) != 5);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(write(ends[0], "parent", 6) == 6 && write(packets[0], "p", 1) == 1);
    RESTORED();
    CHECK(receive_fds(ends[1], b, 10, &len, NULL, &creds) == 0 && len == 5 && creds.pid == child);
    CHECK(receive_fds(ends[1], b, 10, &len, NULL, &creds) == 0 && len == 6 && creds.pid == getpid() && creds.gid == getgid());
    CHECK(receive_fds(packets[1], b, 10, &len, NULL, &creds) == 0 && len == 1 && creds.pid == getpid());
}

TEST(options) {
    int ends[2], size = 20000, value;
    struct timeval wait = {0, 250000}, got;
    struct linger linger = {1, 7}, kept;
    socklen_t len = sizeof value;
    CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends));
    CHECK(!setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &size, 4) && !setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait));
    CHECK(!setsockopt(ends[0], SOL_SOCKET, SO_LINGER, &linger, sizeof linger) && !fcntl(ends[1], F_SETFD, FD_CLOEXEC));
    RESTORED();
    CHECK(!getsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &value, &len) && value == 40000);
    len = sizeof got;
    CHECK(!getsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &got, &len) && got.tv_usec >= 250000 && got.tv_usec < 260000);
    len = sizeof kept;
    CHECK(!getsockopt(ends[0], SOL_SOCKET, SO_LINGER, &kept, &len) && kept.l_onoff == 1 && kept.l_linger == 7);
    CHECK(fcntl(ends[1], F_GETFL) == (O_RDWR | O_NONBLOCK) && fcntl(ends[1], F_GETFD) == FD_CLOEXEC);
}

// Between a process and its child, each waiting for the other, as servers of editors and the like do.
TEST(a_conversation) {
    int ends[2], status;
    char b[100];
    CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    pid_t child = fork();
    if (!child) {
        close(ends[1]);
        for (ssize_t n; (n = read(ends[0], b, 100)) > 0;)
            CHECK_EQ(write(ends[0], b, n), n);
        _exit(0);
    }
    close(ends[0]);
    RESTORED();
    for (int i = 0; i < 100; i++)
        CHECK(write(ends[1], "ping", 4) == 4 && read(ends[1], b, 100) == 4);
    CHECK(!shutdown(ends[1], SHUT_WR) && waitpid(child, &status, 0) == child && status == 0);
}
