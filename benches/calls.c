// Small costs of single calls and of exchanges between threads, processes and sockets, measured from inside.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "measure.h"

#define CHECK(call) ((call) < 0 ? fail(#call) : (void)0)

static char buffer[1 << 16];
static int fd;

// One that has to reach the kernel: it asks for what belongs to the process, not to the thread.
static void getpgid_call(int count) {
    for (int i = 0; i < count; i++)
        syscall(SYS_getpgid, 0);
}

static void write_null(int count) {
    for (int i = 0; i < count; i++)
        CHECK(write(fd, buffer, 4096));
}

static void pread_4k(int count) {
    for (int i = 0; i < count; i++)
        CHECK(pread(fd, buffer, 4096, 0));
}

static void pread_64k(int count) {
    for (int i = 0; i < count; i++)
        CHECK(pread(fd, buffer, sizeof buffer, 0));
}

static void pwrite_4k(int count) {
    for (int i = 0; i < count; i++)
        CHECK(pwrite(fd, buffer, 4096, 0));
}

static void stats(int count) {
    struct stat s;
    for (int i = 0; i < count; i++)
        CHECK(stat("/tmp/calls/0", &s));
}

static void opens(int count) {
    for (int i = 0; i < count; i++) {
        int opened = open("/tmp/calls/0", O_RDONLY);
        CHECK(opened);
        close(opened);
    }
}

static void listings(int count) {
    for (int i = 0; i < count; i++) {
        CHECK(lseek(fd, 0, SEEK_SET));
        while (syscall(SYS_getdents64, fd, buffer, sizeof buffer) > 0)
            ;
    }
}

static void creations(int count) {
    for (int i = 0; i < count; i++) {
        int made = open("/tmp/calls/new", O_CREAT | O_EXCL | O_WRONLY, 0644);
        CHECK(made);
        close(made);
        CHECK(unlink("/tmp/calls/new"));
    }
}

static char *area;

static void protections(int count) {
    for (int i = 0; i < count; i++)
        CHECK(mprotect(area, 4096, i % 2 ? PROT_READ : PROT_READ | PROT_WRITE));
}

static void faults(int count) {
    size_t len = (size_t)count << 12;
    char *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        fail("mmap");
    for (int i = 0; i < count; i++)
        p[(size_t)i << 12] = 1;
    munmap(p, len);
}

static int ready, counter;

static void events(int count) {
    struct epoll_event event;
    unsigned long value = 1;
    for (int i = 0; i < count; i++) {
        CHECK(write(counter, &value, sizeof value));
        CHECK(epoll_wait(ready, &event, 1, -1));
        CHECK(read(counter, &value, sizeof value));
    }
}

static void on_signal(int number) {
    (void)number;
}

static void signals(int count) {
    for (int i = 0; i < count; i++)
        raise(SIGUSR1);
}

static sigjmp_buf back;

static void on_fault(int number) {
    siglongjmp(back, number);
}

static void segfaults(int count) {
    for (volatile int i = 0; i < count; i++)
        if (!sigsetjmp(back, 1))
            *(volatile char *)area = 1;
}

// One end of an exchange gives back each byte that it gets.
static int to[2], from[2];

static void echo(void) {
    char c;
    while (read(to[0], &c, 1) == 1)
        if (write(from[1], &c, 1) != 1)
            break;
}

static void *echo_thread(void *p) {
    echo();
    return p;
}

static void ping_pong(int count) {
    char c = 0;
    for (int i = 0; i < count; i++)
        if (write(to[1], &c, 1) != 1 || read(from[0], &c, 1) != 1)
            fail("exchange");
}

static void between_threads(const char *name, int count) {
    pthread_t other;
    if (pthread_create(&other, NULL, echo_thread, NULL))
        fail("pthread_create");
    measure(name, ping_pong, count);
    // A socket that the thread reads from stays open by its other end alone.
    shutdown(to[1], SHUT_RDWR);
    close(to[1]);
    pthread_join(other, NULL);
}

static void pair(int ends[2]) {
    to[1] = from[0] = ends[0];
    to[0] = from[1] = ends[1];
}

static void connect_to(int listener, int ends[2]) {
    struct sockaddr_in address;
    socklen_t len = sizeof address;
    int one = 1;
    CHECK(getsockname(listener, (struct sockaddr *)&address, &len));
    CHECK(ends[0] = socket(AF_INET, SOCK_STREAM, 0));
    CHECK(connect(ends[0], (struct sockaddr *)&address, len));
    CHECK(ends[1] = accept(listener, NULL, NULL));
    for (int i = 0; i < 2; i++)
        CHECK(setsockopt(ends[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one));
}

static int listener;

static void connections(int count) {
    for (int i = 0; i < count; i++) {
        int ends[2];
        connect_to(listener, ends);
        close(ends[0]);
        close(ends[1]);
    }
}

static void tcp_64k(int count) {
    for (int i = 0; i < count; i++) {
        CHECK(send(from[0], buffer, sizeof buffer, 0));
        CHECK(recv(to[0], buffer, sizeof buffer, MSG_WAITALL));
    }
}

// Two who wake each other by one word each.
static int *words;

static void pass(int *own, int *other, int flag, int count) {
    for (int i = 0; i < count; i++) {
        __atomic_store_n(other, 1, __ATOMIC_SEQ_CST);
        syscall(SYS_futex, other, FUTEX_WAKE | flag, 1, NULL, NULL, 0);
        while (!__atomic_exchange_n(own, 0, __ATOMIC_SEQ_CST))
            syscall(SYS_futex, own, FUTEX_WAIT | flag, 0, NULL, NULL, 0);
    }
}

static void *answer_futex(void *flag) {
    for (;;) {
        while (!__atomic_exchange_n(&words[0], 0, __ATOMIC_SEQ_CST))
            syscall(SYS_futex, &words[0], FUTEX_WAIT | (flag ? FUTEX_PRIVATE_FLAG : 0), 0, NULL, NULL, 0);
        if (words[2])
            return NULL;
        __atomic_store_n(&words[1], 1, __ATOMIC_SEQ_CST);
        syscall(SYS_futex, &words[1], FUTEX_WAKE | (flag ? FUTEX_PRIVATE_FLAG : 0), 1, NULL, NULL, 0);
    }
}

static void stop_answering(int flag) {
    words[2] = 1;
    __atomic_store_n(&words[0], 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &words[0], FUTEX_WAKE | flag, 1, NULL, NULL, 0);
}

static void futex_threads(int count) {
    pass(&words[1], &words[0], FUTEX_PRIVATE_FLAG, count);
}

static void futex_processes(int count) {
    pass(&words[1], &words[0], 0, count);
}

static void *call_much(void *count) {
    getpgid_call(*(int *)count);
    return NULL;
}

static void many_callers(int count) {
    enum { CALLERS = 64 };
    pthread_t callers[CALLERS];
    int each = count / CALLERS;
    for (int i = 0; i < CALLERS; i++)
        if (pthread_create(&callers[i], NULL, call_much, &each))
            fail("pthread_create");
    for (int i = 0; i < CALLERS; i++)
        pthread_join(callers[i], NULL);
}

static void make_files(void) {
    char name[40];
    mkdir("/tmp/calls", 0755);
    for (int i = 0; i < 200; i++) {
        sprintf(name, "/tmp/calls/%d", i);
        int made = open(name, O_CREAT | O_WRONLY, 0644);
        CHECK(made);
        close(made);
    }
}

static void calls(void) {
    measure("getpgid", getpgid_call, 10000);
    measure("getpgid-64-threads", many_callers, 20000);
    CHECK(fd = open("/dev/null", O_WRONLY));
    measure("write-null-4k", write_null, 5000);
    close(fd);
    signal(SIGUSR1, on_signal);
    measure("raise-signal", signals, 2000);
    struct epoll_event event = {.events = EPOLLIN};
    CHECK(ready = epoll_create1(0));
    CHECK(counter = eventfd(0, 0));
    CHECK(epoll_ctl(ready, EPOLL_CTL_ADD, counter, &event));
    measure("eventfd-epoll", events, 3000);
}

static void files(void) {
    make_files();
    CHECK(fd = open("/tmp/calls/data", O_CREAT | O_RDWR, 0644));
    CHECK(write(fd, buffer, sizeof buffer));
    measure("pread-4k", pread_4k, 5000);
    measure("pread-64k", pread_64k, 3000);
    measure("pwrite-4k", pwrite_4k, 3000);
    close(fd);
    measure("stat", stats, 5000);
    measure("open-close", opens, 3000);
    CHECK(fd = open("/tmp/calls", O_RDONLY | O_DIRECTORY));
    measure("getdents-200", listings, 500);
    close(fd);
    measure("create-unlink", creations, 1000);
}

static void memory(void) {
    area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED)
        fail("mmap");
    measure("mprotect", protections, 2000);
    CHECK(mprotect(area, 4096, PROT_READ));
    signal(SIGSEGV, on_fault);
    measure("segv-handler", segfaults, 1000);
    signal(SIGSEGV, SIG_DFL);
    measure("page-fault", faults, 4096);
}

static void exchanges(void) {
    int ends[2];
    if (pipe(to) || pipe(from))
        fail("pipe");
    between_threads("pipe-threads", 2000);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    pair(ends);
    between_threads("socketpair-threads", 2000);
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    CHECK(listener = socket(AF_INET, SOCK_STREAM, 0));
    CHECK(bind(listener, (struct sockaddr *)&any, sizeof any));
    CHECK(listen(listener, 64));
    connect_to(listener, ends);
    pair(ends);
    measure("tcp-64k", tcp_64k, 1000);
    between_threads("tcp-threads", 2000);
    measure("tcp-connect", connections, 300);
    words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (words == MAP_FAILED)
        fail("mmap");
    pthread_t other;
    if (pthread_create(&other, NULL, answer_futex, words))
        fail("pthread_create");
    measure("futex-threads", futex_threads, 2000);
    stop_answering(FUTEX_PRIVATE_FLAG);
    pthread_join(other, NULL);
    memset(words, 0, 3 * sizeof *words);
    pid_t pid = fork();
    if (!pid) {
        answer_futex(NULL);
        _exit(0);
    }
    measure("futex-processes", futex_processes, 2000);
    stop_answering(0);
    waitpid(pid, NULL, 0);
}

int main(int argc, char **argv) {
    take_arguments(argc, argv);
    calls();
    files();
    memory();
    exchanges();
    return 0;
}
