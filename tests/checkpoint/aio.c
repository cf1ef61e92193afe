// Asynchronous I/O of the kernel: contexts, events that nobody has taken, who waits for one, counters.
#include "check.h"
#include <linux/aio_abi.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

static aio_context_t set_up(unsigned requests) {
    aio_context_t context = 0;
    CHECK(!syscall(SYS_io_setup, requests, &context) && context);
    return context;
}

static void submit(aio_context_t context, struct iocb *request) {
    CHECK_EQ(syscall(SYS_io_submit, context, 1L, &request), 1);
}

static struct iocb writing(int fd, const char *text, uint64_t data, int64_t at) {
    return (struct iocb){.aio_data = data, .aio_lio_opcode = IOCB_CMD_PWRITE, .aio_fildes = fd,
                         .aio_buf = (uintptr_t)text, .aio_nbytes = strlen(text), .aio_offset = at};
}

static int take(aio_context_t context, long least, long most, struct io_event *events, int ms) {
    struct timespec timeout = {ms / 1000, ms % 1000 * 1000000L};
    return syscall(SYS_io_getevents, context, least, most, events, ms < 0 ? NULL : &timeout);
}

static int file(void) {
    int fd = open("/dev/shm", O_TMPFILE | O_RDWR, 0600);
    CHECK(fd >= 0);
    return fd;
}

TEST(events_that_nobody_has_taken) {
    aio_context_t first = set_up(4), second = set_up(9);
    CHECK(first != second);
    int fd = file(), counter = eventfd(0, EFD_NONBLOCK);
    struct iocb one = writing(fd, "one", 11, 0), two = writing(fd, "twos", 22, 3), three = writing(fd, "three", 33, 7);
    two.aio_flags = IOCB_FLAG_RESFD;
    two.aio_resfd = counter;
    struct io_event events[8];
    // The ring's head is not at its start.
    for (int i = 0; i < 5; i++) {
        submit(first, &one);
        CHECK_EQ(take(first, 1, 8, events, -1), 1);
    }
    submit(first, &one);
    submit(first, &two);
    submit(second, &three);
    struct iocb bad = writing(fd, "", 44, 0), sync = {.aio_data = 55, .aio_lio_opcode = IOCB_CMD_FSYNC, .aio_fildes = fd};
    bad.aio_buf = 8;
    bad.aio_nbytes = 1;
    submit(second, &bad);
    submit(second, &sync);
    RESTORED();
    CHECK_EQ(take(first, 2, 8, events, 0), 2);
    CHECK(events[0].data == 11 && events[0].obj == (uintptr_t)&one && events[0].res == 3);
    CHECK(events[1].data == 22 && events[1].res == 4);
    uint64_t raised = 0;
    CHECK(read(counter, &raised, 8) == 8 && raised == 1);
    CHECK_EQ(take(second, 3, 8, events, -1), 3);
    CHECK(events[0].data == 33 && events[0].res == 5 && events[1].data == 44 && events[1].res == -EFAULT);
    CHECK(events[2].data == 55 && events[2].res == 0);
    // And it goes on, round the ring's end.
    for (int i = 0; i < 100; i++) {
        submit(first, &two);
        CHECK(take(first, 1, 1, events, -1) == 1 && events[0].data == 22);
    }
    CHECK_EQ(take(first, 0, 8, events, 0), 0);
    char text[16] = "";
    CHECK(pread(fd, text, 15, 0) == 12 && !strcmp(text, "onetwosthree"));
    CHECK(!syscall(SYS_io_destroy, first) && !syscall(SYS_io_destroy, second));
    CHECK(take(first, 0, 1, events, 0) < 0 && errno == EINVAL);
    aio_context_t again = set_up(1);
    CHECK(!syscall(SYS_io_destroy, again));
}

TEST(the_ring_is_the_program_s_own_memory) {
    aio_context_t context = set_up(2);
    int fd = file();
    struct iocb one = writing(fd, "x", 7, 0);
    submit(context, &one);
    // `struct aio_ring`: number, size, head, tail, magic.
    uint32_t *ring = (uint32_t *)context, before[5];
    memcpy(before, ring, sizeof before);
    RESTORED();
    CHECK(!memcmp(before, ring, sizeof before) && ring[4] == 0xa10a10a1 && ring[3] != ring[2]);
    struct io_event *inside = (struct io_event *)(ring + 8) + ring[2];
    CHECK(inside->data == 7 && inside->res == 1);
    // Taken by the program itself, as libraries do.
    ring[2] = (ring[2] + 1) % ring[1];
    struct io_event events[2];
    CHECK_EQ(take(context, 0, 2, events, 0), 0);
}

TEST(who_waits_for_an_event) {
    aio_context_t context = set_up(2);
    READY();
    struct io_event event;
    int64_t start = now_ms(CLOCK_MONOTONIC);
    CHECK_EQ(take(context, 1, 1, &event, PAUSE_MS * 3), 0);
    CHECK(now_ms(CLOCK_MONOTONIC) - start >= PAUSE_MS * 3);
    AWAIT();
}

static struct iocb polling(int fd, int events, uint64_t data) {
    return (struct iocb){.aio_data = data, .aio_lio_opcode = IOCB_CMD_POLL, .aio_fildes = fd, .aio_buf = events};
}

TEST(requests_that_wait_for_a_file) {
    aio_context_t context = set_up(4);
    int ends[2], counter = eventfd(0, EFD_NONBLOCK), fd = file();
    CHECK(!pipe(ends));
    struct iocb first = polling(ends[0], POLLIN, 11), second = polling(ends[0], POLLIN, 22);
    second.aio_flags = IOCB_FLAG_RESFD;
    second.aio_resfd = counter;
    struct iocb write_now = writing(fd, "x", 33, 0);
    submit(context, &first);
    submit(context, &second);
    submit(context, &write_now);
    // A request holds its file, whatever becomes of the descriptor.
    int reader = dup(ends[0]);
    CHECK(!close(ends[0]));
    RESTORED();
    struct io_event events[4];
    CHECK(take(context, 1, 4, events, 0) == 1 && events[0].data == 33);
    CHECK_EQ(take(context, 0, 4, events, 0), 0);
    CHECK_EQ(write(ends[1], "y", 1), 1);
    CHECK_EQ(take(context, 2, 4, events, 5000), 2);
    CHECK(events[0].data + events[1].data == 33 && events[0].res & POLLIN && events[1].res & POLLIN);
    uint64_t raised = 0;
    while (read(counter, &raised, 8) < 0)
        usleep(1000);
    CHECK_EQ(raised, 1);
    // And one that never ends is cancelled.
    struct iocb third = polling(ends[1], POLLIN, 44);
    submit(context, &third);
    struct io_event event;
    CHECK(syscall(SYS_io_cancel, context, &third, &event) < 0 && errno == EINPROGRESS);
    CHECK(take(context, 1, 1, &event, 5000) == 1 && event.data == 44 && event.res == 0);
    CHECK(!close(reader));
}
