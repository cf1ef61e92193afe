// What the programs of tests/abi and tests/checkpoint have in common: TEST(name) { ... } defines a check, CHECK*(...) fail it. Each check runs
// in a child of its own, and a program prints one line for each: `ok NAME`, `FAIL NAME: why`, `skip NAME: why`.
#ifndef FRAME_H
#define FRAME_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// How long a check may take.
#define CHECK_SECONDS 30

struct check {
    const char *name;
    void (*run)(void);
    struct check *next;
};

static struct check *check_first, **check_last = &check_first;
static const char *check_name = "?";
static pid_t check_child;

#define TEST(NAME)                                                              \
    static void test_##NAME(void);                                              \
    __attribute__((constructor)) static void check_add_##NAME(void) {           \
        static struct check c = {#NAME, test_##NAME, NULL};                     \
        *check_last = &c;                                                       \
        check_last = &c.next;                                                   \
    }                                                                           \
    static void test_##NAME(void)

// Ends the check, from whichever of its processes: the line is one write, so that it cannot be torn, and
// status 99 tells the parent that a line was printed.
__attribute__((format(printf, 2, 3), noreturn, unused))
static void check_end(const char *word, const char *format, ...) {
    char text[700];
    int length = snprintf(text, sizeof text, "%s %s: ", word, check_name);
    va_list arguments;
    va_start(arguments, format);
    length += vsnprintf(text + length, sizeof text - length - 1, format, arguments);
    va_end(arguments);
    if (length > (int)sizeof text - 2)
        length = sizeof text - 2;
    text[length++] = '\n';
    if (write(1, text, length) < 0)
        _exit(98);
    if (getpid() != check_child && check_child)
        kill(check_child, SIGKILL); // a failure in a process that the check has made
    _exit(99);
}

#define FAIL(...) check_end("FAIL", __VA_ARGS__)
#define SKIP(...) check_end("skip", __VA_ARGS__)

#define CHECK(CONDITION)                                                        \
    do {                                                                        \
        if (!(CONDITION))                                                       \
            FAIL("line %d: %s (errno %d)", __LINE__, #CONDITION, errno);        \
    } while (0)

#define CHECK_EQ(GOT, WANT)                                                     \
    do {                                                                        \
        long long got_ = (long long)(GOT), want_ = (long long)(WANT);           \
        if (got_ != want_)                                                      \
            FAIL("line %d: %s = %lld, want %lld (errno %d)", __LINE__, #GOT,    \
                 got_, want_, errno);                                           \
    } while (0)

// The call must succeed (anything but -1); its value is the macro's.
#define OK(CALL)                                                                \
    ({                                                                          \
        __typeof__(CALL) value_ = (CALL);                                       \
        if (value_ == (__typeof__(CALL))-1)                                     \
            FAIL("line %d: %s: %s", __LINE__, #CALL, strerror(errno));          \
        value_;                                                                 \
    })

// The call must fail with this errno.
#define ERR(CALL, WANT)                                                         \
    do {                                                                        \
        errno = 0;                                                              \
        long long got_ = (long long)(CALL);                                     \
        if (got_ != -1)                                                         \
            FAIL("line %d: %s = %lld, want %s", __LINE__, #CALL, got_, #WANT);  \
        if (errno != (WANT))                                                    \
            FAIL("line %d: %s: errno %d, want %s", __LINE__, #CALL, errno,      \
                 #WANT);                                                        \
    } while (0)

#define STR_EQ(GOT, WANT)                                                       \
    do {                                                                        \
        const char *got_ = (GOT), *want_ = (WANT);                              \
        if (strcmp(got_, want_))                                                \
            FAIL("line %d: %s = \"%s\", want \"%s\"", __LINE__, #GOT, got_, want_); \
    } while (0)

__attribute__((unused)) static void sleep_ms(long ms) {
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&t, &t) && errno == EINTR) {
    }
}

// PROGRAM --list names the checks; true if that was asked for.
static int check_list(int argc, char **argv) {
    if (argc < 2 || strcmp(argv[1], "--list"))
        return 0;
    for (struct check *c = check_first; c; c = c->next)
        puts(c->name);
    return 1;
}
#endif
