// Pseudo-terminals: what is between their ends, settings, controlling terminals and job control.
#define _XOPEN_SOURCE 600
#define _DEFAULT_SOURCE
#include "check.h"
#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>

static char b[4096];

// A pty; gives its master, and its slave by `slave`.
static int pty(int *slave) {
    int master = open("/dev/ptmx", O_RDWR | O_NOCTTY), number, unlock = 0;
    char name[40];
    CHECK(master >= 0 && !ioctl(master, TIOCSPTLCK, &unlock) && !ioctl(master, TIOCGPTN, &number));
    snprintf(name, sizeof name, "/dev/pts/%d", number);
    *slave = open(name, O_RDWR | O_NOCTTY);
    CHECK(*slave >= 0);
    return master;
}

// Reads until `text` has come, behind what was expected before: one read may bring several.
static void expect(int fd, const char *text) {
    static size_t len, from;
    struct pollfd p = {fd, POLLIN, 0};
    char *found;
    while (!(found = strstr(b + from, text))) {
        if (poll(&p, 1, 5000) != 1)
            FAIL("no %s, but %s", text, b + from);
        ssize_t n = read(fd, b + len, sizeof b - 1 - len);
        if (n <= 0)
            FAIL("no %s, but %s and %zd (errno %d)", text, b + from, n, errno);
        len += n;
    }
    from = found - b + strlen(text);
}

static void put(int fd, const char *text) {
    CHECK_EQ(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

TEST(a_line_that_is_being_typed) {
    int slave, master = pty(&slave), status, waiting;
    put(slave, "out\n");
    put(master, "done\nhal");
    pid_t child = fork();
    if (!child) {
        CHECK(read(slave, b, 100) == 5 && !memcmp(b, "done\n", 5));
        READY();
        CHECK(read(slave, b, 100) == 5 && !memcmp(b, "hall\n", 5));
        _exit(0);
    }
    AWAIT();
    CHECK(!ioctl(master, FIONREAD, &waiting) && waiting == 14);
    // Erased and typed again.
    put(master, "x\177l\n");
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    expect(master, "out\r\ndone\r\nhalx\b \bl\r\n");
}

TEST(settings) {
    int slave, master = pty(&slave), packet = 1, number;
    static struct termios t, now;
    struct winsize size = {24, 80, 1, 2}, seen;
    CHECK(!tcgetattr(slave, &t));
    cfmakeraw(&t);
    t.c_cc[VMIN] = 3;
    CHECK(!tcsetattr(slave, TCSANOW, &t) && !tcgetattr(slave, &t) && !ioctl(master, TIOCSWINSZ, &size) && !ioctl(master, TIOCPKT, &packet) && !fchmod(slave, 0620));
    put(master, "\004\003");
    put(slave, "raw\n");
    RESTORED();
    CHECK(!tcgetattr(slave, &now) && !memcmp(&t, &now, sizeof t));
    CHECK(!ioctl(slave, TIOCGWINSZ, &seen) && !memcmp(&size, &seen, sizeof size));
    struct pollfd p = {slave, POLLIN, 0};
    CHECK_EQ(poll(&p, 1, 0), 0);
    put(master, "c");
    CHECK(poll(&p, 1, 0) == 1 && read(slave, b, 100) == 3 && !memcmp(b, "\004\003c", 3));
    CHECK(read(master, b, 100) == 5 && !memcmp(b, "\0raw\n", 5));
    char name[40];
    struct stat s;
    CHECK(!ioctl(master, TIOCGPTN, &number));
    snprintf(name, sizeof name, "/dev/pts/%d", number);
    CHECK(!stat(name, &s) && (s.st_mode & 0777) == 0620 && s.st_rdev == (dev_t)(136 << 8 | number));
    // The numbers of both are taken.
    int other, second = pty(&other), another;
    CHECK(!ioctl(second, TIOCGPTN, &another) && another != number);
}

TEST(a_master_that_is_closed) {
    int slave, master = pty(&slave), number, other, next;
    signal(SIGHUP, SIG_IGN);
    CHECK(!ioctl(master, TIOCGPTN, &number) && !close(master));
    RESTORED();
    CHECK(read(slave, b, 10) == 0 && write(slave, "x", 1) < 0 && errno == EIO);
    struct pollfd p = {slave, POLLIN, 0};
    CHECK(poll(&p, 1, 0) == 1 && p.revents & POLLHUP);
    // The number is free when the slave is closed, too.
    master = pty(&other);
    CHECK(!ioctl(master, TIOCGPTN, &next) && next != number && !close(slave));
}

TEST(a_slave_that_is_closed) {
    int slave, master = pty(&slave), number;
    put(slave, "last");
    CHECK(!ioctl(master, TIOCGPTN, &number) && !close(slave));
    RESTORED();
    CHECK(read(master, b, 10) == 4 && read(master, b, 10) < 0 && errno == EIO);
    char name[40];
    snprintf(name, sizeof name, "/dev/pts/%d", number);
    slave = open(name, O_RDWR | O_NOCTTY);
    CHECK(slave >= 0);
    put(slave, "more");
    CHECK_EQ(read(master, b, 10), 4);
}

TEST(stopped_output) {
    int slave, master = pty(&slave), status;
    put(master, "\023");
    // What is typed arrives a moment later: then the slave takes no more.
    struct pollfd writable = {slave, POLLOUT, 0};
    while (poll(&writable, 1, 0))
        usleep(1000);
    pid_t child = fork();
    if (!child) {
        put(slave, "held");
        _exit(0);
    }
    usleep(20000);
    RESTORED();
    struct pollfd p = {master, POLLIN, 0};
    CHECK(poll(&p, 1, 50) == 0 && waitpid(child, &status, WNOHANG) == 0);
    put(master, "\021");
    expect(master, "held");
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static volatile sig_atomic_t interrupted;

static void note(int signal) {
    interrupted = signal;
}

TEST(job_control) {
    int slave, master = pty(&slave), status;
    pid_t leader = fork();
    if (!leader) {
        CHECK(setsid() == getpid() && !ioctl(slave, TIOCSCTTY, 0));
        signal(SIGINT, SIG_IGN);
        signal(SIGTTOU, SIG_IGN);
        close(master);
        pid_t front = fork();
        if (!front) {
            CHECK(!setpgid(0, 0) && !tcsetpgrp(slave, getpid()));
            signal(SIGINT, note);
            signal(SIGWINCH, note);
            READY();
            while (interrupted != SIGWINCH)
                pause();
            put(slave, "front: size\n");
            while (interrupted != SIGINT)
                pause();
            put(slave, "front: interrupted\n");
            _exit(7);
        }
        CHECK(waitpid(front, &status, 0) == front && WIFEXITED(status) && WEXITSTATUS(status) == 7);
        CHECK(tcgetsid(slave) == getpid() && !tcsetpgrp(slave, getpgrp()));
        int tty = open("/dev/tty", O_RDWR);
        CHECK(tty >= 0);
        // A process in the background that reads is stopped.
        pid_t back = fork();
        if (!back) {
            signal(SIGTTIN, SIG_DFL);
            setpgid(0, 0);
            _exit(read(tty, b, 1) != 1);
        }
        CHECK(waitpid(back, &status, WUNTRACED) == back && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTTIN);
        CHECK(!kill(back, SIGKILL) && waitpid(back, &status, 0) == back);
        put(tty, "leader: done\n");
        CHECK_EQ(read(tty, b, 10), 3);
        _exit(0);
    }
    close(slave);
    AWAIT();
    struct winsize size = {30, 90, 0, 0};
    CHECK(!ioctl(master, TIOCSWINSZ, &size));
    expect(master, "front: size");
    put(master, "\003");
    expect(master, "front: interrupted");
    expect(master, "leader: done");
    put(master, "ok\n");
    CHECK(waitpid(leader, &status, 0) == leader && status == 0);
}

// The end of the terminal is the end of its session.
TEST(a_hang_up) {
    int slave, master = pty(&slave), status;
    pid_t leader = fork();
    if (!leader) {
        CHECK(setsid() == getpid() && !ioctl(slave, TIOCSCTTY, 0) && !close(master));
        signal(SIGHUP, SIG_DFL);
        READY();
        for (;;)
            pause();
    }
    close(slave);
    AWAIT();
    close(master);
    CHECK(waitpid(leader, &status, 0) == leader && WIFSIGNALED(status) && WTERMSIG(status) == SIGHUP);
}
