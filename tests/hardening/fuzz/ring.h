// What each thread has called last, in a file of the host: there whatever becomes of the sandbox. xtask/src/fuzz/ring.rs reads it.
#pragma once
#include <stdint.h>

#define WORKERS 6
#define THREADS 3
#define CALLS 32

struct entry {
    uint64_t nr, args[6];
    int64_t result; // UNDER_WAY until the call is back
};

#define UNDER_WAY INT64_MIN

struct ring {
    uint64_t count;  // of calls, of all generations
    uint64_t seed;   // of the generation
    uint64_t pid;
    uint64_t unused;
    struct entry calls[CALLS];
};

struct rings {
    uint64_t phase; // 0: at work; 1: all workers are gone
    uint64_t generations;
    uint64_t reserved[6];
    struct ring thread[WORKERS][THREADS];
};
