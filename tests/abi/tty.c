// Terminals: pseudo-terminal pairs, the line discipline, signals from keys, job control, window sizes.
#include "check.h"
#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>

static int master, slave;
static char slave_name[64];

static void make_pty(void) {
    master = OK(open("/dev/ptmx", O_RDWR | O_NOCTTY));
    int unlocked = 0, number;
    OK(ioctl(master, TIOCSPTLCK, &unlocked));
    OK(ioctl(master, TIOCGPTN, &number));
    sprintf(slave_name, "/dev/pts/%d", number);
    slave = OK(open(slave_name, O_RDWR | O_NOCTTY));
}

static void set_flags(tcflag_t clear_local, tcflag_t set_local) {
    struct termios t;
    OK(tcgetattr(slave, &t));
    t.c_lflag = (t.c_lflag & ~clear_local) | set_local;
    OK(tcsetattr(slave, TCSANOW, &t));
}

static void type(const char *text) {
    CHECK_EQ(write(master, text, strlen(text)), (ssize_t)strlen(text));
}

// Reads what there is within a moment.
static char *read_some(int fd) {
    static char text[5000];
    struct pollfd f = {fd, POLLIN, 0};
    size_t length = 0;
    while (poll(&f, 1, length ? 20 : 500) == 1 && length < sizeof text - 1) {
        ssize_t n = read(fd, text + length, sizeof text - 1 - length);
        if (n <= 0)
            break;
        length += n;
    }
    text[length] = 0;
    return text;
}

TEST(both_ends_are_terminals) {
    make_pty();
    CHECK(isatty(master) && isatty(slave));
    struct stat s;
    OK(fstat(slave, &s));
    CHECK(S_ISCHR(s.st_mode));
    CHECK_EQ(s.st_rdev >> 8 & 0xfff, 136);
    char path[40], target[64] = {0};
    sprintf(path, "/proc/self/fd/%d", slave);
    OK(readlink(path, target, sizeof target - 1));
    STR_EQ(target, slave_name);
}

TEST(default_settings) {
    make_pty();
    struct termios t;
    OK(tcgetattr(slave, &t));
    CHECK_EQ(t.c_iflag, ICRNL | IXON);
    CHECK_EQ(t.c_oflag, OPOST | ONLCR);
    CHECK_EQ(t.c_lflag, ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN);
    CHECK_EQ(t.c_cflag & CSIZE, CS8);
    CHECK_EQ(t.c_cc[VINTR], 3);
    CHECK_EQ(t.c_cc[VEOF], 4);
    CHECK_EQ(t.c_cc[VERASE], 127);
    CHECK_EQ(t.c_cc[VSUSP], 26);
    CHECK_EQ(t.c_cc[VMIN], 1);
    CHECK_EQ(cfgetospeed(&t), B38400);
}

TEST(input_is_echoed_and_read_by_line) {
    make_pty();
    type("hel");
    struct pollfd f = {slave, POLLIN, 0};
    CHECK_EQ(poll(&f, 1, 10), 0); // no line yet
    STR_EQ(read_some(master), "hel");
    type("lo\r");
    STR_EQ(read_some(master), "lo\r\n");
    char text[20] = {0};
    CHECK_EQ(read(slave, text, 20), 6);
    STR_EQ(text, "hello\n");
}

TEST(one_read_gives_one_line) {
    make_pty();
    type("one\ntwo\n");
    char text[20] = {0};
    CHECK_EQ(read(slave, text, 2), 2);
    CHECK_EQ(read(slave, text, 20), 2);
    STR_EQ(text, "e\n");
    CHECK_EQ(read(slave, text, 20), 4);
}

TEST(output_turns_newlines) {
    make_pty();
    CHECK_EQ(write(slave, "a\nb", 3), 3);
    STR_EQ(read_some(master), "a\r\nb");
    struct termios t;
    OK(tcgetattr(slave, &t));
    t.c_oflag &= ~OPOST;
    OK(tcsetattr(slave, TCSANOW, &t));
    CHECK_EQ(write(slave, "a\nb", 3), 3);
    STR_EQ(read_some(master), "a\nb");
}

TEST(erase_and_kill) {
    make_pty();
    type("helx\177lo\n");
    char text[20] = {0};
    CHECK_EQ(read(slave, text, 20), 6);
    STR_EQ(text, "hello\n");
    STR_EQ(read_some(master), "helx\b \blo\r\n");
    type("wrong\025right\n");
    CHECK_EQ(read(slave, text, 20), 6);
    CHECK(!memcmp(text, "right\n", 6));
    read_some(master);
    type("one two\027three\n"); // word erase
    memset(text, 0, sizeof text);
    CHECK_EQ(read(slave, text, 20), 10);
    STR_EQ(text, "one three\n");
}

TEST(end_of_file_key) {
    make_pty();
    type("abc\004");
    char text[20] = {0};
    CHECK_EQ(read(slave, text, 20), 3);
    type("\004");
    CHECK_EQ(read(slave, text, 20), 0);
}

TEST(literal_next) {
    make_pty();
    type("a\026\003b\n");
    char text[20] = {0};
    CHECK_EQ(read(slave, text, 20), 4);
    STR_EQ(text, "a\003b\n");
    STR_EQ(read_some(master), "a^\b^Cb\r\n");
}

TEST(raw_mode) {
    make_pty();
    struct termios t;
    OK(tcgetattr(slave, &t));
    cfmakeraw(&t);
    OK(tcsetattr(slave, TCSANOW, &t));
    type("a\003\r");
    char text[20] = {0};
    CHECK_EQ(read(slave, text, 20), 3);
    STR_EQ(text, "a\003\r");
    struct pollfd f = {master, POLLIN, 0};
    CHECK_EQ(poll(&f, 1, 10), 0); // no echo
}

TEST(min_and_time) {
    make_pty();
    struct termios t;
    OK(tcgetattr(slave, &t));
    cfmakeraw(&t);
    t.c_cc[VMIN] = 0;
    t.c_cc[VTIME] = 0;
    OK(tcsetattr(slave, TCSANOW, &t));
    char text[20];
    CHECK_EQ(read(slave, text, 20), 0);
    t.c_cc[VTIME] = 1;
    OK(tcsetattr(slave, TCSANOW, &t));
    long long start = now_ms();
    CHECK_EQ(read(slave, text, 20), 0);
    CHECK(now_ms() - start >= 90);
    t.c_cc[VMIN] = 3;
    t.c_cc[VTIME] = 0;
    OK(tcsetattr(slave, TCSANOW, &t));
    pid_t pid = CHILD(type("ab"); usleep(20000); type("c"));
    CHECK_EQ(read(slave, text, 20), 3);
    wait_for(pid);
}

TEST(no_echo_but_newline) {
    make_pty();
    set_flags(ECHO, ECHONL);
    type("secret\n");
    char text[20];
    CHECK_EQ(read(slave, text, 20), 7);
    STR_EQ(read_some(master), "\r\n");
}

TEST(switching_to_raw_keeps_typed_input) {
    make_pty();
    type("abc");
    set_flags(ICANON, 0);
    char text[20];
    CHECK_EQ(read(slave, text, 20), 3);
}

TEST(flush_drops_input) {
    make_pty();
    type("gone\n");
    OK(tcflush(slave, TCIFLUSH));
    type("kept\n");
    char text[20] = {0};
    CHECK_EQ(read(slave, text, 20), 5);
    STR_EQ(text, "kept\n");
}

TEST(nonblocking_read) {
    make_pty();
    OK(fcntl(slave, F_SETFL, O_RDWR | O_NONBLOCK));
    OK(fcntl(master, F_SETFL, O_RDWR | O_NONBLOCK));
    char c;
    ERR(read(slave, &c, 1), EAGAIN);
    ERR(read(master, &c, 1), EAGAIN);
}

TEST(closing_the_master_hangs_up) {
    make_pty();
    close(master);
    char c;
    CHECK_EQ(read(slave, &c, 1), 0);
    ERR(write(slave, "x", 1), EIO);
    struct pollfd f = {slave, POLLIN, 0};
    CHECK_EQ(poll(&f, 1, 0), 1);
    CHECK(f.revents & POLLHUP);
    ERR(open(slave_name, O_RDWR | O_NOCTTY), ENOENT);
}

TEST(closing_the_slave_is_eio_for_the_master) {
    make_pty();
    CHECK_EQ(write(slave, "last", 4), 4);
    close(slave);
    char text[10];
    CHECK_EQ(read(master, text, 10), 4);
    ERR(read(master, text, 10), EIO);
    struct pollfd f = {master, POLLIN, 0};
    CHECK_EQ(poll(&f, 1, 0), 1);
    CHECK(f.revents & POLLHUP);
    slave = OK(open(slave_name, O_RDWR | O_NOCTTY)); // and back
    CHECK_EQ(write(slave, "x", 1), 1);
    CHECK_EQ(read(master, text, 10), 1);
}

TEST(locked_slave_cannot_be_opened) {
    master = OK(open("/dev/ptmx", O_RDWR | O_NOCTTY));
    int number;
    OK(ioctl(master, TIOCGPTN, &number));
    sprintf(slave_name, "/dev/pts/%d", number);
    ERR(open(slave_name, O_RDWR | O_NOCTTY), EIO);
}

TEST(window_size) {
    make_pty();
    struct winsize w = {24, 80, 0, 0}, got;
    OK(ioctl(master, TIOCSWINSZ, &w));
    OK(ioctl(slave, TIOCGWINSZ, &got));
    CHECK_EQ(got.ws_col, 80);
    OK(tcgetattr(master, &(struct termios){0}));
}

TEST(packet_of_input_count) {
    make_pty();
    type("four\n");
    int n;
    EVENTUALLY(ioctl(slave, FIONREAD, &n) == 0 && n == 5);
    OK(ioctl(master, TIOCOUTQ, &n));
}

// Runs the statements as the leader of a session whose terminal is the slave.
#define SESSION(...)                                                            \
    CHILD(CHECK(setsid() > 0); close(OK(open(slave_name, O_RDWR))); __VA_ARGS__)

TEST(first_open_makes_the_controlling_terminal) {
    make_pty();
    EXITED(wait_for(SESSION({
               pid_t session = 0;
               OK(ioctl(slave, TIOCGSID, &session));
               CHECK_EQ(session, getpid());
               CHECK_EQ(tcgetpgrp(slave), getpid());
               int tty = OK(open("/dev/tty", O_RDWR));
               CHECK_EQ(write(tty, "via tty", 7), 7);
           })),
           0);
    CHECK(!strncmp(read_some(master), "via tty", 7));
}

TEST(no_controlling_terminal) {
    make_pty();
    EXITED(wait_for(CHILD({
               CHECK(setsid() > 0);
               ERR(open("/dev/tty", O_RDWR), ENXIO);
               ERR(tcgetpgrp(slave), ENOTTY);
               OK(ioctl(slave, TIOCSCTTY, 0));
               OK(open("/dev/tty", O_RDWR));
               signal(SIGHUP, SIG_IGN); // giving it up hangs up the foreground group
               OK(ioctl(slave, TIOCNOTTY));
           })),
           0);
}

static volatile sig_atomic_t got;

static void note(int signal) {
    got = signal;
}

TEST(interrupt_key) {
    make_pty();
    int p[2];
    OK(pipe(p));
    pid_t pid = SESSION({
        CHECK_EQ(write(p[1], "r", 1), 1);
        for (;;)
            pause();
    });
    char c;
    CHECK_EQ(read(p[0], &c, 1), 1);
    type("\003");
    KILLED(wait_for(pid), SIGINT);
    STR_EQ(read_some(master), "^C");
}

TEST(quit_key_and_isig_off) {
    make_pty();
    int p[2];
    OK(pipe(p));
    pid_t pid = SESSION({
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        set_flags(ISIG, 0);
        CHECK_EQ(write(p[1], "r", 1), 1);
        char text[10];
        CHECK_EQ(read(slave, text, 10), 2);
        CHECK_EQ(text[0], 3);
        set_flags(0, ISIG);
        CHECK_EQ(write(p[1], "r", 1), 1);
        for (;;)
            pause();
    });
    char c;
    CHECK_EQ(read(p[0], &c, 1), 1);
    type("\003\n");
    CHECK_EQ(read(p[0], &c, 1), 1);
    type("\034");
    KILLED(wait_for(pid), SIGQUIT);
}

TEST(suspend_key_stops_the_foreground_group) {
    make_pty();
    int p[2];
    OK(pipe(p));
    pid_t pid = SESSION({
        signal(SIGTTOU, SIG_IGN);
        pid_t job = CHILD({
            setpgid(0, 0);
            signal(SIGTTOU, SIG_IGN);
            OK(tcsetpgrp(slave, getpid()));
            CHECK_EQ(write(p[1], "r", 1), 1);
            for (;;)
                pause();
        });
        int status;
        CHECK_EQ(waitpid(job, &status, WUNTRACED), job);
        CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTSTP);
        OK(tcsetpgrp(slave, getpid()));
        OK(kill(-job, SIGKILL));
        wait_for(job);
    });
    char c;
    CHECK_EQ(read(p[0], &c, 1), 1);
    type("\032");
    EXITED(wait_for(pid), 0);
}

TEST(background_read_stops) {
    make_pty();
    EXITED(wait_for(SESSION({
               pid_t job = CHILD(setpgid(0, 0); char c; read(slave, &c, 1));
               setpgid(job, job);
               int status;
               CHECK_EQ(waitpid(job, &status, WUNTRACED), job);
               CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTTIN);
               OK(kill(job, SIGKILL));
               wait_for(job);
           })),
           0);
}

TEST(background_read_with_ttin_ignored_is_eio) {
    make_pty();
    EXITED(wait_for(SESSION({
               pid_t job = CHILD(signal(SIGTTIN, SIG_IGN); setpgid(0, 0); char c; ERR(read(slave, &c, 1), EIO));
               EXITED(wait_for(job), 0);
           })),
           0);
}

TEST(background_write_stops_only_with_tostop) {
    make_pty();
    EXITED(wait_for(SESSION({
               pid_t job = CHILD(setpgid(0, 0); CHECK_EQ(write(slave, "x", 1), 1));
               EXITED(wait_for(job), 0);
               set_flags(0, TOSTOP);
               job = CHILD(setpgid(0, 0); write(slave, "x", 1));
               int status;
               CHECK_EQ(waitpid(job, &status, WUNTRACED), job);
               CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTTOU);
               OK(kill(job, SIGKILL));
               wait_for(job);
           })),
           0);
}

TEST(background_tcsetattr_stops) {
    make_pty();
    EXITED(wait_for(SESSION({
               pid_t job = CHILD(setpgid(0, 0); struct termios t; OK(tcgetattr(slave, &t)); tcsetattr(slave, TCSANOW, &t));
               int status;
               CHECK_EQ(waitpid(job, &status, WUNTRACED), job);
               CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTTOU);
               OK(kill(job, SIGKILL));
               wait_for(job);
           })),
           0);
}

TEST(resize_tells_the_foreground) {
    make_pty();
    int p[2];
    OK(pipe(p));
    pid_t pid = SESSION({
        signal(SIGWINCH, note);
        CHECK_EQ(write(p[1], "r", 1), 1);
        while (!got)
            usleep(1000);
        CHECK_EQ(got, SIGWINCH);
    });
    char c;
    CHECK_EQ(read(p[0], &c, 1), 1);
    struct winsize w = {30, 100, 0, 0};
    OK(ioctl(master, TIOCSWINSZ, &w));
    EXITED(wait_for(pid), 0);
}

TEST(hang_up_of_the_session) {
    make_pty();
    int p[2];
    OK(pipe(p));
    pid_t pid = SESSION({
        close(master);
        CHECK_EQ(write(p[1], "r", 1), 1);
        for (;;)
            pause();
    });
    char c;
    CHECK_EQ(read(p[0], &c, 1), 1);
    close(master);
    KILLED(wait_for(pid), SIGHUP);
}

TEST(leader_exit_hangs_up_the_foreground) {
    make_pty();
    int p[2];
    OK(pipe(p));
    pid_t pid = SESSION({
        CHILD({
            close(p[0]);
            for (;;)
                pause();
        });
    });
    EXITED(wait_for(pid), 0);
    close(p[1]);
    char c;
    CHECK_EQ(read(p[0], &c, 1), 0); // SIGHUP has ended the child
}

TEST(tcsetpgrp_errors) {
    make_pty();
    EXITED(wait_for(SESSION(ERR(tcsetpgrp(slave, 1 << 21), ESRCH); ERR(tcsetpgrp(slave, -1), EINVAL))), 0);
    ERR(tcsetpgrp(slave, getpgrp()), ENOTTY);
}

TEST(flow_control) {
    make_pty();
    type("\023"); // ^S
    OK(fcntl(slave, F_SETFL, O_RDWR | O_NONBLOCK));
    struct pollfd writable = {slave, POLLOUT, 0};
    EVENTUALLY(poll(&writable, 1, 0) == 0);
    ERR(write(slave, "held", 4), EAGAIN);
    type("\021"); // ^Q
    EVENTUALLY(write(slave, "free", 4) == 4);
    STR_EQ(read_some(master), "free");
}

TEST(large_output) {
    make_pty();
    pid_t pid = CHILD({
        close(master);
        char line[100];
        memset(line, 'x', 99);
        line[99] = '\n';
        for (int i = 0; i < 500; i++)
            CHECK_EQ(write(slave, line, 100), 100);
    });
    close(slave);
    size_t total = 0;
    char text[4096];
    ssize_t n;
    while ((n = read(master, text, sizeof text)) > 0)
        total += n;
    CHECK_EQ(total, 500 * 101);
    EXITED(wait_for(pid), 0);
}
