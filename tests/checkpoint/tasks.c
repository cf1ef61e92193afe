// Threads and processes, and how they go on.
#include "check.h"
#include <grp.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

TEST(registers_and_vectors) {
    double a[4] = {1.5, 2.5, 3.5, 4.5}, b[4];
    uint64_t x = 0x123456789abcdef0, y;
    READY();
    // In application code all the time: registers are live when the thread is taken out of it.
    __asm__ volatile("movupd (%3), %%xmm9\n movupd 16(%3), %%xmm14\n mov %2, %%r15\n"
                     "1: mov (%4), %%eax\n test %%eax, %%eax\n jz 1b\n"
                     "movupd %%xmm9, (%1)\n movupd %%xmm14, 16(%1)\n mov %%r15, %0"
                     : "=r"(y)
                     : "r"(b), "r"(x), "r"(a), "r"(&check_shared->go)
                     : "rax", "r15", "xmm9", "xmm14", "memory");
    CHECK(y == x && !memcmp(a, b, sizeof a));
}

static volatile int stage;
static __thread int mine;

static void *thread(void *arg) {
    mine = (int)(intptr_t)arg;
    __atomic_add_fetch(&stage, 1, __ATOMIC_SEQ_CST);
    AWAIT();
    return (void *)(intptr_t)(mine + 100);
}

TEST(threads_with_their_own_memory) {
    pthread_t t[8];
    for (int i = 0; i < 8; i++)
        CHECK_EQ(pthread_create(&t[i], NULL, thread, (void *)(intptr_t)i), 0);
    while (stage != 8)
        usleep(1000);
    RESTORED();
    for (int i = 0; i < 8; i++) {
        void *result;
        CHECK_EQ(pthread_join(t[i], &result), 0);
        CHECK_EQ((intptr_t)result, i + 100);
    }
    // And new ones.
    CHECK_EQ(pthread_create(&t[0], NULL, thread, (void *)5), 0);
    CHECK_EQ(pthread_join(t[0], NULL), 0);
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static int told;

static void *waiter(void *arg) {
    (void)arg;
    pthread_mutex_lock(&mutex);
    stage++;
    while (!told)
        pthread_cond_wait(&condition, &mutex);
    pthread_mutex_unlock(&mutex);
    return NULL;
}

TEST(locks_and_conditions) {
    pthread_t t[3];
    for (int i = 0; i < 3; i++)
        pthread_create(&t[i], NULL, waiter, NULL);
    while (stage != 3)
        usleep(1000);
    RESTORED();
    pthread_mutex_lock(&mutex);
    told = 1;
    pthread_cond_broadcast(&condition);
    pthread_mutex_unlock(&mutex);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(pthread_join(t[i], NULL), 0);
}

TEST(who_is_who) {
    pid_t pid = getpid(), parent = getppid(), group = getpgrp(), session = getsid(0);
    pid_t child = fork();
    if (!child) {
        setsid();
        pid_t own = getpid();
        AWAIT();
        _exit(getpid() == own && getppid() == pid && getsid(0) == own && getpgrp() == own ? 7 : 1);
    }
    RESTORED();
    CHECK(getpid() == pid && getppid() == parent && getpgrp() == group && getsid(0) == session);
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(WEXITSTATUS(status), 7);
    // Numbers go on where they were.
    child = fork();
    if (!child)
        _exit(0);
    CHECK(child > pid);
    waitpid(child, &status, 0);
}

TEST(a_zombie_waits_to_be_waited_for) {
    pid_t child = fork();
    if (!child)
        _exit(23);
    siginfo_t info;
    CHECK_EQ(waitid(P_PID, child, &info, WEXITED | WNOWAIT), 0);
    RESTORED();
    int status;
    CHECK_EQ(waitpid(child, &status, WNOHANG), child);
    CHECK_EQ(WEXITSTATUS(status), 23);
}

TEST(a_stopped_process_is_continued) {
    pid_t child = fork();
    if (!child) {
        raise(SIGSTOP);
        sleep_ms(200);
        _exit(9);
    }
    int status;
    CHECK_EQ(waitpid(child, &status, WUNTRACED), child);
    CHECK(WIFSTOPPED(status));
    RESTORED();
    usleep(100000);
    CHECK_EQ(waitpid(child, &status, WNOHANG | WUNTRACED), 0);
    CHECK_EQ(kill(child, SIGCONT), 0);
    CHECK_EQ(waitpid(child, &status, WCONTINUED), child);
    CHECK(WIFCONTINUED(status));
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(WEXITSTATUS(status), 9);
}

TEST(vfork_waits_for_its_child) {
    READY();
    pid_t child = vfork();
    if (!child) {
        AWAIT();
        _exit(4);
    }
    CHECK(child > 0);
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(WEXITSTATUS(status), 4);
}

TEST(limits_names_and_settings) {
    struct rlimit limit = {100, 200}, got;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    CHECK_EQ(prctl(PR_SET_NAME, "saved-name"), 0);
    CHECK_EQ(prctl(PR_SET_PDEATHSIG, SIGUSR2), 0);
    CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    CHECK_EQ(prctl(PR_SET_TIMERSLACK, 77777), 0);
    CHECK_EQ(setpriority(PRIO_PROCESS, 0, 5), 0);
    umask(027);
    CHECK_EQ(chdir("/proc"), 0);
    RESTORED();
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &got), 0);
    CHECK(got.rlim_cur == 100 && got.rlim_max == 200);
    char name[16], cwd[100];
    int signal = 0, reaper = 0;
    prctl(PR_GET_NAME, name);
    prctl(PR_GET_PDEATHSIG, &signal);
    prctl(PR_GET_CHILD_SUBREAPER, &reaper);
    CHECK(!strcmp(name, "saved-name") && signal == SIGUSR2 && reaper == 1);
    CHECK_EQ(prctl(PR_GET_TIMERSLACK), 77777);
    CHECK_EQ(getpriority(PRIO_PROCESS, 0), 5);
    CHECK_EQ(umask(0), 027);
    CHECK(getcwd(cwd, sizeof cwd) && !strcmp(cwd, "/proc"));
    int fd = open("self/comm", O_RDONLY);
    CHECK(fd >= 0 && read(fd, name, 10) == 10 && !memcmp(name, "saved-name", 10));
}

TEST(a_seccomp_filter) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EXDEV),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, filter};
    CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
    RESTORED();
    CHECK(syscall(SYS_getppid) == -1 && errno == EXDEV);
    CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
    CHECK_EQ(prctl(PR_GET_SECCOMP), 2);
}

TEST(ids_and_capabilities) {
    gid_t groups[3] = {7, 5, 9}, got[3];
    CHECK_EQ(setgroups(3, groups), 0);
    CHECK_EQ(setresgid(10, 11, 12), 0);
    CHECK_EQ(setresuid(1000, 1001, 1002), 0);
    RESTORED();
    uid_t r, e, s;
    CHECK(!getresuid(&r, &e, &s) && r == 1000 && e == 1001 && s == 1002);
    CHECK(!getresgid(&r, &e, &s) && r == 10 && e == 11 && s == 12);
    CHECK_EQ(getgroups(3, got), 3);
    CHECK_EQ(got[0] + got[1] + got[2], 21);
    CHECK(setuid(0) == -1 && errno == EPERM);
}

TEST(cpu_time_is_kept) {
    struct timespec before, after;
    volatile long n = 0;
    do {
        for (int i = 0; i < 1000000; i++)
            n++;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    } while (before.tv_nsec < 60000000 && !before.tv_sec);
    RESTORED();
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    CHECK(after.tv_sec > before.tv_sec || after.tv_nsec >= before.tv_nsec - 20000000);
}
