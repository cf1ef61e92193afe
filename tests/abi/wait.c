// The wait family: options, what is reported, whom it concerns; SIGCHLD; usage of children.
#include "check.h"
#include <poll.h>

TEST(no_child) {
    ERR(wait(NULL), ECHILD);
    ERR(waitpid(1 << 21, NULL, 0), ECHILD);
    ERR(waitpid(getpid(), NULL, 0), ECHILD);
}

TEST(bad_options) {
    ERR(waitpid(-1, NULL, 0x100), EINVAL);
    siginfo_t info;
    ERR(waitid(P_ALL, 0, &info, 0), EINVAL);
    ERR(waitid(99, 0, &info, WEXITED), EINVAL);
    ERR(waitid(P_PID, 0, &info, WEXITED), EINVAL);
}

TEST(pid_of_int_min) {
    ERR(waitpid(INT_MIN, NULL, 0), ESRCH);
}

TEST(nohang_gives_zero) {
    pid_t pid = CHILD(pause());
    int status = 0x77;
    CHECK_EQ(waitpid(pid, &status, WNOHANG), 0);
    CHECK_EQ(status, 0x77);
    OK(kill(pid, SIGKILL));
    KILLED(wait_for(pid), SIGKILL);
}

TEST(any_child) {
    pid_t pid = CHILD(_exit(1));
    int status;
    CHECK_EQ(wait(&status), pid);
    EXITED(status, 1);
}

TEST(own_group) {
    pid_t other = CHILD(setpgid(0, 0); _exit(0));
    EVENTUALLY(state_of(other) == 'Z');
    ERR(waitpid(0, NULL, WNOHANG), ECHILD);
    CHECK_EQ(waitpid(-other, NULL, 0), other);
}

TEST(a_child_is_reaped_once) {
    pid_t pid = CHILD(_exit(1));
    wait_for(pid);
    ERR(waitpid(pid, NULL, 0), ECHILD);
}

TEST(bad_status_pointer_still_reaps) {
    pid_t pid = CHILD(_exit(1));
    ERR(syscall(SYS_wait4, pid, BAD_ADDRESS, 0, NULL), EFAULT);
    ERR(waitpid(pid, NULL, 0), ECHILD);
}

TEST(killed_by_signal) {
    pid_t pid = CHILD(pause());
    OK(kill(pid, SIGTERM));
    int status = wait_for(pid);
    KILLED(status, SIGTERM);
    CHECK(!WCOREDUMP(status));
}

TEST(stopped_and_continued) {
    pid_t pid = CHILD(for (;;) pause());
    OK(kill(pid, SIGSTOP));
    int status;
    CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
    CHECK(WIFSTOPPED(status));
    CHECK_EQ(WSTOPSIG(status), SIGSTOP);
    CHECK_EQ(state_of(pid), 'T');
    CHECK_EQ(waitpid(pid, &status, WUNTRACED | WNOHANG), 0); // reported once
    OK(kill(pid, SIGCONT));
    CHECK_EQ(waitpid(pid, &status, WCONTINUED), pid);
    CHECK(WIFCONTINUED(status));
    OK(kill(pid, SIGKILL));
    KILLED(wait_for(pid), SIGKILL);
}

TEST(kill_ends_a_stopped_process) {
    pid_t pid = CHILD(for (;;) pause());
    OK(kill(pid, SIGSTOP));
    int status;
    CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
    OK(kill(pid, SIGTERM));
    sleep_ms(10);
    CHECK_EQ(waitpid(pid, &status, WNOHANG), 0); // SIGTERM waits for the continue
    OK(kill(pid, SIGCONT));
    KILLED(wait_for(pid), SIGTERM);
}

TEST(waitid_exited) {
    pid_t pid = CHILD(_exit(44));
    siginfo_t info = {0};
    OK(waitid(P_PID, pid, &info, WEXITED));
    CHECK_EQ(info.si_signo, SIGCHLD);
    CHECK_EQ(info.si_code, CLD_EXITED);
    CHECK_EQ(info.si_status, 44);
    CHECK_EQ(info.si_pid, pid);
    CHECK_EQ(info.si_uid, getuid());
}

TEST(waitid_killed) {
    pid_t pid = CHILD(pause());
    OK(kill(pid, SIGINT));
    siginfo_t info = {0};
    OK(waitid(P_PID, pid, &info, WEXITED));
    CHECK_EQ(info.si_code, CLD_KILLED);
    CHECK_EQ(info.si_status, SIGINT);
}

TEST(waitid_stopped_and_continued) {
    pid_t pid = CHILD(for (;;) pause());
    OK(kill(pid, SIGTSTP));
    siginfo_t info = {0};
    OK(waitid(P_PID, pid, &info, WSTOPPED));
    CHECK_EQ(info.si_code, CLD_STOPPED);
    CHECK_EQ(info.si_status, SIGTSTP);
    OK(kill(pid, SIGCONT));
    OK(waitid(P_PID, pid, &info, WCONTINUED));
    CHECK_EQ(info.si_code, CLD_CONTINUED);
    CHECK_EQ(info.si_status, SIGCONT);
    OK(kill(pid, SIGKILL));
    wait_for(pid);
}

TEST(waitid_nowait_leaves_it) {
    pid_t pid = CHILD(_exit(2));
    siginfo_t info = {0};
    OK(waitid(P_ALL, 0, &info, WEXITED | WNOWAIT));
    CHECK_EQ(info.si_pid, pid);
    OK(waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
    EXITED(wait_for(pid), 2);
}

TEST(waitid_nohang_clears_the_info) {
    pid_t pid = CHILD(pause());
    siginfo_t info;
    memset(&info, 0xff, sizeof info);
    OK(waitid(P_PID, pid, &info, WEXITED | WNOHANG));
    CHECK_EQ(info.si_pid, 0);
    CHECK_EQ(info.si_signo, 0);
    OK(kill(pid, SIGKILL));
    wait_for(pid);
}

TEST(waitid_group) {
    pid_t pid = CHILD(setpgid(0, 0); _exit(3));
    setpgid(pid, pid);
    siginfo_t info = {0};
    OK(waitid(P_PGID, pid, &info, WEXITED));
    CHECK_EQ(info.si_status, 3);
}

TEST(rusage_of_the_child) {
    pid_t pid = CHILD({
        struct timespec used = {0};
        while (used.tv_nsec < 20000000)
            OK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used));
    });
    struct rusage usage;
    int status;
    CHECK_EQ(wait4(pid, &status, 0, &usage), pid);
    long used_us = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
    CHECK(used_us > 5000);
    struct rusage children;
    OK(getrusage(RUSAGE_CHILDREN, &children));
    CHECK(children.ru_utime.tv_usec + children.ru_stime.tv_usec + children.ru_utime.tv_sec > 0);
}

static volatile sig_atomic_t child_signals;
static siginfo_t child_info;

static void on_child(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    child_info = *info;
    child_signals++;
}

static void handle_child(int flags) {
    struct sigaction action = {.sa_sigaction = on_child, .sa_flags = SA_SIGINFO | flags};
    OK(sigaction(SIGCHLD, &action, NULL));
}

TEST(sigchld_tells_how_it_ended) {
    handle_child(0);
    pid_t pid = CHILD(_exit(21));
    EVENTUALLY(child_signals == 1);
    CHECK_EQ(child_info.si_code, CLD_EXITED);
    CHECK_EQ(child_info.si_status, 21);
    CHECK_EQ(child_info.si_pid, pid);
    EXITED(wait_for(pid), 21);
}

TEST(sigchld_on_stop_unless_nocldstop) {
    handle_child(0);
    pid_t pid = CHILD(for (;;) pause());
    OK(kill(pid, SIGSTOP));
    EVENTUALLY(child_signals == 1);
    CHECK_EQ(child_info.si_code, CLD_STOPPED);
    handle_child(SA_NOCLDSTOP);
    OK(kill(pid, SIGCONT));
    sleep_ms(20);
    CHECK_EQ(child_signals, 1);
    OK(kill(pid, SIGKILL));
    wait_for(pid);
}

TEST(ignored_sigchld_reaps_by_itself) {
    signal(SIGCHLD, SIG_IGN);
    pid_t pid = CHILD(usleep(10000));
    ERR(waitpid(pid, NULL, 0), ECHILD); // but only when it has ended
    ERR(kill(pid, 0), ESRCH);
}

TEST(nocldwait_reaps_by_itself) {
    handle_child(SA_NOCLDWAIT);
    pid_t pid = CHILD(_exit(0));
    EVENTUALLY(child_signals == 1); // Linux sends the signal all the same
    ERR(waitpid(pid, NULL, 0), ECHILD);
}

TEST(wait_is_interrupted_by_a_handler) {
    struct sigaction action = {.sa_sigaction = on_child, .sa_flags = SA_SIGINFO};
    OK(sigaction(SIGALRM, &action, NULL));
    pid_t pid = CHILD(pause());
    ualarm(20000, 0);
    ERR(waitpid(pid, NULL, 0), EINTR);
    OK(kill(pid, SIGKILL));
    wait_for(pid);
}

TEST(wait_is_restarted_with_sa_restart) {
    struct sigaction action = {.sa_sigaction = on_child, .sa_flags = SA_SIGINFO | SA_RESTART};
    OK(sigaction(SIGALRM, &action, NULL));
    pid_t pid = CHILD(usleep(80000); _exit(1));
    ualarm(20000, 0);
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(child_signals, 1);
}

static void *waits(void *argument) {
    int status;
    pid_t pid = *(pid_t *)argument;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    EXITED(status, 6);
    return NULL;
}

TEST(any_thread_may_wait) {
    pid_t pid = CHILD(usleep(10000); _exit(6));
    pthread_t t;
    CHECK_EQ(pthread_create(&t, NULL, waits, &pid), 0);
    CHECK_EQ(pthread_join(t, NULL), 0);
}

static void *forks(void *argument) {
    *(pid_t *)argument = CHILD(_exit(8));
    return NULL;
}

TEST(wnothread_sees_only_own_children) {
    pid_t pid;
    pthread_t t;
    CHECK_EQ(pthread_create(&t, NULL, forks, &pid), 0);
    CHECK_EQ(pthread_join(t, NULL), 0);
    // The thread is gone, so its children are the group's.
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    EXITED(status, 8);
}

TEST(pidfd_poll_and_waitid) {
    pid_t pid = CHILD(usleep(20000); _exit(17));
    int fd = OK(syscall(SYS_pidfd_open, pid, 0));
    struct pollfd p = {.fd = fd, .events = POLLIN};
    CHECK_EQ(poll(&p, 1, 5000), 1);
    CHECK_EQ(p.revents & POLLIN, POLLIN);
    siginfo_t info = {0};
    OK(waitid(P_PIDFD, fd, &info, WEXITED));
    CHECK_EQ(info.si_status, 17);
}

TEST(pidfd_open_errors) {
    ERR(syscall(SYS_pidfd_open, -1, 0), EINVAL);
    ERR(syscall(SYS_pidfd_open, 1 << 21, 0), ESRCH);
    ERR(syscall(SYS_pidfd_open, getpid(), 0x40000000), EINVAL);
}

TEST(pidfd_send_signal) {
    pid_t pid = CHILD(pause());
    int fd = OK(syscall(SYS_pidfd_open, pid, 0));
    OK(syscall(SYS_pidfd_send_signal, fd, SIGUSR1, NULL, 0));
    KILLED(wait_for(pid), SIGUSR1);
    ERR(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0), ESRCH);
    ERR(syscall(SYS_pidfd_send_signal, 0, 0, NULL, 0), EBADF);
}

TEST(pidfd_getfd) {
    int p[2];
    OK(pipe(p));
    pid_t pid = CHILD(pause());
    int fd = OK(syscall(SYS_pidfd_open, pid, 0));
    int copy = OK(syscall(SYS_pidfd_getfd, fd, p[1], 0));
    CHECK_EQ(write(copy, "z", 1), 1);
    char c;
    CHECK_EQ(read(p[0], &c, 1), 1);
    ERR(syscall(SYS_pidfd_getfd, fd, 999, 0), EBADF);
    OK(kill(pid, SIGKILL));
    wait_for(pid);
}
