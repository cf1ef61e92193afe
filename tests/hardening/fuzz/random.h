// Random numbers of a thread, and values that are likely to be an edge of something.
#pragma once
#include <stddef.h>
#include <stdint.h>

// One thread of a worker: what it draws depends on its seed alone.
struct thread {
    uint64_t state;
    char *area; // where what its pointers lead to lies
    size_t used;
    int worker, index;
    struct ring *ring;
};

static uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static uint64_t word(struct thread *t) {
    t->state += 0x9e3779b97f4a7c15u;
    return mix(t->state);
}

static uint32_t rnd(struct thread *t, uint32_t below) {
    return (uint32_t)(word(t) >> 33) % below;
}

static int one_in(struct thread *t, uint32_t n) {
    return rnd(t, n) == 0;
}

#define PICK(T, ARRAY) ((ARRAY)[rnd(T, sizeof(ARRAY) / sizeof *(ARRAY))])

// Ends of all widths and of pages, and their neighbours.
static uint64_t edge(struct thread *t) {
    static const uint64_t edges[] = {
        0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 257, 511, 512, 1023, 1024, 4095, 4096, 4097, 8191, 8192,
        0x7fff, 0x8000, 0xffff, 0x10000, 0x100000, 0x7fffefff, 0x7ffff000, 0x7fffffff, 0x80000000, 0xfffff000, 0xfffffffe, 0xffffffff,
        0x100000000, 0x7fffffffefff, 0x7ffffffff000, 0x7fffffffffff, 0x800000000000, 0x7ffffffffffff000, 0x7ffffffffffffffe,
        0x7fffffffffffffff, 0x8000000000000000, 0x8000000000000001, 0xfffffffffffff000, 0xfffffffffffffffe, 0xffffffffffffffff,
    };
    return PICK(t, edges);
}

// A number of things: mostly small, often the edge of a page.
static uint64_t length(struct thread *t) {
    static const uint64_t usual[] = {0, 1, 2, 3, 4, 8, 12, 16, 24, 28, 32, 64, 100, 128, 256, 512, 1000, 4095, 4096, 4097, 8192, 65535, 65536};
    switch (rnd(t, 8)) {
    case 0: return edge(t);
    case 1: return rnd(t, 70000);
    case 2: return rnd(t, 300);
    default: return PICK(t, usual);
    }
}

static uint64_t small(struct thread *t) {
    return rnd(t, 10) ? rnd(t, 20) : edge(t);
}

// Bits: mostly none or few.
static uint64_t bits(struct thread *t) {
    switch (rnd(t, 8)) {
    case 0: case 1: case 2: return 0;
    case 3: return rnd(t, 8);
    case 4: case 5: return 1ul << rnd(t, 32);
    case 6: return 1ul << rnd(t, 32) | 1ul << rnd(t, 32) | 1ul << rnd(t, 12);
    default: return edge(t);
    }
}
