// Making and ending processes: fork, vfork, clone, exit, process ids, groups and sessions.
#include "check.h"
#include <linux/sched.h>
#include <sys/prctl.h>
#include <sys/ioctl.h>

TEST(fork_exit) {
    EXITED(wait_for(CHILD(_exit(7))), 7);
}

TEST(exit_status_is_8_bits) {
    EXITED(wait_for(CHILD(_exit(0x1ff))), 0xff);
}

TEST(fork_returns_the_child_pid) {
    int p[2];
    OK(pipe(p));
    pid_t pid = CHILD(pid_t own = getpid(); CHECK_EQ(write(p[1], &own, sizeof own), sizeof own));
    pid_t seen;
    CHECK_EQ(read(p[0], &seen, sizeof seen), sizeof seen);
    CHECK_EQ(seen, pid);
    EXITED(wait_for(pid), 0);
}

TEST(getppid_is_the_parent) {
    pid_t parent = getpid();
    EXITED(wait_for(CHILD(CHECK_EQ(getppid(), parent))), 0);
}

TEST(fork_copies_memory) {
    volatile int value = 1;
    char *page = OK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    page[0] = 'a';
    pid_t pid = CHILD(CHECK_EQ(value, 1); value = 2; CHECK_EQ(page[0], 'a'); page[0] = 'b');
    EXITED(wait_for(pid), 0);
    CHECK_EQ(value, 1);
    CHECK_EQ(page[0], 'a');
}

TEST(fork_shares_shared_memory) {
    volatile int *shared = OK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    EXITED(wait_for(CHILD(*shared = 42)), 0);
    CHECK_EQ(*shared, 42);
}

TEST(fork_shares_file_offsets) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    CHECK_EQ(write(fd, "abcdef", 6), 6);
    OK(lseek(fd, 0, SEEK_SET));
    char c;
    EXITED(wait_for(CHILD(CHECK_EQ(read(fd, &c, 1), 1))), 0);
    CHECK_EQ(read(fd, &c, 1), 1);
    CHECK_EQ(c, 'b');
}

TEST(fork_copies_the_descriptor_table) {
    EXITED(wait_for(CHILD(OK(close(0)))), 0);
    OK(fcntl(1, F_GETFD));
}

TEST(fork_of_a_fork) {
    int p[2];
    OK(pipe(p));
    pid_t pid = CHILD(pid_t grand = CHILD(CHECK_EQ(write(p[1], "x", 1), 1)); EXITED(wait_for(grand), 0));
    EXITED(wait_for(pid), 0);
    char c;
    CHECK_EQ(read(p[0], &c, 1), 1);
}

TEST(many_children_at_once) {
    pid_t pids[60];
    for (int i = 0; i < 60; i++)
        pids[i] = CHILD(_exit(i));
    for (int i = 59; i >= 0; i--)
        EXITED(wait_for(pids[i]), i);
}

TEST(vfork_suspends_the_parent) {
    volatile int value = 1;
    pid_t pid = vfork();
    if (!pid) {
        usleep(20000);
        value = 2;
        _exit(3);
    }
    CHECK_EQ(value, 2);
    EXITED(wait_for(pid), 3);
}

TEST(vfork_exec_resumes_the_parent) {
    pid_t pid = vfork();
    if (!pid) {
        execl("/proc/self/exe", "process", "--helper", "sleep", (char *)NULL);
        _exit(99);
    }
    // The child has not ended.
    OK(kill(pid, SIGKILL));
    KILLED(wait_for(pid), SIGKILL);
}

static int clone_child(void *argument) {
    *(volatile int *)argument = 5;
    return 6;
}

static char clone_stack[65536] __attribute__((aligned(16)));

TEST(clone_vm_shares_memory) {
    volatile int value = 0;
    pid_t pid = OK(clone(clone_child, clone_stack + sizeof clone_stack, CLONE_VM | SIGCHLD, (void *)&value));
    EXITED(wait_for(pid), 6);
    CHECK_EQ(value, 5);
}

static int close_zero(void *unused) {
    (void)unused;
    return close(0);
}

TEST(clone_files_shares_the_table) {
    pid_t pid = OK(clone(close_zero, clone_stack + sizeof clone_stack, CLONE_VM | CLONE_FILES | SIGCHLD, NULL));
    EXITED(wait_for(pid), 0);
    ERR(fcntl(0, F_GETFD), EBADF);
}

static int change_directory(void *unused) {
    (void)unused;
    return chdir("/");
}

TEST(clone_fs_shares_the_directory) {
    pid_t pid = OK(clone(change_directory, clone_stack + sizeof clone_stack, CLONE_FS | SIGCHLD, NULL));
    EXITED(wait_for(pid), 0);
    char text[100];
    CHECK(getcwd(text, sizeof text));
    STR_EQ(text, "/");
}

TEST(clone_parent_makes_a_sibling) {
    pid_t own = getpid();
    int p[2];
    OK(pipe(p));
    pid_t pid = CHILD({
        pid_t sibling = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
        if (!sibling) {
            CHECK_EQ(getppid(), own);
            _exit(4);
        }
        CHECK_EQ(write(p[1], &sibling, sizeof sibling), sizeof sibling);
    });
    EXITED(wait_for(pid), 0);
    pid_t sibling;
    CHECK_EQ(read(p[0], &sibling, sizeof sibling), sizeof sibling);
    EXITED(wait_for(sibling), 4);
}

TEST(clone_sets_tids) {
    pid_t parent_tid = 0;
    static volatile pid_t child_tid;
    pid_t pid = syscall(SYS_clone, CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | SIGCHLD, 0, &parent_tid, &child_tid, 0);
    OK(pid);
    if (!pid) {
        CHECK_EQ(child_tid, getpid());
        _exit(0);
    }
    CHECK_EQ(parent_tid, pid);
    CHECK_EQ(child_tid, 0);
    EXITED(wait_for(pid), 0);
}

TEST(clone_flags_that_do_not_go_together) {
    ERR(syscall(SYS_clone, CLONE_THREAD | SIGCHLD, 0, 0, 0, 0), EINVAL);
    ERR(syscall(SYS_clone, CLONE_SIGHAND | SIGCHLD, 0, 0, 0, 0), EINVAL);
    ERR(syscall(SYS_clone, CLONE_FS | CLONE_NEWNS | SIGCHLD, 0, 0, 0, 0), EINVAL);
}

TEST(clone3_basic) {
    struct clone_args arguments = {.exit_signal = SIGCHLD};
    pid_t pid = OK(syscall(SYS_clone3, &arguments, sizeof arguments));
    if (!pid)
        _exit(9);
    EXITED(wait_for(pid), 9);
}

// The process that a pidfd's fdinfo names.
static int pid_in(const char *path) {
    char text[512] = {0};
    int fd = OK(open(path, O_RDONLY)), pid = 0;
    OK(read(fd, text, sizeof text - 1));
    close(fd);
    char *line = strstr(text, "\nPid:");
    CHECK(line && sscanf(line, " Pid: %d", &pid) == 1);
    return pid;
}

TEST(clone3_pidfd) {
    int pidfd = -1;
    struct clone_args arguments = {.flags = CLONE_PIDFD, .pidfd = (uintptr_t)&pidfd, .exit_signal = SIGCHLD};
    pid_t pid = OK(syscall(SYS_clone3, &arguments, sizeof arguments));
    if (!pid)
        _exit(1);
    CHECK(pidfd >= 0);
    CHECK_EQ(fcntl(pidfd, F_GETFD), FD_CLOEXEC);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", pidfd);
    CHECK_EQ(pid_in(path), pid);
    EXITED(wait_for(pid), 1);
    CHECK_EQ(pid_in(path), -1);
}

TEST(clone3_refuses_bad_sizes) {
    struct clone_args arguments = {.exit_signal = SIGCHLD};
    ERR(syscall(SYS_clone3, &arguments, 8), EINVAL);
    ERR(syscall(SYS_clone3, &arguments, 100000), E2BIG);
    ERR(syscall(SYS_clone3, BAD_ADDRESS, sizeof arguments), EFAULT);
    arguments.flags = 1ULL << 60;
    ERR(syscall(SYS_clone3, &arguments, sizeof arguments), EINVAL);
}

TEST(clone3_exit_signal_must_be_a_signal) {
    struct clone_args arguments = {.exit_signal = 65};
    ERR(syscall(SYS_clone3, &arguments, sizeof arguments), EINVAL);
}

TEST(clone_without_signal_needs_wclone) {
    pid_t pid = syscall(SYS_clone, 0, 0, 0, 0, 0);
    OK(pid);
    if (!pid)
        _exit(2);
    ERR(waitpid(pid, NULL, 0), ECHILD);
    int status;
    CHECK_EQ(waitpid(pid, &status, __WCLONE), pid);
    EXITED(status, 2);
}

TEST(exit_signal_other_than_sigchld) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    pid_t pid = syscall(SYS_clone, SIGUSR2, 0, 0, 0, 0);
    OK(pid);
    if (!pid)
        _exit(2);
    siginfo_t info;
    CHECK_EQ(sigwaitinfo(&set, &info), SIGUSR2);
    CHECK_EQ(info.si_pid, pid);
    CHECK_EQ(info.si_status, 2);
    CHECK_EQ(waitpid(pid, NULL, __WALL), pid);
}

TEST(setpgid_and_getpgid) {
    pid_t pid = CHILD(pause());
    CHECK_EQ(getpgid(pid), getpgrp());
    OK(setpgid(pid, pid));
    CHECK_EQ(getpgid(pid), pid);
    OK(setpgid(pid, getpgrp()));
    ERR(setpgid(pid, 1 << 21), EPERM);
    ERR(setpgid(pid, -1), EINVAL);
    ERR(setpgid(1 << 21, 0), ESRCH);
    OK(kill(pid, SIGKILL));
    wait_for(pid);
}

TEST(setpgid_after_exec_is_refused) {
    int p[2];
    OK(pipe2(p, O_CLOEXEC));
    pid_t pid = CHILD(execl("/proc/self/exe", "process", "--helper", "sleep", (char *)NULL));
    close(p[1]);
    char c;
    CHECK_EQ(read(p[0], &c, 1), 0); // the exec has happened
    ERR(setpgid(pid, pid), EACCES);
    OK(kill(pid, SIGKILL));
    wait_for(pid);
}

TEST(setsid_makes_a_session) {
    EXITED(wait_for(CHILD({
               pid_t own = getpid();
               CHECK_EQ(setsid(), own);
               CHECK_EQ(getsid(0), own);
               CHECK_EQ(getpgrp(), own);
               ERR(setsid(), EPERM);
               ERR(setpgid(0, 0), EPERM);
           })),
           0);
}

TEST(setsid_of_a_group_leader_is_refused) {
    ERR(setsid(), EPERM);
}

TEST(getsid_errors) {
    ERR(getsid(1 << 21), ESRCH);
    ERR(getpgid(1 << 21), ESRCH);
}

TEST(orphan_goes_to_init) {
    int p[2];
    OK(pipe(p));
    pid_t pid = CHILD(CHILD({
        while (getppid() != 1)
            usleep(1000);
        CHECK_EQ(write(p[1], "x", 1), 1);
    }));
    EXITED(wait_for(pid), 0);
    char c;
    CHECK_EQ(read(p[0], &c, 1), 1);
}

TEST(orphan_goes_to_a_subreaper) {
    OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
    int on = 0;
    OK(prctl(PR_GET_CHILD_SUBREAPER, &on));
    CHECK_EQ(on, 1);
    pid_t own = getpid();
    int p[2];
    OK(pipe(p));
    pid_t pid = CHILD(pid_t grand = CHILD({
                          while (getppid() != own)
                              usleep(1000);
                          _exit(5);
                      });
                      CHECK_EQ(write(p[1], &grand, sizeof grand), sizeof grand));
    EXITED(wait_for(pid), 0);
    pid_t grand;
    CHECK_EQ(read(p[0], &grand, sizeof grand), sizeof grand);
    EXITED(wait_for(grand), 5);
}

TEST(pdeathsig) {
    int p[2];
    OK(pipe(p));
    pid_t pid = CHILD({
        CHILD({
            OK(prctl(PR_SET_PDEATHSIG, SIGTERM));
            CHECK_EQ(write(p[1], "r", 1), 1);
            close(p[0]);
            pause();
        });
        char c;
        CHECK_EQ(read(p[0], &c, 1), 1);
    });
    EXITED(wait_for(pid), 0);
    close(p[1]);
    char c;
    CHECK_EQ(read(p[0], &c, 1), 0); // the grandchild is gone
}

TEST(exit_group_ends_all_threads) {
    EXITED(wait_for(CHILD({
               pthread_t t;
               for (int i = 0; i < 4; i++)
                   pthread_create(&t, NULL, (void *(*)(void *))pause, NULL);
               usleep(10000);
               _exit(12);
           })),
           12);
}

static void *exits_process(void *unused) {
    (void)unused;
    usleep(10000);
    syscall(SYS_exit_group, 13);
    return NULL;
}

TEST(exit_group_from_another_thread) {
    EXITED(wait_for(CHILD({
               pthread_t t;
               pthread_create(&t, NULL, exits_process, NULL);
               for (;;)
                   pause();
           })),
           13);
}

TEST(leader_exits_before_its_threads) {
    pid_t pid = CHILD({
        pthread_t t;
        pthread_create(&t, NULL, exits_process, NULL);
        syscall(SYS_exit, 1);
    });
    EXITED(wait_for(pid), 13);
}

TEST(leader_that_exited_is_a_zombie) {
    pid_t pid = CHILD({
        pthread_t t;
        pthread_create(&t, NULL, (void *(*)(void *))pause, NULL);
        syscall(SYS_exit, 1);
    });
    EVENTUALLY(state_of(pid) == 'Z');
    CHECK_EQ(waitpid(pid, NULL, WNOHANG), 0);
    OK(kill(pid, SIGKILL));
    KILLED(wait_for(pid), SIGKILL);
}

TEST(zombie_answers_to_kill) {
    pid_t pid = CHILD(_exit(0));
    EVENTUALLY(state_of(pid) == 'Z');
    OK(kill(pid, 0));
    OK(kill(pid, SIGTERM));
    EXITED(wait_for(pid), 0);
    ERR(kill(pid, 0), ESRCH);
}

static int order;
static void at_exit(void) {
    order++;
}

TEST(atexit_handlers_run) {
    pid_t pid = fork();
    if (!pid) {
        atexit(at_exit);
        order = 0;
        exit(3);
    }
    EXITED(wait_for(pid), 3);
}

TEST(nproc_limit_stops_fork) {
    EXITED(wait_for(CHILD({
               struct rlimit limit = {0, 0};
               OK(setrlimit(RLIMIT_NPROC, &limit));
               become_nobody();
               ERR(fork(), EAGAIN);
           })),
           0);
}

TEST(gettid_of_the_leader_is_the_pid) {
    CHECK_EQ(syscall(SYS_gettid), getpid());
}

TEST(set_tid_address_returns_the_tid) {
    static int word;
    CHECK_EQ(syscall(SYS_set_tid_address, &word), getpid());
}

int helper(int argc, char **argv) {
    if (argc > 0 && !strcmp(argv[0], "sleep"))
        sleep(20);
    return 0;
}
