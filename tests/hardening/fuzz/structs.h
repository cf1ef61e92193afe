// The structs that calls take, by the names of their types in the declarations.
#pragma once
#include "messages.h"
#include <linux/aio_abi.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <linux/openat2.h>
#include <poll.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/time.h>
#include <time.h>

static int64_t seconds(struct thread *t) {
    return rnd(t, 6) ? 0 : (int64_t)(rnd(t, 2) ? rnd(t, 2) : edge(t));
}

static int64_t fraction(struct thread *t) {
    return rnd(t, 8) ? rnd(t, 5000000) : PICK(t, ((int64_t[]){999999999, 1000000000, -1, 0x3fffffff, 0x3ffffffe, INT64_MIN, 999999, 1000000}));
}

// Two of them: more than one is asked for by utimensat(2) and timers.
static uint64_t times(struct thread *t) {
    int64_t all[4] = {seconds(t), fraction(t), seconds(t), fraction(t)};
    return placed(t, all, sizeof all);
}

static uint64_t signal_set(struct thread *t) {
    uint64_t all = PICK(t, ((uint64_t[]){0, ~0ul, 1ul << 13, word(t)}));
    return placed(t, &all, 8);
}

// pselect6(2) has it in two words.
static uint64_t signal_set_and_size(struct thread *t) {
    uint64_t all[2] = {signal_set(t), rnd(t, 6) ? 8 : edge(t)};
    return placed(t, all, sizeof all);
}

static uint64_t signal_info(struct thread *t) {
    int all[32] = {(int)small(t), 0, PICK(t, ((int[]){-1, -2, -6, 0, 1, 0x7fffffff})), 0, (int)getpid()};
    return placed(t, all, sizeof all);
}

static uint64_t signal_event(struct thread *t) {
    struct sigevent all = {.sigev_notify = PICK(t, ((int[]){SIGEV_SIGNAL, SIGEV_NONE, SIGEV_THREAD, 4, 77})), .sigev_signo = (int)rnd(t, 66)};
    all._sigev_un._tid = rnd(t, 2) ? (int)getpid() : (int)small(t);
    return placed(t, &all, sizeof all);
}

static void handler(int number) {
    (void)number;
}

__attribute__((naked)) static void restorer(void) {
    __asm__ volatile("mov $15, %eax\n\tsyscall");
}

static uint64_t signal_action(struct thread *t) {
    uint64_t all[4] = {PICK(t, ((uint64_t[]){(uint64_t)handler, (uint64_t)handler, 1, 1, 0})), 0x04000000 | bits(t), (uint64_t)restorer, rnd(t, 2) ? 0 : word(t)};
    if (one_in(t, 50))
        all[rnd(t, 3)] = edge(t);
    return placed(t, all, sizeof all);
}

static uint64_t signal_stack(struct thread *t) {
    stack_t all = {(void *)mapping(t), PICK(t, ((int[]){0, 0, SS_DISABLE, 1 << 30, 1})), mapping_length(t)};
    return placed(t, &all, sizeof all);
}

static uint64_t polled(struct thread *t) {
    struct pollfd all[6];
    for (int i = 0; i < 6; i++)
        all[i] = (struct pollfd){(int)descriptor(t), (short)word(t), 0};
    return placed(t, all, sizeof all);
}

static uint64_t descriptor_set(struct thread *t) {
    uint64_t all[16] = {word(t) & 0xfffffff8};
    return rnd(t, 3) ? placed(t, all, sizeof all) : 0;
}

static uint64_t epoll_event(struct thread *t) {
    struct epoll_event all[2] = {{(uint32_t)(rnd(t, 3) ? PICK(t, ((uint32_t[]){1, 4, 5, 0x80000001, 0x40000005, 0x10000001, 0x20000001})) : word(t)), {0}}};
    return placed(t, all, sizeof all);
}

static uint64_t semaphore_operations(struct thread *t) {
    struct sembuf all[4];
    for (int i = 0; i < 4; i++)
        all[i] = (struct sembuf){(unsigned short)rnd(t, 4), (short)(rnd(t, 8) ? (int)rnd(t, 5) - 2 : (int)edge(t)), (short)(IPC_NOWAIT * (int)rnd(t, 2) | SEM_UNDO * (int)rnd(t, 2))};
    return placed(t, all, sizeof all);
}

static uint64_t limit(struct thread *t) {
    uint64_t low = rnd(t, 3) ? length(t) : edge(t), all[2] = {low, rnd(t, 2) ? low : edge(t)};
    return placed(t, all, sizeof all);
}

static uint64_t capability_header(struct thread *t) {
    uint32_t all[2] = {PICK(t, ((uint32_t[]){_LINUX_CAPABILITY_VERSION_3, _LINUX_CAPABILITY_VERSION_3, _LINUX_CAPABILITY_VERSION_1, 0})), rnd(t, 3) ? 0 : (uint32_t)some_pid(t)};
    return placed(t, all, sizeof all);
}

static uint64_t queue_attributes(struct thread *t) {
    int64_t all[8] = {rnd(t, 2) ? O_NONBLOCK : 0, (int64_t)small(t), (int64_t)length(t), (int64_t)small(t)};
    return placed(t, all, sizeof all);
}

static uint64_t arguments(struct thread *t) {
    char text[32];
    sprintf(text, "%u", rnd(t, 1000000));
    uint64_t all[6] = {text_of(t, "fuzz"), text_of(t, rnd(t, 2) ? "again" : "exit"), text_of(t, text), 0};
    if (one_in(t, 8))
        all[1 + rnd(t, 3)] = nowhere(t);
    return placed(t, all, sizeof all);
}

static uint64_t words(struct thread *t) {
    uint64_t all[16];
    for (int i = 0; i < 16; i++)
        all[i] = rnd(t, 3) ? small(t) : rnd(t, 2) ? edge(t) : output(t, 64);
    return placed(t, all, sizeof all);
}

static uint64_t clone_arguments(struct thread *t, uint64_t flags) {
    uint64_t all[11] = {flags, output(t, 8), output(t, 8), output(t, 8), rnd(t, 66), 0, 0, 0, 0, 0, 0};
    if (one_in(t, 4)) {
        all[8] = placed(t, all, 16);
        all[9] = small(t);
        all[10] = descriptor(t);
    }
    return placed(t, all, sizeof all);
}

static uint64_t how_to_open(struct thread *t, uint64_t flags) {
    struct open_how all = {flags, rnd(t, 3) ? 0 : 0777, rnd(t, 2) ? 0 : bits(t) & 0x3f};
    return placed(t, &all, sizeof all);
}

static uint64_t file_handle(struct thread *t) {
    uint32_t all[34] = {PICK(t, ((uint32_t[]){0, 8, 16, 128, 129, 0xffffffff})), rnd(t, 3), rnd(t, 100), rnd(t, 100)};
    return placed(t, all, sizeof all);
}

// A request of io_submit(2), behind the word that points to it.
static uint64_t asynchronous_requests(struct thread *t) {
    uint64_t all[3];
    for (int i = 0; i < 3; i++) {
        struct iocb one = {.aio_lio_opcode = (uint16_t)rnd(t, 10), .aio_fildes = (uint32_t)descriptor(t), .aio_buf = rnd(t, 2) ? buffer(t) : vectors(t),
                           .aio_nbytes = length(t), .aio_offset = (int64_t)small(t), .aio_resfd = (uint32_t)descriptor(t), .aio_flags = (uint32_t)(rnd(t, 3) ? 0 : bits(t))};
        all[i] = placed(t, &one, sizeof one);
    }
    return placed(t, all, sizeof all);
}

// Words that threads of this process, and others by shared pages, wait at.
static uint64_t futex_word(struct thread *t) {
    if (one_in(t, 20))
        return nowhere(t);
    return PLAY + (PLAY_PAGES / 2 + rnd(t, 2)) * PAGE + 4 * rnd(t, 4);
}

static uint64_t futex_waiters(struct thread *t) {
    struct { uint64_t value, address; uint32_t flags, reserved; } all[3];
    for (int i = 0; i < 3; i++) {
        all[i].value = rnd(t, 2);
        all[i].address = futex_word(t);
        all[i].flags = rnd(t, 4) ? 2 | 128 * rnd(t, 2) : (uint32_t)bits(t);
        all[i].reserved = 0;
    }
    return placed(t, all, sizeof all);
}
