// Holds argv[1] MiB, all of them different and written, and says whenever it has not run for a while: "gap NANOSECONDS". With argv[2] it
// writes to its pages all the time, so many MB a second.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

static int64_t now(void) {
    struct timespec t;
    // CLOCK_MONOTONIC does not count what lies between a checkpoint and a restore.
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv) {
    uint64_t mib = strtoull(argv[1], NULL, 0), words = mib << 17, page = 0, x = 88172645463325252;
    uint64_t per_ms = argc > 2 ? strtoull(argv[2], NULL, 0) * 1000 / 4096 : 0;
    uint64_t *heap = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (heap == MAP_FAILED)
        return 1;
    for (uint64_t i = 0; i < words; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        heap[i] = x;
    }
    puts("ready");
    fflush(stdout);
    for (int64_t last = now();;) {
        for (uint64_t i = 0; i < per_ms; i++) {
            heap[page % words] += 1;
            page += 512;
        }
        struct timespec pause = {0, 1000000};
        nanosleep(&pause, NULL);
        int64_t at = now();
        // Less is the scheduler's doing.
        if (at - last > 5000000) {
            printf("gap %lld\n", (long long)(at - last));
            fflush(stdout);
        }
        last = at;
    }
}
