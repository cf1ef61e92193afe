// Locks and leases of files, and signals about files.
#include "check.h"
#include <sys/file.h>
#include <sys/socket.h>

static int file(const char *name) {
    char path[100];
    snprintf(path, sizeof path, "/dev/shm/checkpoint-%s", name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0);
    return fd;
}

static int again(const char *name, int flags) {
    char path[100];
    snprintf(path, sizeof path, "/dev/shm/checkpoint-%s", name);
    int fd = open(path, flags);
    CHECK(fd >= 0);
    return fd;
}

static void gone(const char *name) {
    char path[100];
    snprintf(path, sizeof path, "/dev/shm/checkpoint-%s", name);
    CHECK(!unlink(path));
}

static int lock(int fd, int cmd, int type, long start, long len) {
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
    return fcntl(fd, cmd, &l);
}

// The first lock in the way of a write lock, as another process sees it.
static struct flock in_the_way(int fd, int cmd, long start, long len) {
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
    CHECK(!fcntl(fd, cmd, &l));
    return l;
}

TEST(flocks) {
    int own = file("flock"), other = again("flock", O_RDWR), shared = file("flock-shared"), second = again("flock-shared", O_RDONLY);
    CHECK(!flock(own, LOCK_EX) && !flock(shared, LOCK_SH) && !flock(second, LOCK_SH));
    RESTORED();
    CHECK(flock(other, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK);
    CHECK(!flock(own, LOCK_UN) && !flock(other, LOCK_EX | LOCK_NB));
    CHECK(flock(shared, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK);
    close(second);
    CHECK(!flock(shared, LOCK_EX | LOCK_NB));
    gone("flock");
    gone("flock-shared");
}

TEST(a_flock_that_is_waited_for) {
    int own = file("flock-wait"), status;
    CHECK(!flock(own, LOCK_EX));
    pid_t child = fork();
    if (!child) {
        close(own);
        int fd = again("flock-wait", O_RDWR);
        CHECK(!flock(fd, LOCK_EX));
        _exit(0);
    }
    usleep(20000);
    RESTORED();
    CHECK_EQ(waitpid(child, &status, WNOHANG), 0);
    CHECK(!flock(own, LOCK_UN) && waitpid(child, &status, 0) == child && status == 0);
    gone("flock-wait");
}

TEST(record_locks) {
    int fd = file("records"), status;
    CHECK(!lock(fd, F_SETLK, F_WRLCK, 0, 10) && !lock(fd, F_SETLK, F_RDLCK, 100, 0) && !lock(fd, F_SETLK, F_UNLCK, 4, 2));
    RESTORED();
    pid_t child = fork();
    if (!child) {
        struct flock l = in_the_way(fd, F_GETLK, 0, 0);
        CHECK(l.l_type == F_WRLCK && l.l_start == 0 && l.l_len == 4 && l.l_pid == getppid());
        l = in_the_way(fd, F_GETLK, 4, 2);
        CHECK_EQ(l.l_type, F_UNLCK);
        l = in_the_way(fd, F_GETLK, 6, 1000);
        CHECK(l.l_start == 6 && l.l_len == 4);
        l = in_the_way(fd, F_GETLK, 50, 1000);
        CHECK(l.l_type == F_RDLCK && l.l_start == 100 && l.l_len == 0);
        CHECK(lock(fd, F_SETLK, F_WRLCK, 9, 1) < 0 && errno == EAGAIN && !lock(fd, F_SETLK, F_RDLCK, 200, 5));
        // Waits until the parent closes a descriptor of the file.
        CHECK(!lock(fd, F_SETLKW, F_WRLCK, 0, 10));
        _exit(0);
    }
    usleep(50000);
    int other = again("records", O_RDONLY);
    close(other);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    gone("records");
}

TEST(a_deadlock) {
    int fd = file("deadlock"), status;
    CHECK(!lock(fd, F_SETLK, F_WRLCK, 0, 1));
    pid_t child = fork();
    if (!child) {
        CHECK(!lock(fd, F_SETLK, F_WRLCK, 1, 1));
        READY();
        CHECK(!lock(fd, F_SETLKW, F_WRLCK, 0, 1));
        _exit(0);
    }
    AWAIT();
    CHECK(lock(fd, F_SETLKW, F_WRLCK, 1, 1) < 0 && errno == EDEADLK);
    CHECK(!lock(fd, F_SETLK, F_UNLCK, 0, 1) && waitpid(child, &status, 0) == child && status == 0);
    gone("deadlock");
}

TEST(locks_of_a_description) {
    int fd = file("ofd"), other = again("ofd", O_RDWR), copy = dup(fd);
    CHECK(!lock(fd, F_OFD_SETLK, F_WRLCK, 5, 5));
    close(fd);
    RESTORED();
    struct flock l = in_the_way(other, F_OFD_GETLK, 0, 0);
    CHECK(l.l_type == F_WRLCK && l.l_start == 5 && l.l_len == 5 && l.l_pid == -1);
    CHECK(lock(other, F_OFD_SETLK, F_RDLCK, 9, 1) < 0 && errno == EAGAIN);
    close(copy);
    CHECK(!lock(other, F_OFD_SETLK, F_RDLCK, 9, 1));
    gone("ofd");
}

TEST(a_lock_of_a_file_without_a_name) {
    int fd = file("unnamed"), other = again("unnamed", O_RDWR);
    CHECK(!lock(fd, F_OFD_SETLK, F_WRLCK, 0, 0) && !flock(other, LOCK_SH));
    gone("unnamed");
    RESTORED();
    CHECK(lock(other, F_OFD_SETLK, F_RDLCK, 0, 1) < 0 && errno == EAGAIN);
    CHECK(flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK && !flock(fd, LOCK_SH | LOCK_NB));
}

static volatile sig_atomic_t told;

static void tell(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    told = info->si_fd;
}

static void listen_to(int signal) {
    struct sigaction action = {.sa_sigaction = tell, .sa_flags = SA_SIGINFO};
    CHECK(!sigaction(signal, &action, NULL));
}

TEST(a_lease) {
    int fd = file("lease"), status;
    listen_to(SIGRTMIN + 3);
    CHECK(!fcntl(fd, F_SETSIG, SIGRTMIN + 3) && !fcntl(fd, F_SETLEASE, F_WRLCK));
    RESTORED();
    CHECK(fcntl(fd, F_GETLEASE) == F_WRLCK && fcntl(fd, F_GETSIG) == SIGRTMIN + 3);
    pid_t child = fork();
    if (!child) {
        close(fd);
        CHECK(open("/dev/shm/checkpoint-lease", O_RDONLY | O_NONBLOCK) < 0 && errno == EWOULDBLOCK);
        again("lease", O_RDONLY);
        _exit(0);
    }
    for (int i = 0; i < 1000 && !told; i++)
        usleep(1000);
    CHECK(told == fd && fcntl(fd, F_GETLEASE) == F_RDLCK);
    CHECK(!fcntl(fd, F_SETLEASE, F_UNLCK) && waitpid(child, &status, 0) == child && status == 0);
    gone("lease");
}

TEST(a_lease_that_is_being_broken) {
    int fd = file("breaking"), status;
    listen_to(SIGIO);
    CHECK(!fcntl(fd, F_SETLEASE, F_WRLCK));
    pid_t child = fork();
    if (!child) {
        close(fd);
        again("breaking", O_WRONLY);
        _exit(0);
    }
    while (fcntl(fd, F_GETLEASE) != F_UNLCK)
        usleep(1000);
    RESTORED();
    CHECK(fcntl(fd, F_GETLEASE) == F_UNLCK && waitpid(child, &status, WNOHANG) == 0);
    CHECK(!fcntl(fd, F_SETLEASE, F_UNLCK) && waitpid(child, &status, 0) == child && status == 0);
    gone("breaking");
}

TEST(a_pipe_that_sends_signals) {
    int ends[2], owned[2];
    struct f_owner_ex owner = {F_OWNER_PGRP, getpgrp()}, got;
    listen_to(SIGRTMIN + 4);
    CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, ends) && !fcntl(ends[0], F_SETOWN, getpid()) && !fcntl(ends[0], F_SETSIG, SIGRTMIN + 4));
    CHECK(!fcntl(ends[0], F_SETFL, O_ASYNC) && !pipe(owned) && !fcntl(owned[0], F_SETOWN_EX, &owner));
    RESTORED();
    CHECK(fcntl(ends[0], F_GETFL) == (O_RDWR | O_ASYNC) && fcntl(ends[0], F_GETOWN) == getpid());
    CHECK(!fcntl(owned[0], F_GETOWN_EX, &got) && got.type == F_OWNER_PGRP && got.pid == getpgrp());
    told = 0;
    CHECK_EQ(write(ends[1], "x", 1), 1);
    for (int i = 0; i < 1000 && !told; i++)
        usleep(1000);
    CHECK_EQ(told, ends[0]);
}
