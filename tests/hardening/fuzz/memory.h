// Where pointers of a call lead: to room of the thread's own, at every kind of edge, and to nowhere.
#pragma once
#include "random.h"
#include <string.h>
#include <sys/mman.h>

#define PAGE 4096ul
#define ARENA 0x200000000000ul
#define AREA_PAGES 32ul                              // of a thread, with what follows it: a hole, pages to read, pages without rights
#define AREA_SPAN (64 * PAGE)
#define PLAY (ARENA + 64 * AREA_SPAN)                // what calls map and unmap
#define PLAY_PAGES 64ul

static void lay_out_area(struct thread *t) {
    int fixed = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    t->area = (char *)(ARENA + (uint64_t)t->index * AREA_SPAN);
    t->used = 0;
    mmap(t->area, AREA_PAGES * PAGE, PROT_READ | PROT_WRITE, fixed, -1, 0);
    mmap(t->area + (AREA_PAGES + 2) * PAGE, 2 * PAGE, PROT_READ, fixed, -1, 0);
    mmap(t->area + (AREA_PAGES + 4) * PAGE, 2 * PAGE, PROT_NONE, fixed, -1, 0);
}

static void lay_out_play(void) {
    mmap((void *)PLAY, PLAY_PAGES / 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    mmap((void *)(PLAY + PLAY_PAGES / 2 * PAGE), PLAY_PAGES / 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

// Room that can be written to and that no other pointer of this call leads to.
static void *room(struct thread *t, size_t size) {
    size = (size + 15) & ~15ul;
    if (t->used + size > (AREA_PAGES - 1) * PAGE)
        t->used = 0;
    char *at = t->area + t->used;
    t->used += size;
    return at;
}

// The same, but it may end with the page: a byte too much faults.
static void *room_at_edge(struct thread *t, size_t size) {
    if (size >= PAGE || rnd(t, 3))
        return room(t, size);
    return t->area + AREA_PAGES * PAGE - size;
}

static uint64_t nowhere(struct thread *t) {
    char *area = t->area;
    switch (rnd(t, 10)) {
    case 0: case 1: case 2: return 0;
    case 3: return (uint64_t)area + AREA_PAGES * PAGE - rnd(t, 9);           // the first bytes are there
    case 4: return (uint64_t)area + (AREA_PAGES + 2) * PAGE + rnd(t, 4096);  // to be read only
    case 5: return (uint64_t)area + (AREA_PAGES + 4) * PAGE;                 // no rights
    case 6: return PLAY + rnd(t, PLAY_PAGES) * PAGE - rnd(t, 3);
    case 7: return 0xffffffff81000000u + rnd(t, 4096);
    case 8: return 0x7ffffffff000u - rnd(t, 3);
    default: return edge(t);
    }
}

// Copies it to a place that a call can be given.
static uint64_t placed(struct thread *t, const void *what, size_t size) {
    if (one_in(t, 12))
        return nowhere(t);
    return (uint64_t)memcpy(room_at_edge(t, size), what, size);
}

// Room to be written to by a call.
static uint64_t output(struct thread *t, size_t size) {
    return one_in(t, 8) ? nowhere(t) : (uint64_t)room_at_edge(t, size);
}

// An address of memory that calls map and unmap; very seldom any.
static uint64_t mapping(struct thread *t) {
    if (one_in(t, 200))
        return edge(t);
    if (one_in(t, 100))
        return (uint64_t)t->area + rnd(t, AREA_PAGES) * PAGE;
    return PLAY + rnd(t, PLAY_PAGES) * PAGE + (one_in(t, 12) ? rnd(t, 4096) : 0);
}

static uint64_t mapping_length(struct thread *t) {
    if (one_in(t, 60))
        return edge(t);
    return (1 + rnd(t, 16)) * PAGE - (one_in(t, 8) ? rnd(t, 4096) : 0);
}
