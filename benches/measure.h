// What the bench programs share. Those of `cargo x bench micro` print `NAME NANOSECONDS` for each cost, the best of a few batches.
//
// The best, because a batch can only be disturbed upwards; the harness takes medians over interleaved runs.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static inline void measure(const char *name, void (*run)(int), int count) {
    long long best = -1;
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

static void fail(const char *what) {
    perror(what);
    exit(1);
}
