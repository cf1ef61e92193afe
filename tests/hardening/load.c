// A racing load over all of the system-call interface: load SECONDS [SEED [KIND]]
//
// Workers of every kind below make random calls on the same few names, processes and objects, while this process kills, stops
// and replaces them. What a call gives is not looked at: a sandbox whose build checks the order of its locks
// (crates/sync) stops when a call takes them in another. Prints `survived` when all workers are gone and reaped.
//
// It kills, mounts and makes objects of System V, so it wants to be process 1 of namespaces of its own.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/user.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static uint64_t state;

static uint32_t rnd(uint32_t below) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 20) % below;
}

#define PICK(ARRAY) ((ARRAY)[rnd(sizeof(ARRAY) / sizeof *(ARRAY))])

static void pause_us(long us) {
    struct timespec t = {0, us * 1000};
    nanosleep(&t, NULL);
}

// --- names ---

// The trees: a tmpfs, and what is at /root (an overlay, or a tree of the host).
static const char *const trees[] = {"/tmp/t", "/tmp/t/a", "/tmp/t/b", "/tmp/t/a/c", "/root/t", "/root/t/a", "/root/t/b", "/dev/shm"};

static void tree_path(char *out) {
    sprintf(out, "%s/n%u", PICK(trees), rnd(6));
}

static int some_pid(void) {
    static int known[64];
    static unsigned count, uses;
    if (uses++ % 64 == 0) {
        DIR *d = opendir("/proc");
        struct dirent *e;
        count = 0;
        while (d && (e = readdir(d)) && count < 64)
            if (atoi(e->d_name) > 1)
                known[count++] = atoi(e->d_name);
        if (d)
            closedir(d);
    }
    return count ? known[rnd(count)] : getpid();
}

static void proc_path(char *out) {
    static const char *const files[] = {
        "auxv", "cgroup", "cmdline", "comm", "environ", "io", "limits", "maps", "mountinfo", "mounts", "oom_score", "oom_score_adj",
        "sched", "schedstat", "smaps", "stat", "statm", "status", "syscall", "wchan", "mem", "fd", "fdinfo", "ns", "task", "net",
        "cwd", "exe", "root", "fd/0", "fd/1", "fd/3", "fd/4", "fd/5", "fd/6", "fdinfo/3", "fdinfo/4", "fdinfo/5", "ns/pid", "ns/mnt",
        "ns/net", "cwd/n1", "root/tmp/t/n1", "net/unix", "net/tcp", "uid_map", "nothing", "fd/77", "task/nothing",
    };
    static const char *const top[] = {
        "stat", "uptime", "loadavg", "meminfo", "mounts", "self", "thread-self", "sysvipc/shm", "sysvipc/msg", "sysvipc/sem",
        "locks", "sys/kernel/hostname", "sys/kernel/shmmax", "sys/fs/mqueue/msg_max", "sys", "net", "", "filesystems", "nothing",
    };
    int pid = some_pid();
    switch (rnd(8)) {
    case 0: sprintf(out, "/proc/%s", PICK(top)); break;
    case 1: sprintf(out, "/proc/%d", pid); break;
    case 2: sprintf(out, "/proc/%d/task/%d/%s", pid, rnd(2) ? pid : some_pid(), PICK(files)); break;
    case 3: sprintf(out, "/proc/self/%s", PICK(files)); break;
    default: sprintf(out, "/proc/%d/%s", pid, PICK(files)); break;
    }
}

static void any_path(char *out) {
    static const char *const others[] = {"/dev/pts", "/dev/pts/0", "/dev/pts/1", "/dev/ptmx", "/dev/null", "/dev/mqueue", "/dev/fd/3",
                                         "/sys", "/sys/fs/cgroup", "/tmp/t/s1", "/tmp/t/f1", "/", "/proc", "/dev"};
    uint32_t kind = rnd(10);
    if (kind < 4)
        proc_path(out);
    else if (kind < 9)
        tree_path(out);
    else
        strcpy(out, PICK(others));
}

static void use_fd(int fd) {
    char buffer[4096];
    struct stat st;
    struct iovec v = {buffer, sizeof buffer};
    struct flock lock = {.l_type = PICK(((short[]){F_RDLCK, F_WRLCK, F_UNLCK})), .l_start = rnd(100), .l_len = rnd(100)};
    struct statfs fs;
    switch (rnd(20)) {
    case 0: case 1: case 2: (void)!read(fd, buffer, sizeof buffer); break;
    case 3: (void)!write(fd, "0", 1); break;
    case 4: syscall(SYS_getdents64, fd, buffer, sizeof buffer); break;
    case 5: fstat(fd, &st); break;
    case 6: lseek(fd, rnd(5000), SEEK_SET); break;
    case 7: (void)!preadv(fd, &v, 1, rnd(5000)); break;
    case 8: (void)!pwrite(fd, buffer, rnd(4096), rnd(9000)); break;
    case 9: (void)!ftruncate(fd, rnd(9000)); break;
    case 10: fcntl(fd, F_SETLK, &lock); break;
    case 11: fcntl(fd, F_OFD_SETLK, &lock); break;
    case 12: flock(fd, (int)rnd(2) + 1 + LOCK_NB); break;
    case 13: fcntl(fd, F_SETLEASE, (int)rnd(3)); break;
    case 14: fchmod(fd, 0600 + rnd(64)); break;
    case 15: fstatfs(fd, &fs); break;
    case 16: fsync(fd); break;
    case 17: fallocate(fd, 0, rnd(4096), 1 + rnd(4096)); break;
    case 18: fgetxattr(fd, "user.a", buffer, 10); break;
    default: {
        void *p = mmap(NULL, 8192, PROT_READ, rnd(2) ? MAP_SHARED : MAP_PRIVATE, fd, 0);
        if (p != MAP_FAILED)
            munmap(p, 8192);
    }
    }
}

static void names(void) {
    char a[256], b[256], buffer[4096];
    struct stat st;
    any_path(a);
    any_path(b);
    switch (rnd(26)) {
    case 0: case 1: case 2: case 3: case 4: {
        int flags = PICK(((int[]){O_RDONLY, O_RDWR, O_WRONLY, O_RDWR | O_CREAT, O_RDWR | O_CREAT | O_EXCL, O_PATH, O_DIRECTORY,
                                  O_RDWR | O_TMPFILE, O_RDWR | O_TRUNC}));
        int fd = open(a, flags | O_NONBLOCK | O_NOCTTY, 0644);
        for (unsigned i = rnd(6); fd >= 0 && i; i--)
            use_fd(fd);
        if (fd >= 0 && rnd(4) == 0) {
            sprintf(b + strlen(b), "x");
            char link[64];
            sprintf(link, "/proc/self/fd/%d", fd);
            linkat(AT_FDCWD, link, AT_FDCWD, b, AT_SYMLINK_FOLLOW);
        }
        close(fd);
        break;
    }
    case 5: stat(a, &st); break;
    case 6: lstat(a, &st); break;
    case 7: (void)!readlink(a, buffer, sizeof buffer); break;
    case 8: case 9: unlink(a); break;
    case 10: rmdir(a); break;
    case 11: case 12: mkdir(a, 0755); break;
    case 13: rename(a, b); break;
    case 14: syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, rnd(5)); break;
    case 15: (void)!link(a, b); break;
    case 16: (void)!symlink(a, b); break;
    case 17: mknod(a, PICK(((mode_t[]){S_IFIFO, S_IFREG, S_IFSOCK, S_IFCHR})) | 0666, 0x103); break;
    case 18: chmod(a, rnd(4) ? 0755 : 01777); break;
    case 19: (void)!chown(a, rnd(2), rnd(2)); break;
    case 20: access(a, (int)rnd(8)); break;
    case 21: setxattr(a, "user.a", "1", 1, 0); break;
    case 22: listxattr(a, buffer, sizeof buffer); break;
    case 23: utimensat(AT_FDCWD, a, NULL, 0); break;
    case 24: (void)!truncate(a, rnd(9000)); break;
    case 25: if (!chdir(a)) (void)!getcwd(buffer, sizeof buffer); break;
    }
}

// As `names`, but all below /proc.
static void proc(void) {
    char a[256], b[256], buffer[4096];
    struct stat st;
    proc_path(a);
    proc_path(b);
    switch (rnd(14)) {
    case 0: unlink(a); break;
    case 1: rmdir(a); break;
    case 2: mkdir(a, 0755); break;
    case 3: rename(a, b); break;
    case 4: (void)!link(a, b); break;
    case 5: (void)!symlink("x", a); break;
    case 6: stat(a, &st); break;
    case 7: (void)!readlink(a, buffer, sizeof buffer); break;
    case 8: chmod(a, 0777); break;
    default: {
        int fd = open(a, (rnd(6) ? O_RDONLY : O_RDWR | O_CREAT) | O_NONBLOCK | O_NOCTTY, 0644);
        for (unsigned i = rnd(5); fd >= 0 && i; i--)
            use_fd(fd);
        close(fd);
    }
    }
}

static void mounts(void) {
    static int own;
    char a[64], b[64];
    if (!own++) {
        unshare(CLONE_NEWNS);
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    }
    sprintf(a, "%s", PICK(trees));
    sprintf(b, "%s", PICK(trees));
    switch (rnd(10)) {
    case 0: mount("t", a, "tmpfs", 0, NULL); break;
    case 1: mount("p", a, "proc", 0, NULL); break;
    case 2: mount(a, b, NULL, MS_BIND | (rnd(2) ? MS_REC : 0), NULL); break;
    case 3: mount(a, b, NULL, MS_MOVE, NULL); break;
    case 4: mount(NULL, a, NULL, MS_REMOUNT | MS_BIND | (rnd(2) ? MS_RDONLY : 0), NULL); break;
    case 5: mount("m", a, "mqueue", 0, NULL); break;
    case 6: case 7: umount2(a, rnd(2) ? MNT_DETACH : 0); break;
    case 8: mkdir(a, 0755); break;
    default: names(); proc();
    }
}

// --- processes ---

static void *short_thread(void *argument) {
    int word = 0;
    struct timespec t = {0, 100000};
    syscall(SYS_futex, &word, FUTEX_WAIT, 0, &t, NULL, 0);
    if ((long)argument == 1)
        execl("/proc/self/exe", "load", "exit", NULL);
    if ((long)argument == 2)
        _exit(3);
    return NULL;
}

static void processes(void) {
    int status;
    siginfo_t info;
    pid_t pid = PICK(((int[]){0, 0, 0, 1})) ? vfork() : fork();
    if (!pid) {
        switch (rnd(6)) {
        case 0: execl("/proc/self/exe", "load", "exit", NULL); _exit(1);
        case 1: kill(getpid(), SIGKILL); _exit(0);
        default: _exit(0);
        }
    }
    pid_t second = fork();
    if (!second) {
        state ^= (uint64_t)getpid() << 32;
        pthread_t t[3];
        switch (rnd(8)) {
        case 0: setsid(); break;
        case 1: setpgid(0, 0); break;
        case 2: (void)!setresuid(1000, 1000, 1000); break;
        case 3: prctl(PR_SET_DUMPABLE, 0); break;
        case 4: prctl(PR_SET_PDEATHSIG, SIGKILL); break;
        case 5: unshare(CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC); break;
        case 6: unshare(CLONE_FS | CLONE_FILES); break;
        default: prctl(PR_SET_CHILD_SUBREAPER, 1);
        }
        if (fork() == 0) {
            pause_us(rnd(3000));
            _exit(0);
        }
        for (int i = 0; i < 3; i++)
            if (pthread_create(&t[i], NULL, short_thread, (void *)(long)rnd(4)))
                _exit(1);
        for (unsigned i = rnd(8); i; i--)
            proc();
        _exit(0);
    }
    for (unsigned i = rnd(4); i; i--)
        proc();
    if (rnd(3) == 0)
        kill(second, SIGKILL);
    waitid(P_ALL, 0, &info, WEXITED | WSTOPPED | WCONTINUED | (rnd(2) ? WNOWAIT : 0));
    while (waitpid(-1, &status, rnd(2) ? __WALL : 0) > 0) {
    }
}

static void others(void) {
    int pid = some_pid();
    char buffer[256];
    struct iovec v = {buffer, sizeof buffer}, far = {buffer, sizeof buffer};
    struct rlimit limit;
    cpu_set_t set;
    struct sched_param param = {0};
    void *head;
    size_t length;
    CPU_ZERO(&set);
    CPU_SET(0, &set);
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    switch (rnd(16)) {
    case 0: process_vm_readv(pid, &v, 1, &far, 1, 0); break;
    case 1: prlimit(pid, RLIMIT_CORE, NULL, &limit); break;
    case 2: sched_setaffinity(pid, sizeof set, &set); break;
    case 3: setpriority(PRIO_PROCESS, pid, (int)rnd(5)); break;
    case 4: getpgid(pid); getsid(pid); break;
    case 5: syscall(SYS_get_robust_list, pid, &head, &length); break;
    case 6: close((int)syscall(SYS_pidfd_getfd, pidfd, rnd(8), 0)); break;
    case 7: syscall(SYS_pidfd_send_signal, pidfd, SIGCONT, NULL, 0); break;
    case 8: setns(pidfd, PICK(((int[]){CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID}))); break;
    case 9: sched_setscheduler(pid, SCHED_BATCH, &param); break;
    case 10: syscall(SYS_kcmp, pid, getpid(), rnd(6), 0, 0); break;
    case 11: poll(&(struct pollfd){pidfd, POLLIN, 0}, 1, 0); break;
    case 12: kill(pid, SIGCHLD); break;
    case 13: { struct rusage u; getrusage(rnd(2) ? RUSAGE_SELF : RUSAGE_CHILDREN, &u); break; }
    case 14: setpgid(pid, 0); break;
    default: proc();
    }
    close(pidfd);
}

static void tracing(void) {
    int status;
    struct user_regs_struct regs;
    pid_t pid = fork();
    if (!pid) {
        state += (uint64_t)getpid();
        if (rnd(2))
            ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGUSR2);
        for (;;)
            names();
    }
    if (rnd(2))
        ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXIT | PTRACE_O_EXITKILL);
    else
        ptrace(PTRACE_ATTACH, pid, 0, 0);
    for (int i = 0; i < 30; i++) {
        ptrace(PTRACE_INTERRUPT, pid, 0, 0);
        for (int n = 0; n < 20 && waitpid(pid, &status, WNOHANG | __WALL) == 0; n++)
            pause_us(50);
        switch (rnd(6)) {
        case 0: ptrace(PTRACE_GETREGS, pid, 0, &regs); break;
        case 1: ptrace(PTRACE_PEEKDATA, pid, &state, 0); break;
        case 2: ptrace(PTRACE_SYSCALL, pid, 0, 0); break;
        case 3: ptrace(PTRACE_SINGLESTEP, pid, 0, 0); break;
        case 4: kill(pid, PICK(((int[]){SIGSTOP, SIGCONT, SIGUSR2}))); break;
        default: ptrace(PTRACE_CONT, pid, 0, 0); proc();
        }
    }
    if (rnd(2))
        ptrace(PTRACE_DETACH, pid, 0, 0);
    kill(pid, SIGKILL);
    waitpid(pid, &status, __WALL);
}

static void on_signal(int number) {
    (void)number;
}

static void signals(void) {
    sigset_t set;
    struct itimerval value = {{0, 500}, {0, 300}};
    struct itimerspec spec = {{0, 700000}, {0, 200000}};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1};
    static timer_t timer;
    static int have_timer;
    struct timespec t = {0, 200000};
    sigfillset(&set);
    for (int n = SIGRTMIN; n < SIGRTMIN + 4; n++)
        signal(n, on_signal);
    signal(SIGUSR1, on_signal);
    signal(SIGVTALRM, on_signal);
    signal(SIGPROF, on_signal);
    switch (rnd(12)) {
    case 0: sigqueue(getpid(), SIGRTMIN, (union sigval){1}); break;
    case 1: sigqueue(some_pid(), 0, (union sigval){1}); break;
    case 2: setitimer((int)rnd(2) + 1, &value, NULL); break;
    case 3: if (!have_timer) have_timer = !timer_create(rnd(2) ? CLOCK_MONOTONIC : CLOCK_PROCESS_CPUTIME_ID, &event, &timer); break;
    case 4: if (have_timer) timer_settime(timer, 0, &spec, NULL); break;
    case 5: if (have_timer) { timer_delete(timer); have_timer = 0; } break;
    case 6: sigprocmask(rnd(2) ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL); break;
    case 7: sigtimedwait(&set, NULL, &t); break;
    case 8: kill(0, SIGUSR1); break;
    case 9: { int fd = signalfd(-1, &set, SFD_NONBLOCK); use_fd(fd); close(fd); break; }
    case 10: syscall(SYS_tgkill, getpid(), getpid(), SIGUSR1); break;
    default: proc();
    }
}

// --- descriptors ---

// A table of open files of all kinds, watched, passed and closed at random.
static int fds[24];

static int new_file(void) {
    int pair[2];
    char path[256];
    sigset_t set;
    struct itimerspec spec = {{0, 900000}, {0, 300000}};
    struct mq_attr attributes = {.mq_maxmsg = 4, .mq_msgsize = 16};
    sigfillset(&set);
    switch (rnd(14)) {
    case 0: if (pipe2(pair, O_NONBLOCK)) return -1; break;
    case 1: if (socketpair(AF_UNIX, PICK(((int[]){SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET})) | SOCK_NONBLOCK, 0, pair)) return -1; break;
    case 2: return eventfd(rnd(3), EFD_NONBLOCK);
    case 3: { int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK); timerfd_settime(fd, 0, &spec, NULL); return fd; }
    case 4: return signalfd(-1, &set, SFD_NONBLOCK);
    case 5: return (int)syscall(SYS_pidfd_open, some_pid(), 0);
    case 6: { int fd = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK); int zero = 0; ioctl(fd, TIOCSPTLCK, &zero); return fd; }
    case 7: sprintf(path, "/q%u", rnd(3)); return (int)mq_open(path, O_RDWR | O_CREAT | O_NONBLOCK, 0600, &attributes);
    case 8: return memfd_create("m", 0);
    case 9: return socket(AF_INET, (rnd(2) ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK, 0);
    case 10: return epoll_create1(0);
    case 11: sprintf(path, "/tmp/t/f%u", rnd(3)); mkfifo(path, 0600); return open(path, O_RDWR | O_NONBLOCK);
    case 12: return socket(AF_UNIX, (rnd(2) ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK, 0);
    default: any_path(path); return open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    }
    if (rnd(8) == 0)
        close(pair[0]);
    if (fds[0] > 0)
        close(fds[0]);
    fds[0] = pair[0];
    return pair[1];
}

static void address(struct sockaddr_un *un, struct sockaddr_in *in) {
    *un = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (rnd(2))
        sprintf(un->sun_path, "/tmp/t/s%u", rnd(3));
    else
        sprintf(un->sun_path + 1, "s%u", rnd(3));
    *in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)(2000 + rnd(4))), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void pass(int through, int what) {
    char byte = 1;
    struct iovec v = {&byte, 1};
    union { struct cmsghdr header; char space[CMSG_SPACE(sizeof(int))]; } control = {
        .header = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct msghdr message = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    memcpy(CMSG_DATA(&control.header), &what, sizeof what);
    if (rnd(2)) {
        sendmsg(through, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    } else if (recvmsg(through, &message, MSG_DONTWAIT) > 0 && message.msg_controllen >= CMSG_LEN(sizeof(int))) {
        memcpy(&what, CMSG_DATA(&control.header), sizeof what);
        close(what);
    }
}

static void terminal(int fd) {
    int number = 0, one = 1;
    struct termios t;
    struct winsize size = {24, (unsigned short)rnd(200), 0, 0};
    switch (rnd(12)) {
    case 0: if (getsid(0) != getpid() && !fork()) { setsid(); ioctl(fd, TIOCSCTTY, 0); (void)!write(fd, "\3x\n", 3); _exit(0); } break;
    case 1: ioctl(fd, TIOCSWINSZ, &size); break;
    case 2: tcsetpgrp(fd, getpgrp()); break;
    case 3: (void)!write(fd, "a\3\4\n", 4); break;
    case 4: if (!tcgetattr(fd, &t)) { t.c_lflag ^= rnd(2) ? ICANON : ECHO; tcsetattr(fd, (int)rnd(3), &t); } break;
    case 5: { int slave = ioctl(fd, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NONBLOCK); use_fd(slave); if (slave >= 0 && fds[1] > 0) close(fds[1]); if (slave >= 0) fds[1] = slave; break; }
    case 6: tcflush(fd, TCIOFLUSH); break;
    case 7: ioctl(fd, FIONREAD, &number); break;
    case 8: ioctl(fd, TIOCPKT, &one); break;
    case 9: ioctl(fd, TIOCSCTTY, 0); break;
    case 10: ioctl(fd, TIOCNOTTY, 0); break;
    default: ioctl(fd, FIOASYNC, &one); fcntl(fd, F_SETOWN, getpid());
    }
}

static void descriptors(void) {
    signal(SIGIO, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGTTOU, SIG_IGN);
    signal(SIGTTIN, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    int *slot = &PICK(fds), a = PICK(fds), b = PICK(fds), status;
    struct epoll_event event = {PICK(((uint32_t[]){EPOLLIN, EPOLLIN | EPOLLET, EPOLLOUT | EPOLLONESHOT})), {0}}, ready[8];
    struct sockaddr_un un;
    struct sockaddr_in in;
    struct pollfd polled[3] = {{a, POLLIN, 0}, {b, POLLIN | POLLOUT, 0}, {*slot, POLLIN, 0}};
    char buffer[512] = "x";
    address(&un, &in);
    switch (rnd(26)) {
    case 0: case 1: case 2: case 3: if (*slot > 0) close(*slot); *slot = new_file(); break;
    case 4: case 5: case 6: epoll_ctl(a, EPOLL_CTL_ADD, b, &event); break;
    case 7: epoll_ctl(a, (int)rnd(2) + 2, b, &event); break;
    case 8: case 9: epoll_wait(a, ready, 8, (int)rnd(2)); break;
    case 10: poll(polled, 3, (int)rnd(2)); break;
    case 11: case 12: pass(a, b); break;
    case 13: bind(a, (void *)&un, sizeof un); listen(a, 3); break;
    case 14: bind(a, (void *)&in, sizeof in); listen(a, 3); break;
    case 15: connect(a, (void *)&un, sizeof un); break;
    case 16: connect(a, (void *)&in, sizeof in); break;
    case 17: { int fd = accept4(a, NULL, NULL, SOCK_NONBLOCK); if (fd >= 0) { if (*slot > 0) close(*slot); *slot = fd; } break; }
    case 18: (void)!write(a, buffer, 8 + rnd(400)); break;
    case 19: (void)!read(a, buffer, sizeof buffer); break;
    case 20: shutdown(a, (int)rnd(3)); break;
    case 21: (void)!splice(a, NULL, b, NULL, 100, SPLICE_F_NONBLOCK); (void)!tee(a, b, 50, SPLICE_F_NONBLOCK); break;
    case 22: fcntl(a, F_SETPIPE_SZ, 4096 << rnd(3)); break;
    case 23: mq_notify(a, rnd(2) ? NULL : &(struct sigevent){.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGURG}); break;
    case 24: use_fd(a); terminal(b); break;
    default:
        if (rnd(8) == 0 && !fork())
            _exit(0); // a copy of the table, closed at once
        fcntl(a, F_SETOWN, getpid());
        fcntl(a, F_SETFL, O_NONBLOCK | (rnd(2) ? O_ASYNC : 0));
        dup2(a, b > 2 ? b : a);
    }
    while (waitpid(-1, &status, WNOHANG) > 0) {
    }
}

static void sysv(void) {
    int shm = shmget((key_t)(1 + rnd(3)), 8192, IPC_CREAT | 0600), sem = semget((key_t)(1 + rnd(3)), 2, IPC_CREAT | 0600);
    int msg = msgget((key_t)(1 + rnd(3)), IPC_CREAT | 0600);
    struct { long type; char text[32]; } m = {1 + rnd(3), "x"};
    struct sembuf operation = {(unsigned short)rnd(2), (short)(rnd(3) - 1), (short)((rnd(2) ? SEM_UNDO : 0) | (rnd(4) ? IPC_NOWAIT : 0))};
    struct timespec t = {0, 300000};
    struct shmid_ds ds;
    switch (rnd(14)) {
    case 0: case 1: { void *p = shmat(shm, NULL, 0); if (p != (void *)-1) { *(int *)p = 1; if (!fork()) _exit(0); shmdt(p); } break; }
    case 2: shmctl(shm, IPC_RMID, NULL); break;
    case 3: shmctl(shm, IPC_STAT, &ds); break;
    case 4: case 5: case 6: semtimedop(sem, &operation, 1, &t); break;
    case 7: semctl(sem, 0, PICK(((int[]){IPC_RMID, SETVAL, GETPID, GETNCNT})), 1); break;
    case 8: case 9: msgsnd(msg, &m, sizeof m.text, IPC_NOWAIT); break;
    case 10: case 11: msgrcv(msg, &m, sizeof m.text, rnd(3), IPC_NOWAIT); break;
    case 12: msgctl(msg, IPC_RMID, NULL); break;
    default: if (!fork()) { semtimedop(sem, &operation, 1, &t); _exit(0); }
    }
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
}

static void memory(void) {
    static char *area;
    size_t pages = 1 + rnd(64), at = rnd(64) * 4096ul;
    if (!area)
        area = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    switch (rnd(12)) {
    case 0: mprotect(area + at, pages * 4096, rnd(2) ? PROT_READ : PROT_READ | PROT_WRITE); break;
    case 1: mmap(area + at, pages * 4096, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); break;
    case 2: munmap(area + at, pages * 4096); break;
    case 3: mremap(area + at, 4096, pages * 4096, MREMAP_MAYMOVE); break;
    case 4: madvise(area + at, pages * 4096, PICK(((int[]){MADV_DONTNEED, MADV_WILLNEED, MADV_DONTFORK}))); break;
    case 5: mmap(area, 1 << 20, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_SHARED | MAP_ANONYMOUS, -1, 0); break;
    case 6: msync(area + at, 4096, MS_SYNC); break;
    case 7: mlock(area + at, 4096); munlock(area + at, 4096); break;
    case 8: (void)!sbrk(4096); break;
    case 9: (void)!write(-1, area + at, 1); break;
    case 10: { pid_t pid = fork(); if (!pid) { (void)!read(open("/proc/self/maps", O_RDONLY), area + at, 4096); _exit(0); } waitpid(pid, NULL, 0); break; }
    default: proc();
    }
}

// Calls that take numbers, with the ends of all ranges for them.
static void numbers(void) {
    static const short calls[] = {
        SYS_pread64, SYS_pwrite64, SYS_preadv, SYS_pwritev, SYS_preadv2, SYS_pwritev2, SYS_readv, SYS_writev, SYS_read, SYS_write,
        SYS_lseek, SYS_ftruncate, SYS_truncate, SYS_fallocate, SYS_fadvise64, SYS_readahead, SYS_sync_file_range,
        SYS_copy_file_range, SYS_sendfile, SYS_splice, SYS_tee, SYS_vmsplice, SYS_mmap, SYS_mremap, SYS_munmap, SYS_mprotect,
        SYS_madvise, SYS_mincore, SYS_msync, SYS_mlock, SYS_mlock2, SYS_munlock, SYS_brk, SYS_remap_file_pages, SYS_shmget,
        SYS_shmat, SYS_shmctl, SYS_semget, SYS_semctl, SYS_semop, SYS_semtimedop, SYS_msgget, SYS_msgsnd, SYS_msgrcv, SYS_msgctl,
        SYS_getdents64, SYS_getdents, SYS_getrandom, SYS_poll, SYS_ppoll, SYS_select, SYS_pselect6, SYS_epoll_wait, SYS_epoll_ctl,
        SYS_epoll_pwait2, SYS_fcntl, SYS_setsockopt, SYS_getsockopt, SYS_sendto, SYS_recvfrom, SYS_sendmsg, SYS_recvmsg,
        SYS_sendmmsg, SYS_recvmmsg, SYS_bind, SYS_connect, SYS_listen, SYS_accept4, SYS_timer_create, SYS_timer_settime,
        SYS_timer_gettime, SYS_timer_getoverrun, SYS_timerfd_settime, SYS_timerfd_gettime, SYS_nanosleep, SYS_clock_nanosleep,
        SYS_clock_gettime, SYS_clock_getres, SYS_setitimer, SYS_getitimer, SYS_futex, SYS_futex_waitv, SYS_prlimit64, SYS_getrlimit,
        SYS_getpriority, SYS_setpriority, SYS_getgroups, SYS_process_vm_readv, SYS_process_vm_writev, SYS_set_robust_list,
        SYS_get_robust_list, SYS_membarrier, SYS_rseq, SYS_close_range, SYS_dup2, SYS_dup3, SYS_memfd_create, SYS_eventfd2,
        SYS_pipe2, SYS_statx, SYS_wait4, SYS_waitid, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigpending, SYS_sigaltstack,
        SYS_getcwd, SYS_readlinkat, SYS_readlink, SYS_getxattr, SYS_setxattr, SYS_listxattr, SYS_mq_timedsend,
        SYS_mq_timedreceive, SYS_mq_open, SYS_mq_getsetattr, SYS_utimensat, SYS_utimes, SYS_utime, SYS_flock, SYS_getrusage,
        SYS_sched_getaffinity, SYS_sched_getattr, SYS_sched_rr_get_interval, SYS_getsockname, SYS_socketpair, SYS_socket,
        SYS_shutdown, SYS_openat2, SYS_faccessat2, SYS_execveat, SYS_name_to_handle_at, SYS_capget, SYS_sysfs, SYS_ustat,
        SYS_process_madvise, SYS_pidfd_open, SYS_pidfd_getfd, SYS_kcmp, SYS_inotify_add_watch, SYS_seccomp, SYS_bpf,
        SYS_process_mrelease, SYS_signalfd4, SYS_rt_sigtimedwait, SYS_times, SYS_sysinfo, SYS_getcpu, SYS_ioprio_get,
    };
    static char *page;
    static int files[6];
    struct rlimit size = {64 << 20, 64 << 20}, memory = {1ul << 33, 1ul << 33};
    if (!page) {
        signal(SIGXFSZ, SIG_IGN);
        signal(SIGPIPE, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &size);
        setrlimit(RLIMIT_AS, &memory);
        page = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        mknod("/tmp/t/numbers", S_IFREG | 0644, 0);
        files[0] = open("/tmp/t/numbers", O_RDWR);
        files[1] = open("/root/t", O_RDONLY);
        files[2] = memfd_create("numbers", MFD_ALLOW_SEALING);
        (void)!pipe2(files + 3, O_NONBLOCK);
        files[5] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        state ^= (uint64_t)getpid() << 20;
    }
    static const uint64_t ends[] = {
        0, 1, 2, 3, 7, 8, 16, 255, 256, 4095, 4096, 4097, 0x7fff, 0xffff, 0x10000, 0x7ffff000, 0x7fffffff, 0x80000000, 0xfffff000, 0xffffffff,
        0x100000000, 0x7ffdfffff000, 0x7ffe00000000, 0x7fffffffe000, 0x7ffffffff000, 0x800000000000, 0x7ffffffffffff000,
        0x7fffffffffffffff, 0x8000000000000000, 0x8000000000000001, 0xfffffffffffff000, 0xfffffffffffffffe, 0xffffffffffffffff,
    };
    // What structs, vectors and times in memory are read from.
    for (int i = 0; i < 16; i++) {
        uint64_t *pair = (uint64_t *)page + 2 * rnd(32);
        pair[0] = rnd(3) ? PICK(ends) : (uint64_t)(uintptr_t)(page + rnd(4096));
        pair[1] = rnd(3) ? rnd(1000000) : PICK(ends);
    }
    uint64_t a[6];
    for (int i = 0; i < 6; i++)
        switch (rnd(i ? 5 : 2)) {
        case 0: a[i] = PICK(ends); break;
        case 1: a[i] = (uint64_t)PICK(files); break;
        case 2: a[i] = (uint64_t)(uintptr_t)(page + 8 * rnd(64)); break;
        case 3: a[i] = rnd(64); break;
        default: a[i] = 1ul << rnd(64);
        }
    long call = PICK(calls);
    if (rnd(3) == 0)
        a[0] = (uint64_t)(uintptr_t)page;
    if (call == SYS_mmap)
        a[3] = PICK(((uint64_t[]){MAP_PRIVATE, MAP_SHARED, MAP_PRIVATE | MAP_ANONYMOUS, MAP_SHARED | MAP_ANONYMOUS}));
    if (call == SYS_process_vm_readv || call == SYS_process_vm_writev || call == SYS_prlimit64)
        a[0] = rnd(2) ? 0 : (uint64_t)getpid();
    // Both of these would be remembered: the stack and what is below this frame.
    if ((call == SYS_munmap || call == SYS_mremap || call == SYS_mprotect) && a[0] > 0x7f0000000000 && a[0] < 0x7ffffffff000)
        a[0] = 0x7ffffffff000;
    syscall(call, a[0], a[1], a[2], a[3], a[4], a[5]);
    alarm(1);
}

// --- the supervisor ---

static const struct { const char *name; void (*run)(void); int processes; } kinds[] = {
    {"names", names, 2}, {"proc", proc, 2}, {"mounts", mounts, 1}, {"processes", processes, 2}, {"others", others, 1},
    {"tracing", tracing, 1}, {"signals", signals, 1}, {"descriptors", descriptors, 2}, {"sysv", sysv, 1}, {"memory", memory, 1}, {"numbers", numbers, 2},
};

#define WORKERS 20

// Shows who did not die.
static void stuck(int number) {
    (void)number;
    char path[64], text[2048];
    static const char *const files[] = {"stat", "wchan", "syscall", "status"};
    for (int pid = 2; pid < 100000; pid++)
        for (int i = 0; i < 4; i++) {
            sprintf(path, "/proc/%d/%s", pid, files[i]);
            int fd = open(path, O_RDONLY);
            ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text);
            if (n > 0 && write(1, text, (size_t)n) > 0)
                (void)!write(1, "\n", 1);
            close(fd);
        }
    _exit(1);
}

static pid_t start(int kind, uint64_t seed) {
    pid_t pid = fork();
    if (pid)
        return pid;
    state = seed * 0x9e3779b97f4a7c15u + 1;
    setpgid(0, 0);
    struct rlimit files = {64, 64};
    setrlimit(RLIMIT_NOFILE, &files);
    for (int fd = 0; fd < 3; fd++)
        dup2(open("/dev/null", O_RDWR), fd);
    // A call that waits for longer than this ends its worker.
    for (;;) {
        alarm(1);
        kinds[kind].run();
    }
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "exit"))
        return 0;
    double seconds = argc > 1 ? atof(argv[1]) : 2;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
    if (getpid() != 1) {
        fputs("it kills whatever it can see: start it as process 1 of a pid namespace\n", stderr);
        return 2;
    }
    // On the host, what came as stdin is the machine's own /dev/null, whose mode is not the load's to change.
    int own = open("/dev/null", O_RDWR);
    if (own < 0 || dup2(own, 0) < 0) {
        perror("/dev/null");
        return 2;
    }
    if (own != 0)
        close(own);
    // There, too, modes and owners of files in /proc are the machine's, in whatever mount of it.
    struct utsname system;
    uname(&system);
    if (!strstr(system.release, "moat") && mount(NULL, "/proc", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL)) {
        perror("/proc");
        return 2;
    }
    state = seed * 0x9e3779b97f4a7c15u + 7;
    for (size_t i = 0; i < sizeof trees / sizeof *trees; i++)
        mkdir(trees[i], 0755);
    struct { pid_t pid; int kind; } worker[WORKERS] = {0};
    int count = 0;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (int i = 0; i < kinds[k].processes && (argc < 4 || !strcmp(argv[3], kinds[k].name)); i++)
            worker[count++].kind = (int)k;
    struct timespec now, end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += (time_t)seconds;
    do {
        for (int i = 0; i < count; i++)
            if (!worker[i].pid)
                worker[i].pid = start(worker[i].kind, ++seed);
        pause_us(20000);
        int victim = (int)rnd((uint32_t)count);
        int number = PICK(((int[]){0, 0, 0, 0, SIGKILL, SIGSTOP, SIGCONT, SIGTERM}));
        if (number == SIGKILL)
            kill(-worker[victim].pid, SIGKILL);
        kill(worker[victim].pid, number);
        if (number == SIGSTOP) {
            pause_us(2000);
            kill(worker[victim].pid, SIGCONT);
        }
        pid_t pid;
        while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
            for (int i = 0; i < count; i++)
                if (worker[i].pid == pid) {
                    kill(-pid, SIGKILL);
                    worker[i].pid = 0;
                }
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec < end.tv_sec || (now.tv_sec == end.tv_sec && now.tv_nsec < end.tv_nsec));
    signal(SIGALRM, stuck);
    alarm(10);
    do
        kill(-1, SIGKILL);
    while (waitpid(-1, NULL, WNOHANG) >= 0 || errno != ECHILD);
    return puts("survived") < 0;
}
