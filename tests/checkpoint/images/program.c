// The program in the images of this directory (crates/cli/tests/old_images.rs): something of most kinds that a guest can have. It is built
// without a C library, so that an image is small and needs no vDSO. It runs from a file in memory: no file of the host is in an image.
//
// It prints `ready`, is saved while it waits for a line, and looks at everything when that has come: `ok`, or what is wrong.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/in.h>
#include <linux/ipc.h>
#include <linux/memfd.h>
#include <linux/mqueue.h>
#include <linux/time_types.h>
#include <linux/wait.h>
#include <sys/syscall.h>

typedef unsigned long u64;

static long call(long n, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f) {
    long result;
    register u64 r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "=a"(result) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return result;
}

#define CALL_(n, a, b, c, d, e, f, ...) call(SYS_##n, (u64)(a), (u64)(b), (u64)(c), (u64)(d), (u64)(e), (u64)(f))
#define CALL(...) CALL_(__VA_ARGS__, 0, 0, 0, 0, 0, 0)

static u64 length(const char *text) {
    u64 n = 0;
    while (text[n])
        n++;
    return n;
}

static int same(const char *a, const char *b, u64 n) {
    while (n && *a++ == *b++)
        n--;
    return n == 0;
}

static void say(const char *text) {
    CALL(write, 1, text, length(text));
}

// Ends the program with what is wrong.
__attribute__((noreturn)) static void wrong(const char *what) {
    say("wrong: ");
    say(what);
    say("\n");
    for (;;)
        CALL(exit_group, 1);
}

#define CHECK(condition)                                                                                                          \
    do {                                                                                                                          \
        if (!(condition))                                                                                                         \
            wrong(#condition);                                                                                                    \
    } while (0)

static char buffer[4096], stack[4096] __attribute__((aligned(16), used));
static volatile int signals, word, woken;
static const char queue[] = "queue";
enum { SIGUSR1 = 10, POLLIN = 1, PROT = 3, SHARED_ANONYMOUS = 0x21, EPOLL_ADD = 1, SIGCHLD = 17 };

// As the kernel has it.
struct action {
    void (*handler)(int);
    u64 flags;
    void (*restorer)(void);
    u64 mask;
};

static void note(int signal) {
    signals += signal;
}

void restore(void);
__asm__(".text\nrestore: mov $15, %eax\nsyscall\n");

// A thread that waits for the word to change, and says that it has seen it. Its stack has no place to return to.
int thread(void);
__asm__(".text\nthread: mov $56, %eax\nmov $0x10f00, %edi\nlea stack+4096(%rip), %rsi\nsyscall\ntest %eax, %eax\njz 1f\nret\n"
        "1: call waits\nhlt\n");

__attribute__((used, noreturn)) static void waits(void) {
    while (!word)
        CALL(futex, &word, FUTEX_WAIT, 0, 0);
    woken = 1;
    CALL(futex, &woken, FUTEX_WAKE, 1);
    for (;;)
        CALL(exit, 0);
}

struct event {
    unsigned events;
    u64 data;
} __attribute__((packed));

struct message {
    long type;
    char text[8];
};

__attribute__((noreturn)) static void program(void) {
    int pipe[2], gate[2], pair[2], status = 0;
    CHECK(!CALL(pipe2, pipe, O_NONBLOCK) && !CALL(pipe2, gate, 0) && !CALL(socketpair, 1, 1, 0, pair));
    CHECK(CALL(write, pipe[1], "piped", 5) == 5 && CALL(write, pair[0], "sent", 4) == 4);
    long event = CALL(eventfd2, 7, 0), memfd = CALL(memfd_create, "memory", MFD_ALLOW_SEALING), epoll = CALL(epoll_create1, 0);
    long timer = CALL(timerfd_create, 1, 0), file = CALL(open, "/tmp/file", O_RDWR | O_CREAT, 0640);
    CHECK(event > 0 && memfd > 0 && epoll > 0 && timer > 0 && file > 0);
    CHECK(CALL(write, memfd, "memory", 6) == 6 && CALL(write, file, "file", 4) == 4 && !CALL(ftruncate, file, 1 << 20));
    CHECK(!CALL(fcntl, memfd, F_ADD_SEALS, F_SEAL_SHRINK) && !CALL(symlink, "file", "/tmp/link") && !CALL(flock, file, 2));
    struct __kernel_itimerspec hour = {.it_value = {3600, 0}};
    struct event watched = {POLLIN, 77};
    CHECK(!CALL(timerfd_settime, timer, 0, &hour, 0) && !CALL(epoll_ctl, epoll, EPOLL_ADD, pipe[0], &watched));
    // Between a parent and a child.
    volatile int *shared = (int *)CALL(mmap, 0, 4096, PROT, SHARED_ANONYMOUS, -1, 0);
    *shared = 5;
    long child = CALL(fork), zombie;
    if (!child) {
        char byte;
        CALL(read, gate[0], &byte, 1);
        *shared += byte;
        CALL(exit_group, 3);
    }
    zombie = CALL(fork);
    if (!zombie)
        CALL(exit_group, 4);
    CHECK(!CALL(waitid, P_PID, zombie, 0, WEXITED | WNOWAIT, 0));
    // Caught, and pending until it is let through.
    u64 blocked = 1UL << (SIGUSR1 - 1);
    struct action action = {note, 0x04000000, restore, 0};
    CHECK(!CALL(rt_sigaction, SIGUSR1, &action, 0, 8) && !CALL(rt_sigprocmask, 0, &blocked, 0, 8));
    CHECK(!CALL(kill, CALL(getpid), SIGUSR1) && thread() > 0);
    // By key and by name.
    long messages = CALL(msgget, 7, IPC_CREAT | 0600), memory = CALL(shmget, 8, 4096, IPC_CREAT | 0600);
    struct message message = {3, "message"};
    CHECK(messages >= 0 && !CALL(msgsnd, messages, &message, 8, 0) && memory >= 0);
    char *segment = (char *)CALL(shmat, memory, 0, 0);
    *segment = 's';
    struct mq_attr attributes = {.mq_maxmsg = 2, .mq_msgsize = 16};
    long mq = CALL(mq_open, queue, O_RDWR | O_CREAT, 0600, &attributes);
    CHECK(mq > 0 && !CALL(mq_timedsend, mq, "first", 5, 9, 0));
    // A datagram that waits on the loopback interface.
    struct sockaddr_in address = {.sin_family = 2, .sin_port = 0x3930, .sin_addr = {0x0100007f}};
    long udp = CALL(socket, 2, 2, 0);
    CHECK(udp > 0 && !CALL(bind, udp, &address, sizeof address));
    CHECK(CALL(sendto, udp, "datagram", 8, 0, &address, sizeof address) == 8);
    CHECK(!CALL(chdir, "/tmp") && CALL(umask, 027) >= 0 && !CALL(prctl, 15, "saved"));

    say("ready\n");
    CHECK(CALL(read, 0, buffer, sizeof buffer) == 3 && same(buffer, "go\n", 3));

    CHECK(CALL(epoll_wait, epoll, buffer, 1, 0) == 1 && ((struct event *)buffer)->data == 77);
    CHECK(CALL(read, pipe[0], buffer, 100) == 5 && same(buffer, "piped", 5) && CALL(read, pipe[0], buffer, 1) == -11);
    CHECK(CALL(read, pair[1], buffer, 100) == 4 && same(buffer, "sent", 4));
    CHECK(CALL(read, event, buffer, 8) == 8 && *(u64 *)buffer == 7);
    CHECK(CALL(pread64, memfd, buffer, 100, 0) == 6 && same(buffer, "memory", 6) && CALL(fcntl, memfd, F_GET_SEALS) == F_SEAL_SHRINK);
    CHECK(!CALL(timerfd_gettime, timer, &hour) && hour.it_value.tv_sec > 3000 && hour.it_value.tv_sec < 3600);
    CHECK(CALL(lseek, file, 0, SEEK_CUR) == 4 && CALL(pread64, file, buffer, 100, 0) == 100 && same(buffer, "file", 5));
    CHECK(CALL(readlink, "link", buffer, 100) == 4 && same(buffer, "file", 4) && CALL(umask, 0) == 027);
    long again = CALL(open, "file", O_RDWR);
    CHECK(again > 0 && CALL(flock, again, 6) == -11);
    CHECK(!signals && !CALL(rt_sigprocmask, 1, &blocked, 0, 8) && signals == SIGUSR1);
    CHECK(CALL(write, gate[1], "\x02", 1) == 1 && CALL(wait4, child, &status, 0, 0) == child && status == 3 << 8 && *shared == 7);
    CHECK(CALL(wait4, zombie, &status, 0, 0) == zombie && status == 4 << 8);
    word = 1;
    CALL(futex, &word, FUTEX_WAKE, 1);
    while (!woken)
        CALL(futex, &woken, FUTEX_WAIT, 0, 0);
    CHECK(CALL(msgget, 7, 0) == messages && CALL(msgrcv, messages, buffer, 8, 3, 0) == 8 && same(buffer + 8, "message", 8));
    CHECK(CALL(shmget, 8, 0, 0) == memory && *segment == 's');
    unsigned priority = 0;
    CHECK(CALL(mq_timedreceive, mq, buffer, 16, &priority, 0) == 5 && same(buffer, "first", 5) && priority == 9);
    CHECK(CALL(recvfrom, udp, buffer, 100, 0, 0, 0) == 8 && same(buffer, "datagram", 8));
    CHECK(!CALL(prctl, 16, buffer) && same(buffer, "saved", 6));
    say("ok\n");
    for (;;)
        CALL(exit_group, 0);
}

// Copies itself into memory and goes on from there.
__attribute__((used, noreturn)) static void begin(u64 *start) {
    char **argv = (char **)start + 1;
    if (argv[0][1] == 't')
        program();
    long from = CALL(open, argv[0], O_RDONLY), to = CALL(open, "/tmp/program", O_WRONLY | O_CREAT, 0755), n;
    CHECK(from > 0 && to > 0);
    while ((n = CALL(read, from, buffer, sizeof buffer)) > 0)
        CHECK(CALL(write, to, buffer, n) == n);
    CALL(close, from);
    CALL(close, to);
    char *arguments[] = {"/tmp/program", 0};
    CALL(execve, arguments[0], arguments, arguments + 1);
    wrong("execve");
}

__asm__(".globl _start\n.text\n_start: mov %rsp, %rdi\nand $-16, %rsp\ncall begin\n");
