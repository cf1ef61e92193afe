// File locks: POSIX record locks, open file description locks, flock, leases.
#include "check.h"
#include <sys/file.h>

static int lock(int fd, int command, int type, off_t start, off_t length) {
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
    return fcntl(fd, command, &l);
}

static struct flock query(int fd, int type, off_t start, off_t length) {
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
    OK(fcntl(fd, F_GETLK, &l));
    return l;
}

static int make(void) {
    return OK(open("f", O_RDWR | O_CREAT, 0600));
}

TEST(a_process_does_not_conflict_with_itself) {
    int fd = make(), other = make();
    OK(lock(fd, F_SETLK, F_WRLCK, 0, 10));
    OK(lock(other, F_SETLK, F_WRLCK, 0, 10));
    CHECK_EQ(query(fd, F_WRLCK, 0, 10).l_type, F_UNLCK);
}

TEST(conflicts_with_another_process) {
    int fd = make();
    OK(lock(fd, F_SETLK, F_WRLCK, 5, 10));
    pid_t parent = getpid();
    EXITED(wait_for(CHILD({
               ERR(lock(fd, F_SETLK, F_RDLCK, 0, 6), EAGAIN);
               OK(lock(fd, F_SETLK, F_WRLCK, 0, 5));
               OK(lock(fd, F_SETLK, F_WRLCK, 15, 0));
               struct flock l = query(fd, F_RDLCK, 0, 0);
               CHECK_EQ(l.l_type, F_WRLCK);
               CHECK_EQ(l.l_start, 5);
               CHECK_EQ(l.l_len, 10);
               CHECK_EQ(l.l_pid, parent);
           })),
           0);
}

TEST(readers_share) {
    int fd = make();
    OK(lock(fd, F_SETLK, F_RDLCK, 0, 10));
    EXITED(wait_for(CHILD(OK(lock(fd, F_SETLK, F_RDLCK, 0, 10)); ERR(lock(fd, F_SETLK, F_WRLCK, 0, 10), EAGAIN))), 0);
}

TEST(unlock_splits) {
    int fd = make();
    OK(lock(fd, F_SETLK, F_WRLCK, 0, 30));
    OK(lock(fd, F_SETLK, F_UNLCK, 10, 10));
    EXITED(wait_for(CHILD({
               OK(lock(fd, F_SETLK, F_WRLCK, 10, 10));
               ERR(lock(fd, F_SETLK, F_WRLCK, 9, 1), EAGAIN);
               ERR(lock(fd, F_SETLK, F_WRLCK, 20, 1), EAGAIN);
           })),
           0);
}

TEST(adjacent_locks_merge) {
    int fd = make();
    OK(lock(fd, F_SETLK, F_WRLCK, 0, 10));
    OK(lock(fd, F_SETLK, F_WRLCK, 10, 10));
    EXITED(wait_for(CHILD(struct flock l = query(fd, F_WRLCK, 0, 0); CHECK_EQ(l.l_len, 20))), 0);
}

TEST(upgrade_in_the_middle) {
    int fd = make();
    OK(lock(fd, F_SETLK, F_RDLCK, 0, 30));
    OK(lock(fd, F_SETLK, F_WRLCK, 10, 10));
    EXITED(wait_for(CHILD({
               OK(lock(fd, F_SETLK, F_RDLCK, 0, 10));
               ERR(lock(fd, F_SETLK, F_RDLCK, 10, 1), EAGAIN);
               OK(lock(fd, F_SETLK, F_RDLCK, 20, 10));
           })),
           0);
}

TEST(closing_any_descriptor_drops_them) {
    int fd = make(), other = make();
    OK(lock(fd, F_SETLK, F_WRLCK, 0, 10));
    close(other);
    EXITED(wait_for(CHILD(OK(lock(fd, F_SETLK, F_WRLCK, 0, 10)))), 0);
}

TEST(not_inherited_and_dropped_at_exit) {
    int fd = make();
    EXITED(wait_for(CHILD(OK(lock(fd, F_SETLK, F_WRLCK, 0, 10)))), 0);
    OK(lock(fd, F_SETLK, F_WRLCK, 0, 10));
}

TEST(setlkw_waits) {
    int fd = make(), p[2];
    OK(pipe(p));
    pid_t pid = CHILD(OK(lock(fd, F_SETLK, F_WRLCK, 0, 10)); write(p[1], "x", 1); usleep(30000));
    char c;
    CHECK_EQ(read(p[0], &c, 1), 1);
    long long start = now_ms();
    OK(lock(fd, F_SETLKW, F_WRLCK, 0, 10));
    CHECK(now_ms() - start >= 20);
    EXITED(wait_for(pid), 0);
}

static void nothing(int signal) {
    (void)signal;
}

TEST(setlkw_is_interrupted) {
    struct sigaction action = {.sa_handler = nothing};
    OK(sigaction(SIGALRM, &action, NULL));
    int fd = make(), p[2];
    OK(pipe(p));
    pid_t pid = CHILD(OK(lock(fd, F_SETLK, F_WRLCK, 0, 10)); write(p[1], "x", 1); pause());
    char c;
    CHECK_EQ(read(p[0], &c, 1), 1);
    ualarm(20000, 0);
    ERR(lock(fd, F_SETLKW, F_WRLCK, 0, 10), EINTR);
    OK(kill(pid, SIGKILL));
    wait_for(pid);
    OK(lock(fd, F_SETLK, F_WRLCK, 0, 10));
}

TEST(deadlock_is_found) {
    int fd = make(), p[2];
    OK(pipe(p));
    OK(lock(fd, F_SETLK, F_WRLCK, 0, 1));
    pid_t pid = CHILD({
        OK(lock(fd, F_SETLK, F_WRLCK, 1, 1));
        write(p[1], "x", 1);
        OK(lock(fd, F_SETLKW, F_WRLCK, 0, 1));
    });
    char c;
    CHECK_EQ(read(p[0], &c, 1), 1);
    sleep_ms(30);
    ERR(lock(fd, F_SETLKW, F_WRLCK, 1, 1), EDEADLK);
    OK(lock(fd, F_SETLK, F_UNLCK, 0, 0));
    EXITED(wait_for(pid), 0);
}

TEST(lock_errors) {
    make();
    int r = OK(open("f", O_RDONLY)), w = OK(open("f", O_WRONLY));
    ERR(lock(r, F_SETLK, F_WRLCK, 0, 1), EBADF);
    ERR(lock(w, F_SETLK, F_RDLCK, 0, 1), EBADF);
    ERR(lock(r, F_SETLK, 99, 0, 1), EINVAL);
    ERR(lock(r, F_SETLK, F_RDLCK, -1, 1), EINVAL);
    ERR(fcntl(r, F_SETLK, BAD_ADDRESS), EFAULT);
    OK(lock(r, F_SETLK, F_RDLCK, 10, -5));
    struct flock l = {.l_type = F_UNLCK};
    ERR(fcntl(r, F_GETLK, &l), EINVAL);
}

TEST(whence_counts_from_the_offset) {
    int fd = make();
    OK(ftruncate(fd, 100));
    OK(lseek(fd, 10, SEEK_SET));
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_CUR, .l_start = 5, .l_len = 1};
    OK(fcntl(fd, F_SETLK, &l));
    EXITED(wait_for(CHILD(struct flock q = query(fd, F_WRLCK, 0, 0); CHECK_EQ(q.l_start, 15))), 0);
    l = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_END, .l_start = -1, .l_len = 1};
    OK(fcntl(fd, F_SETLK, &l));
}

TEST(ofd_locks_belong_to_the_description) {
    int fd = make(), other = make();
    OK(lock(fd, F_OFD_SETLK, F_WRLCK, 0, 10));
    ERR(lock(other, F_OFD_SETLK, F_WRLCK, 0, 10), EAGAIN);
    OK(lock(OK(dup(fd)), F_OFD_SETLK, F_WRLCK, 0, 10));
    EXITED(wait_for(CHILD(OK(lock(fd, F_OFD_SETLK, F_WRLCK, 0, 10)))), 0);
    ERR(lock(other, F_SETLK, F_WRLCK, 0, 10), EAGAIN);
    struct flock l = {.l_type = F_WRLCK, .l_len = 1};
    OK(fcntl(other, F_OFD_GETLK, &l));
    CHECK_EQ(l.l_pid, -1);
    l.l_pid = 5;
    ERR(fcntl(other, F_OFD_SETLK, &l), EINVAL);
}

TEST(flock_belongs_to_the_description) {
    int fd = make(), other = make();
    OK(flock(fd, LOCK_EX));
    ERR(flock(other, LOCK_EX | LOCK_NB), EAGAIN);
    ERR(flock(other, LOCK_SH | LOCK_NB), EAGAIN);
    int copy = OK(dup(fd));
    OK(flock(copy, LOCK_EX | LOCK_NB));
    close(fd);
    ERR(flock(other, LOCK_EX | LOCK_NB), EAGAIN);
    close(copy);
    OK(flock(other, LOCK_EX | LOCK_NB));
}

TEST(flock_modes_change) {
    int fd = make(), other = make();
    OK(flock(fd, LOCK_SH));
    OK(flock(other, LOCK_SH | LOCK_NB));
    ERR(flock(fd, LOCK_EX | LOCK_NB), EAGAIN);
    OK(flock(other, LOCK_UN));
    OK(flock(fd, LOCK_EX | LOCK_NB));
    OK(flock(fd, LOCK_SH));
    OK(flock(other, LOCK_SH | LOCK_NB));
    ERR(flock(fd, 16), EINVAL);
    ERR(flock(999, LOCK_SH), EBADF);
}

TEST(flock_waits_for_a_child) {
    int fd = make(), p[2];
    OK(pipe(p));
    pid_t pid = CHILD({
        int own = make();
        OK(flock(own, LOCK_EX));
        write(p[1], "x", 1);
        usleep(30000);
    });
    char c;
    CHECK_EQ(read(p[0], &c, 1), 1);
    long long start = now_ms();
    OK(flock(fd, LOCK_EX));
    CHECK(now_ms() - start >= 20);
    wait_for(pid);
}

TEST(flock_and_record_locks_do_not_meet) {
    int fd = make();
    OK(flock(fd, LOCK_EX));
    EXITED(wait_for(CHILD(OK(lock(fd, F_SETLK, F_WRLCK, 0, 10)))), 0);
}

TEST(a_description_finds_its_own_locks) {
    int fd = make();
    OK(lock(fd, F_OFD_SETLK, F_WRLCK, 10, 5));
    struct flock l = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0};
    if (fcntl(fd, F_OFD_GETLK, &l) && errno == EINVAL)
        SKIP("before Linux 6.9");
    CHECK_EQ(l.l_type, F_WRLCK);
    CHECK_EQ(l.l_start, 10);
    CHECK_EQ(l.l_len, 5);
    int other = make();
    l = (struct flock){.l_type = F_UNLCK, .l_whence = SEEK_SET};
    OK(fcntl(other, F_OFD_GETLK, &l));
    CHECK_EQ(l.l_type, F_UNLCK);
    ERR(fcntl(fd, F_GETLK, &l), EINVAL);
}

static volatile sig_atomic_t told_fd, told_code;

static void told(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    told_fd = info->si_fd;
    told_code = info->si_code;
}

// A file with a lease that is told of by SIGRTMIN; where the tree has none, the check ends here.
static int leased(int flags, int kind) {
    close(make());
    int fd = OK(open("f", flags));
    struct sigaction action = {.sa_sigaction = told, .sa_flags = SA_SIGINFO};
    OK(sigaction(SIGRTMIN, &action, NULL));
    OK(fcntl(fd, F_SETSIG, SIGRTMIN));
    int set = fcntl(fd, F_SETLEASE, kind);
    if (set && errno == EINVAL)
        _exit(0); // what others share has no leases
    CHECK_EQ(set, 0);
    return fd;
}

TEST(a_lease_is_kept_and_given_up) {
    int fd = leased(O_RDONLY, F_RDLCK);
    CHECK_EQ(fcntl(fd, F_GETLEASE), F_RDLCK);
    int other = OK(open("f", O_RDONLY));
    CHECK_EQ(fcntl(other, F_GETLEASE), F_UNLCK);
    ERR(fcntl(other, F_SETLEASE, F_WRLCK), EAGAIN);
    ERR(fcntl(other, F_SETLEASE, F_UNLCK), EAGAIN);
    ERR(fcntl(other, F_SETLEASE, 77), EINVAL);
    OK(fcntl(fd, F_SETLEASE, F_UNLCK));
    CHECK_EQ(fcntl(fd, F_GETLEASE), F_UNLCK);
    close(other);
    OK(fcntl(fd, F_SETLEASE, F_WRLCK));
    close(fd);
    int writer = OK(open("f", O_WRONLY));
    ERR(fcntl(writer, F_SETLEASE, F_RDLCK), EAGAIN);
    EXITED(wait_for(CHILD(become_nobody(); ERR(fcntl(writer, F_SETLEASE, F_WRLCK), EACCES))), 0);
    int pipes[2];
    OK(pipe(pipes));
    ERR(fcntl(pipes[0], F_SETLEASE, F_RDLCK), EINVAL);
}

TEST(an_opening_for_writing_waits_for_a_lease) {
    int fd = leased(O_RDONLY, F_RDLCK);
    pid_t pid = CHILD({
        ERR(open("f", O_WRONLY | O_NONBLOCK), EWOULDBLOCK);
        close(OK(open("f", O_RDONLY)));
        close(OK(open("f", O_WRONLY)));
    });
    EVENTUALLY(told_fd == fd);
    CHECK_EQ(told_code, POLL_MSG);
    CHECK_EQ(fcntl(fd, F_GETLEASE), F_UNLCK);
    sleep_ms(20);
    CHECK_EQ(waitpid(pid, NULL, WNOHANG), 0);
    OK(fcntl(fd, F_SETLEASE, F_UNLCK));
    EXITED(wait_for(pid), 0);
}

TEST(a_reader_leaves_a_read_lease) {
    int fd = leased(O_RDWR, F_WRLCK);
    pid_t pid = CHILD(close(fd); close(OK(open("f", O_RDONLY))));
    EVENTUALLY(told_fd == fd);
    CHECK_EQ(fcntl(fd, F_GETLEASE), F_RDLCK);
    close(fd); // the last close gives it up
    EXITED(wait_for(pid), 0);
}

TEST(a_truncation_waits_for_a_lease) {
    int fd = leased(O_RDONLY, F_RDLCK);
    pid_t pid = CHILD(OK(truncate("f", 10)));
    EVENTUALLY(told_fd == fd);
    OK(fcntl(fd, F_SETLEASE, F_UNLCK));
    EXITED(wait_for(pid), 0);
}

TEST(a_signal_ends_the_wait_for_a_lease) {
    leased(O_RDONLY, F_RDLCK);
    struct sigaction action = {.sa_sigaction = told, .sa_flags = SA_SIGINFO};
    pid_t pid = CHILD({
        OK(sigaction(SIGALRM, &action, NULL));
        ualarm(30000, 0);
        ERR(open("f", O_WRONLY), EINTR);
    });
    EXITED(wait_for(pid), 0);
}

TEST(proc_lists_locks) {
    int fd = OK(open("locked", O_CREAT | O_RDWR, 0600)), other = OK(open("locked", O_RDWR));
    OK(flock(fd, LOCK_EX));
    struct flock range = {.l_type = F_RDLCK, .l_start = 5, .l_len = 10};
    OK(fcntl(fd, F_SETLK, &range));
    struct flock rest = {.l_type = F_WRLCK, .l_start = 20};
    OK(fcntl(other, F_OFD_SETLK, &rest));
    char text[65536], want[100];
    int locks = OK(open("/proc/locks", O_RDONLY));
    ssize_t n = 0, got;
    while ((got = OK(read(locks, text + n, sizeof text - 1 - n))) > 0)
        n += got;
    text[n] = 0;
    struct stat s;
    OK(stat("locked", &s));
    sprintf(want, "FLOCK  ADVISORY  WRITE %d ", getpid());
    char *found = strstr(text, want);
    CHECK(found);
    sprintf(want, ":%lu 0 EOF\n", s.st_ino);
    CHECK(strstr(found, want));
    sprintf(want, "POSIX  ADVISORY  READ %d ", getpid());
    found = strstr(text, want);
    CHECK(found);
    sprintf(want, ":%lu 5 14\n", s.st_ino);
    CHECK(strstr(found, want));
    found = strstr(text, "OFDLCK ADVISORY  WRITE -1 ");
    CHECK(found);
    sprintf(want, ":%lu 20 EOF\n", s.st_ino);
    CHECK(strstr(found, want));
    OK(flock(fd, LOCK_UN));
    char after[65536];
    OK(lseek(locks, 0, SEEK_SET));
    for (n = 0; (got = OK(read(locks, after + n, sizeof after - 1 - n))) > 0;)
        n += got;
    after[n] = 0;
    sprintf(want, "FLOCK  ADVISORY  WRITE %d ", getpid());
    CHECK(!strstr(after, want));
}
