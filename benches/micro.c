// Small costs of processes, memory and files, measured from inside.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "measure.h"

static void getppid_call(int count) {
    for (int i = 0; i < count; i++)
        syscall(SYS_getppid);
}

static void read_zero(int count) {
    static char buffer[4096];
    int fd = open("/dev/zero", O_RDONLY);
    for (int i = 0; i < count; i++)
        if (read(fd, buffer, sizeof buffer) != sizeof buffer)
            fail("read");
    close(fd);
}

static void forks(int count) {
    for (int i = 0; i < count; i++) {
        pid_t pid = fork();
        if (!pid)
            _exit(0);
        if (pid < 0 || waitpid(pid, NULL, 0) != pid)
            fail("fork");
    }
}

static char *touched;

static void forks_touching(int count) {
    for (int i = 0; i < count; i++) {
        pid_t pid = fork();
        if (!pid) {
            for (size_t at = 0; at < 16 << 20; at += 4096)
                touched[at]++;
            _exit(0);
        }
        if (pid < 0 || waitpid(pid, NULL, 0) != pid)
            fail("fork");
    }
}

static void fork_execs(int count) {
    for (int i = 0; i < count; i++) {
        pid_t pid = fork();
        if (!pid) {
            execl("/proc/self/exe", "micro", "nothing", (char *)NULL);
            _exit(1);
        }
        int status;
        if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
            fail("fork and exec");
    }
}

static void *nothing(void *p) {
    return p;
}

static void threads(int count) {
    for (int i = 0; i < count; i++) {
        pthread_t t;
        if (pthread_create(&t, NULL, nothing, NULL))
            fail("pthread_create");
        pthread_join(t, NULL);
    }
}

static void mmap_touch(int count) {
    for (int i = 0; i < count; i++) {
        char *p = mmap(NULL, 16 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            fail("mmap");
        for (int page = 0; page < 16; page++)
            p[page << 12] = 1;
        munmap(p, 16 << 12);
    }
}

static void small_files(int count) {
    char name[40], text[64];
    struct stat s;
    for (int i = 0; i < count; i++) {
        sprintf(name, "/tmp/files/%d", i % 500);
        int fd = open(name, O_RDONLY);
        if (fd < 0 || fstat(fd, &s) || read(fd, text, sizeof text) < 0)
            fail(name);
        close(fd);
    }
}

static void make_files(void) {
    char name[40];
    mkdir("/tmp/files", 0755);
    for (int i = 0; i < 500; i++) {
        sprintf(name, "/tmp/files/%d", i);
        int fd = open(name, O_CREAT | O_WRONLY, 0644);
        if (fd < 0 || write(fd, "some text", 9) != 9)
            fail(name);
        close(fd);
    }
}

static int to[2], from[2];

static void ping_pong(int count) {
    char c = 0;
    for (int i = 0; i < count; i++)
        if (write(to[1], &c, 1) != 1 || read(from[0], &c, 1) != 1)
            fail("pipe");
}

static void ping_pong_with_a_process(void) {
    if (pipe(to) || pipe(from))
        fail("pipe");
    pid_t pid = fork();
    if (!pid) {
        char c;
        close(to[1]);
        while (read(to[0], &c, 1) == 1)
            if (write(from[1], &c, 1) != 1)
                break;
        _exit(0);
    }
    measure("pipe-ping-pong", ping_pong, 3000);
    close(to[1]);
    waitpid(pid, NULL, 0);
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "nothing"))
        return 0;
    take_arguments(argc, argv);
    measure("getppid", getppid_call, 20000);
    measure("read-4k", read_zero, 5000);
    measure("fork-exit-wait", forks, 100);
    touched = mmap(NULL, 16 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(touched, 1, 16 << 20);
    measure("fork-touch-16M", forks_touching, 10);
    munmap(touched, 16 << 20);
    measure("fork-exec-wait", fork_execs, 50);
    measure("thread", threads, 200);
    measure("mmap-touch-munmap", mmap_touch, 1000);
    make_files();
    measure("open-stat-read", small_files, 2000);
    ping_pong_with_a_process();
    return 0;
}
