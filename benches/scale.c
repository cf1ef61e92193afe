// How costs grow: makes n things of a kind, uses each once and ends them, for n that doubles.
//
// Prints `KIND.PHASE N NANOSECONDS`, the best of a few runs, each in a process of its own. The harness fits the exponent.
// With arguments: only the kinds of these names.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/msg.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "measure.h"

#ifndef RUNS
#define RUNS 3
#endif
enum { LIMIT = 16384 };

#define CHECK(call) ((call) < 0 ? fail(#call) : (void)0)

// What a run has made: a number for each.
static long made[LIMIT];

static void name_of(char *name, int i) {
    sprintf(name, "/tmp/scale/%d", i);
}

// Threads: each says that it is there, and sleeps on one word of its own or of all.
static int *words, here, woken;
static pthread_t *threads;

static void futex(int *word, int what, int value) {
    syscall(SYS_futex, word, what | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

static void *sleeper(void *word) {
    __atomic_add_fetch(&here, 1, __ATOMIC_SEQ_CST);
    futex(&here, FUTEX_WAKE, 1);
    futex(word, FUTEX_WAIT, 0);
    __atomic_add_fetch(&woken, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

static void start_threads(int n, void *(*run)(void *), int one_word) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 32 << 10);
    words = calloc(n, sizeof *words);
    threads = calloc(n, sizeof *threads);
    for (int i = 0; i < n; i++) {
        errno = pthread_create(&threads[i], &attributes, run, one_word ? words : words + i);
        if (errno)
            fail("pthread_create");
    }
    for (int seen; (seen = here) < n;)
        futex(&here, FUTEX_WAIT, seen);
}

static void threads_make(int n) { start_threads(n, sleeper, 0); }
static void threads_end(int n) {
    for (int i = 0; i < n; i++) {
        words[i] = 1;
        futex(words + i, FUTEX_WAKE, 1);
        pthread_join(threads[i], NULL);
    }
}

static void waiters_make(int n) { start_threads(n, sleeper, 1); }
static void waiters_use(int n) {
    for (int i = 0; i < n; i++) {
        futex(words, FUTEX_WAKE, 1);
        while (__atomic_load_n(&woken, __ATOMIC_SEQ_CST) < i)
            sched_yield();
    }
    words[0] = 1;
    futex(words, FUTEX_WAKE, n);
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
}

static void *clock_sleeper(void *word) {
    __atomic_add_fetch(&here, 1, __ATOMIC_SEQ_CST);
    futex(&here, FUTEX_WAKE, 1);
    struct timespec t = {.tv_sec = 1000};
    while (nanosleep(&t, &t))
        ;
    return word;
}

static void sleepers_make(int n) { start_threads(n, clock_sleeper, 0); }

static int set;

static void *semaphore_sleeper(void *word) {
    __atomic_add_fetch(&here, 1, __ATOMIC_SEQ_CST);
    futex(&here, FUTEX_WAKE, 1);
    struct sembuf down = {.sem_op = -1};
    CHECK(semop(set, &down, 1));
    return word;
}

static void semop_waiters_make(int n) {
    CHECK(set = semget(IPC_PRIVATE, 1, 0600));
    start_threads(n, semaphore_sleeper, 0);
}
static void semop_waiters_end(int n) {
    struct sembuf up = {.sem_op = 1};
    for (int i = 0; i < n; i++)
        CHECK(semop(set, &up, 1));
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    semctl(set, 0, IPC_RMID);
}

// Children that sleep, in a process group of their own, then as zombies.
static void children_make(int n) {
    for (int i = 0; i < n; i++) {
        CHECK(made[i] = fork());
        if (!made[i]) {
            setpgid(0, i ? made[0] : 0);
            pause();
            _exit(0);
        }
        setpgid(made[i], made[0]);
    }
}
static void children_use(int n) {
    for (int i = 0; i < n; i++)
        CHECK(kill(made[i], 0));
    CHECK(kill(-made[0], SIGKILL));
}
static void children_end(int n) {
    // The last first: a list of children is walked to its end.
    for (int i = n - 1; i >= 0; i--)
        CHECK(waitpid(made[i], NULL, 0));
}

// Children of which any is waited for.
static void zombies_make(int n) {
    for (int i = 0; i < n; i++) {
        CHECK(made[i] = fork());
        if (!made[i])
            _exit(0);
    }
}
static void zombies_end(int n) {
    for (int i = 0; i < n; i++)
        CHECK(waitpid(-1, NULL, 0));
}

static void close_all(int n) {
    for (int i = 0; i < n; i++)
        CHECK(close(made[i]));
}

static void fds_make(int n) {
    for (int i = 0; i < n; i++)
        CHECK(made[i] = dup(0));
}

static void pipes_make(int n) {
    for (int i = 0; i + 1 < n; i += 2) {
        int ends[2];
        CHECK(pipe(ends));
        made[i] = ends[0];
        made[i + 1] = ends[1];
    }
}

static char *area;

static void vmas_make(int n) {
    area = mmap(NULL, (size_t)n << 13, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < n; i++)
        if (mmap(area + ((size_t)i << 13), 4096, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
            fail("mmap");
}
static void vmas_use(int n) {
    for (int i = 0; i < n; i++)
        area[(size_t)i << 13] = 1;
}
static void vmas_end(int n) {
    for (int i = n - 1; i >= 0; i--)
        CHECK(munmap(area + ((size_t)i << 13), 4096));
}

// Where there is room is looked for each time.
static void mappings_make(int n) {
    for (int i = 0; i < n; i++) {
        made[i] = (long)mmap(NULL, 4096, i % 2 ? PROT_READ : PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if ((void *)made[i] == MAP_FAILED)
            fail("mmap");
    }
}
static void mappings_end(int n) {
    for (int i = 0; i < n; i++)
        CHECK(munmap((void *)made[i], 4096));
}

static void timers_make(int n) {
    struct sigevent none = {.sigev_notify = SIGEV_NONE};
    for (int i = 0; i < n; i++) {
        timer_t timer;
        CHECK(timer_create(CLOCK_MONOTONIC, &none, &timer));
        made[i] = (long)timer;
        struct itimerspec when = {.it_value.tv_sec = 1000 + i * 7919 % n};
        CHECK(timer_settime(timer, 0, &when, NULL));
    }
}
static void timers_end(int n) {
    for (int i = 0; i < n; i++)
        CHECK(timer_delete((timer_t)made[i]));
}

static void timerfds_make(int n) {
    for (int i = 0; i < n; i++) {
        CHECK(made[i] = timerfd_create(CLOCK_MONOTONIC, 0));
        struct itimerspec when = {.it_value.tv_sec = 1000 + i * 7919 % n};
        CHECK(timerfd_settime(made[i], 0, &when, NULL));
    }
}
static void timerfds_use(int n) {
    for (int i = 0; i < n; i++) {
        struct itimerspec when = {.it_value.tv_sec = 500 + i * 7919 % n};
        CHECK(timerfd_settime(made[i], 0, &when, NULL));
    }
}

static int epoll;

static void epoll_make(int n) {
    CHECK(epoll = epoll_create1(0));
    for (int i = 0; i < n; i++) {
        CHECK(made[i] = eventfd(0, EFD_NONBLOCK));
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, made[i], &event));
    }
}
static void epoll_use(int n) {
    unsigned long long one = 1;
    for (int i = 0; i < n; i++) {
        struct epoll_event event;
        if (write(made[i], &one, 8) != 8 || epoll_wait(epoll, &event, 1, 0) != 1 || read(made[i], &one, 8) != 8)
            fail("epoll");
    }
}

static void sem_make(int n) {
    for (int i = 0; i < n; i++)
        CHECK(made[i] = semget(0x5ca1e000 + i, 1, IPC_CREAT | 0600));
}
static void sem_use(int n) {
    for (int i = 0; i < n; i++)
        CHECK(semget(0x5ca1e000 + i, 1, 0600));
}
static void sem_end(int n) {
    for (int i = 0; i < n; i++)
        CHECK(semctl(made[i], 0, IPC_RMID));
}

static void shm_make(int n) {
    for (int i = 0; i < n; i++)
        CHECK(made[i] = shmget(0x5ca1e000 + i, 4096, IPC_CREAT | 0600));
}
static void shm_end(int n) {
    for (int i = 0; i < n; i++)
        CHECK(shmctl(made[i], IPC_RMID, NULL));
}

static void msg_make(int n) {
    for (int i = 0; i < n; i++)
        CHECK(made[i] = msgget(0x5ca1e000 + i, IPC_CREAT | 0600));
}
static void msg_end(int n) {
    for (int i = 0; i < n; i++)
        CHECK(msgctl(made[i], IPC_RMID, NULL));
}

// Adjustments at exit: one of each set.
static void sem_undo_make(int n) {
    struct sembuf up = {.sem_op = 1, .sem_flg = SEM_UNDO};
    for (int i = 0; i < n; i++) {
        CHECK(made[i] = semget(IPC_PRIVATE, 1, 0600));
        CHECK(semop(made[i], &up, 1));
    }
}

static void socketpairs_make(int n) {
    for (int i = 0; i + 1 < n; i += 2) {
        int ends[2];
        CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
        made[i] = ends[0];
        made[i + 1] = ends[1];
    }
}

static void abstract_make(int n) {
    for (int i = 0; i < n; i++) {
        struct sockaddr_un name = {.sun_family = AF_UNIX};
        int length = sprintf(name.sun_path + 1, "scale-%d", i);
        CHECK(made[i] = socket(AF_UNIX, SOCK_DGRAM, 0));
        CHECK(bind(made[i], (struct sockaddr *)&name, 3 + length));
    }
}

static void inet_make(int n, int kind) {
    for (int i = 0; i < n; i++) {
        struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        CHECK(made[i] = socket(AF_INET, kind, 0));
        CHECK(bind(made[i], (struct sockaddr *)&name, sizeof name));
        if (kind == SOCK_STREAM)
            CHECK(listen(made[i], 1));
    }
}
static void udp_make(int n) { inet_make(n, SOCK_DGRAM); }
static void listeners_make(int n) { inet_make(n, SOCK_STREAM); }

static void connections_make(int n) {
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof name;
    int listener;
    CHECK(listener = socket(AF_INET, SOCK_STREAM, 0));
    CHECK(bind(listener, (struct sockaddr *)&name, sizeof name));
    CHECK(listen(listener, 16));
    CHECK(getsockname(listener, (struct sockaddr *)&name, &length));
    for (int i = 0; i + 1 < n; i += 2) {
        CHECK(made[i] = socket(AF_INET, SOCK_STREAM, 0));
        CHECK(connect(made[i], (struct sockaddr *)&name, sizeof name));
        CHECK(made[i + 1] = accept(listener, NULL, NULL));
    }
    close(listener);
}

// Descriptors under way in a socket.
static int sockets[2];

static void passed_make(int n) {
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, sockets));
    int large = 64 << 20;
    setsockopt(sockets[0], SOL_SOCKET, SO_SNDBUFFORCE, &large, sizeof large);
    for (int i = 0; i < n; i++) {
        int ends[2];
        CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
        made[i] = ends[0];
        union {
            char bytes[CMSG_SPACE(sizeof(int))];
            struct cmsghdr head;
        } control = {.head = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
        memcpy(CMSG_DATA(&control.head), &ends[1], sizeof(int));
        struct iovec byte = {.iov_base = "x", .iov_len = 1};
        struct msghdr message = {.msg_iov = &byte, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        CHECK(sendmsg(ends[0], &message, 0));
        CHECK(close(ends[1]));
    }
}

static void files_make(int n) {
    char name[40];
    for (int i = 0; i < n; i++) {
        name_of(name, i);
        int fd;
        CHECK(fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0644));
        close(fd);
    }
}
static void files_use(int n) {
    char name[40];
    struct stat s;
    for (int i = 0; i < n; i++) {
        name_of(name, i);
        CHECK(stat(name, &s));
    }
}
static void files_end(int n) {
    char name[40];
    for (int i = 0; i < n; i++) {
        name_of(name, i);
        CHECK(unlink(name));
    }
}

static void enter_shm(void) {
    CHECK(rmdir("/tmp/scale"));
    CHECK(mkdir("/dev/shm/scale", 0755));
    CHECK(symlink("/dev/shm/scale", "/tmp/scale"));
}
static void leave_shm(void) {
    CHECK(unlink("/tmp/scale"));
    CHECK(rmdir("/dev/shm/scale"));
    CHECK(mkdir("/tmp/scale", 0755));
}
static void tmpfs_make(int n) {
    enter_shm();
    files_make(n);
}
static void tmpfs_end(int n) {
    files_end(n);
    leave_shm();
}

static void absent_use(int n) {
    char name[40];
    for (int i = 0; i < n; i++) {
        name_of(name, i);
        if (access(name, F_OK) == 0)
            fail(name);
    }
}

// A directory below the one before.
static void depth_make(int n) {
    CHECK(mkdir("/dev/shm/d", 0755));
    CHECK(chdir("/dev/shm/d"));
    for (int i = 0; i < n; i++) {
        CHECK(mkdir("x", 0755));
        CHECK(chdir("x"));
    }
}
static void depth_end(int n) {
    for (int i = 0; i < n; i++) {
        CHECK(chdir(".."));
        CHECK(rmdir("x"));
    }
    CHECK(rmdir("/dev/shm/d"));
}

static void mounts_make(int n) {
    for (int i = 0; i < n; i++) {
        char name[40];
        name_of(name, i);
        CHECK(mkdir(name, 0755));
        CHECK(mount("scale", name, "tmpfs", 0, NULL));
    }
}
static void mounts_end(int n) {
    for (int i = 0; i < n; i++) {
        char name[40];
        name_of(name, i);
        CHECK(umount2(name, 0));
        CHECK(rmdir(name));
    }
}

static void signals_make(int n) {
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGRTMIN);
    sigaddset(&mask, SIGRTMIN + 1);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    for (int i = 0; i < n; i++)
        CHECK(sigqueue(getpid(), SIGRTMIN + i % 2, (union sigval){.sival_int = i}));
}
static void signals_end(int n) {
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGRTMIN + 1);
    for (int i = 1; i < n; i += 2)
        CHECK(sigwaitinfo(&mask, NULL));
    sigaddset(&mask, SIGRTMIN);
    for (int i = 0; i < n; i += 2)
        CHECK(sigwaitinfo(&mask, NULL));
}

static int file;

static void locks_make(int n) {
    CHECK(file = open("/tmp/scale/locked", O_CREAT | O_RDWR, 0644));
    for (int i = 0; i < n; i++) {
        struct flock lock = {.l_type = F_WRLCK, .l_start = 2 * i, .l_len = 1};
        CHECK(fcntl(file, F_SETLK, &lock));
    }
}
static void locks_end(int n) {
    for (int i = 0; i < n; i++) {
        struct flock lock = {.l_type = F_UNLCK, .l_start = 2 * i, .l_len = 1};
        CHECK(fcntl(file, F_SETLK, &lock));
    }
    CHECK(unlink("/tmp/scale/locked"));
}

static void watches_make(int n) {
    tmpfs_make(n);
    CHECK(file = inotify_init());
    for (int i = 0; i < n; i++) {
        char name[40];
        name_of(name, i);
        CHECK(made[i] = inotify_add_watch(file, name, IN_OPEN));
    }
}
static void watches_use(int n) {
    char name[40], events[64];
    for (int i = 0; i < n; i++) {
        name_of(name, i);
        int fd;
        CHECK(fd = open(name, O_RDONLY));
        close(fd);
        CHECK(read(file, events, sizeof events));
    }
}
static void watches_end(int n) {
    for (int i = 0; i < n; i++)
        CHECK(inotify_rm_watch(file, made[i]));
    tmpfs_end(n);
}

static void queues_make(int n) {
    struct mq_attr attributes = {.mq_maxmsg = 1, .mq_msgsize = 8};
    for (int i = 0; i < n; i++) {
        char name[40];
        sprintf(name, "/scale-%d", i);
        CHECK(made[i] = mq_open(name, O_CREAT | O_RDWR, 0600, &attributes));
    }
}
static void queues_end(int n) {
    for (int i = 0; i < n; i++) {
        char name[40];
        sprintf(name, "/scale-%d", i);
        CHECK(close(made[i]));
        CHECK(mq_unlink(name));
    }
}

// Messages in one queue.
static void messages_make(int n) {
    struct {
        long kind;
        char text[1];
    } message = {1, "x"};
    CHECK(set = msgget(IPC_PRIVATE, 0600));
    for (int i = 0; i < n; i++)
        CHECK(msgsnd(set, &message, 1, 0));
}
static void messages_end(int n) {
    struct {
        long kind;
        char text[1];
    } message;
    for (int i = 0; i < n; i++)
        CHECK(msgrcv(set, &message, 1, 0, 0));
    CHECK(msgctl(set, IPC_RMID, NULL));
}

typedef void phase(int);

static const struct kind {
    const char *name;
    int least, most;
    phase *make, *use, *end;
} kinds[] = {
    {"threads", 500, 4000, threads_make, NULL, threads_end},
    {"futex-waiters", 500, 4000, waiters_make, waiters_use, NULL},
    {"sleepers", 500, 4000, sleepers_make, NULL, NULL},
    {"semop-waiters", 250, 2000, semop_waiters_make, NULL, semop_waiters_end},
    {"children", 100, 800, children_make, children_use, children_end},
    {"zombies", 100, 800, zombies_make, NULL, zombies_end},
    {"fds", 500, 4000, fds_make, NULL, close_all},
    {"pipes", 500, 4000, pipes_make, NULL, close_all},
    {"vmas", 2000, 16000, vmas_make, vmas_use, vmas_end},
    {"mappings", 2000, 16000, mappings_make, NULL, mappings_end},
    {"timers", 1000, 8000, timers_make, NULL, timers_end},
    {"timerfds", 500, 4000, timerfds_make, timerfds_use, close_all},
    {"epoll", 500, 4000, epoll_make, epoll_use, close_all},
    {"semget", 1000, 8000, sem_make, sem_use, sem_end},
    {"sem-undo", 1000, 8000, sem_undo_make, NULL, sem_end},
    {"shmget", 500, 4000, shm_make, NULL, shm_end},
    {"msgget", 1000, 8000, msg_make, NULL, msg_end},
    {"messages", 1000, 8000, messages_make, NULL, messages_end},
    {"mqueues", 32, 256, queues_make, NULL, queues_end},
    {"socketpairs", 500, 4000, socketpairs_make, NULL, close_all},
    {"abstract", 500, 4000, abstract_make, NULL, close_all},
    {"udp", 500, 4000, udp_make, NULL, close_all},
    {"listeners", 500, 4000, listeners_make, NULL, close_all},
    {"connections", 500, 4000, connections_make, NULL, close_all},
    {"passed-fds", 250, 2000, passed_make, NULL, close_all},
    {"files", 1000, 8000, files_make, files_use, files_end},
    {"files-tmpfs", 2000, 16000, tmpfs_make, files_use, tmpfs_end},
    {"absent", 2000, 16000, absent_use, absent_use, NULL},
    {"depth", 500, 4000, depth_make, NULL, depth_end},
    {"mounts", 125, 1000, mounts_make, NULL, mounts_end},
    {"signals", 2000, 16000, signals_make, NULL, signals_end},
    {"record-locks", 1000, 8000, locks_make, NULL, locks_end},
    {"watches", 500, 4000, watches_make, watches_use, watches_end},
};

enum { PHASES = 4 };
static const char *const phases[PHASES] = {"make", "use", "end", "exit"};

// In a process of its own; the parent times its end, which has to let go of what is left.
static void run(const struct kind *kind, int n, long long times[PHASES]) {
    int report[2];
    CHECK(pipe(report));
    pid_t pid;
    CHECK(pid = fork());
    if (!pid) {
        long long own[PHASES] = {-1, -1, -1, -1}, start = now();
        phase *const each[] = {kind->make, kind->use, kind->end};
        for (int i = 0; i < 3; i++) {
            if (!each[i])
                continue;
            each[i](n);
            own[i] = now() - start;
            start = now();
        }
        own[3] = now();
        if (write(report[1], own, sizeof own) != sizeof own)
            fail("report");
        _exit(0);
    }
    close(report[1]);
    int status;
    CHECK(waitpid(pid, &status, 0));
    long long ended = now();
    if (status || read(report[0], times, PHASES * sizeof *times) != PHASES * (ssize_t)sizeof *times)
        fprintf(stderr, "%s with %d: status %#x\n", kind->name, n, status), times[0] = times[1] = times[2] = times[3] = -1;
    else
        times[3] = ended - times[3];
    close(report[0]);
}

static void measure_kind(const struct kind *kind) {
    for (int n = kind->least; n <= kind->most; n *= 2) {
        long long best[PHASES] = {-1, -1, -1, -1};
        for (int i = 0; i < RUNS; i++) {
            long long times[PHASES];
            run(kind, n, times);
            for (int p = 0; p < PHASES; p++)
                if (times[p] >= 0 && (best[p] < 0 || times[p] < best[p]))
                    best[p] = times[p];
        }
        for (int p = 0; p < PHASES; p++)
            if (best[p] >= 0)
                printf("%s.%s %d %lld\n", kind->name, phases[p], n, best[p]);
        fflush(stdout);
    }
}

// The limits that n needs, and natively a mount namespace of its own.
static void prepare(void) {
    struct rlimit many, unlimited = {RLIM_INFINITY, RLIM_INFINITY};
    CHECK(getrlimit(RLIMIT_NOFILE, &many));
    many.rlim_cur = many.rlim_max;
    CHECK(setrlimit(RLIMIT_NOFILE, &many));
    // Without the right to these the limits there are do.
    setrlimit(RLIMIT_SIGPENDING, &unlimited);
    setrlimit(RLIMIT_MSGQUEUE, &unlimited);
    setrlimit(RLIMIT_NPROC, &unlimited);
    CHECK(unshare(CLONE_NEWNS | CLONE_NEWIPC));
    mkdir("/tmp/scale", 0755);
}

int main(int argc, char **argv) {
    prepare();
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        int wanted = argc < 2;
        for (int a = 1; a < argc; a++)
            wanted |= !strcmp(argv[a], kinds[i].name);
        if (wanted)
            measure_kind(&kinds[i]);
    }
    rmdir("/tmp/scale");
    return 0;
}
