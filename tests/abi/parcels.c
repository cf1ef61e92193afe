// Few bytes that a call refers to may take another way than many: what is read, written and refused is the same, at the thousandth call too.
#include "check.h"
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/user.h>

#define PAGE 4096
#define MANY 100

// Pages that can be used, with one behind them that can't.
static char *pages(size_t count) {
    char *p = mmap(NULL, (count + 1) * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED);
    OK(mprotect(p + count * PAGE, PAGE, PROT_NONE));
    return p;
}

static void fill(char *p, size_t len, int seed) {
    for (size_t i = 0; i < len; i++)
        p[i] = i * 7 + seed;
}

static const size_t lengths[] = {1, 2, 7, 8, 9, 63, 64, 511, 512, 1000, 4095, 4096, 4097, 5000, 8192};
#define LENGTHS (sizeof lengths / sizeof *lengths)

TEST(bytes_of_any_length_from_and_to_anywhere) {
    char *from = pages(3), *to = pages(3), *end = from + 3 * PAGE;
    int ends[2];
    OK(pipe(ends));
    for (int round = 0; round < MANY; round++) {
        size_t len = lengths[round % LENGTHS], at = (round * 37) % (3 * PAGE - len + 1);
        fill(from, 3 * PAGE, round);
        memset(to, 0, 3 * PAGE);
        CHECK_EQ(write(ends[1], from + at, len), (ssize_t)len);
        CHECK_EQ(read(ends[0], to + at, len), (ssize_t)len);
        CHECK(memcmp(from + at, to + at, len) == 0);
        CHECK(at == 0 || to[at - 1] == 0);
        CHECK(at + len == 3 * PAGE || to[at + len] == 0);
        // As much as there is before the end of what can be used; a pipe takes whole pages of a buffer or nothing.
        ERR(write(ends[1], end, len), EFAULT);
        ERR(write(ends[1], NULL, len), EFAULT);
    }
}

TEST(a_buffer_that_ends_too_early) {
    char *buf = pages(1), *end = buf + PAGE;
    char path[] = "/tmp/parcelsXXXXXX";
    int fd = OK(mkstemp(path));
    OK(unlink(path));
    fill(buf, PAGE, 1);
    for (int i = 0; i < MANY; i++) {
        CHECK_EQ(pwrite(fd, end - 100, 200, 0), 100);
        CHECK_EQ(lseek(fd, 0, SEEK_END), 100);
        CHECK_EQ(pwrite(fd, end - 100, 100, 50), 100);
        CHECK_EQ(pread(fd, end - 60, 150, 0), 60);
        CHECK_EQ(pread(fd, end - 150, 150, 0), 150);
        ERR(pread(fd, end, 10, 0), EFAULT);
        ERR(pwrite(fd, end, 10, 0), EFAULT);
        OK(ftruncate(fd, 0));
    }
}

TEST(memory_that_can_only_be_read) {
    char *buf = pages(2);
    struct stat *st = (struct stat *)buf;
    int zero = OK(open("/dev/zero", O_RDONLY)), null = OK(open("/dev/null", O_WRONLY));
    for (int i = 0; i < MANY; i++) {
        OK(mprotect(buf, PAGE, PROT_READ | PROT_WRITE));
        memset(buf, 1, PAGE);
        CHECK_EQ(read(zero, buf, 16), 16);
        CHECK_EQ(buf[15], 0);
        CHECK_EQ(buf[16], 1);
        OK(mprotect(buf, PAGE, PROT_READ));
        ERR(read(zero, buf, 16), EFAULT);
        ERR(stat("/", st), EFAULT);
        CHECK_EQ(buf[16], 1);
        CHECK_EQ(write(null, buf, 16), 16);
        // The first bytes can't be written; the last could be.
        ERR(read(zero, buf + PAGE - 8, 16), EFAULT);
        OK(mprotect(buf, PAGE, PROT_NONE));
        ERR(stat("/", st), EFAULT);
        ERR(stat(buf, (struct stat *)(buf + PAGE)), EFAULT);
    }
}

TEST(paths_of_any_length_at_the_end_of_memory) {
    char *buf = pages(2), *end = buf + 2 * PAGE;
    struct stat st, root;
    OK(stat("/", &root));
    for (int i = 0; i < MANY; i++) {
        for (size_t len = 1; len < PAGE; len = len * 2 + 1) {
            char *path = end - len - 1;
            memset(path, '/', len);
            path[len] = 0;
            OK(stat(path, &st));
            CHECK_EQ(st.st_ino, root.st_ino);
            // Without its end.
            path[len] = '/';
            if (len + 1 < PAGE)
                ERR(stat(path, &st), EFAULT);
        }
        memset(buf, '/', 2 * PAGE);
        ERR(stat(buf, &st), ENAMETOOLONG);
        ERR(open(end, O_RDONLY), EFAULT);
        ERR(access(NULL, F_OK), EFAULT);
    }
}

TEST(what_is_read_and_written_in_the_same_place) {
    int ends[2];
    OK(pipe(ends));
    for (int i = 0; i < MANY; i++) {
        struct pollfd set[3] = {{ends[0], POLLIN, -1}, {ends[1], POLLOUT, -1}, {-1, POLLIN, -1}};
        CHECK_EQ(poll(set, 3, 0), 1);
        CHECK_EQ(set[0].revents, 0);
        CHECK_EQ(set[1].revents, POLLOUT);
        CHECK_EQ(set[2].revents, 0);
        sigset_t mask, old;
        sigemptyset(&mask);
        sigaddset(&mask, i % 2 ? SIGUSR1 : SIGUSR2);
        OK(sigprocmask(SIG_SETMASK, &mask, &old));
        OK(sigprocmask(SIG_SETMASK, NULL, &mask));
        CHECK(sigismember(&mask, i % 2 ? SIGUSR1 : SIGUSR2));
        // The new mask and the old one in the same memory.
        OK(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &old, &old, 8));
        CHECK(sigismember(&old, i % 2 ? SIGUSR1 : SIGUSR2));
        int value = 4;
        socklen_t len = sizeof value;
        int s = OK(socket(AF_UNIX, SOCK_STREAM, 0));
        OK(getsockopt(s, SOL_SOCKET, SO_TYPE, &value, &len));
        CHECK_EQ(value, SOCK_STREAM);
        CHECK_EQ(len, sizeof value);
        len = 2;
        OK(getsockopt(s, SOL_SOCKET, SO_TYPE, &value, &len));
        CHECK_EQ(len, 2);
        OK(close(s));
    }
}

TEST(vectors_and_messages) {
    int pair[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    for (int i = 0; i < MANY; i++) {
        char a[5] = "abcd", b[300], c[5] = {0}, d[300] = {0};
        memset(b, i, sizeof b);
        struct iovec out[2] = {{a, 4}, {b, sizeof b}}, in[3] = {{c, 4}, {d, 100}, {d + 100, 200}};
        CHECK_EQ(writev(pair[0], out, 2), 304);
        CHECK_EQ(readv(pair[1], in, 3), 304);
        CHECK(strcmp(c, "abcd") == 0 && memcmp(b, d, sizeof d) == 0);
        struct msghdr message = {.msg_iov = out, .msg_iovlen = 2};
        CHECK_EQ(sendmsg(pair[0], &message, 0), 304);
        memset(d, 0, sizeof d);
        message = (struct msghdr){.msg_iov = in, .msg_iovlen = 3, .msg_flags = -1};
        CHECK_EQ(recvmsg(pair[1], &message, 0), 304);
        CHECK_EQ(message.msg_flags, 0);
        CHECK(memcmp(b, d, sizeof d) == 0);
    }
}

static volatile sig_atomic_t alarms;

static void count_alarm(int signal) {
    (void)signal;
    alarms++;
}

// A signal comes before a call or after it: then what it has read is there.
TEST(signals_see_whole_calls) {
    struct sigaction act = {.sa_handler = count_alarm, .sa_flags = SA_RESTART};
    OK(sigaction(SIGALRM, &act, NULL));
    OK(setitimer(ITIMER_REAL, &(struct itimerval){{0, 300}, {0, 300}}, NULL));
    char *buf = pages(1);
    int ends[2];
    OK(pipe(ends));
    for (int i = 0; i < 3000 || (alarms < 20 && i < 1000000); i++) {
        int len = i % 3000 + 1;
        memset(buf, i, len);
        CHECK_EQ(write(ends[1], buf, len), len);
        memset(buf, ~i, len);
        CHECK_EQ(read(ends[0], buf, len), len);
        for (int k = 0; k < len; k++)
            CHECK_EQ((unsigned char)buf[k], (unsigned char)i);
    }
    OK(setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL));
    CHECK(alarms > 0);
}

static char *contested;
static volatile int stop;

static void *remaps(void *arg) {
    (void)arg;
    while (!stop) {
        OK(mprotect(contested, PAGE, PROT_NONE));
        OK(mprotect(contested, PAGE, PROT_READ | PROT_WRITE));
    }
    return NULL;
}

// Memory that comes and goes while a call is made: it works, or it is refused.
TEST(memory_that_another_thread_changes) {
    contested = pages(1);
    pthread_t thread;
    OK(pthread_create(&thread, NULL, remaps, NULL));
    int zero = OK(open("/dev/zero", O_RDONLY)), null = OK(open("/dev/null", O_WRONLY));
    struct stat st;
    for (int i = 0; i < 3000; i++) {
        ssize_t n = read(zero, contested, 100);
        CHECK(n == 100 || (n == -1 && errno == EFAULT));
        n = write(null, contested, 100);
        CHECK(n == 100 || (n == -1 && errno == EFAULT));
        n = stat(contested, &st);
        // What an earlier round has left there may be a path.
        CHECK(n == 0 || errno == EFAULT || errno == ENOENT);
        n = stat("/", (struct stat *)contested);
        CHECK(n == 0 || (n == -1 && errno == EFAULT));
    }
    stop = 1;
    OK(pthread_join(thread, NULL));
}

static char traced_buffer[16];

// A tracer that changes what a call refers to when it begins changes what the call does.
TEST(tracers_change_arguments_in_memory) {
    int ends[2];
    OK(pipe(ends));
    pid_t pid = CHILD({
        int null = OK(open("/dev/null", O_WRONLY));
        for (int i = 0; i < MANY; i++)
            OK(write(null, traced_buffer, 8));
        OK(ptrace(PTRACE_TRACEME, 0, 0, 0));
        raise(SIGSTOP);
        memcpy(traced_buffer, "original", 8);
        OK(write(ends[1], traced_buffer, 8));
    });
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFSTOPPED(status));
    for (;;) {
        OK(ptrace(PTRACE_SYSCALL, pid, 0, 0));
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        if (WIFEXITED(status))
            break;
        struct user_regs_struct regs;
        OK(ptrace(PTRACE_GETREGS, pid, 0, &regs));
        if (regs.orig_rax == SYS_write && regs.rsi == (unsigned long)traced_buffer && (long)regs.rax == -ENOSYS) {
            long word;
            memcpy(&word, "changed!", 8);
            OK(ptrace(PTRACE_POKEDATA, pid, traced_buffer, word));
        }
    }
    EXITED(status, 0);
    char found[9] = {0};
    CHECK_EQ(read(ends[0], found, 8), 8);
    CHECK(strcmp(found, "changed!") == 0);
}

// The text of a call that is often made is what it was, also to the call itself.
TEST(text_that_is_written_out) {
    const unsigned char *text = (const unsigned char *)write;
    unsigned char before[256], found[256];
    int memory = OK(open("/proc/self/mem", O_RDONLY));
    CHECK_EQ(pread(memory, before, sizeof before, (off_t)text), sizeof before);
    int ends[2];
    OK(pipe(ends));
    for (int i = 0; i < MANY; i++) {
        CHECK_EQ(write(ends[1], text, sizeof found), sizeof found);
        CHECK_EQ(read(ends[0], found, sizeof found), sizeof found);
        CHECK(memcmp(before, found, sizeof found) == 0);
    }
}
