// How long one process's system call holds up another one: gaps [BAR_MS [KIND...]]
//
// For each kind a child makes one call with about the largest arguments that it takes, while this process sleeps for a
// millisecond at a time; the worst of these sleeps is printed. With a bar the exit status says whether any was longer.
// It measures time, so it is for a machine that does nothing else.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB (1ul << 20)
#define BIG (256 * MIB)

static char *memory;
static volatile struct shared { volatile int ready, go; } *shared;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

// What comes before is not measured; what comes after is.
static void go(void) {
    shared->ready = 1;
    while (!shared->go)
        usleep(1000);
}

static int file(void) {
    int fd = open("/tmp/gaps", O_CREAT | O_RDWR | O_TRUNC, 0666);
    if (fd < 0)
        perror("open");
    return fd;
}

static int full_file(void) {
    int fd = file();
    for (unsigned long at = 0; at < BIG; at += MIB)
        pwrite(fd, memory, MIB, at);
    return fd;
}

static void read_zero(void) { int fd = open("/dev/zero", O_RDONLY); go(); read(fd, memory, BIG); }
static void read_random(void) { int fd = open("/dev/urandom", O_RDONLY); go(); read(fd, memory, BIG / 4); }
static void get_random(void) { go(); getrandom(memory, BIG / 4, 0); }
static void write_null(void) { int fd = open("/dev/null", O_WRONLY); go(); write(fd, memory, BIG); }
static void write_memory(void) { int fd = file(); go(); write(fd, memory, BIG); }
static void append_memory(void) { int fd = file(); fcntl(fd, F_SETFL, O_APPEND); go(); write(fd, memory, BIG); }
static void read_hole(void) { int fd = file(); ftruncate(fd, 1ul << 40); go(); read(fd, memory, BIG); }
static void read_memory(void) { int fd = full_file(); go(); pread(fd, memory, BIG, 0); }
static void reserve(void) { int fd = syscall(SYS_memfd_create, "x", 0); go(); fallocate(fd, 0, 0, BIG); }
static void truncate_full(void) { int fd = full_file(); go(); ftruncate(fd, 0); }
static void unlink_full(void) { int fd = full_file(); close(fd); go(); unlink("/tmp/gaps"); }
static void punch(void) { int fd = full_file(); go(); fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, BIG); }
static void remote_copy(void) {
    struct iovec here = {memory, BIG / 2}, there = {memory + BIG / 2, BIG / 2};
    go();
    process_vm_readv(getpid(), &here, 1, &there, 1, 0);
}
static void vectors(void) {
    static struct iovec parts[1024];
    int fd = open("/dev/zero", O_RDONLY);
    for (int i = 0; i < 1024; i++)
        parts[i] = (struct iovec){memory, MIB};
    go();
    readv(fd, parts, 1024);
}
static void send_file(void) { int in = full_file(), out = open("/dev/null", O_WRONLY); go(); sendfile(out, in, 0, BIG); }
static void copy_range(void) {
    int in = full_file(), out = open("/tmp/gaps2", O_CREAT | O_RDWR | O_TRUNC, 0666);
    loff_t from = 0;
    go();
    copy_file_range(in, &from, out, NULL, BIG, 0);
    unlink("/tmp/gaps2");
}
static void terminal(void) { int fd = open("/dev/ptmx", O_RDWR | O_NOCTTY); memset(memory, 'x', MIB); go(); write(fd, memory, MIB); }
static void pipe_through(void) {
    int ends[2];
    pipe(ends);
    if (fork() == 0) {
        close(ends[1]);
        while (read(ends[0], memory, 65536) > 0) {}
        _exit(0);
    }
    go();
    write(ends[1], memory, BIG);
}
static void many_entries(void) {
    mkdir("/tmp/many", 0777);
    chdir("/tmp/many");
    for (int i = 0; i < 20000; i++) {
        char name[32];
        sprintf(name, "%d", i);
        close(open(name, O_CREAT, 0666));
    }
    int fd = open(".", O_RDONLY);
    go();
    while (syscall(SYS_getdents64, fd, memory, 4 * MIB) > 0) {}
}
static void deep_path(void) {
    chdir("/tmp");
    for (int i = 0; i < 2000; i++) {
        mkdir("d", 0777);
        chdir("d");
    }
    go();
    getcwd(memory, MIB);
    for (int i = 0; i < 200; i++)
        access("../../../../../../../../../../../../../../../../..", R_OK);
}
static void many_descriptors(void) {
    struct rlimit limit = {16000, 16000};
    setrlimit(RLIMIT_NOFILE, &limit);
    while (dup(0) >= 0) {}
    go();
    _exit(0);
}
static void poll_many(void) {
    static struct pollfd set[16000];
    struct rlimit limit = {16000, 16000};
    setrlimit(RLIMIT_NOFILE, &limit);
    int ends[2];
    pipe(ends);
    for (int i = 0; i < 16000; i++)
        set[i] = (struct pollfd){ends[0], POLLIN, 0};
    go();
    for (int i = 0; i < 20; i++)
        poll(set, 16000, 0);
}
static void many_mappings(void) {
    for (int i = 0; i < 60000; i++)
        mmap(memory + i * 8192ul, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    go();
    if (fork() == 0)
        _exit(0);
    wait(NULL);
    munmap(memory, 60000 * 8192ul);
}
static void shm(void) {
    int id = shmget(IPC_PRIVATE, BIG, 0600);
    char *at = shmat(id, NULL, 0);
    memset(at, 1, BIG);
    shmctl(id, IPC_RMID, NULL);
    go();
    shmdt(at);
}
static void locks(void) {
    int fd = file();
    go();
    for (int i = 0; i < 4000; i++) {
        struct flock lock = {F_WRLCK, SEEK_SET, i * 2, 1, 0};
        fcntl(fd, F_SETLK, &lock);
    }
    struct flock all = {F_UNLCK, SEEK_SET, 0, 0, 0};
    fcntl(fd, F_SETLK, &all);
}
static void arguments(void) {
    static char *list[40];
    for (int i = 0; i < 39; i++) {
        list[i] = malloc(130000);
        memset(list[i], 'a', 129999);
        list[i][129999] = 0;
    }
    list[39] = NULL;
    go();
    execv("/nothing", list);
    execve("/proc/self/exe", (char *[]){"gaps", "end", NULL}, list);
}
static void message(void) {
    int ends[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
    if (fork() == 0) {
        close(ends[1]);
        while (read(ends[0], memory, MIB) > 0) {}
        _exit(0);
    }
    go();
    send(ends[1], memory, BIG, 0);
}

static const struct kind { const char *name; void (*run)(void); } kinds[] = {
    {"read /dev/zero", read_zero}, {"read /dev/urandom", read_random}, {"getrandom", get_random},
    {"write /dev/null", write_null}, {"write tmpfs", write_memory}, {"append tmpfs", append_memory},
    {"read a hole", read_hole}, {"read tmpfs", read_memory}, {"fallocate", reserve}, {"ftruncate", truncate_full},
    {"unlink", unlink_full}, {"punch a hole", punch}, {"process_vm_readv", remote_copy}, {"readv", vectors},
    {"sendfile", send_file}, {"copy_file_range", copy_range}, {"write to a terminal", terminal},
    {"write to a pipe", pipe_through}, {"getdents", many_entries}, {"deep path", deep_path},
    {"exit with descriptors", many_descriptors}, {"poll", poll_many}, {"fork with mappings", many_mappings},
    {"shmdt", shm}, {"record locks", locks}, {"execve", arguments}, {"send", message},
};

static int remove_entry(const char *path, const struct stat *stat, int type, struct FTW *ftw) {
    (void)stat, (void)type, (void)ftw;
    return remove(path), 0;
}

static double measure(const struct kind *kind) {
    shared->ready = shared->go = 0;
    int child = fork(), status;
    if (child == 0) {
        setpgid(0, 0);
        kind->run();
        _exit(0);
    }
    while (!shared->ready && waitpid(child, &status, WNOHANG) == 0)
        usleep(2000);
    usleep(50000);
    double worst = 0, start = now();
    shared->go = 1;
    do {
        double before = now();
        usleep(1000);
        double took = now() - before;
        worst = took > worst ? took : worst;
    } while (waitpid(child, &status, WNOHANG) == 0 && now() - start < 30);
    kill(-child, SIGKILL);
    printf("%-22s %7.1f ms, of %6.0f ms\n", kind->name, worst * 1e3, (now() - start) * 1e3);
    for (const char *const *name = (const char *const[]){"/tmp/gaps", "/tmp/many", "/tmp/d", NULL}; *name; name++)
        nftw(*name, remove_entry, 64, FTW_DEPTH | FTW_PHYS);
    return worst;
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "end") == 0)
        return 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    double bar = argc > 1 ? atof(argv[1]) / 1e3 : 0;
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memory = mmap(NULL, 2 * BIG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int late = 0;
    for (unsigned i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        int wanted = argc <= 2;
        for (int k = 2; k < argc; k++)
            wanted |= strncmp(kinds[i].name, argv[k], strlen(argv[k])) == 0;
        if (wanted)
            late += measure(&kinds[i]) > bar;
    }
    puts("measured");
    return bar > 0 && late > 0;
}
