// UNIX sockets: pairs, stream, datagram, seqpacket, names in files and abstract, descriptors, credentials.
#include "check.h"
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

static int s[2];

static void pair(int type) {
    OK(socketpair(AF_UNIX, type, 0, s));
}

static struct sockaddr_un name(const char *path, socklen_t *length) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (path[0] == '@') {
        memcpy(a.sun_path + 1, path + 1, strlen(path + 1));
        *length = offsetof(struct sockaddr_un, sun_path) + strlen(path);
    } else {
        strcpy(a.sun_path, path);
        *length = sizeof a;
    }
    return a;
}

static int do_bind(int fd, const char *path) {
    socklen_t length;
    struct sockaddr_un a = name(path, &length);
    return bind(fd, (struct sockaddr *)&a, length);
}

static int do_connect(int fd, const char *path) {
    socklen_t length;
    struct sockaddr_un a = name(path, &length);
    return connect(fd, (struct sockaddr *)&a, length);
}

static int listener(const char *path, int type) {
    int fd = OK(socket(AF_UNIX, type, 0));
    OK(do_bind(fd, path));
    OK(listen(fd, 5));
    return fd;
}

TEST(stream_pair) {
    pair(SOCK_STREAM);
    CHECK_EQ(write(s[0], "hello", 5), 5);
    CHECK_EQ(write(s[0], "world", 5), 5);
    char text[20] = {0};
    CHECK_EQ(read(s[1], text, 7), 7);
    STR_EQ(text, "hellowo");
    CHECK_EQ(write(s[1], "x", 1), 1);
    CHECK_EQ(read(s[0], text, 1), 1);
}

TEST(datagram_pair_keeps_borders) {
    pair(SOCK_DGRAM);
    CHECK_EQ(write(s[0], "one", 3), 3);
    CHECK_EQ(write(s[0], "", 0), 0);
    CHECK_EQ(write(s[0], "longer", 6), 6);
    char text[20] = {0};
    CHECK_EQ(read(s[1], text, 20), 3);
    CHECK_EQ(read(s[1], text, 20), 0);
    CHECK_EQ(read(s[1], text, 3), 3); // the rest is lost
    CHECK_EQ(recv(s[1], text, 20, MSG_DONTWAIT), -1);
    CHECK_EQ(errno, EAGAIN);
}

TEST(seqpacket_keeps_borders_and_ends) {
    pair(SOCK_SEQPACKET);
    CHECK_EQ(write(s[0], "one", 3), 3);
    CHECK_EQ(write(s[0], "two", 3), 3);
    char text[20];
    CHECK_EQ(read(s[1], text, 20), 3);
    CHECK_EQ(recv(s[1], text, 1, MSG_TRUNC), 3);
    close(s[0]);
    CHECK_EQ(read(s[1], text, 20), 0);
}

TEST(socket_errors) {
    ERR(socket(AF_UNIX, 99, 0), EINVAL);
    ERR(socket(AF_UNIX, SOCK_STREAM, 99), EPROTONOSUPPORT);
    ERR(socket(99, SOCK_STREAM, 0), EAFNOSUPPORT);
    ERR(socketpair(AF_INET, SOCK_STREAM, 0, s), EOPNOTSUPP);
    ERR(syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, BAD_ADDRESS), EFAULT);
    ERR(listen(0, 5), ENOTSOCK);
    ERR(send(999, "x", 1, 0), EBADF);
    int fd = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    ERR(send(fd, "x", 1, MSG_NOSIGNAL), ENOTCONN);
    char c;
    ERR(recv(fd, &c, 1, 0), EINVAL);
    ERR(accept(fd, NULL, NULL), EINVAL);
}

TEST(flags_at_creation) {
    int fd = OK(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
    struct stat st;
    OK(fstat(fd, &st));
    CHECK(S_ISSOCK(st.st_mode));
    ERR(lseek(fd, 0, SEEK_SET), ESPIPE);
}

TEST(end_of_file_and_epipe) {
    pair(SOCK_STREAM);
    CHECK_EQ(write(s[0], "x", 1), 1);
    close(s[0]);
    char c;
    CHECK_EQ(read(s[1], &c, 1), 1);
    CHECK_EQ(read(s[1], &c, 1), 0);
    ERR(send(s[1], "x", 1, MSG_NOSIGNAL), EPIPE);
    pid_t pid = CHILD(write(s[1], "x", 1));
    KILLED(wait_for(pid), SIGPIPE);
}

TEST(unread_data_resets_the_peer) {
    pair(SOCK_STREAM);
    CHECK_EQ(write(s[0], "x", 1), 1);
    close(s[1]);
    char c;
    ERR(read(s[0], &c, 1), ECONNRESET);
    CHECK_EQ(read(s[0], &c, 1), 0);
}

TEST(shutdown_halves) {
    pair(SOCK_STREAM);
    OK(shutdown(s[0], SHUT_WR));
    char c;
    CHECK_EQ(read(s[1], &c, 1), 0);
    ERR(send(s[0], "x", 1, MSG_NOSIGNAL), EPIPE);
    CHECK_EQ(write(s[1], "y", 1), 1);
    CHECK_EQ(read(s[0], &c, 1), 1);
    OK(shutdown(s[0], SHUT_RD));
    CHECK_EQ(read(s[0], &c, 1), 0);
    ERR(send(s[1], "x", 1, MSG_NOSIGNAL), EPIPE);
    ERR(shutdown(s[0], 9), EINVAL);
}

TEST(poll_events) {
    pair(SOCK_STREAM);
    struct pollfd f = {s[0], POLLIN | POLLOUT | POLLRDHUP, 0};
    CHECK_EQ(poll(&f, 1, 0), 1);
    CHECK_EQ(f.revents, POLLOUT);
    CHECK_EQ(write(s[1], "x", 1), 1);
    CHECK_EQ(poll(&f, 1, 0), 1);
    CHECK_EQ(f.revents, POLLIN | POLLOUT);
    OK(shutdown(s[1], SHUT_WR));
    CHECK_EQ(poll(&f, 1, 0), 1);
    CHECK_EQ(f.revents, POLLIN | POLLOUT | POLLRDHUP);
    close(s[1]);
    CHECK_EQ(poll(&f, 1, 0), 1);
    CHECK_EQ(f.revents & (POLLIN | POLLHUP | POLLRDHUP), POLLIN | POLLHUP | POLLRDHUP);
}

TEST(named_stream) {
    int l = listener("sock", SOCK_STREAM);
    struct stat st;
    OK(stat("sock", &st));
    CHECK(S_ISSOCK(st.st_mode));
    int c = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    OK(do_connect(c, "sock"));
    struct sockaddr_un peer;
    socklen_t length = sizeof peer;
    int a = OK(accept4(l, (struct sockaddr *)&peer, &length, SOCK_CLOEXEC));
    CHECK_EQ(length, sizeof(sa_family_t)); // the client has no name
    CHECK_EQ(fcntl(a, F_GETFD), FD_CLOEXEC);
    CHECK_EQ(write(c, "hi", 2), 2);
    char text[10];
    CHECK_EQ(read(a, text, 10), 2);
    length = sizeof peer;
    OK(getpeername(c, (struct sockaddr *)&peer, &length));
    STR_EQ(peer.sun_path, "sock");
    length = sizeof peer;
    OK(getsockname(a, (struct sockaddr *)&peer, &length));
    STR_EQ(peer.sun_path, "sock");
    ERR(do_connect(c, "sock"), EISCONN);
}

TEST(bind_errors) {
    int fd = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    OK(do_bind(fd, "sock"));
    ERR(do_bind(fd, "other"), EINVAL);
    int again = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    ERR(do_bind(again, "sock"), EADDRINUSE);
    ERR(do_bind(again, "missing/sock"), ENOENT);
    ERR(do_connect(again, "sock"), ECONNREFUSED); // bound, not listening
    ERR(do_connect(again, "nothing"), ENOENT);
    write_file("plain", "x");
    ERR(do_connect(again, "plain"), ECONNREFUSED);
    struct sockaddr_un a = {.sun_family = AF_INET};
    ERR(bind(again, (struct sockaddr *)&a, sizeof a), EINVAL);
}

TEST(abstract_names) {
    int l = listener("@moat-test", SOCK_STREAM);
    int c = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    OK(do_connect(c, "@moat-test"));
    int again = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    ERR(do_bind(again, "@moat-test"), EADDRINUSE);
    struct sockaddr_un a;
    socklen_t length = sizeof a;
    OK(getsockname(l, (struct sockaddr *)&a, &length));
    CHECK_EQ(length, sizeof(sa_family_t) + 10);
    CHECK(!a.sun_path[0] && !memcmp(a.sun_path + 1, "moat-test", 9));
    close(l);
    ERR(do_connect(again, "@moat-test"), ECONNREFUSED);
    OK(do_bind(again, "@moat-test"));
}

TEST(autobind) {
    int fd = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    OK(bind(fd, (struct sockaddr *)&a, sizeof(sa_family_t)));
    socklen_t length = sizeof a;
    OK(getsockname(fd, (struct sockaddr *)&a, &length));
    CHECK_EQ(length, sizeof(sa_family_t) + 6);
}

TEST(name_goes_with_the_file) {
    listener("sock", SOCK_STREAM);
    OK(rename("sock", "moved"));
    int c = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    OK(do_connect(c, "moved"));
    OK(unlink("moved"));
    int d = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    ERR(do_connect(d, "moved"), ENOENT);
}

TEST(connect_needs_write_permission) {
    OK(chmod(".", 0755));
    listener("sock", SOCK_STREAM);
    OK(chmod("sock", 0755));
    EXITED(wait_for(CHILD(become_nobody(); int c = OK(socket(AF_UNIX, SOCK_STREAM, 0)); ERR(do_connect(c, "sock"), EACCES))), 0);
}

TEST(accept_blocks_and_nonblocks) {
    int l = listener("sock", SOCK_STREAM);
    pid_t pid = CHILD(usleep(10000); int c = OK(socket(AF_UNIX, SOCK_STREAM, 0)); OK(do_connect(c, "sock")));
    struct pollfd f = {l, POLLIN, 0};
    CHECK_EQ(poll(&f, 1, 5000), 1);
    OK(accept(l, NULL, NULL));
    OK(fcntl(l, F_SETFL, O_NONBLOCK));
    ERR(accept(l, NULL, NULL), EAGAIN);
    wait_for(pid);
}

TEST(backlog_is_limited) {
    int l = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    OK(do_bind(l, "sock"));
    OK(listen(l, 1));
    int made = 0;
    for (int i = 0; i < 10; i++) {
        int c = OK(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
        if (do_connect(c, "sock")) {
            CHECK_EQ(errno, EAGAIN);
            break;
        }
        made++;
    }
    CHECK_EQ(made, 2);
}

TEST(datagrams_between_names) {
    int a = OK(socket(AF_UNIX, SOCK_DGRAM, 0)), b = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
    OK(do_bind(a, "a"));
    OK(do_bind(b, "b"));
    socklen_t length;
    struct sockaddr_un to = name("b", &length), from;
    CHECK_EQ(sendto(a, "hey", 3, 0, (struct sockaddr *)&to, length), 3);
    char text[10];
    length = sizeof from;
    CHECK_EQ(recvfrom(b, text, 10, 0, (struct sockaddr *)&from, &length), 3);
    STR_EQ(from.sun_path, "a");
    ERR(send(a, "x", 1, 0), ENOTCONN);
    OK(do_connect(a, "b"));
    CHECK_EQ(send(a, "x", 1, 0), 1);
    close(b);
    ERR(send(a, "x", 1, 0), ECONNREFUSED);
}

TEST(connected_datagram_socket_takes_only_its_peer) {
    int a = OK(socket(AF_UNIX, SOCK_DGRAM, 0)), b = OK(socket(AF_UNIX, SOCK_DGRAM, 0)), c = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
    OK(do_bind(a, "a"));
    OK(do_bind(b, "b"));
    OK(do_connect(a, "b"));
    socklen_t length;
    struct sockaddr_un to = name("a", &length);
    ERR(sendto(c, "x", 1, 0, (struct sockaddr *)&to, length), EPERM);
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    OK(connect(a, &none, sizeof none));
    CHECK_EQ(sendto(c, "x", 1, 0, (struct sockaddr *)&to, length), 1);
}

static int send_fds(int to, const int *fds, int count) {
    char control[CMSG_SPACE(sizeof(int) * 300)] = {0};
    struct iovec v = {"f", 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(sizeof(int) * count)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * count);
    memcpy(CMSG_DATA(c), fds, sizeof(int) * count);
    return sendmsg(to, &m, 0);
}

static int receive_fd(int from, int flags, int *message_flags) {
    char control[CMSG_SPACE(sizeof(int))] = {0}, byte;
    struct iovec v = {&byte, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    CHECK_EQ(recvmsg(from, &m, flags), 1);
    if (message_flags)
        *message_flags = m.msg_flags;
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    if (!c)
        return -1;
    CHECK_EQ(c->cmsg_type, SCM_RIGHTS);
    int fd;
    memcpy(&fd, CMSG_DATA(c), sizeof fd);
    return fd;
}

TEST(passing_descriptors) {
    pair(SOCK_STREAM);
    int p[2];
    OK(pipe(p));
    CHECK_EQ(send_fds(s[0], &p[1], 1), 1);
    close(p[1]);
    int got = receive_fd(s[1], MSG_CMSG_CLOEXEC, NULL);
    CHECK_EQ(fcntl(got, F_GETFD), FD_CLOEXEC);
    CHECK_EQ(write(got, "x", 1), 1);
    char c;
    CHECK_EQ(read(p[0], &c, 1), 1);
}

TEST(passing_descriptors_to_another_process) {
    pair(SOCK_STREAM);
    pid_t pid = CHILD({
        int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
        CHECK_EQ(write(fd, "from child", 10), 10);
        CHECK_EQ(send_fds(s[0], &fd, 1), 1);
    });
    int fd = receive_fd(s[1], 0, NULL);
    char text[20] = {0};
    CHECK_EQ(pread(fd, text, 20, 0), 10);
    STR_EQ(text, "from child");
    EXITED(wait_for(pid), 0);
}

TEST(descriptors_not_taken_are_closed) {
    pair(SOCK_STREAM);
    int p[2];
    OK(pipe(p));
    CHECK_EQ(send_fds(s[0], &p[1], 1), 1);
    close(p[1]);
    char c;
    CHECK_EQ(read(s[1], &c, 1), 1);
    CHECK_EQ(read(p[0], &c, 1), 0); // the write end is gone
}

TEST(too_little_room_truncates) {
    pair(SOCK_STREAM);
    int fds[3] = {0, 1, 2}, flags;
    CHECK_EQ(send_fds(s[0], fds, 3), 1);
    CHECK(receive_fd(s[1], 0, &flags) >= 0);
    CHECK(flags & MSG_CTRUNC);
}

TEST(passing_errors) {
    pair(SOCK_STREAM);
    int bad = 999;
    ERR(send_fds(s[0], &bad, 1), EBADF);
    int many[254] = {0};
    ERR(send_fds(s[0], many, 254), EINVAL);
    OK(send_fds(s[0], many, 253));
}

TEST(a_socket_sent_over_itself_is_collected) {
    pair(SOCK_STREAM);
    int p[2];
    OK(pipe(p));
    CHECK_EQ(send_fds(s[0], &s[1], 1), 1);
    CHECK_EQ(send_fds(s[0], &p[1], 1), 1);
    close(p[1]);
    close(s[0]);
    close(s[1]);
    // Whether and when the cycle is collected is the kernel's affair: nothing may break.
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
}

TEST(peer_credentials) {
    pair(SOCK_STREAM);
    struct ucred c;
    socklen_t length = sizeof c;
    OK(getsockopt(s[0], SOL_SOCKET, SO_PEERCRED, &c, &length));
    CHECK_EQ(c.pid, getpid());
    CHECK_EQ(c.uid, 0);
    int l = listener("sock", SOCK_STREAM);
    pid_t pid = CHILD(OK(chmod(".", 0777)); OK(chmod("sock", 0777)); become_nobody();
                      int fd = OK(socket(AF_UNIX, SOCK_STREAM, 0)); OK(do_connect(fd, "sock")); pause());
    int a = OK(accept(l, NULL, NULL));
    OK(getsockopt(a, SOL_SOCKET, SO_PEERCRED, &c, &length));
    CHECK_EQ(c.pid, pid);
    CHECK_EQ(c.uid, 65534);
    OK(kill(pid, SIGKILL));
    wait_for(pid);
}

TEST(passcred) {
    pair(SOCK_DGRAM);
    int on = 1;
    OK(setsockopt(s[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
    CHECK_EQ(write(s[0], "x", 1), 1);
    char control[CMSG_SPACE(sizeof(struct ucred))], byte;
    struct iovec v = {&byte, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    CHECK_EQ(recvmsg(s[1], &m, 0), 1);
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    CHECK(c && c->cmsg_type == SCM_CREDENTIALS);
    struct ucred *u = (struct ucred *)CMSG_DATA(c);
    CHECK_EQ(u->pid, getpid());
}

TEST(message_flags) {
    pair(SOCK_STREAM);
    CHECK_EQ(send(s[0], "abcdef", 6, 0), 6);
    char text[10] = {0};
    CHECK_EQ(recv(s[1], text, 3, MSG_PEEK), 3);
    CHECK_EQ(recv(s[1], text, 6, MSG_WAITALL), 6);
    ERR(recv(s[1], text, 1, MSG_DONTWAIT), EAGAIN);
    ERR(recv(s[1], text, 1, MSG_OOB | MSG_DONTWAIT), EINVAL);
}

TEST(datagram_truncation_is_told) {
    pair(SOCK_DGRAM);
    CHECK_EQ(send(s[0], "abcdef", 6, 0), 6);
    char text[3];
    struct iovec v = {text, 3};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    CHECK_EQ(recvmsg(s[1], &m, 0), 3);
    CHECK(m.msg_flags & MSG_TRUNC);
}

TEST(sendmmsg_and_recvmmsg) {
    pair(SOCK_DGRAM);
    struct iovec v[3] = {{"a", 1}, {"bb", 2}, {"ccc", 3}};
    struct mmsghdr m[3] = {{.msg_hdr = {.msg_iov = &v[0], .msg_iovlen = 1}},
                           {.msg_hdr = {.msg_iov = &v[1], .msg_iovlen = 1}},
                           {.msg_hdr = {.msg_iov = &v[2], .msg_iovlen = 1}}};
    CHECK_EQ(sendmmsg(s[0], m, 3, 0), 3);
    CHECK_EQ(m[2].msg_len, 3);
    char text[3][10];
    for (int i = 0; i < 3; i++)
        v[i] = (struct iovec){text[i], 10};
    CHECK_EQ(recvmmsg(s[1], m, 3, MSG_DONTWAIT, NULL), 3);
    CHECK_EQ(m[1].msg_len, 2);
}

TEST(full_socket_blocks_or_fails) {
    pair(SOCK_STREAM | SOCK_NONBLOCK);
    static char block[65536];
    size_t total = 0;
    ssize_t n;
    while ((n = write(s[0], block, sizeof block)) > 0)
        total += n;
    CHECK_EQ(errno, EAGAIN);
    CHECK(total >= 65536);
    struct pollfd f = {s[0], POLLOUT, 0};
    CHECK_EQ(poll(&f, 1, 0), 0);
    size_t got = 0;
    while ((n = read(s[1], block, sizeof block)) > 0)
        got += n;
    CHECK_EQ(got, total);
    CHECK_EQ(poll(&f, 1, 0), 1);
}

TEST(large_transfer) {
    pair(SOCK_STREAM);
    pid_t pid = CHILD({
        static char block[1 << 20];
        for (size_t i = 0; i < sizeof block; i++)
            block[i] = i / 4096;
        CHECK_EQ(write(s[0], block, sizeof block), (ssize_t)sizeof block);
    });
    static char block[1 << 20];
    size_t got = 0;
    while (got < sizeof block) {
        ssize_t n = OK(read(s[1], block + got, sizeof block - got));
        CHECK(n);
        got += n;
    }
    for (size_t i = 0; i < sizeof block; i++)
        CHECK(block[i] == (char)(i / 4096));
    EXITED(wait_for(pid), 0);
}

TEST(socket_options) {
    int fd = OK(socket(AF_UNIX, SOCK_STREAM, 0)), value = 0;
    socklen_t length = sizeof value;
    OK(getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &length));
    CHECK_EQ(value, SOCK_STREAM);
    OK(getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &value, &length));
    CHECK_EQ(value, AF_UNIX);
    OK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &length));
    CHECK_EQ(value, 0);
    OK(getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &length));
    CHECK_EQ(value, 0);
    OK(do_bind(fd, "sock"));
    OK(listen(fd, 5));
    OK(getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &length));
    CHECK_EQ(value, 1);
    ERR(getsockopt(fd, SOL_SOCKET, 9999, &value, &length), ENOPROTOOPT);
    ERR(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &value, 1), EINVAL);
    ERR(getsockopt(fd, SOL_SOCKET, SO_TYPE, BAD_ADDRESS, &length), EFAULT);
    value = 20000;
    OK(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &value, sizeof value));
    OK(getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &value, &length));
    CHECK_EQ(value, 40000);
}

TEST(receive_timeout) {
    pair(SOCK_STREAM);
    struct timeval t = {0, 20000};
    OK(setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
    char c;
    long long start = now_ms();
    ERR(read(s[0], &c, 1), EAGAIN);
    CHECK(now_ms() - start >= 19);
}

TEST(fionread_of_a_socket) {
    pair(SOCK_STREAM);
    CHECK_EQ(write(s[0], "abc", 3), 3);
    int n;
    OK(ioctl(s[1], FIONREAD, &n));
    CHECK_EQ(n, 3);
}

TEST(seqpacket_named) {
    int l = listener("@seq", SOCK_SEQPACKET), c = OK(socket(AF_UNIX, SOCK_SEQPACKET, 0));
    OK(do_connect(c, "@seq"));
    int a = OK(accept(l, NULL, NULL));
    CHECK_EQ(send(c, "packet", 6, 0), 6);
    char text[20];
    CHECK_EQ(recv(a, text, 20, 0), 6);
    int wrong = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    ERR(do_connect(wrong, "@seq"), ECONNREFUSED);
}
