// The frame of every program in this directory: TEST(name) { ... } defines a check, CHECK*(...) fail it.
//
// Each check runs in a child of its own, in a process group and a directory of its own, for at most
// CHECK_SECONDS. The program prints one line per check: `ok NAME`, `FAIL NAME: why`, `skip NAME: why`.
//
//   PROGRAM [NAME...]        run these checks, or all
//   PROGRAM --list           name them
//   PROGRAM --inline NAME    run one without a child of its own, for a debugger
#ifndef CHECK_H
#define CHECK_H

#include "../frame.h"

__attribute__((unused)) static long long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

// Runs the statements in a child, which then exits with 0.
#define CHILD(...)                                                              \
    ({                                                                          \
        fflush(NULL);                                                           \
        pid_t pid_ = OK(fork());                                                \
        if (!pid_) {                                                            \
            __VA_ARGS__;                                                        \
            _exit(0);                                                           \
        }                                                                       \
        pid_;                                                                   \
    })

// The wait status of a child, which must be one's own.
__attribute__((unused)) static int wait_for(pid_t pid) {
    int status = -1;
    pid_t got;
    do
        got = waitpid(pid, &status, 0);
    while (got == -1 && errno == EINTR);
    if (got != pid)
        FAIL("waitpid(%d) = %d, errno %d", pid, got, errno);
    return status;
}

#define EXITED(STATUS, CODE)                                                    \
    do {                                                                        \
        int status_ = (STATUS);                                                 \
        if (!WIFEXITED(status_) || WEXITSTATUS(status_) != (CODE))              \
            FAIL("line %d: wait status %#x, want exit %d", __LINE__, status_, (CODE)); \
    } while (0)

#define KILLED(STATUS, SIGNAL)                                                  \
    do {                                                                        \
        int status_ = (STATUS);                                                 \
        if (!WIFSIGNALED(status_) || WTERMSIG(status_) != (SIGNAL))             \
            FAIL("line %d: wait status %#x, want signal %d", __LINE__, status_, (SIGNAL)); \
    } while (0)

// Waits until a condition holds, for at most 5,000 looks a millisecond apart: on a loaded machine they take longer, too.
#define EVENTUALLY(CONDITION)                                                   \
    do {                                                                        \
        int looks_ = 5000;                                                      \
        while (!(CONDITION)) {                                                  \
            if (!looks_--)                                                      \
                FAIL("line %d: never: %s", __LINE__, #CONDITION);               \
            sleep_ms(1);                                                        \
        }                                                                       \
    } while (0)

// The scheduler state letter of a process or thread, '?' if it is gone.
__attribute__((unused)) static char state_of(pid_t pid) {
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return '?';
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    if (length <= 0)
        return '?';
    text[length] = 0;
    char *end = strrchr(text, ')');
    return end && end[1] ? end[2] : '?';
}

// A whole small file as a string in static storage.
__attribute__((unused)) static char *slurp(const char *path) {
    static char text[65536];
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        FAIL("open %s: %s", path, strerror(errno));
    size_t length = 0;
    ssize_t got;
    while ((got = read(fd, text + length, sizeof text - 1 - length)) > 0)
        length += got;
    if (got < 0)
        FAIL("read %s: %s", path, strerror(errno));
    close(fd);
    text[length] = 0;
    return text;
}

__attribute__((unused)) static void write_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        FAIL("write %s: %s", path, strerror(errno));
    close(fd);
}

// Writes to a file that may refuse it: 0, or -1 with its errno.
__attribute__((unused)) static int put_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY);
    if (fd < 0)
        return -1;
    ssize_t n = write(fd, text, strlen(text));
    int error = errno;
    close(fd);
    errno = error;
    return n < 0 ? -1 : 0;
}

// Drops to an ordinary user, for good.
__attribute__((unused)) static void become_nobody(void) {
    if (syscall(SYS_setgroups, 0, NULL) || setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
        FAIL("become_nobody: %s", strerror(errno));
}

#define BAD_ADDRESS ((void *)0x10)

static char check_directory[64];

static int check_remove_tree(int at, const char *name) {
    if (!unlinkat(at, name, 0))
        return 0;
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (fd < 0)
        return -1;
    DIR *directory = fdopendir(fd);
    struct dirent *entry;
    while (directory && (entry = readdir(directory)))
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            check_remove_tree(fd, entry->d_name);
    if (directory)
        closedir(directory);
    return unlinkat(at, name, AT_REMOVEDIR);
}

static void check_run(struct check *c) {
    check_name = c->name;
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        printf("FAIL %s: fork: %s\n", c->name, strerror(errno));
        return;
    }
    if (!pid) {
        check_child = getpid();
        setpgid(0, 0);
        mkdir(check_directory, 0755);
        if (chdir(check_directory))
            FAIL("chdir %s: %s", check_directory, strerror(errno));
        c->run();
        // Without the exit handlers: what stdio holds was copied from the parent.
        _exit(0);
    }
    setpgid(pid, pid);
    int status = 0, timed_out = 0;
    // Counted in what is slept here, and not by the clock, which goes on while a loaded machine has no CPU for either.
    long long patience = CHECK_SECONDS * 1000000000LL;
    long pause = 100000;
    pid_t got;
    while ((got = waitpid(pid, &status, WNOHANG)) == 0) {
        struct timespec t = {0, pause};
        nanosleep(&t, NULL);
        if (pause < 4000000)
            pause *= 2;
        patience -= pause;
        if (patience < 0 && !timed_out) {
            timed_out = 1;
            kill(-pid, SIGKILL);
            kill(pid, SIGKILL);
        }
    }
    kill(-pid, SIGKILL);
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
    if (got != pid)
        printf("FAIL %s: waitpid: %s\n", c->name, strerror(errno));
    else if (timed_out)
        printf("FAIL %s: no end after %d s\n", c->name, CHECK_SECONDS);
    else if (WIFSIGNALED(status))
        printf("FAIL %s: killed by signal %d\n", c->name, WTERMSIG(status));
    else if (WEXITSTATUS(status) == 0)
        printf("ok %s\n", c->name);
    else if (WEXITSTATUS(status) != 99)
        printf("FAIL %s: exit status %d\n", c->name, WEXITSTATUS(status));
    fflush(stdout);
    check_remove_tree(AT_FDCWD, check_directory);
}

// A program may take over its own re-execution (exec tests) before the checks run.
__attribute__((weak)) int helper(int argc, char **argv);

int main(int argc, char **argv) {
    if (!argv[0] || !*argv[0]) // only the check of an empty argv starts it like this
        return argc == 1 ? 55 : 56;
    if (argc > 1 && !strcmp(argv[1], "--helper") && helper)
        return helper(argc - 2, argv + 2);
    if (check_list(argc, argv))
        return 0;
    signal(SIGPIPE, SIG_DFL);
    const char *base = getenv("TEST_DIR");
    snprintf(check_directory, sizeof check_directory, "%s/check-%d", base ? base : "/tmp", getpid());
    if (argc > 2 && !strcmp(argv[1], "--inline")) {
        for (struct check *c = check_first; c; c = c->next)
            if (!strcmp(c->name, argv[2])) {
                check_name = c->name;
                mkdir(check_directory, 0755);
                if (chdir(check_directory))
                    return 1;
                c->run();
                printf("ok %s\n", c->name);
                check_remove_tree(AT_FDCWD, check_directory);
            }
        return 0;
    }
    for (int i = 1; i < argc; i++)
        for (struct check *c = check_first; c; c = c->next)
            if (!strcmp(c->name, argv[i]))
                check_run(c);
    if (argc == 1)
        for (struct check *c = check_first; c; c = c->next)
            check_run(c);
    return 0;
}

#endif
