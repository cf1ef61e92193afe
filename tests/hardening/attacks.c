// Guests that turn the sandbox's own code in their processes against it: attacks NAME
//
// Each attack is made by a process without privileges; the one that started it looks whether it got anything, and says
// "contained". Where an attack could not be made, because the code that it uses is not as it expects it, it says "not armed":
// that is so on the platform ptrace, where there is no such code.
//
//   kill-blocked, kill-ordered       SIGKILL of a process that keeps kicks from its thread, or never ends an order
//   exec-blocked, exec-ordered       execve(2) beside a thread of that kind
//   end-blocked, end-ordered         the init ends while such a process runs
//   stay-blocked, stay-ordered       only starts one, for commands from outside
//   hidden                           a child that is made and not told of; the test looks at the host
//   cpu-sleep                        clock_nanosleep(2) on a CPU clock that goes on meanwhile
//   descriptors                      takes all that it can get, for commands from outside
//   foreign, foreign-made            another process presents itself as the child of a clone that is not made, or is
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// crates/stub/src/layout.rs
#define STUB 0x7fff00000000ul
#define STUB_LENGTH 0x4000
#define AREA(slot) (0x7fff10000000ul + (slot) * 0x10000ul)
#define DOORBELL 0x4d4f41
#define OP_FORK (1ul << 32)
#define STOP_ORDERS 0x100
#define STATE_ASLEEP 2
#define REPLY_RESUME 1
struct cell { uint64_t op, args[6], result; };
struct control {
    uint32_t stop, reply;
    uint64_t frame, fs, gs;
    uint32_t set_bases, order_count, orders_done, alive;
    uint64_t features;
    uint64_t resumed_at, stopped_at, reserved[7];
    struct cell cells[32];
    uint32_t state, info;
    // Calls of rewritten sites, answers, and bytes that come and go with calls: nothing here that a zero would not say.
    unsigned char rest[8192 - 128 - 32 * sizeof(struct cell) - 8];
};
_Static_assert(sizeof(struct control) == 8192, "all of an area before the signal stack");
// Registers in the host's signal frame, words from its start; those of `uc_mcontext.gregs` begin at 6.
enum { FRAME_RSP = 6 + 15, FRAME_RIP = 6 + 16, FRAME_RAX = 6 + 13 };

static volatile struct shared {
    volatile int armed, token_ready, taken, keeper;
    volatile uint64_t fd, offset;
} *shared;

static sigjmp_buf no_stub;
static void on_fault(int signal) { (void)signal; siglongjmp(no_stub, 1); }

// The first place in the stub's text with these bytes; 0 if there is none.
static uint64_t find(const char *bytes, size_t length) {
    uint64_t found = 0;
    struct sigaction old, fault = {.sa_handler = on_fault};
    sigaction(SIGSEGV, &fault, &old);
    if (sigsetjmp(no_stub, 1) == 0) {
        // The image begins with where its first code is, and the first byte of its text and the one behind the last.
        uint64_t end = ((volatile uint64_t *)STUB)[2];
        found = (uint64_t)memmem((void *)STUB, end - STUB, bytes, length);
    }
    sigaction(SIGSEGV, &old, NULL);
    return found;
}
#define FIND(bytes) find(bytes, sizeof bytes - 1)

// Where the stub leaves by rt_sigreturn(2), where it carries out orders, and where the child of a clone goes on.
static uint64_t stub_return, stub_serve, stub_child;

static void not_armed(void) {
    puts("not armed");
    fflush(stdout);
    _exit(3);
}

// Before anything is prepared in an area: each system call in between would undo it.
static void find_the_stub(void) {
    // lea rsp, [rbx + 8]; mov eax, 15; syscall
    stub_return = FIND("\x48\x8d\x63\x08\xb8\x0f\x00\x00\x00\x0f\x05");
    // mov rsp, rbx; and rsp, -16; call serve
    uint64_t call = FIND("\x48\x89\xdc\x48\x83\xe4\xf0\xe8");
    // mov rdi, rbx; mov esi, the length of an area
    stub_child = FIND("\x48\x89\xdf\xbe\x00\x90\x00\x00");
    if (!stub_return || !call || !stub_child)
        not_armed();
    stub_serve = call + 12 + (uint64_t)(int64_t)*(int32_t *)(call + 8);
}

static void nap(long ms) {
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

static void spin(void) {
    shared->armed = 1;
    for (;;)
        __asm__ volatile("pause");
}

// Has the stub carry out one order of ours, in an area of ours.
static struct control fake __attribute__((aligned(4096)));
static uint64_t order(uint64_t op, uint64_t first) {
    memset(&fake, 0, sizeof fake);
    fake.reply = REPLY_RESUME;
    fake.order_count = 1;
    fake.cells[0].op = op;
    fake.cells[0].args[0] = first;
    ((void (*)(struct control *))stub_serve)(&fake);
    return fake.cells[0].result;
}

// Rings for a fork as if this thread had just called it; the orders that come back lie in its area.
static volatile struct control *ring_for_fork(uint64_t entry, uint64_t stack) {
    volatile struct control *c = (void *)AREA(0);
    volatile uint64_t *frame = (void *)c->frame;
    frame[FRAME_RAX] = SYS_fork;
    if (entry) {
        frame[FRAME_RIP] = entry;
        frame[FRAME_RSP] = stack;
    }
    c->stop = SIGSYS;
    c->state = STATE_ASLEEP;
    order(DOORBELL, 0);
    if (c->order_count < 1 || c->order_count > 32 || c->cells[c->order_count - 1].op != OP_FORK)
        not_armed();
    return c;
}

// The parent tells what became of its orders.
static void tell(volatile struct control *c, uint64_t result, uint32_t done) {
    c->cells[c->order_count - 1].result = result;
    c->orders_done = done;
    c->stop = STOP_ORDERS;
    c->state = STATE_ASLEEP;
    c->reply = 0;
    order(DOORBELL, 0);
}

// Blocks every signal of the host for this thread, by rt_sigreturn(2) with a frame of ours, and spins.
static void blocked(unsigned slot) {
    static char stack[65536] __attribute__((aligned(16)));
    static struct { uint64_t words[6 + 23 + 1 + 8 + 1]; } frame;
    // A frame that the host has made is in this thread's area: start from it.
    memcpy(&frame, (void *)((volatile struct control *)AREA(slot))->frame, sizeof frame);
    frame.words[FRAME_RSP] = (uint64_t)(stack + sizeof stack - 8);
    frame.words[FRAME_RIP] = (uint64_t)spin;
    frame.words[6 + 23 + 1 + 8] = ~0ul; // uc_sigmask
    __asm__ volatile("mov %0, %%rsp\n\tjmp *%1" : : "r"(&frame.words[1]), "r"(stub_return + 4) : "memory");
}

// Stays in the middle of an order for ever.
static void ordered(void) {
    ring_for_fork(0, 0);
    spin();
}

static void make(const char *kind, unsigned slot) {
    if (strcmp(kind, "blocked") == 0)
        blocked(slot);
    else
        ordered();
    not_armed();
}

// A process of nobody's that makes the attack; the caller goes on once it has begun.
static int start(const char *kind) {
    shared->armed = 0;
    int child = fork();
    if (child == 0) {
        // With a little use of memory behind it, so that its area has a frame.
        setresgid(65534, 65534, 65534);
        setresuid(65534, 65534, 65534);
        make(kind, 0);
    }
    for (int i = 0; i < 2000 && !shared->armed; i++) {
        if (waitpid(child, NULL, WNOHANG) == child)
            not_armed();
        nap(5);
    }
    if (!shared->armed)
        not_armed();
    return child;
}

static void contained(void) {
    puts("contained");
    fflush(stdout);
    _exit(0);
}

static int waited(int child, int seconds) {
    for (int i = 0; i < seconds * 200; i++) {
        if (waitpid(child, NULL, WNOHANG) == child)
            return 1;
        nap(5);
    }
    return 0;
}

static void *in_thread(void *kind) {
    // Its area is the second one.
    if (strcmp(kind, "blocked") == 0)
        make(kind, 1);
    return NULL;
}

static void exec_beside(char *self, const char *kind) {
    int child = fork();
    if (child == 0) {
        pthread_t thread;
        setresuid(65534, 65534, 65534);
        if (strcmp(kind, "blocked") == 0) {
            pthread_create(&thread, NULL, in_thread, (void *)kind);
            while (!shared->armed)
                nap(5);
            execl(self, self, "executed", NULL);
        } else {
            // The first thread is in the guest's hands, the second one executes.
            void *execute(void *path) {
                while (!shared->armed)
                    nap(5);
                execl(path, path, "executed", NULL);
                return NULL;
            }
            pthread_create(&thread, NULL, execute, self);
            make(kind, 0);
        }
        _exit(1);
    }
    int status = -1;
    for (int i = 0; i < 2000; i++) {
        if (waitpid(child, &status, WNOHANG) == child)
            break;
        nap(5);
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 42)
        contained();
    if (WIFEXITED(status) && WEXITSTATUS(status) == 3)
        _exit(3);
    printf("the program was not executed: status %x\n", status);
    exit(1);
}

// The child of a clone that was verified is on the host, and its parent says that the clone failed.
static void hidden(void) {
    // Each area of the process is kept out of children from here on, so that the clone is all that there is to do.
    if (fork() == 0)
        _exit(0);
    wait(NULL);
    volatile struct control *c = ring_for_fork(0, 0);
    uint32_t n = c->order_count;
    if (order(SYS_clone, 0x8000 /* CLONE_PARENT */) == 0)
        for (;;)
            __asm__ volatile("pause");
    shared->armed = 1;
    tell(c, -EAGAIN, n - 1);
    for (;;)
        nap(1000);
}

static char stack[65536] __attribute__((aligned(16)));
static int is_impostor;
static void taken(void) {
    // The accomplice goes on here as well, and whatever it forks.
    shared->taken |= is_impostor;
    for (;;)
        nap(1000);
}

static int keep_memory(void *nothing) {
    (void)nothing;
    for (;;)
        nap(1000);
    return 0;
}

// Takes the place of another process's child: `impostor` makes the first call of that child. A process that shares its
// memory keeps the host's process alive when the sandbox drops the thread that it takes for a dead one.
static void impostor(void) {
    static char other[65536] __attribute__((aligned(16)));
    shared->keeper = clone(keep_memory, other + sizeof other, CLONE_VM | SIGCHLD, NULL);
    is_impostor = 1;
    while (!shared->token_ready)
        sched_yield();
    register uint64_t rbx __asm__("rbx") = AREA(0), r12 __asm__("r12") = shared->fd, r13 __asm__("r13") = shared->offset;
    __asm__ volatile("jmp *%0" : : "r"(stub_child), "r"(rbx), "r"(r12), "r"(r13) : "memory");
}

static void accomplice(int makes_it) {
    if (fork() == 0)
        _exit(0);
    wait(NULL);
    volatile struct control *c = ring_for_fork((uint64_t)taken, (uint64_t)(stack + sizeof stack - 64 - 8));
    struct cell last = c->cells[c->order_count - 1];
    shared->fd = last.args[1];
    shared->offset = last.args[2];
    // A child that says nothing, so that the clone is open.
    if (makes_it && order(SYS_clone, 0x8000) == 0)
        for (;;)
            __asm__ volatile("pause");
    shared->token_ready = 1;
    tell(c, 4242, c->order_count);
    for (;;)
        nap(1000);
}

static void foreign(int made) {
    int imp = fork();
    if (imp == 0) {
        setresuid(65534, 65534, 65534);
        impostor();
        _exit(0);
    }
    int acc = fork();
    if (acc == 0) {
        setresuid(65534, 65534, 65534);
        accomplice(made);
        _exit(0);
    }
    for (int i = 0; i < 400 && !shared->token_ready; i++) {
        int status;
        if (waitpid(acc, &status, WNOHANG) == acc)
            _exit(3);
        nap(5);
    }
    for (int i = 0; i < 200 && !shared->taken; i++)
        nap(5);
    if (shared->taken) {
        puts("a process passed for the child of another");
        exit(1);
    }
    kill(acc, SIGKILL);
    kill(imp, SIGKILL);
    kill(shared->keeper, SIGKILL);
    if (!waited(acc, 10) || !waited(imp, 10)) {
        puts("not killed");
        exit(1);
    }
    contained();
}

static void *burn(void *nothing) {
    for (;;)
        __asm__ volatile("pause");
    return nothing;
}

// Sleeps on the process's CPU clock end, beside threads that use up the time while it is looked at.
static void cpu_sleep(void) {
    pthread_t thread;
    for (int i = 0; i < 3; i++)
        pthread_create(&thread, NULL, burn, NULL);
    for (int i = 0; i < 100; i++) {
        struct timespec t = {0, 1000 + i % 50 * 20000};
        clock_nanosleep(CLOCK_PROCESS_CPUTIME_ID, 0, &t, NULL);
    }
    contained();
}

// Takes all of the sandbox's descriptors that it can get, by shared mappings; then nothing more is to be had, and all else goes on.
static void descriptors(void) {
    long count = 0;
    for (int processes = 0; processes < 64; processes++) {
        while (count < 2000000 && mmap(NULL, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
            count++;
        if (errno != ENOMEM) {
            printf("after %ld mappings: %s\n", count, strerror(errno));
            exit(1);
        }
        // Each process may have 65530 mappings (vm.max_map_count).
        int child = fork();
        if (child != 0) {
            if (child < 0)
                break;
            for (;;)
                nap(1000);
        }
        if (mmap(NULL, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
            break;
    }
    puts("armed");
    for (;;)
        nap(1000);
}

int main(int argc, char **argv) {
    char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "executed") == 0)
        return 42;
    setvbuf(stdout, NULL, _IOLBF, 0);
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (strcmp(name, "cpu-sleep") == 0)
        cpu_sleep();
    if (strcmp(name, "descriptors") == 0)
        descriptors();
    find_the_stub();
    char *kind = strchr(name, '-');
    kind = kind ? kind + 1 : name;
    if (strncmp(name, "kill-", 5) == 0) {
        int child = start(kind);
        kill(child, SIGKILL);
        if (waited(child, 10))
            contained();
        puts("SIGKILL had no effect");
    } else if (strncmp(name, "exec-", 5) == 0) {
        exec_beside(argv[0], kind);
    } else if (strncmp(name, "end-", 4) == 0) {
        start(kind);
        contained();
    } else if (strncmp(name, "stay-", 5) == 0) {
        start(kind);
        puts("armed");
        for (;;)
            nap(1000);
    } else if (strcmp(name, "hidden") == 0) {
        if (fork() == 0) {
            setresuid(65534, 65534, 65534);
            hidden();
        }
        for (int i = 0; i < 2000 && !shared->armed; i++) {
            if (waitpid(-1, NULL, WNOHANG) > 0)
                return 3;
            nap(5);
        }
        puts("armed");
        for (;;)
            nap(1000);
    } else if (strcmp(name, "foreign") == 0) {
        foreign(0);
    } else if (strcmp(name, "foreign-made") == 0) {
        foreign(1);
    }
    return 1;
}
