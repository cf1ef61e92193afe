// Says what its clocks show whenever it is asked, in milliseconds: CLOCK_MONOTONIC by the vDSO and by a system call, CLOCK_BOOTTIME, /proc/uptime,
// CLOCK_REALTIME, and how long a timer of 50 ms that has the time of its end took, each kind.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static long long ms(struct timespec t) {
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static long long now(clockid_t id) {
    struct timespec t;
    return clock_gettime(id, &t) ? -1 : ms(t);
}

static struct timespec soon(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    t.tv_nsec += 50000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_nsec -= 1000000000;
        t.tv_sec++;
    }
    return t;
}

static long long sleeps(clockid_t id) {
    struct timespec end = soon(id);
    long long began = now(CLOCK_REALTIME);
    return clock_nanosleep(id, TIMER_ABSTIME, &end, NULL) ? -1 : now(CLOCK_REALTIME) - began;
}

static long long expires(clockid_t id) {
    struct itimerspec end = {{0, 0}, soon(id)};
    long long began = now(CLOCK_REALTIME);
    uint64_t count;
    int fd = timerfd_create(id, 0);
    int failed = timerfd_settime(fd, TFD_TIMER_ABSTIME, &end, NULL) || read(fd, &count, 8) != 8;
    close(fd);
    return failed ? -1 : now(CLOCK_REALTIME) - began;
}

int main(void) {
    char line[16];
    while (fgets(line, sizeof line, stdin)) {
        struct timespec called;
        syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &called);
        double uptime = -1;
        FILE *file = fopen("/proc/uptime", "r");
        if (!file || fscanf(file, "%lf", &uptime) != 1)
            return 1;
        fclose(file);
        printf("%lld %lld %lld %lld %lld ", now(CLOCK_MONOTONIC), ms(called), now(CLOCK_BOOTTIME), (long long)(uptime * 1000), now(CLOCK_REALTIME));
        printf("%lld %lld %lld\n", sleeps(CLOCK_MONOTONIC), expires(CLOCK_MONOTONIC), expires(CLOCK_BOOTTIME));
        fflush(stdout);
    }
}
