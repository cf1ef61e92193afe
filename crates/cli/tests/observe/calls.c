/* Makes each system call that security monitors know by a message of its own, with arguments that are told apart. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALL(name, ...) syscall(SYS_##name, ##__VA_ARGS__)

static int at(int fd, int number) { CALL(dup2, fd, number); return number; }

static void child(int pid) { int status; if (pid > 0) waitpid(pid, &status, 0); }

int main(void) {
    char b[64] = "0123456789abcdefghijklmnopqrstuvwxyz", *argv[] = {"true", "argument", NULL}, *envp[] = {"X=y", NULL};
    struct iovec v[2] = {{b, 16}, {b + 16, 8}};
    int p[2];
    int host = at(CALL(open, "/etc/hostname", O_RDONLY | O_CLOEXEC, 0), 30);
    CALL(dup3, host, 31, O_CLOEXEC);
    CALL(dup, host);
    CALL(read, host, b, 5); CALL(pread64, host, b, 6, 1); CALL(readv, host, v, 2);
    CALL(preadv, host, v, 2, 2, 0); CALL(preadv2, host, v, 2, 3, 0, 0);
    int file = at(CALL(creat, "/tmp/w", 0600), 32);
    CALL(write, file, b, 3); CALL(pwrite64, file, b, 4, 1); CALL(writev, file, v, 2);
    CALL(pwritev, file, v, 2, 2, 0); CALL(pwritev2, file, v, 2, 3, 0, 0);
    CALL(openat, AT_FDCWD, "/tmp/w", O_RDWR | O_CREAT, 0640);
    CALL(mmap, 0, 8192, 1, 2, host, 4096);
    CALL(fcntl, host, F_SETFD, 1);
    CALL(pipe, p); CALL(pipe2, p, O_CLOEXEC);
    int directory = at(CALL(open, "/proc", O_RDONLY | O_DIRECTORY, 0), 33);
    CALL(fchdir, directory);
    CALL(chdir, "/tmp");

    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(4321), .sin_addr = {htonl(INADDR_LOOPBACK)}}, from;
    socklen_t length = sizeof from;
    int listener = at(CALL(socket, AF_INET, SOCK_STREAM, 6), 34);
    CALL(bind, listener, &a, sizeof a); CALL(listen, listener, 5);
    for (int i = 0; i < 2; i++) {
        int client = at(CALL(socket, AF_INET, SOCK_STREAM, 0), 40 + i);
        CALL(connect, client, &a, sizeof a);
    }
    CALL(accept, listener, &from, &length); CALL(accept4, listener, &from, &length, SOCK_CLOEXEC);
    CALL(socketpair, AF_UNIX, SOCK_DGRAM, 0, p);

    uint64_t set = 1 << (SIGUSR1 - 1), timer[4] = {0, 0, 100, 5}, old[4], limit[2] = {100, 200}, old_limit[2];
    CALL(eventfd, 7); CALL(eventfd2, 8, O_CLOEXEC);
    CALL(signalfd, -1, &set, 8); CALL(signalfd4, -1, &set, 8, O_CLOEXEC);
    int t = at(CALL(timerfd_create, 1, O_CLOEXEC), 35);
    CALL(timerfd_settime, t, 0, timer, old); CALL(timerfd_gettime, t, old);
    CALL(inotify_init);
    int watches = at(CALL(inotify_init1, O_CLOEXEC), 36);
    int watch = CALL(inotify_add_watch, watches, "/tmp", 0x100);
    CALL(inotify_rm_watch, watches, watch);
    CALL(prlimit64, 0, 4, limit, old_limit);
    CALL(setuid, 0); CALL(setgid, 0); CALL(setresuid, 0, 0, 0); CALL(setresgid, 0, 0, 0);
    CALL(chroot, "/tmp");

    int pid = CALL(fork);
    if (pid == 0) { CALL(setsid); CALL(ptrace, 0, 77, 0, 0); CALL(exit_group, 0); }
    child(pid);
    pid = vfork();
    if (pid == 0) _exit(0);
    child(pid);
    pid = CALL(clone, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) CALL(execve, "/bin/true", argv, envp);
    child(pid);
    int program = at(CALL(open, "/bin/true", O_RDONLY, 0), 37);
    pid = CALL(fork);
    if (pid == 0) CALL(execveat, program, "", argv, envp, 0x1000);
    child(pid);
    CALL(close, program);
    return 0;
}
