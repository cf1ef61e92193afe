// Random system calls, made of their declarations: fuzz SECONDS SEED
//
// Worker processes of a few threads make call after call: descriptors of every kind, valid-looking structs, paths, lengths and
// addresses at edges, while others close, unmap, execute, exit, fork and change namespaces around them. What a call gives is not
// looked at: what must not happen is that the sandbox stops, hangs or grows, which whoever runs this program looks at. The same
// seed draws the same numbers; how the threads race is up to the machine.
//
// It reads /etc/calls, the declarations, and writes the last calls of each thread to /log/ring, which is a file of the host.
// It kills whatever it sees, so it is process 1 of a pid namespace. It prints `survived` when everything is gone and reaped.
#define _GNU_SOURCE
#include "fuzz/ring.h"
#include "fuzz/table.h"
#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <sys/shm.h>

static struct rings *rings;

// Without errno, whose place is no longer known when a call has changed what %fs is.
__attribute__((always_inline)) static inline long raw(long nr, const uint64_t *a) {
    register uint64_t r10 __asm__("r10") = a[3], r8 __asm__("r8") = a[4], r9 __asm__("r9") = a[5];
    long result = nr;
    __asm__ volatile("syscall" : "+a"(result) : "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return result;
}

static void one_call(struct thread *t);

static void leave(int code) {
    uint64_t a[6] = {(uint64_t)code};
    for (;;)
        raw(SYS_exit, a);
}

// What a new process or thread does.
static int child(void *what) {
    struct thread t = *(struct thread *)what;
    t.state ^= 0x5bd1e995;
    for (uint32_t i = rnd(&t, 24); i > 0; i--)
        one_call(&t);
    leave(0);
    return 0;
}

// Whether it makes tasks.
static int is_clone(long nr) {
    return nr == SYS_fork || nr == SYS_vfork || nr == SYS_clone || nr == SYS_clone3;
}

// Calls after which a worker is soon over; they are made seldom.
static int is_deadly(long nr) {
    return nr == SYS_exit || nr == SYS_exit_group || nr == SYS_rt_sigreturn || nr == SYS_arch_prctl || nr == SYS_brk || nr == SYS_close_range ||
           nr == SYS_execve || nr == SYS_execveat || nr == SYS_seccomp;
}

// What would end not the worker but this run: everybody's files, the signals of all, the limits that keep the machine usable.
static int goes_too_far(struct thread *t, long nr, const uint64_t *a) {
    int is_kill = nr == SYS_kill && (int)a[0] <= 0;
    int sets_limit = nr == SYS_setrlimit || nr == SYS_prlimit64;
    uint64_t which = nr == SYS_setrlimit ? a[0] : a[1];
    // No limit of a process is asked about what lies behind a file's end (FALLOC_FL_KEEP_SIZE): a memfd takes all of the memory.
    int takes_all = nr == SYS_fallocate && (a[1] & 1) && a[3] > 4 << 20;
    return takes_all || (is_kill && rnd(t, 20)) || (sets_limit && (which == RLIMIT_FSIZE || which == RLIMIT_AS || which == RLIMIT_NPROC)) ||
           (is_deadly(nr) && rnd(t, 25)) || (is_clone(nr) && rnd(t, 4));
}

// A thread of this process by flags that go together, with a stack of its own.
static void new_thread(struct thread *t) {
    static char stacks[THREADS][4][65536] __attribute__((aligned(16)));
    int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_SYSVSEM | (rnd(t, 4) ? CLONE_THREAD : 0) | (one_in(t, 4) ? CLONE_VFORK : 0);
    clone(child, stacks[t->index][rnd(t, 4)] + 65536, flags, t);
}

static void one_call(struct thread *t) {
    if (one_in(t, 16))
        refill(t);
    if (one_in(t, 300))
        new_thread(t);
    const struct call *call = &calls[rnd(t, call_count)];
    uint64_t a[6] = {0};
    for (int i = 0; i < call->count; i++)
        a[i] = call->constants[i] ? constant(t, call->constants[i]) : call->make[i](t);
    // Without an own stack a task that shares memory runs on this one.
    if (call->nr == SYS_clone)
        a[0] &= ~(uint64_t)CLONE_VM, a[1] = 0;
    if (goes_too_far(t, call->nr, a))
        return;
    struct ring *ring = t->ring;
    struct entry *entry = &ring->calls[ring->count % CALLS];
    entry->nr = (uint64_t)call->nr;
    memcpy(entry->args, a, sizeof a);
    entry->result = UNDER_WAY;
    ring->count++;
    long result = raw(call->nr, a);
    if (result == 0 && is_clone(call->nr))
        child(t);
    entry->result = result;
}

_Noreturn static void run(struct thread *t) {
    lay_out_area(t);
    for (int i = 0; i < 12; i++)
        refill(t);
    for (uint64_t i = 1;; i++) {
        if (i % 128 == 0)
            lay_out_area(t);
        one_call(t);
    }
}

static void *thread_main(void *what) {
    run(what);
}

static void interrupt(int number) {
    (void)number;
}

// Goes back into waits of calls, so that none is for long.
static void set_interrupts(void) {
    struct sigaction action = {.sa_handler = interrupt};
    struct itimerval often = {{0, 30000}, {0, 30000}};
    sigaction(SIGALRM, &action, NULL);
    for (int number = 1; number < 65; number++)
        if (number != SIGSEGV && number != SIGBUS && number != SIGILL && number != SIGALRM && number != SIGTRAP)
            sigaction(number, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
}

static void worker(int number, uint64_t seed) {
    static struct thread threads[THREADS];
    uint64_t state = mix(seed);
    setpgid(0, 0);
    char name[16];
    snprintf(name, sizeof name, "w%d-%llx", number, (unsigned long long)seed);
    prctl(PR_SET_NAME, name);
    struct rlimit files = {64, 256}, size = {4 << 20, 4 << 20}, memory = {1ul << 30, 1ul << 30}, none = {0, 0};
    setrlimit(RLIMIT_NOFILE, &files);
    setrlimit(RLIMIT_FSIZE, &size);
    setrlimit(RLIMIT_AS, &memory);
    if (state & 7)
        setrlimit(RLIMIT_CORE, &none);
    set_interrupts();
    lay_out_play();
    // What it mounts must not be in the way of who looks whether the sandbox answers.
    unshare(CLONE_NEWNS);
    // Some as somebody else, some on a network of their own.
    if ((state >> 10 & 3) == 0)
        unshare(CLONE_NEWNET);
    if ((state >> 12 & 3) == 0)
        setresuid(1000, 1000, 1000);
    for (int i = 0; i < THREADS; i++) {
        pthread_t id;
        threads[i] = (struct thread){.state = mix(seed * THREADS + (uint64_t)i), .worker = number, .index = i, .ring = &rings->thread[number][i]};
        threads[i].ring->seed = seed;
        threads[i].ring->pid = (uint64_t)getpid();
        if (i)
            pthread_create(&id, NULL, thread_main, &threads[i]);
    }
    run(&threads[0]);
}

// --- the supervisor ---

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void make_trees(void) {
    for (size_t i = 0; i < sizeof trees / sizeof *trees; i++) {
        mkdir(trees[i], 0777);
        chmod(trees[i], 0777);
    }
    symlink("n1", "/tmp/t/n5");
    symlink("/root/t/n5", "/root/t/n5");
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at) {
    (void)st, (void)kind;
    return at->level ? (remove(path), 0) : 0;
}

// Takes away what the workers have made and what outlives them.
static void clean(void) {
    char text[16];
    for (int i = 0; i < 20; i++)
        umount2(trees[(size_t)i % (sizeof trees / sizeof *trees)], MNT_DETACH);
    for (int i = 0; i < 3; i++) {
        sprintf(text, "/q%d", i);
        mq_unlink(text);
    }
    for (int i = 0; i < 70000; i++)
        if (i < 64 || i % 32768 < 64) {
            shmctl(i, IPC_RMID, NULL);
            semctl(i, 0, IPC_RMID);
            msgctl(i, IPC_RMID, NULL);
        }
    static const char *const roots[] = {"/tmp/t", "/root/t", "/dev/shm"};
    for (size_t i = 0; i < 3; i++)
        nftw(roots[i], remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

static uint64_t made_by(int number) {
    uint64_t all = 0;
    for (int i = 0; i < THREADS; i++)
        all += rings->thread[number][i].count;
    return all;
}

struct seat {
    pid_t pid;
    uint64_t made; // calls at the last look
    double since, born;
};

static void start(struct seat *seat, int number, uint64_t seed) {
    rings->generations++;
    seat->born = seat->since = now();
    seat->pid = fork();
    if (seat->pid == 0) {
        for (int fd = 0; fd < 3; fd++)
            dup2(open("/dev/null", O_RDWR), fd);
        worker(number, seed);
    }
    pids[number] = seat->pid;
}

// Ends everybody, of whom nobody may be left after a while.
static int end_all(double bound) {
    double until = now() + bound;
    while (waitpid(-1, NULL, WNOHANG) >= 0 || errno != ECHILD) {
        kill(-1, SIGKILL);
        if (now() > until)
            return -1;
        usleep(1000);
    }
    return 0;
}

// A look at each worker: one that has ended, stands still or is old makes place for the next.
static void look(struct seat *seats, uint64_t *seed) {
    pid_t pid;
    while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
        for (int i = 0; i < WORKERS; i++)
            if (seats[i].pid == pid)
                seats[i].pid = 0;
    for (int i = 0; i < WORKERS; i++) {
        struct seat *seat = &seats[i];
        uint64_t made = made_by(i);
        if (made != seat->made)
            seat->made = made, seat->since = now();
        if (seat->pid <= 0)
            start(seat, i, (*seed)++);
        else if (now() - seat->since > 0.5 || now() - seat->born > 4)
            kill(seat->pid, SIGKILL);
    }
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "exit"))
        return 0;
    int ring = open("/log/ring", O_RDWR | O_CLOEXEC);
    rings = mmap(NULL, sizeof *rings, PROT_READ | PROT_WRITE, MAP_SHARED, ring, 0);
    pids = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (rings == MAP_FAILED || read_table("/etc/calls"))
        return perror("/log/ring, /etc/calls"), 2;
    close(ring);
    if (argc > 2 && !strcmp(argv[1], "again")) // a worker that has executed
        worker((int)strtoul(argv[2], NULL, 0) % WORKERS, strtoull(argv[2], NULL, 0));
    if (getpid() != 1 || argc < 3)
        return fputs("fuzz SECONDS SEED, as process 1 of a pid namespace\n", stderr), 2;
    uint64_t seed = strtoull(argv[2], NULL, 0) << 20;
    double end = now() + atof(argv[1]), sweep = now() + 5;
    struct seat seats[WORKERS] = {0};
    dup2(open("/dev/null", O_RDWR), 0);
    make_trees();
    while (now() < end) {
        look(seats, &seed);
        usleep(10000);
        if (now() > sweep) { // also what workers have left
            if (end_all(20))
                return puts("processes that do not end"), 1;
            memset(seats, 0, sizeof seats);
            clean();
            make_trees();
            sweep = now() + 5;
        }
    }
    if (end_all(20))
        return puts("processes that do not end"), 1;
    clean();
    rings->phase = 1;
    sleep(3);
    return puts("survived") < 0;
}
