// Pipes and FIFOs: atomicity, blocking, partial progress, ends of file, SIGPIPE, sizes, splice and tee.
#include "check.h"
#include <poll.h>
#include <sys/ioctl.h>

static int p[2];

static void make(int flags) {
    OK(pipe2(p, flags));
}

// Fills the pipe; returns how much went in.
static size_t fill(int fd) {
    static char block[4096];
    size_t total = 0;
    ssize_t n;
    OK(fcntl(fd, F_SETFL, O_NONBLOCK));
    while ((n = write(fd, block, sizeof block)) > 0)
        total += n;
    CHECK_EQ(errno, EAGAIN);
    return total;
}

TEST(round_trip) {
    make(0);
    CHECK_EQ(write(p[1], "hello", 5), 5);
    char text[10] = {0};
    CHECK_EQ(read(p[0], text, 10), 5);
    STR_EQ(text, "hello");
}

TEST(pipe2_flags) {
    make(O_CLOEXEC | O_NONBLOCK);
    CHECK_EQ(fcntl(p[0], F_GETFD), FD_CLOEXEC);
    CHECK(fcntl(p[1], F_GETFL) & O_NONBLOCK);
    CHECK_EQ(fcntl(p[0], F_GETFL) & O_ACCMODE, O_RDONLY);
    CHECK_EQ(fcntl(p[1], F_GETFL) & O_ACCMODE, O_WRONLY);
    ERR(pipe2(p, 0x1), EINVAL);
    ERR(syscall(SYS_pipe2, BAD_ADDRESS, 0), EFAULT);
    char c;
    ERR(read(p[1], &c, 1), EBADF);
    ERR(write(p[0], &c, 1), EBADF);
}

TEST(end_of_file_when_writers_are_gone) {
    make(0);
    int copy = OK(dup(p[1]));
    close(p[1]);
    CHECK_EQ(write(copy, "x", 1), 1);
    close(copy);
    char c;
    CHECK_EQ(read(p[0], &c, 1), 1);
    CHECK_EQ(read(p[0], &c, 1), 0);
}

TEST(read_takes_what_there_is) {
    make(0);
    CHECK_EQ(write(p[1], "ab", 2), 2);
    CHECK_EQ(write(p[1], "cd", 2), 2);
    char text[10] = {0};
    CHECK_EQ(read(p[0], text, 3), 3);
    STR_EQ(text, "abc");
    CHECK_EQ(read(p[0], text, 10), 1);
}

TEST(empty_nonblocking_read) {
    make(O_NONBLOCK);
    char c;
    ERR(read(p[0], &c, 1), EAGAIN);
    CHECK_EQ(read(p[0], &c, 0), 0);
    close(p[1]);
    CHECK_EQ(read(p[0], &c, 1), 0);
}

TEST(default_size_is_64k) {
    make(0);
    CHECK_EQ(fcntl(p[0], F_GETPIPE_SZ), 65536);
    CHECK_EQ(fill(p[1]), 65536);
    int left;
    OK(ioctl(p[0], FIONREAD, &left));
    CHECK_EQ(left, 65536);
}

TEST(size_can_change) {
    make(0);
    CHECK_EQ(fcntl(p[1], F_SETPIPE_SZ, 4097), 8192);
    CHECK_EQ(fill(p[1]), 8192);
    ERR(fcntl(p[1], F_SETPIPE_SZ, 4096), EBUSY);
    CHECK_EQ(fcntl(p[1], F_SETPIPE_SZ, 1 << 20), 1 << 20);
    ERR(fcntl(0, F_GETPIPE_SZ), EBADF);
}

TEST(full_pipe_takes_no_part_of_an_atomic_write) {
    make(0);
    fill(p[1]);
    char block[4096];
    CHECK_EQ(read(p[0], block, 4096), 4096);
    CHECK_EQ(write(p[1], block, 100), 100);
    ERR(write(p[1], block, 4096), EAGAIN); // up to PIPE_BUF: all or nothing
}

TEST(larger_writes_may_be_partial) {
    make(0);
    fill(p[1]);
    static char block[10000];
    CHECK_EQ(read(p[0], block, 8192), 8192);
    CHECK_EQ(write(p[1], block, 10000), 8192);
}

TEST(blocking_write_writes_all) {
    make(0);
    pid_t pid = CHILD({
        static char block[300000];
        memset(block, 'q', sizeof block);
        CHECK_EQ(write(p[1], block, sizeof block), (ssize_t)sizeof block);
    });
    close(p[1]);
    static char text[7000];
    size_t total = 0;
    ssize_t n;
    while ((n = read(p[0], text, sizeof text)) > 0)
        total += n;
    CHECK_EQ(total, 300000);
    EXITED(wait_for(pid), 0);
}

TEST(small_writes_are_not_torn) {
    make(0);
    enum { SIZE = 512, EACH = 200 };
    pid_t pids[4];
    for (int i = 0; i < 4; i++)
        pids[i] = CHILD({
            char block[SIZE];
            memset(block, 'a' + i, SIZE);
            for (int j = 0; j < EACH; j++)
                CHECK_EQ(write(p[1], block, SIZE), SIZE);
        });
    close(p[1]);
    for (int j = 0; j < 4 * EACH; j++) {
        char block[SIZE];
        size_t got = 0;
        while (got < SIZE) {
            ssize_t n = read(p[0], block + got, SIZE - got);
            CHECK(n > 0);
            got += n;
        }
        for (int k = 1; k < SIZE; k++)
            CHECK_EQ(block[k], block[0]);
    }
    for (int i = 0; i < 4; i++)
        EXITED(wait_for(pids[i]), 0);
}

static void nothing(int signal) {
    (void)signal;
}

TEST(interrupted_write_reports_its_part) {
    struct sigaction action = {.sa_handler = nothing};
    OK(sigaction(SIGALRM, &action, NULL));
    make(0);
    ualarm(30000, 0);
    static char block[100000];
    CHECK_EQ(write(p[1], block, sizeof block), 65536);
    ualarm(30000, 0);
    ERR(write(p[1], block, 1), EINTR);
}

TEST(broken_pipe) {
    signal(SIGPIPE, SIG_IGN);
    make(0);
    close(p[0]);
    ERR(write(p[1], "x", 1), EPIPE);
    struct pollfd f = {p[1], POLLOUT, 0};
    CHECK_EQ(poll(&f, 1, 0), 1);
    CHECK(f.revents & POLLERR);
}

TEST(broken_while_writing) {
    signal(SIGPIPE, SIG_IGN);
    make(0);
    pid_t pid = CHILD(close(p[1]); char c; CHECK_EQ(read(p[0], &c, 1), 1); usleep(20000));
    close(p[0]);
    static char block[100000];
    ssize_t n = write(p[1], block, sizeof block);
    CHECK(n == 65536 || n == 65536 + 4096 || (n == -1 && errno == EPIPE));
    wait_for(pid);
}

TEST(poll_states) {
    make(0);
    struct pollfd f[2] = {{p[0], POLLIN, 0}, {p[1], POLLOUT, 0}};
    CHECK_EQ(poll(f, 2, 0), 1);
    CHECK_EQ(f[0].revents, 0);
    CHECK_EQ(f[1].revents, POLLOUT);
    fill(p[1]);
    CHECK_EQ(poll(f, 2, 0), 1);
    CHECK_EQ(f[0].revents, POLLIN);
    CHECK_EQ(f[1].revents, 0);
    close(p[1]);
    CHECK_EQ(poll(f, 1, 0), 1);
    CHECK_EQ(f[0].revents, POLLIN | POLLHUP);
    static char all[65536];
    CHECK_EQ(read(p[0], all, sizeof all), 65536);
    CHECK_EQ(poll(f, 1, 0), 1);
    CHECK_EQ(f[0].revents, POLLHUP);
}

TEST(fifo_open_waits_for_the_other_side) {
    OK(mkfifo("fifo", 0600));
    pid_t pid = CHILD({
        usleep(20000);
        int fd = OK(open("fifo", O_WRONLY));
        CHECK_EQ(write(fd, "via", 3), 3);
    });
    long long start = now_ms();
    int fd = OK(open("fifo", O_RDONLY));
    CHECK(now_ms() - start >= 15);
    char text[10] = {0};
    CHECK_EQ(read(fd, text, 10), 3);
    STR_EQ(text, "via");
    CHECK_EQ(read(fd, text, 10), 0);
    EXITED(wait_for(pid), 0);
}

TEST(fifo_open_nonblocking) {
    OK(mkfifo("fifo", 0600));
    ERR(open("fifo", O_WRONLY | O_NONBLOCK), ENXIO);
    int r = OK(open("fifo", O_RDONLY | O_NONBLOCK));
    char c;
    CHECK_EQ(read(r, &c, 1), 0); // no writer yet: end of file
    int w = OK(open("fifo", O_WRONLY | O_NONBLOCK));
    ERR(read(r, &c, 1), EAGAIN);
    CHECK_EQ(write(w, "x", 1), 1);
    CHECK_EQ(read(r, &c, 1), 1);
    close(w);
    CHECK_EQ(read(r, &c, 1), 0);
    w = OK(open("fifo", O_WRONLY));
    ERR(read(r, &c, 1), EAGAIN);
}

TEST(fifo_read_write_never_waits) {
    OK(mkfifo("fifo", 0600));
    int fd = OK(open("fifo", O_RDWR));
    CHECK_EQ(write(fd, "x", 1), 1);
    char c;
    CHECK_EQ(read(fd, &c, 1), 1);
}

TEST(fifo_open_is_interrupted) {
    struct sigaction action = {.sa_handler = nothing};
    OK(sigaction(SIGALRM, &action, NULL));
    OK(mkfifo("fifo", 0600));
    ualarm(20000, 0);
    ERR(open("fifo", O_RDONLY), EINTR);
}

TEST(fifo_poll_without_writers) {
    OK(mkfifo("fifo", 0600));
    int r = OK(open("fifo", O_RDONLY | O_NONBLOCK));
    struct pollfd f = {r, POLLIN, 0};
    CHECK_EQ(poll(&f, 1, 0), 0); // nobody has written yet: no hang-up
    close(OK(open("fifo", O_WRONLY)));
    CHECK_EQ(poll(&f, 1, 0), 1);
    CHECK_EQ(f.revents, POLLHUP);
}

TEST(splice_moves_between_pipes) {
    make(0);
    int q[2];
    OK(pipe(q));
    CHECK_EQ(write(p[1], "abcdef", 6), 6);
    CHECK_EQ(splice(p[0], NULL, q[1], NULL, 4, 0), 4);
    char text[10] = {0};
    CHECK_EQ(read(q[0], text, 10), 4);
    STR_EQ(text, "abcd");
    CHECK_EQ(splice(p[0], NULL, q[1], NULL, 4, 0), 2);
    ERR(splice(p[0], NULL, q[1], NULL, 4, SPLICE_F_NONBLOCK), EAGAIN);
}

TEST(tee_copies) {
    make(0);
    int q[2];
    OK(pipe(q));
    CHECK_EQ(write(p[1], "abc", 3), 3);
    CHECK_EQ(tee(p[0], q[1], 10, 0), 3);
    char text[10] = {0};
    CHECK_EQ(read(q[0], text, 10), 3);
    CHECK_EQ(read(p[0], text, 10), 3);
    ERR(tee(p[0], p[1], 1, 0), EINVAL);
}

TEST(vmsplice_puts_memory) {
    make(0);
    struct iovec v[] = {{"one", 3}, {"two", 3}};
    CHECK_EQ(vmsplice(p[1], v, 2, 0), 6);
    char text[10] = {0};
    CHECK_EQ(read(p[0], text, 10), 6);
    STR_EQ(text, "onetwo");
}

TEST(pipe_stat) {
    make(0);
    struct stat s;
    OK(fstat(p[0], &s));
    CHECK(S_ISFIFO(s.st_mode));
    char path[40], target[40] = {0};
    sprintf(path, "/proc/self/fd/%d", p[0]);
    OK(readlink(path, target, sizeof target - 1));
    CHECK(!strncmp(target, "pipe:[", 6));
    sprintf(path, "/proc/self/fd/%d", p[1]);
    int again = OK(open(path, O_WRONLY)); // a pipe can be opened again
    CHECK_EQ(write(again, "x", 1), 1);
    char c;
    CHECK_EQ(read(p[0], &c, 1), 1);
}

static void *reads_one(void *result) {
    char c;
    *(ssize_t *)result = read(p[0], &c, 1);
    return NULL;
}

TEST(every_reader_wakes_at_the_end) {
    make(0);
    pthread_t t[4];
    ssize_t result[4] = {9, 9, 9, 9};
    for (int i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, reads_one, &result[i]);
    sleep_ms(10);
    close(p[1]);
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], NULL);
        CHECK_EQ(result[i], 0);
    }
}

TEST(one_byte_wakes_one_reader) {
    make(0);
    pthread_t t[3];
    ssize_t result[3] = {9, 9, 9};
    for (int i = 0; i < 3; i++)
        pthread_create(&t[i], NULL, reads_one, &result[i]);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(write(p[1], "x", 1), 1);
    for (int i = 0; i < 3; i++) {
        pthread_join(t[i], NULL);
        CHECK_EQ(result[i], 1);
    }
}

TEST(ping_pong) {
    int q[2];
    make(0);
    OK(pipe(q));
    pid_t pid = CHILD({
        char c;
        for (int i = 0; i < 5000; i++) {
            CHECK_EQ(read(p[0], &c, 1), 1);
            CHECK_EQ(write(q[1], &c, 1), 1);
        }
    });
    char c = 'x';
    for (int i = 0; i < 5000; i++) {
        CHECK_EQ(write(p[1], &c, 1), 1);
        CHECK_EQ(read(q[0], &c, 1), 1);
    }
    EXITED(wait_for(pid), 0);
}

static const char *link_of(int fd) {
    static char path[40];
    sprintf(path, "/proc/self/fd/%d", fd);
    return path;
}

TEST(pipe_is_opened_again_without_the_other_end) {
    make(0);
    CHECK_EQ(write(p[1], "left", 4), 4);
    close(p[1]);
    int fd = OK(open(link_of(p[0]), O_RDONLY));
    char text[10];
    CHECK_EQ(read(fd, text, 10), 4);
    CHECK_EQ(read(fd, text, 10), 0);
    struct pollfd r = {fd, POLLIN, 0};
    CHECK_EQ(poll(&r, 1, 0), 1);
    CHECK_EQ(r.revents, POLLHUP);
    make(0);
    close(p[0]);
    fd = OK(open(link_of(p[1]), O_WRONLY));
    OK(open(link_of(p[1]), O_WRONLY | O_NONBLOCK));
    signal(SIGPIPE, SIG_IGN);
    ERR(write(fd, "x", 1), EPIPE);
}

TEST(pipe_gets_back_the_end_that_was_gone) {
    make(0);
    close(p[1]);
    int fd = OK(open(link_of(p[0]), O_WRONLY));
    CHECK_EQ(write(fd, "new", 3), 3);
    char text[10];
    CHECK_EQ(read(p[0], text, 10), 3);
}

TEST(fifo_reader_sees_its_first_writer_go) {
    OK(mkfifo("fifo", 0600));
    int writer = OK(open("fifo", O_RDWR));
    int reader = OK(open("fifo", O_RDONLY));
    close(writer);
    struct pollfd r = {reader, POLLIN, 0};
    CHECK_EQ(poll(&r, 1, 0), 1);
    CHECK_EQ(r.revents, POLLHUP);
}
