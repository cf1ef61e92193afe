// Makes every host call there might be, from every place that it can be made from: guest ROUTE PID DIRECTORY
//
// PID is a process of the host and DIRECTORY a directory of it, with a file `marker` with the text MARKER; neither can be
// reached from here. What a call gives is not looked at, except for whether it opened the marker: the one who started this
// looks whether anything happened to them. A call may kill the process that makes it, or hang: another one goes on.
//
// Routes: own, a syscall instruction of the program; x32, the same with the numbers of that ABI; int80, the 32-bit entry;
// vsyscall, the kernel's legacy page; stub, the syscall instructions that the sandbox itself has in the process.
// With route `pause` it only waits.
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NUMBERS 600
#define PATTERNS 9
#define SITES 24
// Where systrap has its own code: crates/platform/systrap/README.md.
#define STUB 0x7fff00000000ul
#define STUB_PAGES 64

struct progress {
    volatile int next;
    volatile int escaped;
};

static struct progress *progress;
static char *low;             // memory that 32-bit pointers reach
static long victim;
static unsigned long sites[SITES];
static int site_count;

static long pattern(int which, int argument) {
    long path = (long)low, made = (long)(low + 1024), buffer = (long)(low + 2048);
    switch (which) {
    case 0: return 0;
    case 1: return -1;
    case 2: return (long[]){victim, SIGKILL, SIGKILL, 0, 0, 0}[argument];
    case 3: return (long[]){path, 2, 0, 0, 0, 0}[argument];
    case 4: return (long[]){-100, path, 2, 0, 0, 0}[argument];
    case 5: return (long[]){made, 0102, 0666, 0, 0, 0}[argument];
    case 6: return (long[]){-100, made, 0102, 0666, 0, 0}[argument];
    case 7: return buffer;
    default: return (long[]){3, buffer, 16, 1, 1, 1}[argument];
    }
}

static long syscall_here(long nr, const long *a) {
    long r;
    register long r10 __asm__("r10") = a[3];
    register long r8 __asm__("r8") = a[4];
    register long r9 __asm__("r9") = a[5];
    __asm__ volatile("syscall"
                     : "=a"(r)
                     : "a"(nr), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return r;
}

static long int80(long nr, const long *a) {
    long r;
    register long first __asm__("r12") = a[0];
    register long sixth __asm__("r13") = a[5];
    __asm__ volatile("push %%rbx\n\tpush %%rbp\n\tmov %2, %%rbx\n\tmov %3, %%rbp\n\tint $0x80\n\tpop %%rbp\n\tpop %%rbx"
                     : "=a"(r)
                     : "a"(nr), "r"(first), "r"(sixth), "c"(a[1]), "d"(a[2]), "S"(a[3]), "D"(a[4])
                     : "memory", "r8", "r9", "r10", "r11");
    return r;
}

// Does not come back, unless what follows the instruction there happens to.
static void from(unsigned long site, long nr, const long *a) {
    register long r10 __asm__("r10") = a[3];
    register long r8 __asm__("r8") = a[4];
    register long r9 __asm__("r9") = a[5];
    __asm__ volatile("jmp *%0"
                     :
                     : "b"(site), "a"(nr), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
}

static void vsyscall(int which, const long *a) {
    static const unsigned long entries[] = {0xffffffffff600000, 0xffffffffff600400, 0xffffffffff600800,
                                            0xffffffffff600001, 0xffffffffff600007, 0xffffffffff600c00};
    long (*entry)(long, long, long) = (void *)entries[which];
    entry(a[0], a[1], a[2]);
}

static int opened_marker(long fd) {
    char text[16] = "";
    return fd > 2 && fd < 1000 && pread(fd, text, sizeof text - 1, 0) > 0 && strstr(text, "MARKER");
}

static void attempt(const char *route, int index) {
    long a[6], result = -1;
    int number = index / PATTERNS % NUMBERS, self = getpid();
    for (int i = 0; i < 6; i++)
        a[i] = pattern(index % PATTERNS, i);
    if (strcmp(route, "own") == 0)
        result = syscall_here(number, a);
    else if (strcmp(route, "x32") == 0)
        result = syscall_here(0x40000000 + number, a);
    else if (strcmp(route, "int80") == 0)
        result = int80(number, a);
    else if (strcmp(route, "vsyscall") == 0)
        vsyscall(number, a);
    else
        from(sites[index / PATTERNS / NUMBERS], number, a);
    // A fork of ours: the attempts go on in one process only.
    if (getpid() != self)
        _exit(0);
    if (opened_marker(result))
        progress->escaped = 1;
}

static sigjmp_buf unreadable;

static void fault(int signal) {
    (void)signal;
    siglongjmp(unreadable, 1);
}

// Every 0f 05 of the stub, also those that begin within another instruction.
static void find_sites(void) {
    signal(SIGSEGV, fault);
    signal(SIGBUS, fault);
    if (sigsetjmp(unreadable, 1) == 0) {
        const volatile unsigned char *code = (void *)STUB;
        for (long at = 0; at < STUB_PAGES * 4096 && site_count < SITES; at++)
            if (code[at] == 0x0f && code[at + 1] == 0x05)
                sites[site_count++] = STUB + at;
    }
    signal(SIGSEGV, SIG_DFL);
    signal(SIGBUS, SIG_DFL);
}

static void sleep_ms(long ms) {
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

// Waits until the child ends or makes no attempt for a while; says how many children had to go.
static int supervise(pid_t child, int total) {
    int last = progress->next, still = 0;
    for (;;) {
        pid_t ended;
        while ((ended = waitpid(-1, NULL, WNOHANG | __WALL)) > 0)
            if (ended == child)
                return progress->next < total;
        if (progress->next != last) {
            last = progress->next;
            still = 0;
        } else if (++still > 40) {
            kill(child, SIGKILL);
        }
        sleep_ms(1);
    }
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "pause") == 0)
        for (;;)
            pause();
    if (argc != 4)
        return 2;
    setbuf(stdout, NULL);
    const char *route = argv[1];
    victim = atol(argv[2]);
    progress = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    low = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    snprintf(low, 1024, "%s/marker", argv[3]);
    snprintf(low + 1024, 1024, "%s/made", argv[3]);
    int total = NUMBERS * PATTERNS;
    if (strcmp(route, "stub") == 0) {
        find_sites();
        if (site_count == 0) {
            puts("no sites");
            return 0;
        }
        total *= site_count;
    } else if (strcmp(route, "vsyscall") == 0) {
        total = 6 * PATTERNS;
    }
    // From the stub each attempt costs a process: every 31st, which passes through all numbers and patterns.
    int step = strcmp(route, "stub") == 0 ? 31 : 1, children = 0;
    while (progress->next < total) {
        children++;
        pid_t child = fork();
        if (child == 0) {
            setpgid(0, 0);
            for (int i; (i = progress->next) < total;) {
                progress->next = i + step;
                attempt(route, i);
            }
            _exit(0);
        }
        supervise(child, total);
    }
    printf("%s\n", progress->escaped ? "ESCAPED" : "contained");
    printf("%d attempts by %d processes, %d sites\n", total / step, children, site_count);
    return progress->escaped;
}
