// inotify: watches, and events that nobody has read.
#include "check.h"
#include <poll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>

static char events[4096];

// Reads one event; gives its mask.
static struct inotify_event *next(int fd) {
    static ssize_t at, len;
    if (at >= len) {
        at = 0;
        len = read(fd, events, sizeof events);
        if (len <= 0)
            FAIL("no event (errno %d)", errno);
    }
    struct inotify_event *e = (void *)(events + at);
    at += sizeof *e + e->len;
    return e;
}

static void touch(const char *path) {
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    CHECK(fd >= 0 && !close(fd));
}

TEST(watches_and_events) {
    CHECK(!mkdir("/dev/shm/checkpoint-watch", 0700));
    touch("/dev/shm/checkpoint-watch/old");
    int fd = inotify_init1(IN_NONBLOCK), waiting;
    int gone = inotify_add_watch(fd, "/dev/shm", IN_ISDIR);
    int dir = inotify_add_watch(fd, "/dev/shm/checkpoint-watch", IN_CREATE | IN_DELETE | IN_MOVE);
    int file = inotify_add_watch(fd, "/dev/shm/checkpoint-watch/old", IN_ATTRIB | IN_DELETE_SELF);
    CHECK(fd >= 0 && gone == 1 && dir == 2 && file == 3 && !inotify_rm_watch(fd, gone));
    touch("/dev/shm/checkpoint-watch/new");
    CHECK(!rename("/dev/shm/checkpoint-watch/new", "/dev/shm/checkpoint-watch/moved") && !ioctl(fd, FIONREAD, &waiting));
    RESTORED();
    int after;
    CHECK(!ioctl(fd, FIONREAD, &after) && after == waiting);
    struct inotify_event *e = next(fd);
    CHECK(e->wd == gone && e->mask == IN_IGNORED);
    e = next(fd);
    CHECK(e->wd == dir && e->mask == IN_CREATE && !strcmp(e->name, "new"));
    e = next(fd);
    uint32_t cookie = e->cookie;
    CHECK(e->mask == IN_MOVED_FROM && cookie && !strcmp(e->name, "new"));
    e = next(fd);
    CHECK(e->mask == IN_MOVED_TO && e->cookie == cookie && !strcmp(e->name, "moved"));
    CHECK(read(fd, events, sizeof events) < 0 && errno == EAGAIN);
    // And it goes on.
    CHECK(!chmod("/dev/shm/checkpoint-watch/old", 0640));
    e = next(fd);
    CHECK(e->wd == file && e->mask == IN_ATTRIB);
    CHECK(!rename("/dev/shm/checkpoint-watch/moved", "/dev/shm/checkpoint-watch/again"));
    e = next(fd);
    CHECK(e->wd == dir && e->mask == IN_MOVED_FROM && e->cookie != cookie);
    CHECK_EQ(next(fd)->mask, IN_MOVED_TO);
    CHECK(!unlink("/dev/shm/checkpoint-watch/old"));
    e = next(fd);
    CHECK(e->wd == file && e->mask == IN_ATTRIB);
    CHECK_EQ(next(fd)->mask, IN_DELETE_SELF);
    CHECK_EQ(next(fd)->mask, IN_IGNORED);
    e = next(fd);
    CHECK(e->wd == dir && e->mask == IN_DELETE && !strcmp(e->name, "old"));
    CHECK_EQ(inotify_add_watch(fd, "/dev/shm", IN_DELETE), 4);
    CHECK(!unlink("/dev/shm/checkpoint-watch/again") && !rmdir("/dev/shm/checkpoint-watch"));
}

TEST(a_reader_that_waits) {
    CHECK(!mkdir("/dev/shm/checkpoint-reader", 0700));
    int fd = inotify_init1(0), status;
    CHECK_EQ(inotify_add_watch(fd, "/dev/shm/checkpoint-reader", IN_CREATE | IN_ONESHOT), 1);
    pid_t child = fork();
    if (!child) {
        struct inotify_event *e = next(fd);
        CHECK(e->mask == IN_CREATE && !strcmp(e->name, "file"));
        CHECK_EQ(next(fd)->mask, IN_IGNORED);
        _exit(0);
    }
    usleep(20000);
    RESTORED();
    touch("/dev/shm/checkpoint-reader/file");
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(!unlink("/dev/shm/checkpoint-reader/file") && !rmdir("/dev/shm/checkpoint-reader"));
}
