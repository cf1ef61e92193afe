// inotify: which events come in which order, how they are merged, options of watches, limits, reading.
#include "check.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/time.h>
#include <sys/xattr.h>

static int in;
static char events[32768], *next_event, *last_event;

static void begin(void) {
    in = OK(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    next_event = last_event = events;
}

static struct inotify_event *next(void) {
    if (next_event == last_event) {
        ssize_t n = read(in, events, sizeof events);
        if (n < 0) {
            CHECK_EQ(errno, EAGAIN);
            return NULL;
        }
        next_event = events;
        last_event = events + n;
    }
    struct inotify_event *e = (struct inotify_event *)next_event;
    next_event += sizeof *e + e->len;
    return e;
}

static const struct {
    uint32_t bit;
    char letter;
} letters[] = {{IN_ACCESS, 'a'},     {IN_MODIFY, 'm'},     {IN_ATTRIB, 't'},   {IN_CLOSE_WRITE, 'w'}, {IN_CLOSE_NOWRITE, 'n'},
               {IN_OPEN, 'o'},       {IN_MOVED_FROM, '<'}, {IN_MOVED_TO, '>'}, {IN_CREATE, '+'},      {IN_DELETE, '-'},
               {IN_DELETE_SELF, 'X'}, {IN_MOVE_SELF, 'S'},  {IN_UNMOUNT, 'U'},  {IN_Q_OVERFLOW, 'Q'},  {IN_IGNORED, 'I'},
               {IN_ISDIR, '/'}};

// All events as text: `2+/name` is IN_CREATE|IN_ISDIR of watch 2.
static const char *all(void) {
    static char text[4096];
    size_t n = 0;
    text[0] = 0;
    for (struct inotify_event *e; (e = next()) && n < 3500;) {
        n += sprintf(text + n, "%s%d", n ? " " : "", e->wd);
        uint32_t rest = e->mask;
        for (size_t i = 0; i < sizeof letters / sizeof *letters; i++)
            if (rest & letters[i].bit) {
                text[n++] = letters[i].letter;
                rest &= ~letters[i].bit;
            }
        text[n] = 0;
        if (rest)
            n += sprintf(text + n, "?%x", rest);
        if (e->len)
            n += sprintf(text + n, "%s", e->name);
    }
    return text;
}

static void make(const char *name) {
    close(OK(open(name, O_CREAT | O_WRONLY, 0644)));
}

static int add(const char *path, uint32_t mask) {
    return OK(inotify_add_watch(in, path, mask));
}

TEST(init_flags) {
    int fd = OK(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    CHECK_EQ(fcntl(fd, F_GETFL), O_NONBLOCK);
    ERR(inotify_init1(1), EINVAL);
    fd = OK(inotify_init());
    CHECK_EQ(fcntl(fd, F_GETFD), 0);
    ERR(write(fd, "x", 1), EBADF);
    CHECK_EQ(lseek(fd, 5, SEEK_SET), 0);
    char link[64] = {0};
    char path[64];
    sprintf(path, "/proc/self/fd/%d", fd);
    OK(readlink(path, link, sizeof link - 1));
    STR_EQ(link, "anon_inode:inotify");
}

TEST(refused_arguments) {
    begin();
    make("f");
    ERR(inotify_add_watch(in, ".", 0), EINVAL);
    ERR(inotify_add_watch(in, ".", 0x10000), EINVAL);
    ERR(inotify_add_watch(in, ".", IN_OPEN | IN_MASK_ADD | IN_MASK_CREATE), EINVAL);
    ERR(inotify_add_watch(999, ".", 0), EINVAL);
    ERR(inotify_add_watch(999, ".", IN_OPEN), EBADF);
    ERR(inotify_add_watch(1, ".", IN_OPEN), EINVAL);
    ERR(inotify_add_watch(in, "absent", IN_OPEN), ENOENT);
    ERR(inotify_add_watch(in, "", IN_OPEN), ENOENT);
    ERR(inotify_add_watch(in, BAD_ADDRESS, IN_OPEN), EFAULT);
    ERR(inotify_add_watch(in, "f", IN_OPEN | IN_ONLYDIR), ENOTDIR);
    ERR(inotify_rm_watch(in, 1), EINVAL);
    ERR(inotify_rm_watch(999, 1), EBADF);
    ERR(inotify_rm_watch(1, 1), EINVAL);
    CHECK_EQ(add(".", IN_OPEN | IN_ONLYDIR), 1);
}

TEST(unreadable_file_is_not_watched) {
    begin();
    make("f");
    OK(chmod("f", 0200));
    OK(chmod(".", 0755));
    if (geteuid() == 0)
        OK(setresuid(1234, 1234, 1234));
    ERR(inotify_add_watch(in, "f", IN_OPEN), EACCES);
}

TEST(life_of_a_file) {
    begin();
    add(".", IN_ALL_EVENTS);
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    CHECK_EQ(write(fd, "abc", 3), 3);
    CHECK_EQ(pread(fd, events, 2, 0), 2);
    CHECK_EQ(pread(fd, events, 2, 3), 0);
    CHECK_EQ(pread(fd, events, 0, 0), 0);
    close(fd);
    close(OK(open("f", O_RDONLY)));
    close(OK(open("f", O_PATH)));
    OK(chmod("f", 0600));
    OK(chown("f", getuid(), getgid()));
    OK(truncate("f", 1));
    OK(utimensat(AT_FDCWD, "f", NULL, 0));
    struct timespec only_m[2] = {{0, UTIME_OMIT}, {5, 0}}, only_a[2] = {{5, 0}, {0, UTIME_OMIT}};
    OK(utimensat(AT_FDCWD, "f", only_m, 0));
    OK(utimensat(AT_FDCWD, "f", only_a, 0));
    OK(rename("f", "g"));
    OK(unlink("g"));
    STR_EQ(all(), "1+f 1of 1mf 1af 1wf 1of 1nf 1tf 1mf 1tf 1mf 1af 1<f 1>g 1-g");
}

TEST(truncation_when_opened) {
    make("f");
    begin();
    add(".", IN_ALL_EVENTS);
    int fd = OK(open("f", O_WRONLY | O_TRUNC));
    OK(ftruncate(fd, 10));
    OK(posix_fallocate(fd, 0, 20));
    close(fd);
    STR_EQ(all(), "1of 1mf 1wf");
}

TEST(directories) {
    begin();
    add(".", IN_ALL_EVENTS);
    OK(mkdir("d", 0755));
    int d = add("d", IN_ALL_EVENTS);
    CHECK_EQ(d, 2);
    DIR *dir = opendir("d");
    CHECK(dir);
    while (readdir(dir))
        ;
    closedir(dir);
    OK(chmod("d", 0700));
    make("d/x");
    OK(rename("d", "e"));
    OK(unlink("e/x"));
    OK(rmdir("e"));
    STR_EQ(all(), "1+/d 1o/d 2o/ 1a/d 2a/ 1a/d 2a/ 1n/d 2n/ 1t/d 2t/ 2+x 2ox 2wx 1</d 1>/e 2S 2-x 2X 2I 1-/e");
}

TEST(other_kinds_of_files) {
    begin();
    make("f");
    int w = add(".", IN_ALL_EVENTS);
    int f = add("f", IN_ALL_EVENTS);
    CHECK_EQ(w, 1);
    CHECK_EQ(f, 2);
    OK(symlink("x", "s"));
    OK(mkfifo("p", 0644));
    OK(link("f", "l"));
    OK(unlink("l"));
    STR_EQ(all(), "1+s 1+p 2t 1+l 2t 1-l");
}

TEST(watching_a_file) {
    begin();
    make("f");
    CHECK_EQ(add("f", IN_ALL_EVENTS), 1);
    CHECK_EQ(add(".", IN_ALL_EVENTS), 2);
    int fd = OK(open("f", O_RDWR));
    CHECK_EQ(write(fd, "x", 1), 1);
    OK(rename("f", "g"));
    close(fd);
    OK(unlink("g"));
    STR_EQ(all(), "2of 1o 2mf 1m 2<f 2>g 1S 2wg 1w 1t 1X 1I 2-g");
}

TEST(end_of_an_open_file) {
    begin();
    make("f");
    CHECK_EQ(add("f", IN_ALL_EVENTS), 1);
    CHECK_EQ(add(".", IN_ALL_EVENTS), 2);
    int fd = OK(open("f", O_WRONLY));
    OK(unlink("f"));
    STR_EQ(all(), "2of 1o 1t 2-f");
    CHECK_EQ(write(fd, "x", 1), 1);
    close(fd);
    STR_EQ(all(), "2mf 1m 2wf 1w 1X 1I");
    ERR(inotify_rm_watch(in, 1), EINVAL);
}

TEST(a_name_less_is_no_end) {
    begin();
    make("f");
    OK(link("f", "g"));
    add("f", IN_ALL_EVENTS);
    OK(unlink("f"));
    STR_EQ(all(), "1t");
    OK(unlink("g"));
    STR_EQ(all(), "1t 1X 1I");
}

TEST(replaced_by_a_rename) {
    begin();
    make("a");
    make("b");
    OK(mkdir("d", 0755));
    add(".", IN_ALL_EVENTS);
    add("a", IN_ALL_EVENTS);
    add("b", IN_ALL_EVENTS);
    OK(rename("a", "b"));
    STR_EQ(all(), "1<a 1>b 3t 2S 3X 3I");
    add("d", IN_ALL_EVENTS);
    OK(rename("b", "d/c"));
    STR_EQ(all(), "1<b 4>c 2S");
}

TEST(exchange) {
    begin();
    make("a");
    OK(mkdir("b", 0755));
    add(".", IN_ALL_EVENTS);
    add("a", IN_ALL_EVENTS);
    add("b", IN_ALL_EVENTS);
    if (syscall(SYS_renameat2, AT_FDCWD, "a", AT_FDCWD, "b", 2) != 0)
        SKIP("no exchange here");
    STR_EQ(all(), "1<a 1>b 2S 1</b 1>/a 3S");
}

TEST(cookies_join_the_halves_of_a_rename) {
    begin();
    make("a");
    add(".", IN_MOVE);
    OK(rename("a", "b"));
    OK(rename("b", "c"));
    uint32_t cookies[4];
    for (int i = 0; i < 4; i++) {
        struct inotify_event *e = next();
        CHECK(e != NULL);
        cookies[i] = e->cookie;
    }
    CHECK(cookies[0] != 0 && cookies[0] == cookies[1] && cookies[2] == cookies[3] && cookies[0] != cookies[2]);
    make("x");
    add(".", IN_CREATE);
    make("y");
    CHECK_EQ(next()->cookie, 0);
}

TEST(equal_events_in_a_row_are_one) {
    begin();
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    add("f", IN_MODIFY | IN_ACCESS);
    for (int i = 0; i < 5; i++)
        CHECK_EQ(write(fd, "x", 1), 1);
    CHECK_EQ(pread(fd, events, 1, 0), 1);
    CHECK_EQ(write(fd, "x", 1), 1);
    STR_EQ(all(), "1m 1a 1m");
}

TEST(masks_are_replaced_or_joined) {
    begin();
    make("f");
    CHECK_EQ(add("f", IN_OPEN), 1);
    CHECK_EQ(add("f", IN_CLOSE), 1);
    close(OK(open("f", O_RDONLY)));
    STR_EQ(all(), "1n");
    CHECK_EQ(add("f", IN_OPEN | IN_MASK_ADD), 1);
    close(OK(open("f", O_RDONLY)));
    STR_EQ(all(), "1o 1n");
    ERR(inotify_add_watch(in, "f", IN_OPEN | IN_MASK_CREATE), EEXIST);
    OK(inotify_rm_watch(in, 1));
    STR_EQ(all(), "1I");
    CHECK_EQ(add("f", IN_OPEN | IN_MASK_CREATE), 2);
}

TEST(one_shot) {
    begin();
    make("f");
    add("f", IN_ALL_EVENTS | IN_ONESHOT);
    close(OK(open("f", O_RDONLY)));
    STR_EQ(all(), "1o 1I");
    ERR(inotify_rm_watch(in, 1), EINVAL);
}

TEST(links_are_followed_unless_told_otherwise) {
    begin();
    make("f");
    OK(symlink("f", "l"));
    CHECK_EQ(add("f", IN_ATTRIB), 1);
    CHECK_EQ(add("l", IN_ATTRIB), 1);
    CHECK_EQ(add("l", IN_ATTRIB | IN_DONT_FOLLOW), 2);
    OK(lchown("l", getuid(), getgid()));
    STR_EQ(all(), "2t");
}

TEST(unlinked_files_can_be_left_out) {
    for (int without = 0; without < 2; without++) {
        begin();
        int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
        add(".", IN_ALL_EVENTS | (without ? IN_EXCL_UNLINK : 0));
        OK(unlink("f"));
        CHECK_EQ(write(fd, "x", 1), 1);
        close(fd);
        STR_EQ(all(), without ? "1-f" : "1-f 1mf 1wf");
        close(in);
    }
}

TEST(changes_of_attributes_by_an_unlinked_file_are_never_left_out) {
    begin();
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    add(".", IN_ALL_EVENTS | IN_EXCL_UNLINK);
    add("f", IN_ALL_EVENTS | IN_EXCL_UNLINK);
    OK(unlink("f"));
    all();
    OK(ftruncate(fd, 12345));
    STR_EQ(all(), "1mf 2m");
    struct timeval times[2] = { { 1, 0 }, { 2, 0 } };
    OK(futimes(fd, times));
    OK(fchmod(fd, 0777));
    STR_EQ(all(), "1tf 2t 1tf 2t");
    OK(fallocate(fd, 0, 0, 20000));
    STR_EQ(all(), "");
    close(fd);
}

TEST(two_instances) {
    begin();
    int other = OK(inotify_init1(IN_NONBLOCK));
    add(".", IN_CREATE);
    OK(inotify_add_watch(other, ".", IN_CREATE));
    make("f");
    STR_EQ(all(), "1+f");
    in = other;
    STR_EQ(all(), "1+f");
}

TEST(extended_attributes) {
    begin();
    make("f");
    add(".", IN_ALL_EVENTS);
    if (setxattr("f", "user.a", "b", 1, 0) != 0)
        SKIP("no user attributes here");
    STR_EQ(all(), "1tf");
    OK(removexattr("f", "user.a"));
    STR_EQ(all(), "1tf");
    ERR(removexattr("f", "user.a"), ENODATA);
    STR_EQ(all(), "");
}

TEST(bytes_moved_by_the_kernel) {
    begin();
    int a = OK(open("a", O_CREAT | O_RDWR, 0644)), b = OK(open("b", O_CREAT | O_RDWR, 0644));
    CHECK_EQ(write(a, "abc", 3), 3);
    add("a", IN_ALL_EVENTS);
    add("b", IN_ALL_EVENTS);
    off_t at = 0;
    CHECK_EQ(sendfile(b, a, &at, 3), 3);
    STR_EQ(all(), "1a 2m");
}

TEST(buffer_too_small) {
    begin();
    add(".", IN_CREATE);
    make("f");
    make("a_name_of_more_than_sixteen_bytes");
    ERR(read(in, events, 31), EINVAL);
    int bytes;
    OK(ioctl(in, FIONREAD, &bytes));
    CHECK_EQ(bytes, 16 + 16 + 16 + 48);
    CHECK_EQ(read(in, events, 33), 32);
    ERR(syscall(SYS_read, in, BAD_ADDRESS, 4096), EFAULT);
}

TEST(waiting_for_events) {
    begin();
    OK(fcntl(in, F_SETFL, 0));
    add(".", IN_CREATE);
    struct pollfd p = {in, POLLIN | POLLOUT, 0};
    CHECK_EQ(poll(&p, 1, 0), 0);
    int ep = OK(epoll_create1(0));
    struct epoll_event e = {.events = EPOLLIN};
    OK(epoll_ctl(ep, EPOLL_CTL_ADD, in, &e));
    pid_t child = CHILD({
        usleep(50 * 1000);
        make("f");
    });
    CHECK_EQ(epoll_wait(ep, &e, 1, 5000), 1);
    CHECK_EQ(poll(&p, 1, 0), 1);
    CHECK_EQ(p.revents, POLLIN);
    CHECK_EQ(read(in, events, sizeof events), 32);
    int status;
    OK(waitpid(child, &status, 0));
    child = CHILD({
        usleep(50 * 1000);
        make("g");
    });
    CHECK_EQ(read(in, events, sizeof events), 32);
    OK(waitpid(child, &status, 0));
}

static long setting(const char *name) {
    char path[100], text[32] = {0};
    sprintf(path, "/proc/sys/fs/inotify/%s", name);
    int fd = OK(open(path, O_RDONLY));
    CHECK(read(fd, text, 31) > 0);
    close(fd);
    return atol(text);
}

TEST(overflow) {
    begin();
    long most = setting("max_queued_events");
    if (most > 100000)
        SKIP("the queue is too long");
    make("f");
    int fd = OK(open("f", O_RDWR));
    add("f", IN_MODIFY | IN_ATTRIB);
    for (long i = 0; i < most / 2 + 10; i++) {
        CHECK_EQ(pwrite(fd, "x", 1, 0), 1);
        OK(fchmod(fd, 0600));
    }
    long n = 0;
    struct inotify_event *e, last = {0};
    while ((e = next())) {
        n++;
        last = *e;
    }
    CHECK_EQ(n, most + 1);
    CHECK_EQ(last.wd, -1);
    CHECK_EQ(last.mask, IN_Q_OVERFLOW);
    CHECK_EQ(pwrite(fd, "x", 1, 0), 1);
    STR_EQ(all(), "1m");
}

TEST(instances_are_limited) {
    long most = setting("max_user_instances");
    if (most > 500)
        SKIP("the limit is too high");
    if (geteuid() == 0)
        OK(setresuid(4321, 4321, 4321));
    for (long i = 0; i < most; i++)
        OK(inotify_init1(0));
    ERR(inotify_init1(0), EMFILE);
}

TEST(fdinfo) {
    begin();
    make("f");
    add("f", IN_OPEN | IN_EXCL_UNLINK);
    char path[64], text[1024] = {0}, want[100];
    sprintf(path, "/proc/self/fdinfo/%d", in);
    int fd = OK(open(path, O_RDONLY));
    CHECK(read(fd, text, sizeof text - 1) > 0);
    struct stat s;
    OK(stat("f", &s));
    sprintf(want, "inotify wd:1 ino:%lx sdev:", (long)s.st_ino);
    if (!strstr(text, want) || !strstr(text, "mask:4000020 ignored_mask:0 "))
        FAIL("%s has not %s", text, want);
}

TEST(proc_can_be_watched) {
    begin();
    add("/proc/self/status", IN_ALL_EVENTS);
    int fd = OK(open("/proc/self/status", O_RDONLY));
    CHECK(read(fd, events, 10) > 0);
    close(fd);
    next_event = last_event = events;
    STR_EQ(all(), "1o 1a 1n");
}

TEST(unmounting) {
    if (geteuid() != 0 || unshare(CLONE_NEWNS) != 0)
        SKIP("may not mount");
    OK(mkdir("m", 0755));
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 || mount("t", "m", "tmpfs", 0, NULL) != 0)
        SKIP("may not mount");
    make("m/f");
    begin();
    add("m/f", IN_OPEN);
    OK(umount("m"));
    STR_EQ(all(), "1U 1I");
}

TEST(programs_that_are_executed) {
    begin();
    CHECK_EQ(add("/proc/self/exe", IN_OPEN | IN_CLOSE), 1);
    pid_t child = CHILD({
        dup2(open("/dev/null", O_WRONLY), 1);
        execl("/proc/self/exe", "x", "--list", NULL);
    });
    int status;
    OK(waitpid(child, &status, 0));
    const char *text = all();
    if (strncmp(text, "1o 1n", 5) != 0)
        FAIL("%s", text);
}
