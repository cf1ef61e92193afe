// Asynchronous I/O of the kernel: contexts and their rings, requests, events, what is refused and in which order.
#include "check.h"
#include <linux/aio_abi.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

struct ring {
    unsigned id, nr, head, tail, magic, compat, incompat, length;
    struct io_event events[];
};

static long setup(unsigned n, aio_context_t *c) { return syscall(SYS_io_setup, n, c); }
static long destroy(aio_context_t c) { return syscall(SYS_io_destroy, c); }
static long submit(aio_context_t c, long n, struct iocb **list) { return syscall(SYS_io_submit, c, n, list); }
static long get(aio_context_t c, long least, long most, struct io_event *e, struct timespec *t) {
    return syscall(SYS_io_getevents, c, least, most, e, t);
}
static long cancel(aio_context_t c, struct iocb *r, struct io_event *e) { return syscall(SYS_io_cancel, c, r, e); }

static aio_context_t context;
static struct io_event got[64];
static struct timespec now;

static void begin(void) {
    OK(setup(16, &context));
}

static struct iocb request(int op, int fd, void *buf, size_t n, long long offset) {
    return (struct iocb){.aio_lio_opcode = op, .aio_fildes = fd, .aio_buf = (uintptr_t)buf, .aio_nbytes = n, .aio_offset = offset,
                         .aio_data = 77, .aio_key = 9};
}

// Submits one request and takes its event.
static long one(struct iocb r) {
    struct iocb *list[] = {&r};
    CHECK_EQ(submit(context, 1, list), 1);
    CHECK_EQ(get(context, 1, 1, got, NULL), 1);
    CHECK_EQ(got[0].data, 77);
    CHECK_EQ(got[0].obj, (uintptr_t)&r);
    CHECK_EQ(got[0].res2, 0);
    CHECK_EQ(r.aio_key, 0);
    return got[0].res;
}

// The errno of a request that is not taken.
static int refused(struct iocb r) {
    struct iocb *list[] = {&r};
    errno = 0;
    CHECK_EQ(submit(context, 1, list), -1);
    return errno;
}

TEST(contexts) {
    int status;
    aio_context_t c = 0, other = 0;
    ERR(setup(0, &c), EINVAL);
    ERR(setup(1, NULL), EFAULT);
    c = 1;
    ERR(setup(1, &c), EINVAL);
    c = 0;
    ERR(setup(0x7fffffff, &c), EINVAL);
    ERR(setup(3000000, &c), EAGAIN);
    OK(setup(8, &c));
    struct ring *ring = (struct ring *)c;
    CHECK_EQ(ring->magic, 0xa10a10a1);
    CHECK_EQ(ring->compat, 1);
    CHECK_EQ(ring->incompat, 0);
    CHECK_EQ(ring->length, 32);
    CHECK_EQ(ring->head, 0);
    CHECK_EQ(ring->tail, 0);
    CHECK_EQ((ring->nr * 32 + 32) % 4096, 0);
    OK(setup(1, &other));
    CHECK(other != c);
    OK(destroy(other));
    ERR(destroy(other), EINVAL);
    ERR(destroy(0), EINVAL);
    ERR(submit(other, 0, NULL), EINVAL);
    ERR(get(other, 0, 1, got, &now), EINVAL);
    // The ring went with it.
    unsigned char there;
    ERR(mincore((void *)other, 4096, &there), ENOMEM);
    // A child has none of them.
    pid_t child = CHILD({ ERR(submit(c, 0, NULL), EINVAL); });
    EXITED(OK(waitpid(child, &status, 0)) == child ? status : -1, 0);
    OK(destroy(c));
}

TEST(transfers) {
    begin();
    int fd = OK(open("aio-file", O_RDWR | O_CREAT | O_TRUNC, 0600));
    OK(unlink("aio-file"));
    char text[] = "hello world", back[64] = "";
    CHECK_EQ(one(request(IOCB_CMD_PWRITE, fd, text, 11, 5)), 11);
    CHECK_EQ(one(request(IOCB_CMD_PREAD, fd, back, 64, 5)), 11);
    CHECK_EQ(memcmp(back, text, 11), 0);
    CHECK_EQ(one(request(IOCB_CMD_PREAD, fd, back, 64, 16)), 0);
    struct iovec iov[2] = {{back, 5}, {back + 32, 3}};
    CHECK_EQ(one(request(IOCB_CMD_PREADV, fd, iov, 2, 5)), 8);
    CHECK_EQ(memcmp(back + 32, " wo", 3), 0);
    CHECK_EQ(one(request(IOCB_CMD_PWRITEV, fd, iov, 2, 0)), 8);
    // The position is not touched.
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 0);
    CHECK_EQ(one(request(IOCB_CMD_FSYNC, fd, NULL, 0, 0)), 0);
    CHECK_EQ(one(request(IOCB_CMD_FDSYNC, fd, NULL, 0, 0)), 0);
    struct iocb r = request(IOCB_CMD_PWRITE, fd, text, 3, 0);
    r.aio_rw_flags = RWF_APPEND;
    CHECK_EQ(one(r), 3);
    CHECK_EQ(lseek(fd, 0, SEEK_END), 19);
    // What goes wrong with the transfer is in its event; what is wrong with the request is not taken.
    CHECK_EQ(one(request(IOCB_CMD_PREAD, fd, BAD_ADDRESS, 8, 0)), -EFAULT);
    r.aio_rw_flags = 0x8000;
    CHECK_EQ(refused(r), EOPNOTSUPP);
    CHECK_EQ(refused(request(99, fd, back, 1, 0)), EINVAL);
    CHECK_EQ(refused(request(6, fd, back, 1, 0)), EINVAL);
    CHECK_EQ(refused(request(IOCB_CMD_PREAD, 999, back, 1, 0)), EBADF);
    CHECK_EQ(refused(request(IOCB_CMD_PREAD, fd, back, -1, 0)), EINVAL);
    CHECK_EQ(refused(request(IOCB_CMD_PREAD, fd, back, 1, -1)), EINVAL);
    CHECK_EQ(refused(request(IOCB_CMD_PREADV, fd, iov, 2000, 0)), EINVAL);
    CHECK_EQ(refused(request(IOCB_CMD_FSYNC, fd, back, 0, 0)), EINVAL);
    r = request(IOCB_CMD_PREAD, fd, back, 1, 0);
    r.aio_reserved2 = 1;
    CHECK_EQ(refused(r), EINVAL);
    int readable = OK(open("/dev/null", O_RDONLY)), dir = OK(open(".", O_RDONLY));
    CHECK_EQ(refused(request(IOCB_CMD_PWRITE, readable, back, 1, 0)), EBADF);
    CHECK_EQ(refused(request(IOCB_CMD_PREAD, dir, back, 1, 0)), EINVAL);
    close(readable);
    close(dir);
    // Those before a bad one are taken.
    struct iocb good = request(IOCB_CMD_PREAD, fd, back, 1, 0), bad = request(IOCB_CMD_PREAD, 999, back, 1, 0);
    struct iocb *list[] = {&good, &good, &bad, &good};
    CHECK_EQ(submit(context, 4, list), 2);
    CHECK_EQ(get(context, 2, 9, got, NULL), 2);
    struct iocb *nowhere[] = {BAD_ADDRESS};
    ERR(submit(context, 1, nowhere), EFAULT);
    ERR(submit(context, 1, BAD_ADDRESS), EFAULT);
    ERR(submit(context, -1, list), EINVAL);
    CHECK_EQ(submit(context, 0, NULL), 0);
    close(fd);
}

TEST(counters) {
    begin();
    int fd = OK(open("/dev/zero", O_RDONLY)), counter = OK(eventfd(0, EFD_NONBLOCK));
    char c;
    struct iocb r = request(IOCB_CMD_PREAD, fd, &c, 1, 0);
    r.aio_flags = IOCB_FLAG_RESFD;
    r.aio_resfd = counter;
    CHECK_EQ(one(r), 1);
    CHECK_EQ(one(r), 1);
    uint64_t n;
    CHECK_EQ(read(counter, &n, 8), 8);
    CHECK_EQ(n, 2);
    r.aio_resfd = fd;
    CHECK_EQ(refused(r), EINVAL);
    r.aio_resfd = 999;
    CHECK_EQ(refused(r), EBADF);
    close(fd);
    close(counter);
}

TEST(taking) {
    begin();
    int fd = OK(open("/dev/zero", O_RDONLY));
    char c;
    struct iocb r = request(IOCB_CMD_PREAD, fd, &c, 1, 0);
    struct iocb *list[64];
    for (int i = 0; i < 64; i++)
        list[i] = &r;
    CHECK_EQ(get(context, 0, 4, got, NULL), 0);
    CHECK_EQ(get(context, 1, 4, got, &now), 0);
    struct timespec short_time = {0, 20000000};
    CHECK_EQ(get(context, 1, 4, got, &short_time), 0);
    ERR(get(context, 2, 1, got, NULL), EINVAL);
    ERR(get(context, -1, 1, got, NULL), EINVAL);
    ERR(get(context, 1, 1, got, BAD_ADDRESS), EFAULT);
    CHECK_EQ(submit(context, 5, list), 5);
    ERR(get(context, 1, 9, BAD_ADDRESS, NULL), EFAULT);
    CHECK_EQ(get(context, 1, 2, got, NULL), 2);
    CHECK_EQ(get(context, 0, 9, got, NULL), 3);
    // By hand, as libraries do that look at the ring.
    struct ring *ring = (struct ring *)context;
    CHECK_EQ(ring->head, ring->tail);
    CHECK_EQ(submit(context, 3, list), 3);
    CHECK_EQ((ring->tail + ring->nr - ring->head) % ring->nr, 3);
    CHECK_EQ(ring->events[ring->head].data, 77);
    CHECK_EQ(ring->events[ring->head].res, 1);
    ring->head = (ring->head + 2) % ring->nr;
    CHECK_EQ(get(context, 0, 9, got, NULL), 1);
    CHECK_EQ(ring->head, ring->tail);
    // It is never overrun. (Linux deals places out to its CPUs, so how many there are is not exact.)
    unsigned done = 0;
    long n;
    while ((n = submit(context, 64, list)) > 0)
        done += n;
    CHECK_EQ(errno, EAGAIN);
    CHECK(done >= 16 && done < ring->nr);
    while (done) {
        n = get(context, 1, 64, got, NULL);
        CHECK(n > 0);
        done -= n;
    }
    CHECK_EQ(get(context, 0, 9, got, NULL), 0);
    CHECK_EQ(submit(context, 1, list), 1);
    close(fd);
}

TEST(polls) {
    begin();
    int p[2];
    OK(pipe(p));
    struct iocb r = request(IOCB_CMD_POLL, p[0], NULL, 0, 0), *list[] = {&r};
    r.aio_buf = POLLIN;
    CHECK_EQ(submit(context, 1, list), 1);
    CHECK_EQ(get(context, 0, 1, got, NULL), 0);
    CHECK_EQ(write(p[1], "x", 1), 1);
    CHECK_EQ(get(context, 1, 1, got, NULL), 1);
    // What it was woken by may be more than what was asked for.
    CHECK(got[0].res & POLLIN);
    // Ready already, and by a hang-up.
    CHECK_EQ(submit(context, 1, list), 1);
    CHECK_EQ(get(context, 1, 1, got, NULL), 1);
    CHECK_EQ(got[0].res, POLLIN);
    char c;
    CHECK_EQ(read(p[0], &c, 1), 1);
    CHECK_EQ(submit(context, 1, list), 1);
    // Cancelled, its event comes as well.
    struct io_event unused;
    ERR(cancel(context, &r, &unused), EINPROGRESS);
    CHECK_EQ(get(context, 1, 1, got, NULL), 1);
    CHECK_EQ(got[0].res, 0);
    ERR(cancel(context, &r, &unused), EINVAL);
    r.aio_key = 5;
    ERR(cancel(context, &r, &unused), EINVAL);
    ERR(cancel(context, NULL, &unused), EFAULT);
    CHECK_EQ(submit(context, 1, list), 1);
    close(p[1]);
    CHECK_EQ(get(context, 1, 1, got, NULL), 1);
    CHECK(got[0].res & POLLHUP);
    int file = OK(open("/proc/self/exe", O_RDONLY));
    r.aio_fildes = file;
    CHECK_EQ(one(r), POLLIN);
    r.aio_fildes = p[0];
    r.aio_buf = 0x10000;
    CHECK_EQ(refused(r), EINVAL);
    r.aio_buf = POLLIN;
    r.aio_nbytes = 1;
    CHECK_EQ(refused(r), EINVAL);
    close(file);
    close(p[0]);
    // A context that is destroyed ends what waits.
    aio_context_t other = 0;
    OK(setup(4, &other));
    OK(pipe(p));
    r = request(IOCB_CMD_POLL, p[0], NULL, 0, 0);
    r.aio_buf = POLLIN;
    CHECK_EQ(submit(other, 1, list), 1);
    OK(destroy(other));
    close(p[0]);
    close(p[1]);
}

static volatile int signals;
static void count(int s) { signals += s == SIGUSR1; }

static void *later(void *thread) {
    usleep(50000);
    pthread_kill(*(pthread_t *)thread, SIGUSR1);
    return NULL;
}

TEST(waits) {
    begin();
    struct sigaction action = {.sa_handler = count, .sa_flags = SA_RESTART};
    OK(sigaction(SIGUSR1, &action, NULL));
    pthread_t self = pthread_self(), other;
    CHECK_EQ(pthread_create(&other, NULL, later, &self), 0);
    ERR(get(context, 1, 1, got, NULL), EINTR);
    CHECK_EQ(signals, 1);
    pthread_join(other, NULL);
    // With a mask for the time of the call.
    sigset_t blocked, open_mask;
    sigemptyset(&open_mask);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    OK(sigprocmask(SIG_BLOCK, &blocked, NULL));
    OK(raise(SIGUSR1));
    CHECK_EQ(get(context, 1, 1, got, &(struct timespec){0, 1000000}), 0);
    struct {
        void *mask;
        size_t size;
    } set = {&open_mask, 8};
    ERR(syscall(SYS_io_pgetevents, context, 1L, 1L, got, NULL, &set), EINTR);
    CHECK_EQ(signals, 2);
    set.size = 4;
    ERR(syscall(SYS_io_pgetevents, context, 1L, 1L, got, &now, &set), EINVAL);
    CHECK_EQ(syscall(SYS_io_pgetevents, context, 0L, 1L, got, &now, NULL), 0);
    OK(sigprocmask(SIG_UNBLOCK, &blocked, NULL));
}

// The context may be destroyed while somebody waits.
static void *destroyer(void *c) {
    usleep(50000);
    OK(destroy(*(aio_context_t *)c));
    return NULL;
}

TEST(ends) {
    begin();
    aio_context_t c = 0;
    OK(setup(1, &c));
    aio_context_t name = c;
    pthread_t other;
    CHECK_EQ(pthread_create(&other, NULL, destroyer, &c), 0);
    ERR(get(name, 1, 1, got, NULL), EINVAL);
    pthread_join(other, NULL);
}
