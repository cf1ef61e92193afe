// CPU time and the largest resident set: getrusage, times, wait4, the CPU clocks, /proc/PID/stat, timers and limits by CPU time.
//
// Bounds are loose, because the machine may be busy: a process that computes gets at least a fifth of one CPU.
#include "check.h"
#include <sys/times.h>

static long long ns_of(struct timeval t) {
    return t.tv_sec * 1000000000LL + t.tv_usec * 1000LL;
}

static long long used_by(int who) {
    struct rusage u;
    OK(getrusage(who, &u));
    return ns_of(u.ru_utime) + ns_of(u.ru_stime);
}

static long long clock_ns(clockid_t id) {
    struct timespec t;
    OK(clock_gettime(id, &t));
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static long long wall_ns(void) {
    return clock_ns(CLOCK_MONOTONIC);
}

static volatile unsigned long sink;

// Computes, without a system call that is not in the vDSO, until so much time has passed.
static void spin_ms(long ms) {
    long long end = wall_ns() + ms * 1000000LL;
    while (wall_ns() < end)
        for (int i = 0; i < 10000; i++)
            sink += (unsigned long)i;
}

#define MS 1000000LL

TEST(a_sleeper_uses_next_to_nothing) {
    long long before = used_by(RUSAGE_SELF);
    sleep_ms(600);
    long long used = used_by(RUSAGE_SELF) - before;
    if (used > 150 * MS)
        FAIL("asleep for 600 ms, used %lld us", used / 1000);
}

TEST(short_sleeps_use_little) {
    long long before = used_by(RUSAGE_SELF), start = wall_ns();
    while (wall_ns() - start < 800 * MS)
        sleep_ms(10);
    long long used = used_by(RUSAGE_SELF) - before;
    if (used > 300 * MS)
        FAIL("80 sleeps of 10 ms used %lld us", used / 1000);
}

TEST(a_spinner_uses_its_wall_clock) {
    long long before = used_by(RUSAGE_SELF), start = wall_ns(), used;
    // However much of the clock others have for themselves.
    while ((used = used_by(RUSAGE_SELF) - before) < 300 * MS)
        spin_ms(20);
    long long wall = wall_ns() - start;
    if (used > wall + 50 * MS)
        FAIL("%lld us of wall clock, used %lld us", wall / 1000, used / 1000);
}

TEST(all_clocks_agree) {
    spin_ms(300);
    long long process = clock_ns(CLOCK_PROCESS_CPUTIME_ID), thread = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    struct tms t;
    times(&t);
    long long ticks = (long long)(t.tms_utime + t.tms_stime) * 10 * MS, usage = used_by(RUSAGE_SELF), one = used_by(RUSAGE_THREAD);
    if (llabs(process - thread) > 30 * MS || llabs(process - usage) > 30 * MS || llabs(process - ticks) > 50 * MS || llabs(one - usage) > 30 * MS)
        FAIL("process %lld, thread %lld, times %lld, usage %lld and %lld us", process / 1000, thread / 1000, ticks / 1000, usage / 1000, one / 1000);
    char *text = strrchr(slurp("/proc/self/stat"), ')');
    unsigned long utime, stime;
    CHECK_EQ(sscanf(text, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &utime, &stime), 2);
    if (llabs((long long)(utime + stime) * 10 * MS - process) > 50 * MS)
        FAIL("/proc/self/stat: %lu and %lu, process clock %lld us", utime, stime, process / 1000);
}

static void *idle(void *stop) {
    while (!*(volatile int *)stop)
        sleep_ms(5);
    return NULL;
}

static void *spinner(void *used) {
    spin_ms(300);
    *(long long *)used = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    return NULL;
}

TEST(each_thread_has_its_own) {
    pthread_t a, b;
    int stop = 0;
    long long theirs = 0, own = clock_ns(CLOCK_THREAD_CPUTIME_ID), process = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    CHECK_EQ(pthread_create(&a, NULL, idle, &stop), 0);
    CHECK_EQ(pthread_create(&b, NULL, spinner, &theirs), 0);
    CHECK_EQ(pthread_join(b, NULL), 0);
    stop = 1;
    CHECK_EQ(pthread_join(a, NULL), 0);
    own = clock_ns(CLOCK_THREAD_CPUTIME_ID) - own;
    process = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - process;
    // The dead threads' time stays with the process; this thread only waited.
    if (theirs < 10 * MS || theirs > 330 * MS || own > theirs / 2 || process < theirs - 10 * MS)
        FAIL("the spinner %lld, this thread %lld, the process %lld us", theirs / 1000, own / 1000, process / 1000);
    // A new thread, maybe in the place of a dead one, begins at 0.
    CHECK_EQ(pthread_create(&b, NULL, spinner, &theirs), 0);
    CHECK_EQ(pthread_join(b, NULL), 0);
    if (theirs > 330 * MS)
        FAIL("a new thread of 300 ms shows %lld us", theirs / 1000);
}

TEST(system_calls_are_system_time) {
    struct rusage u;
    char path[] = "/proc/self/status", text[4096];
    long long end = wall_ns() + 600 * MS;
    while (wall_ns() < end) {
        int fd = OK(open(path, O_RDONLY));
        while (read(fd, text, sizeof text) > 0) {
        }
        close(fd);
    }
    OK(getrusage(RUSAGE_SELF, &u));
    if (ns_of(u.ru_stime) < 20 * MS)
        FAIL("utime %lld, stime %lld us", ns_of(u.ru_utime) / 1000, ns_of(u.ru_stime) / 1000);
}

TEST(children_count_when_they_are_reaped) {
    pid_t pid = CHILD(spin_ms(400));
    sleep_ms(100);
    CHECK_EQ(used_by(RUSAGE_CHILDREN), 0);
    struct rusage u;
    int status;
    CHECK_EQ(wait4(pid, &status, 0, &u), pid);
    long long child = ns_of(u.ru_utime) + ns_of(u.ru_stime), sum = used_by(RUSAGE_CHILDREN);
    if (child < 10 * MS || child > 500 * MS || llabs(sum - child) > 20 * MS)
        FAIL("wait4 %lld us, children %lld us", child / 1000, sum / 1000);
    struct tms t;
    times(&t);
    CHECK(llabs((long long)(t.tms_cutime + t.tms_cstime) * 10 * MS - sum) <= 30 * MS);
}

TEST(exec_keeps_the_time) {
    pid_t pid = CHILD({
        spin_ms(300);
        execl("/proc/self/exe", "cputime", "--helper", NULL);
    });
    struct rusage u;
    int status;
    CHECK_EQ(wait4(pid, &status, 0, &u), pid);
    EXITED(status, 7);
    CHECK(ns_of(u.ru_utime) + ns_of(u.ru_stime) > 10 * MS);
}

int helper(int argc, char **argv) {
    (void)argc, (void)argv;
    return 7;
}

static void touch(size_t bytes) {
    char *p = OK(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    for (size_t i = 0; i < bytes; i += 4096)
        p[i] = 1;
    OK(munmap(p, bytes));
}

#define MIB_IN_KIB 1024

TEST(maxrss_is_a_high_water_mark) {
    struct rusage u;
    int status;
    // What the process was that has executed this program counts too (`setmax_mm_hiwater_rss`).
    OK(getrusage(RUSAGE_SELF, &u));
    CHECK(u.ru_maxrss > 0 && u.ru_maxrss < 128 * MIB_IN_KIB);
    pid_t pid = CHILD(touch(256 << 20));
    CHECK_EQ(wait4(pid, &status, 0, &u), pid);
    CHECK(u.ru_maxrss >= 256 * MIB_IN_KIB && u.ru_maxrss < 384 * MIB_IN_KIB);
    wait_for(CHILD(touch(8 << 20)));
    OK(getrusage(RUSAGE_CHILDREN, &u));
    CHECK(u.ru_maxrss >= 256 * MIB_IN_KIB && u.ru_maxrss < 384 * MIB_IN_KIB);
    OK(getrusage(RUSAGE_SELF, &u));
    CHECK(u.ru_maxrss < 128 * MIB_IN_KIB);
    touch(40 << 20);
    OK(getrusage(RUSAGE_SELF, &u));
    CHECK(u.ru_maxrss >= 40 * MIB_IN_KIB);
    // A program after the big one still has it.
    pid = CHILD({
        touch(48 << 20);
        execl("/proc/self/exe", "cputime", "--helper", NULL);
    });
    CHECK_EQ(wait4(pid, &status, 0, &u), pid);
    CHECK(u.ru_maxrss >= 48 * MIB_IN_KIB);
}

// The parent may ask before the host has freed the memory of a child that has just ended.
TEST(maxrss_of_a_child_that_has_just_ended) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    OK(sigprocmask(SIG_BLOCK, &set, NULL));
    for (int i = 0; i < 20; i++) {
        struct rusage u;
        int status;
        pid_t pid = CHILD(touch(16 << 20));
        CHECK_EQ(sigwaitinfo(&set, NULL), SIGCHLD);
        CHECK_EQ(wait4(pid, &status, WNOHANG, &u), pid);
        CHECK(u.ru_maxrss >= 16 * MIB_IN_KIB && u.ru_maxrss < 64 * MIB_IN_KIB);
    }
}

TEST(maxrss_comes_from_grandchildren_too) {
    struct rusage u;
    siginfo_t info;
    pid_t pid = CHILD(wait_for(CHILD(touch(24 << 20))));
    // What the raw call has besides waitid(3).
    OK(syscall(SYS_waitid, P_PID, pid, &info, WEXITED | WNOWAIT, &u));
    CHECK(u.ru_maxrss >= 24 * MIB_IN_KIB && u.ru_maxrss < 64 * MIB_IN_KIB);
    wait_for(pid);
    OK(getrusage(RUSAGE_CHILDREN, &u));
    CHECK(u.ru_maxrss >= 24 * MIB_IN_KIB && u.ru_maxrss < 64 * MIB_IN_KIB);
}

static volatile int alarms;

static void on_alarm(int number) {
    (void)number;
    alarms++;
}

static void cpu_timer(int which, int number) {
    struct itimerval value = {{0, 50000}, {0, 50000}};
    signal(number, on_alarm);
    OK(setitimer(which, &value, NULL));
    sleep_ms(400);
    CHECK(alarms <= 1);
    alarms = 0;
    while (alarms < 3)
        spin_ms(20);
}

TEST(itimer_virtual_stands_still_in_sleep) {
    cpu_timer(ITIMER_VIRTUAL, SIGVTALRM);
}

TEST(itimer_prof_stands_still_in_sleep) {
    cpu_timer(ITIMER_PROF, SIGPROF);
}

TEST(rlimit_cpu_counts_cpu_time) {
    pid_t pid = CHILD({
        struct rlimit limit = {1, 20};
        OK(setrlimit(RLIMIT_CPU, &limit));
        sleep_ms(1600); // by the wall clock it would be over
        spin_ms(6500);
    });
    KILLED(wait_for(pid), SIGXCPU);
}
