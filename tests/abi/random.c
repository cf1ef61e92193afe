// Random sequences against a model in memory: the contents of a file by every way of changing them, and the names of a small tree.
// MOAT_SEED and MOAT_STEPS choose another sequence and a longer one.
#include "check.h"

#ifndef FALLOC_FL_KEEP_SIZE
#define FALLOC_FL_KEEP_SIZE 1
#define FALLOC_FL_PUNCH_HOLE 2
#define FALLOC_FL_ZERO_RANGE 16
#endif

static uint64_t state;

static unsigned pick(unsigned n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % n;
}

static long number(const char *name, long usual) {
    const char *text = getenv(name);
    return text ? atol(text) : usual;
}

static long begin(void) {
    state = number("MOAT_SEED", 1);
    return number("MOAT_STEPS", 2000);
}

#define MOST 300000
static unsigned char model[MOST], buffer[MOST];
static size_t model_size;

static void fill(unsigned char *at, size_t n) {
    for (size_t i = 0; i < n; i++)
        at[i] = pick(256);
}

static void model_write(size_t at, size_t n) {
    memcpy(model + at, buffer, n);
    if (at + n > model_size)
        model_size = at + n;
}

static void model_resize(size_t n) {
    if (n > model_size)
        memset(model + model_size, 0, n - model_size);
    else
        memset(model + n, 0, MOST - n);
    model_size = n;
}

static void compare(int fd, size_t at, size_t n) {
    size_t wanted = at >= model_size ? 0 : model_size - at < n ? model_size - at : n;
    CHECK_EQ(pread(fd, buffer, n, at), (ssize_t)wanted);
    CHECK(!memcmp(buffer, model + at, wanted));
}

// A range of the file by mmap, as far as the pages of the file go.
static void mapped(int fd, size_t at, size_t n, int store) {
    size_t page = at & ~4095ul;
    if (at >= model_size)
        return;
    if (n > model_size - at)
        n = model_size - at;
    unsigned char *p = mmap(NULL, at + n - page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, page);
    CHECK(p != MAP_FAILED);
    if (store) {
        fill(buffer, n);
        memcpy(p + (at - page), buffer, n);
        model_write(at, n);
    } else {
        CHECK(!memcmp(p + (at - page), model + at, n));
    }
    OK(munmap(p, at + n - page));
}

static int allocate(int fd, int mode, size_t at, size_t n) {
    if (!fallocate(fd, mode, at, n))
        return 1;
    CHECK_EQ(errno, EOPNOTSUPP);
    return 0;
}

TEST(contents_agree_with_a_model) {
    long steps = begin();
    int fd = OK(open("f", O_CREAT | O_RDWR, 0600)), end = OK(open("f", O_WRONLY | O_APPEND));
    int other = OK(open("o", O_CREAT | O_RDWR, 0600));
    model_resize(0);
    for (long i = 0; i < steps; i++) {
        size_t at = pick(MOST / 2), n = 1 + pick(pick(4) ? 5000 : MOST / 2 - 1);
        struct stat s;
        switch (pick(13)) {
        case 0:
        case 1: compare(fd, at, n); break;
        case 2:
        case 3:
            fill(buffer, n);
            CHECK_EQ(pwrite(fd, buffer, n, at), (ssize_t)n);
            model_write(at, n);
            break;
        case 4:
            if (n > MOST - model_size)
                break;
            fill(buffer, n);
            CHECK_EQ(write(end, buffer, n), (ssize_t)n);
            model_write(model_size, n);
            break;
        case 5:
            OK(ftruncate(fd, at));
            model_resize(at);
            break;
        case 6:
            OK(truncate("f", at));
            model_resize(at);
            break;
        case 7:
        case 8: mapped(fd, at, n, i & 1); break;
        case 9:
            if (allocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, n) && at < model_size)
                memset(model + at, 0, n < model_size - at ? n : model_size - at);
            break;
        case 10:
            if (allocate(fd, 0, at, n) && at + n > model_size)
                model_size = at + n;
            break;
        case 11: {
            // There and back through another file.
            off_t from = at, to = 0, back = at;
            size_t have = at >= model_size ? 0 : model_size - at < n ? model_size - at : n;
            OK(ftruncate(other, 0));
            for (size_t done = 0; done < have;)
                done += OK(copy_file_range(fd, &from, other, &to, have - done, 0));
            to = 0;
            for (size_t done = 0; done < have;)
                done += OK(copy_file_range(other, &to, fd, &back, have - done, 0));
            break;
        }
        default:
            close(fd);
            fd = OK(open("f", O_RDWR));
            OK(pick(2) ? fsync(fd) : 0);
        }
        OK(fstat(fd, &s));
        CHECK_EQ((size_t)s.st_size, model_size);
    }
    compare(fd, 0, MOST);
}

// A tree of DIRS directories with SLOTS names each, in which files are named by what they are: their inode's number.
#define DIRS 3
#define SLOTS 5
static ino_t names[DIRS][SLOTS];
static int keeper[DIRS][SLOTS];

static int links_of(ino_t ino) {
    int n = 0;
    for (int d = 0; d < DIRS; d++)
        for (int s = 0; s < SLOTS; s++)
            n += names[d][s] == ino;
    return n;
}

static char *path_of(char *to, int d, int s) {
    sprintf(to, "d%d/n%d", d, s);
    return to;
}

TEST(names_agree_with_a_model) {
    long steps = begin();
    char a[32], b[32];
    struct stat st;
    for (int d = 0; d < DIRS; d++) {
        sprintf(a, "d%d", d);
        OK(mkdir(a, 0755));
    }
    for (long i = 0; i < steps; i++) {
        int d = pick(DIRS), s = pick(SLOTS), e = pick(DIRS), t = pick(SLOTS);
        ino_t *from = &names[d][s], *to = &names[e][t];
        path_of(a, d, s);
        path_of(b, e, t);
        switch (pick(7)) {
        case 0: {
            int fd = open(a, O_CREAT | O_EXCL | O_RDWR, 0600);
            CHECK_EQ(fd >= 0, *from == 0);
            if (fd >= 0) {
                OK(fstat(fd, &st));
                *from = st.st_ino;
                if (keeper[d][s])
                    close(keeper[d][s]);
                keeper[d][s] = fd;
            }
            break;
        }
        case 1:
            if (*from && !*to) {
                OK(link(a, b));
                *to = *from;
            } else {
                ERR(link(a, b), *from ? EEXIST : ENOENT);
            }
            break;
        case 2:
            if (*from)
                OK(unlink(a));
            else
                ERR(unlink(a), ENOENT);
            *from = 0;
            break;
        case 3:
            if (*from) {
                ino_t moved = *from;
                OK(rename(a, b));
                // Two names of one file: nothing happens.
                if (*to != moved) {
                    *from = 0;
                    *to = moved;
                }
            } else {
                ERR(rename(a, b), ENOENT);
            }
            break;
        case 4:
            if (*from && *to) {
                ino_t moved = *from;
                OK(syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 2));
                *from = *to;
                *to = moved;
            } else {
                ERR(syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 2), ENOENT);
            }
            break;
        case 5:
            // Through a descriptor that was opened by a name of long ago.
            if (keeper[d][s] > 0) {
                OK(fstat(keeper[d][s], &st));
                int mode = pick(0777) | 0600, links = links_of(st.st_ino);
                OK(fchmod(keeper[d][s], mode));
                OK(fstat(keeper[d][s], &st));
                CHECK_EQ((int)(st.st_mode & 07777), mode);
                CHECK_EQ((int)st.st_nlink, links);
            }
            break;
        default:
            if (*from) {
                OK(lstat(a, &st));
                CHECK(st.st_ino == *from && (int)st.st_nlink == links_of(*from));
                close(OK(open(a, O_RDONLY)));
            } else {
                ERR(lstat(a, &st), ENOENT);
            }
        }
    }
    for (int d = 0; d < DIRS; d++) {
        sprintf(a, "d%d", d);
        int found = 0, wanted = 0;
        DIR *dir = opendir(a);
        CHECK(dir != NULL);
        for (struct dirent *entry; (entry = readdir(dir));)
            if (entry->d_name[0] == 'n') {
                CHECK(names[d][entry->d_name[1] - '0'] == entry->d_ino);
                found++;
            }
        for (int s = 0; s < SLOTS; s++)
            wanted += names[d][s] != 0;
        CHECK_EQ(found, wanted);
    }
}
