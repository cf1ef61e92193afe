// What the bench programs share. Those of `cargo x bench micro` print `NAME NANOSECONDS` for each cost, the best of a few batches.
//
// With `--profile NAME` they measure that cost alone, for a second, and say when: `begins`, then `NAME OPERATIONS NANOSECONDS`, with pauses before
// and after in which somebody can look from outside.
//
// The best, because a batch can only be disturbed upwards; the harness takes medians over interleaved runs.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

// The cost that is profiled, if one is.
static const char *profiled;

static void pause_seconds(int seconds) {
    struct timespec t = {seconds, 0};
    nanosleep(&t, NULL);
}

static void profile(const char *name, void (*run)(int), int count) {
    long long operations = 0;
    run(count / 10 + 1);
    puts("begins");
    fflush(stdout);
    pause_seconds(2);
    long long start = now();
    for (; now() - start < 1000000000; operations += count)
        run(count);
    printf("%s %lld %lld\n", name, operations, now() - start);
    fflush(stdout);
    pause_seconds(2);
    exit(0);
}

static inline void measure(const char *name, void (*run)(int), int count) {
    long long best = -1;
    if (profiled) {
        if (!strcmp(name, profiled))
            profile(name, run, count);
        return;
    }
    run(count / 10 + 1);
    for (int batch = 0; batch < 5; batch++) {
        long long start = now();
        run(count);
        long long each = (now() - start) / count;
        if (best < 0 || each < best)
            best = each;
    }
    printf("%s %lld\n", name, best);
    fflush(stdout);
}

static inline void take_arguments(int argc, char **argv) {
    if (argc > 2 && !strcmp(argv[1], "--profile"))
        profiled = argv[2];
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}
