// Files in memory: of a tmpfs, of the changes to the root, and without a name.
#include "check.h"
#include <sys/stat.h>
#include <sys/xattr.h>

static void fill(int fd, const char *text) {
    CHECK(fd >= 0);
    CHECK_EQ(write(fd, text, strlen(text)), strlen(text));
}

static void holds(const char *path, const char *text) {
    char b[100] = "";
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0);
    CHECK_EQ(read(fd, b, sizeof b - 1), strlen(text));
    CHECK(!strcmp(b, text));
    close(fd);
}

// A tree with every kind of file in `top`.
static void a_tree_in(const char *top) {
    struct stat before, after, other;
    char target[20];
    CHECK(!mkdir(top, 0750) && !chdir(top));
    fill(open("a", O_CREAT | O_WRONLY, 0640), "alpha");
    CHECK(!link("a", "b") && !symlink("a", "c") && !mkdir("d", 0700) && !mkfifo("d/f", 0600));
    fill(open("d/gone", O_CREAT | O_WRONLY, 0600), "x");
    CHECK(!unlink("d/gone"));
    int big = open("d/big", O_CREAT | O_RDWR, 0600);
    CHECK_EQ(pwrite(big, "end", 3, 5 << 20), 3);
    int writer = open("d/writer", O_CREAT | O_RDWR | O_APPEND, 0600);
    fill(writer, "one ");
    struct timespec times[2] = {{1000, 1}, {2000, 2}};
    CHECK(!utimensat(AT_FDCWD, "a", times, 0) && !stat("a", &before));
    RESTORED();
    holds("a", "alpha");
    CHECK(!stat("a", &after) && !stat("b", &other));
    CHECK(after.st_mode == before.st_mode && after.st_nlink == 2 && other.st_ino == after.st_ino);
    CHECK(after.st_ino == before.st_ino && after.st_mtim.tv_sec == 2000 && after.st_mtim.tv_nsec == 2);
    CHECK_EQ(after.st_blocks, before.st_blocks);
    CHECK(readlink("c", target, sizeof target) == 1 && target[0] == 'a');
    CHECK(!lstat("d/f", &after) && S_ISFIFO(after.st_mode));
    CHECK(stat("d/gone", &after) < 0 && errno == ENOENT);
    CHECK(!fstat(big, &after) && after.st_size == (5 << 20) + 3 && after.st_blocks < 100);
    char b[4] = "";
    CHECK(pread(big, b, 3, 5 << 20) == 3 && !strcmp(b, "end"));
    CHECK_EQ(pread(big, b, 1, 4096), 1);
    CHECK_EQ(b[0], 0);
    fill(writer, "two");
    holds("d/writer", "one two");
    CHECK(!stat("d", &after) && after.st_nlink == 2);
    fill(open("d/new", O_CREAT | O_WRONLY, 0600), "new");
    CHECK(!unlink("d/new") && !unlink("d/f") && !unlink("d/big") && !unlink("d/writer") && !rmdir("d"));
    CHECK(!unlink("a") && !unlink("b") && !unlink("c") && !chdir("/") && !rmdir(top));
}

TEST(a_tmpfs) {
    a_tree_in("/dev/shm/checkpoint-tree");
}

TEST(changes_of_the_root) {
    a_tree_in("/tmp/checkpoint-tree");
}

TEST(a_file_whose_name_is_gone) {
    char b[20] = "";
    int fd = open("/dev/shm/checkpoint-gone", O_CREAT | O_RDWR, 0600), root = open("/tmp/checkpoint-gone", O_CREAT | O_RDWR, 0600);
    fill(fd, "still here");
    fill(root, "here too");
    CHECK(!unlink("/dev/shm/checkpoint-gone") && !unlink("/tmp/checkpoint-gone"));
    char *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(map != MAP_FAILED);
    RESTORED();
    struct stat st;
    CHECK(!fstat(fd, &st) && st.st_nlink == 0 && st.st_size == 10);
    CHECK(pread(fd, b, 20, 0) == 10 && !memcmp(b, "still here", 10));
    CHECK(pread(root, b, 20, 0) == 8 && !memcmp(b, "here too", 8));
    memcpy(map, "STILL", 5);
    CHECK(pread(fd, b, 20, 0) == 10 && !memcmp(b, "STILL here", 10));
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 10);
}

TEST(a_mapping_that_is_shared) {
    int fd = open("/dev/shm/checkpoint-map", O_CREAT | O_RDWR, 0600);
    CHECK(fd >= 0 && !ftruncate(fd, 1 << 20));
    char *map = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(map != MAP_FAILED);
    strcpy(map + 70000, "stored");
    RESTORED();
    char b[7] = "";
    CHECK(!strcmp(map + 70000, "stored"));
    CHECK(pread(fd, b, 6, 70000) == 6 && !strcmp(b, "stored"));
    CHECK_EQ(pwrite(fd, "S", 1, 70000), 1);
    CHECK_EQ(map[70000], 'S');
    CHECK(!unlink("/dev/shm/checkpoint-map"));
}

TEST(a_memfd_with_its_seals) {
    int fd = memfd_create("sealed", MFD_ALLOW_SEALING);
    fill(fd, "0123456789");
    char *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(map != MAP_FAILED);
    CHECK(!fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW));
    int private = memfd_create("private", 0);
    fill(private, "abc");
    RESTORED();
    CHECK_EQ(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW);
    CHECK(ftruncate(fd, 5) < 0 && errno == EPERM);
    CHECK_EQ(pwrite(fd, "x", 1, 0), 1);
    CHECK(!memcmp(map, "x123456789", 10));
    CHECK_EQ(fcntl(private, F_GET_SEALS), F_SEAL_SEAL);
    char link[100] = "", path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    CHECK(readlink(path, link, sizeof link - 1) > 0 && !strcmp(link, "/memfd:sealed (deleted)"));
}
