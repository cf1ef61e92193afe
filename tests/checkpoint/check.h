// The frame of every program in this directory: TEST(name) { ... } defines a check, which sets something up, calls RESTORED(), and
// looks whether it is as it was. Between the two the sandbox is saved, ended, and restored in another one; on the host nothing happens.
//
// All checks run at once, each in a child of its own. When all have come to RESTORED() (or, with READY(), to a call that goes on through
// it) the program prints "ready", and sleeps for long enough to be saved. One line per check: `ok NAME`, `FAIL NAME: why`.
#ifndef CHECK_H
#define CHECK_H

#include "../frame.h"
#include <linux/futex.h>

// From "ready" until the checks go on: time to be saved in. What a check waits for has to take longer.
#define PAUSE_MS 1000
#ifndef PAUSE
#define PAUSE() sleep_ms(PAUSE_MS)
#endif

// Shared by all children: who has come to the checkpoint, and whether it is over.
static struct {
    uint32_t arrived, go;
} *check_shared;

static long check_futex(uint32_t *word, int op, uint32_t value) {
    return syscall(SYS_futex, word, op, value, NULL, NULL, 0);
}

// This check is ready to be saved, and goes on by itself.
__attribute__((unused)) static void READY(void) {
    __atomic_add_fetch(&check_shared->arrived, 1, __ATOMIC_SEQ_CST);
}

// Waits until the sandbox has been restored.
__attribute__((unused)) static void AWAIT(void) {
    while (!__atomic_load_n(&check_shared->go, __ATOMIC_SEQ_CST))
        check_futex(&check_shared->go, FUTEX_WAIT, 0);
}

__attribute__((unused)) static void RESTORED(void) {
    READY();
    AWAIT();
}

__attribute__((unused)) static int64_t now_ms(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void check_run(struct check *c) {
    check_name = c->name;
    check_child = getpid();
    setpgid(0, 0);
    alarm(CHECK_SECONDS);
    c->run();
    char line[200];
    int n = snprintf(line, sizeof line, "ok %s\n", c->name);
    _exit(write(1, line, n) == n ? 0 : 98);
}

int main(int argc, char **argv) {
    if (check_list(argc, argv))
        return 0;
    check_shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint32_t running = 0;
    for (struct check *c = check_first; c; c = c->next) {
        int wanted = argc < 2;
        for (int i = 1; i < argc; i++)
            wanted |= !strcmp(argv[i], c->name);
        if (!wanted)
            continue;
        if (!fork())
            check_run(c);
        running++;
    }
    // A check that ends early has said why, and is waited for no longer.
    int ended = 0, status;
    while (__atomic_load_n(&check_shared->arrived, __ATOMIC_SEQ_CST) + ended < running) {
        if (waitpid(-1, &status, WNOHANG) > 0)
            ended++;
        usleep(1000);
    }
    // Time for those that are about to wait in a call.
    usleep(50000);
    if (write(1, "ready\n", 6) != 6)
        return 97;
    PAUSE();
    __atomic_store_n(&check_shared->go, 1, __ATOMIC_SEQ_CST);
    check_futex(&check_shared->go, FUTEX_WAKE, INT_MAX);
    while (waitpid(-1, &status, 0) > 0 || errno == EINTR) {
    }
    return 0;
}
#endif
