// tmpfs: holes, blocks in use and the limit of size, times of change by stores through a mapping.
#include "check.h"
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/vfs.h>

// A tmpfs of 16 pages at "d", which is also the current directory.
static void small_tmpfs(void) {
    OK(unshare(CLONE_NEWNS));
    OK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    OK(mkdir("d", 0755));
    OK(mount("none", "d", "tmpfs", 0, "size=64k"));
    OK(chdir("d"));
}

static long free_pages(void) {
    struct statfs s;
    OK(statfs(".", &s));
    CHECK_EQ(s.f_blocks, 16);
    CHECK_EQ(s.f_bfree, s.f_bavail);
    return s.f_bfree;
}

static long pages_of(int fd) {
    struct stat s;
    OK(fstat(fd, &s));
    return s.st_blocks / 8;
}

static struct timespec mtime(int fd) {
    struct stat s;
    OK(fstat(fd, &s));
    return s.st_mtim;
}

static int later(struct timespec a, struct timespec b) {
    return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec);
}

static const char page[4096] = "page";

TEST(holes_of_small_files) {
    small_tmpfs();
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    CHECK_EQ(pwrite(fd, "x", 1, 3 * 4096 + 5), 1);
    CHECK_EQ(pages_of(fd), 1);
    CHECK_EQ(lseek(fd, 0, SEEK_DATA), 3 * 4096);
    CHECK_EQ(lseek(fd, 0, SEEK_HOLE), 0);
    CHECK_EQ(lseek(fd, 3 * 4096, SEEK_HOLE), 3 * 4096 + 6);
    CHECK_EQ(pwrite(fd, "y", 1, 0), 1);
    CHECK_EQ(lseek(fd, 0, SEEK_HOLE), 4096);
    CHECK_EQ(pages_of(fd), 2);
    int g = OK(open("g", O_RDWR | O_CREAT, 0600));
    CHECK_EQ(write(g, "abc", 3), 3);
    OK(ftruncate(g, 3 * 4096));
    CHECK_EQ(pages_of(g), 1);
    CHECK_EQ(lseek(g, 0, SEEK_HOLE), 4096);
    ERR(lseek(g, 4096, SEEK_DATA), ENXIO);
    CHECK_EQ(lseek(g, 5000, SEEK_HOLE), 5000);
    CHECK_EQ(free_pages(), 13);
}

TEST(a_punched_hole_is_free) {
    small_tmpfs();
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    for (int i = 0; i < 4; i++)
        CHECK_EQ(write(fd, page, 4096), 4096);
    OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4000, 2 * 4096));
    CHECK_EQ(pages_of(fd), 3);
    CHECK_EQ(lseek(fd, 0, SEEK_HOLE), 4096);
    CHECK_EQ(lseek(fd, 4096, SEEK_DATA), 2 * 4096);
    CHECK_EQ(free_pages(), 13);
    OK(ftruncate(fd, 100));
    CHECK_EQ(free_pages(), 15);
    OK(unlink("f"));
    OK(close(fd));
    CHECK_EQ(free_pages(), 16);
}

TEST(reserved_pages_are_no_data) {
    small_tmpfs();
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    OK(fallocate(fd, 0, 0, 4 * 4096));
    CHECK_EQ(pages_of(fd), 4);
    CHECK_EQ(free_pages(), 12);
    ERR(lseek(fd, 0, SEEK_DATA), ENXIO);
    CHECK_EQ(pwrite(fd, "x", 1, 4096), 1);
    CHECK_EQ(lseek(fd, 0, SEEK_DATA), 4096);
    CHECK_EQ(free_pages(), 12);
    OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 4 * 4096, 4096));
    CHECK_EQ(free_pages(), 11);
    ERR(fallocate(fd, 0, 0, 17 * 4096), ENOSPC);
}

TEST(a_full_tmpfs_takes_what_fits) {
    small_tmpfs();
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    // From the end to the beginning, with every page once.
    for (int i = 15; i >= 0; i--)
        CHECK_EQ(pwrite(fd, page, 4096, i * 4096), 4096);
    CHECK_EQ(free_pages(), 0);
    ERR(pwrite(fd, page, 4096, 16 * 4096), ENOSPC);
    CHECK_EQ(pwrite(fd, page, 4096, 5 * 4096), 4096);
    OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 2 * 4096));
    char buf[4 * 4096] = "";
    CHECK_EQ(pwrite(fd, buf, sizeof buf, 15 * 4096 + 100), 4096 - 100 + 2 * 4096);
    CHECK_EQ(free_pages(), 0);
}

TEST(stores_through_a_mapping_count) {
    small_tmpfs();
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    OK(ftruncate(fd, 4 * 4096));
    char *m = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(m != MAP_FAILED);
    struct timespec before = mtime(fd);
    usleep(30000);
    m[4096] = 1;
    CHECK(later(mtime(fd), before));
    CHECK_EQ(pages_of(fd), 1);
    CHECK_EQ(free_pages(), 15);
    CHECK_EQ(lseek(fd, 0, SEEK_DATA), 4096);
    // What utimensat(2) sets stays until the next store to a page that was not there.
    struct timespec past[2] = {{1000, 5}, {1000, 5}};
    OK(futimens(fd, past));
    CHECK_EQ(mtime(fd).tv_sec, 1000);
    usleep(30000);
    m[2 * 4096] = 1;
    CHECK(mtime(fd).tv_sec > 1000);
    CHECK_EQ(pwrite(fd, "x", 1, 4096), 1);
    CHECK_EQ(pages_of(fd), 2);
    CHECK_EQ(free_pages(), 14);
}

TEST(a_size_in_percent_is_of_all_memory) {
    struct statfs fresh, again;
    OK(unshare(CLONE_NEWNS));
    OK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    OK(mkdir("d", 0755));
    OK(mount("none", "d", "tmpfs", 0, "size=1%"));
    OK(statfs("d", &fresh));
    OK(umount("d"));
    OK(mount("none", "d", "tmpfs", 0, "size=64k"));
    OK(mount(NULL, "d", NULL, MS_REMOUNT, "size=1%"));
    OK(statfs("d", &again));
    CHECK(fresh.f_blocks > 16);
    CHECK_EQ(again.f_blocks, fresh.f_blocks);
}

// It takes memory until there is no more, and what it has taken is given back.
TEST(who_reserves_much_can_be_killed) {
    int fd = OK(memfd_create("long", 0));
    struct stat st;
    OK((int)pwrite(fd, "x", 1, 0));
    pid_t pid = CHILD(OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 3ul << 30)));
    usleep(20000);
    OK(kill(pid, SIGKILL));
    KILLED(wait_for(pid), SIGKILL);
    OK(fstat(fd, &st));
    CHECK_EQ(st.st_size, 1);
    CHECK(st.st_blocks <= 8);
}

// The options of the mount of `source` in /proc/self/mounts.
static const char *shown(const char *source) {
    static char line[4096];
    FILE *file = fopen("/proc/self/mounts", "r");
    while (file && fgets(line, sizeof line, file)) {
        char *options = strstr(line, " tmpfs ");
        if (strncmp(line, source, strlen(source)) || line[strlen(source)] != ' ' || !options) continue;
        fclose(file);
        // A default of some kernels.
        char *inodes = strstr(options, ",inode64");
        if (inodes) memmove(inodes, inodes + 8, strlen(inodes + 8) + 1);
        return options + 7;
    }
    if (file) fclose(file);
    return "none";
}

TEST(options_that_are_not_the_default_are_shown) {
    OK(unshare(CLONE_NEWNS));
    OK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    OK(mkdir("d", 0755));
    OK(mount("source", "d", "tmpfs", 0, "size=64k,nr_inodes=20,mode=710,uid=5,gid=6"));
    CHECK_EQ(strcmp(shown("source"), "rw,relatime,size=64k,nr_inodes=20,mode=710,uid=5,gid=6 0 0\n"), 0);
    OK(mount(NULL, "d", NULL, MS_REMOUNT, "size=128k"));
    OK(chmod("d", 0700));
    CHECK_EQ(strcmp(shown("source"), "rw,relatime,size=128k,nr_inodes=20,mode=710,uid=5,gid=6 0 0\n"), 0);
    OK(umount("d"));
    OK(mount("plain", "d", "tmpfs", 0, NULL));
    CHECK_EQ(strcmp(shown("plain"), "rw,relatime 0 0\n"), 0);
}
