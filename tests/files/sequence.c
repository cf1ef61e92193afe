// Random, seeded sequences of file system calls, each with its result: the same program natively and in the sandbox must print the same.
//
//   sequence --guest DIRECTORY FIRST COUNT STEPS ACTORS [ONLY]   runs COUNT sequences there
//   sequence --host DIRECTORY                                    the partner on the host, which sees the same tree there
//
// With a partner the guest's output is the host's input and the other way round. A line that starts with `@` is a request,
// which the host answers with one line; all others it copies to its standard error, where they are the result.
// Steps depend on seed and number alone, so that a sequence can be shortened to the steps in ONLY (numbers separated by commas).
// ACTORS says who makes calls: r for root, u for an ordinary user in a process of its own, h for the host; after these, d has
// the host describe the tree at the end.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define SLOTS 5
#define COUNT_OF(ARRAY) (unsigned)(sizeof(ARRAY) / sizeof *(ARRAY))
#define OLD 1000000 // times below this were set, those above are of today

enum { GUEST, USER, HOST };

static uint64_t state;
static int slot[SLOTS];
static char line[8192];
static size_t length;
static int who, has_host, has_partner, is_overlay;

static unsigned pick(unsigned n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % n;
}

static int chance(unsigned n) { return pick(n) == 0; }

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(line + length, sizeof line - length - 2, format, arguments);
    va_end(arguments);
    // A name that is too long says no more in full.
    char *run = strstr(line, "nnnnnnnn");
    if (run && strspn(run, "n") > 200) {
        memmove(run + 8, run + strspn(run, "n"), strlen(run + strspn(run, "n")) + 1);
        n = strlen(line) - length;
    }
    length += n;
    if (length > sizeof line - 3)
        length = sizeof line - 3;
}

// The end of a line about a call: its value, or its errno.
static long result(long value) {
    if (value == -1)
        say(" = %s", strerrorname_np(errno));
    else
        say(" = %ld", value);
    return value;
}

static int done(long value) { return result(value == -1 ? -1 : 0) == 0; }

static uint64_t digest(const unsigned char *bytes, size_t n) {
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ bytes[i]) * 1099511628211u;
    return h;
}

static const char *const NAMES[] = {"a", "b", "c", "d", "e"};

// A path of one to three components out of few, so that what a step makes is what another finds.
static char *path(void) {
    static char space[4][600];
    static int turn;
    char *to = space[turn++ % 4];
    *to = 0;
    unsigned depth = chance(3) ? 1 + pick(3) : 1 + pick(2);
    for (unsigned i = 0; i < depth; i++) {
        if (i)
            strcat(to, chance(30) ? "//" : "/");
        if (chance(40))
            strcat(to, chance(2) ? "./" : "../");
        strcat(to, NAMES[pick(COUNT_OF(NAMES))]);
    }
    if (chance(25))
        strcat(to, "/");
    if (chance(150))
        strcpy(to, chance(3) ? "" : chance(2) ? "." : "a/..");
    if (chance(200))
        memset(to, 'n', 256), to[256] = 0;
    // Above the directory of the sequence lies what differs between the places.
    if (strstr(to, "../") == to)
        memmove(to, to + 3, strlen(to + 3) + 1);
    return to;
}

static int a_slot(void) {
    unsigned n = pick(SLOTS);
    for (unsigned i = 0; i < SLOTS; i++)
        if (slot[(n + i) % SLOTS] >= 0 && !chance(12))
            return (n + i) % SLOTS;
    return n;
}

// Where a relative path starts.
static int a_start(void) {
    if (!chance(5))
        return AT_FDCWD;
    int s = a_slot();
    say(" at %d", s);
    return slot[s];
}

struct flag {
    unsigned value;
    const char *name;
};

static unsigned flags(const struct flag *table, unsigned n, unsigned rarity) {
    unsigned all = 0;
    for (unsigned i = 0; i < n; i++)
        if (chance(rarity)) {
            all |= table[i].value;
            say("|%s", table[i].name);
        }
    return all;
}

static off_t an_offset(void) {
    static const unsigned units[] = {1, 512, 4096};
    unsigned unit = units[pick(3)];
    return (off_t)pick(5 * 4096 / unit) * unit;
}

// Aligned, as O_DIRECT wants it.
static unsigned char bytes[32768] __attribute__((aligned(4096)));

static size_t some_bytes(void) {
    size_t n = chance(4) ? pick(20000) : pick(300);
    for (size_t i = 0; i < n; i++)
        bytes[i] = pick(255) + 1;
    // What is written beyond them is not what an earlier read has left there: one with O_DIRECT leaves more than it says.
    memset(bytes + n, 0, -n % 4096);
    return n;
}

// Whole blocks where the descriptor is O_DIRECT: whether it takes others depends on the extents that a disk has given the file.
static off_t for_direct(int fd, off_t n) {
    int how = fcntl(fd, F_GETFL);
    return how >= 0 && how & O_DIRECT ? (n + 4095) & ~4095l : n;
}

static void say_read(ssize_t n) {
    if (result(n) > 0)
        say(" #%lx", (unsigned long)digest(bytes, n));
}

static const char *age(long seconds) {
    static char text[4][24];
    static int turn;
    char *to = text[turn++ % 4];
    if (seconds < OLD)
        sprintf(to, "%ld", seconds);
    else
        strcpy(to, "now");
    return to;
}

static void say_stat(const struct stat *st) {
    say(" %o owner %d:%d", st->st_mode, (int)st->st_uid, (int)st->st_gid);
    // An overlay's directories count no links, and what it counts of lower ones depends on what it has cached.
    if (!is_overlay || !S_ISDIR(st->st_mode))
        say(" links %d", (int)st->st_nlink);
    if (!S_ISDIR(st->st_mode))
        say(" size %ld", (long)st->st_size);
    say(" m %s", age(st->st_mtime));
}

static const struct flag OPEN_FLAGS[] = {
    {O_CREAT, "CREAT"}, {O_CREAT, "CREAT"}, {O_CREAT | O_EXCL, "EXCL"}, {O_TRUNC, "TRUNC"},
    {O_APPEND, "APPEND"}, {O_DIRECTORY, "DIRECTORY"}, {O_NOFOLLOW, "NOFOLLOW"}, {O_PATH, "PATH"},
    {O_SYNC, "SYNC"}, {O_DSYNC, "DSYNC"}, {O_NOATIME, "NOATIME"}, {O_NONBLOCK, "NONBLOCK"},
    {O_DIRECT, "DIRECT"},
};
static const char *const ACCESS[] = {"RDONLY", "WRONLY", "RDWR"};

// Files in the sandbox's memory take any O_DIRECT, those of an overlay on a disk natively do not.
static int is_on_disk(void) { return has_partner || who == HOST; }

static void op_open(void) {
    int n = pick(SLOTS);
    if (slot[n] >= 0 && pick(3))
        for (n = 0; n < SLOTS - 1 && slot[n] >= 0; n++) {
        }
    say("open %d", n);
    int at = a_start();
    char *p = path();
    unsigned access = pick(4) % 3;
    say(" %s %s", p, ACCESS[access]);
    unsigned how = access | flags(OPEN_FLAGS, COUNT_OF(OPEN_FLAGS) - !is_on_disk(), 7);
    if (chance(8) && access != O_RDONLY) {
        how = (how & ~(O_CREAT | O_EXCL)) | O_TMPFILE;
        say("|TMPFILE");
    }
    unsigned mode = chance(3) ? pick(010000) : 0644 | (chance(2) ? 0022 : 0);
    say(" %o", mode);
    // Whoever opens a FIFO waits for its other end.
    struct stat st;
    if (!fstatat(at, p, &st, 0) && S_ISFIFO(st.st_mode))
        how |= O_NONBLOCK;
    int fd = openat(at, p, how, mode);
    if (done(fd)) {
        if (slot[n] >= 0)
            close(slot[n]);
        slot[n] = fd;
    }
}

static void op_close(void) {
    int n = a_slot();
    say("close %d", n);
    if (done(close(slot[n])))
        slot[n] = -1;
}

static void op_read(void) {
    int n = a_slot();
    size_t want = for_direct(slot[n], pick(20000));
    struct stat st;
    // A directory's position is its file system's own, and may be too far for a read.
    int dir = !fstat(slot[n], &st) && S_ISDIR(st.st_mode);
    if (chance(2) && !dir) {
        say("read %d %zu", n, want);
        say_read(read(slot[n], bytes, want));
    } else {
        off_t at = for_direct(slot[n], an_offset());
        say("pread %d %zu at %ld", n, want, (long)at);
        say_read(pread(slot[n], bytes, want, at));
    }
}

static void op_write(void) {
    int n = a_slot();
    size_t has = for_direct(slot[n], some_bytes());
    if (chance(2)) {
        say("write %d %zu", n, has);
        result(write(slot[n], bytes, has));
    } else {
        off_t at = for_direct(slot[n], an_offset());
        say("pwrite %d %zu at %ld", n, has, (long)at);
        result(pwrite(slot[n], bytes, has, at));
    }
}

static void op_seek(void) {
    static const struct flag how[] = {{SEEK_SET, "SET"}, {SEEK_CUR, "CUR"}, {SEEK_END, "END"}, {SEEK_DATA, "DATA"}, {SEEK_HOLE, "HOLE"}};
    // Small files in the sandbox's memory have no holes, which lseek(2) allows.
    int n = a_slot(), w = pick(is_on_disk() ? 5 : 3);
    off_t to = chance(8) ? -1 - (off_t)pick(100) : an_offset();
    struct stat st;
    // A directory's positions are its file system's own.
    if (!fstat(slot[n], &st) && S_ISDIR(st.st_mode))
        w = 0, to = 0;
    say("lseek %d %ld %s", n, (long)to, how[w].name);
    result(lseek(slot[n], to, how[w].value));
}

static void op_truncate(void) {
    off_t to = chance(15) ? -1 : an_offset();
    if (chance(2)) {
        int n = a_slot();
        say("ftruncate %d %ld", n, (long)to);
        done(ftruncate(slot[n], to));
    } else {
        char *p = path();
        say("truncate %s %ld", p, (long)to);
        done(truncate(p, to));
    }
}

static void op_fallocate(void) {
    static const struct flag modes[] = {{0, "0"}, {1, "KEEP_SIZE"}, {3, "PUNCH_HOLE"}, {8, "COLLAPSE_RANGE"}, {16, "ZERO_RANGE"},
                                        {17, "ZERO_RANGE|KEEP_SIZE"}, {32, "INSERT_RANGE"}, {2, "bare PUNCH_HOLE"}};
    // Linux's overlay takes set-id bits before it refuses a mode.
    int n = a_slot(), m = pick(is_overlay ? 3 : COUNT_OF(modes));
    off_t at = an_offset(), size = an_offset();
    say("fallocate %d %s %ld+%ld", n, modes[m].name, (long)at, (long)size);
    done(fallocate(slot[n], modes[m].value, at, size));
}

static void op_rename(void) {
    static const struct flag how[] = {{0, ""}, {0, ""}, {0, ""}, {1, "NOREPLACE"}, {2, "EXCHANGE"}, {3, "NOREPLACE|EXCHANGE"}};
    char *from = path(), *to = path();
    int w = pick(COUNT_OF(how));
    say("rename %s %s %s", from, to, how[w].name);
    done(syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, how[w].value));
}

static void op_link(void) {
    char *from = path(), *to = path(), self[64];
    int n = a_slot();
    switch (pick(4)) {
    case 0:
        say("link by /proc %d %s", n, to);
        sprintf(self, "/proc/self/fd/%d", slot[n]);
        done(linkat(AT_FDCWD, self, AT_FDCWD, to, AT_SYMLINK_FOLLOW));
        break;
    case 1:
        say("link %d %s EMPTY_PATH", n, to);
        done(linkat(slot[n], "", AT_FDCWD, to, AT_EMPTY_PATH));
        break;
    case 2:
        say("link %s %s FOLLOW", from, to);
        done(linkat(AT_FDCWD, from, AT_FDCWD, to, AT_SYMLINK_FOLLOW));
        break;
    default:
        say("link %s %s", from, to);
        done(link(from, to));
    }
}

static void op_unlink(void) {
    char *p = path();
    int dir = chance(3);
    say("%s", dir ? "rmdir" : "unlink");
    int at = a_start();
    say(" %s", p);
    done(unlinkat(at, p, dir ? AT_REMOVEDIR : 0));
}

static void op_mkdir(void) {
    say("mkdir");
    int at = a_start();
    char *p = path();
    unsigned mode = chance(3) ? pick(010000) | 0700 : 0777;
    say(" %s %o", p, mode);
    done(mkdirat(at, p, mode));
}

static void op_symlink(void) {
    char *target = path(), *p = path();
    say("symlink %s %s", target, p);
    done(symlink(target, p));
}

static void op_readlink(void) {
    char *p = path(), text[700];
    say("readlink %s", p);
    ssize_t n = readlink(p, text, sizeof text - 1);
    if (result(n) >= 0)
        say(" %.*s", (int)n, text);
}

static void op_mknod(void) {
    static const struct flag kinds[] = {{S_IFIFO, "fifo"}, {S_IFSOCK, "socket"}, {S_IFREG, "file"}, {0, "none"}};
    char *p = path();
    int k = pick(COUNT_OF(kinds)), mode = pick(01000) | 0600;
    say("mknod %s %s %o", p, kinds[k].name, mode);
    done(mknod(p, kinds[k].value | mode, 0));
}

static void op_chmod(void) {
    unsigned mode = chance(2) ? pick(010000) | 0400 : 0777;
    if (chance(2)) {
        int n = a_slot();
        say("fchmod %d %o", n, mode);
        done(fchmod(slot[n], mode));
    } else {
        char *p = path();
        say("chmod %s %o", p, mode);
        done(chmod(p, mode));
    }
}

static void op_chown(void) {
    static const int ids[] = {-1, 0, 1000, 1001, 2000};
    int uid = ids[pick(4)], gid = ids[pick(5)];
    if (chance(2)) {
        int n = a_slot();
        say("fchown %d %d:%d", n, uid, gid);
        done(fchown(slot[n], uid, gid));
    } else {
        char *p = path();
        int flag = chance(2) ? AT_SYMLINK_NOFOLLOW : 0;
        say("chown %s %d:%d%s", p, uid, gid, flag ? " NOFOLLOW" : "");
        done(fchownat(AT_FDCWD, p, uid, gid, flag));
    }
}

static void op_times(void) {
    struct timespec t[2] = {{pick(OLD), 0}, {pick(OLD), 0}};
    for (int i = 0; i < 2; i++)
        if (chance(6))
            t[i].tv_nsec = chance(2) ? UTIME_OMIT : UTIME_NOW;
    int omit[2] = {t[0].tv_nsec == UTIME_OMIT, t[1].tv_nsec == UTIME_OMIT};
    int now[2] = {t[0].tv_nsec == UTIME_NOW, t[1].tv_nsec == UTIME_NOW};
    say("utimens %ld%s%s %ld%s%s", (long)t[0].tv_sec, omit[0] ? " omit" : "", now[0] ? " now" : "", (long)t[1].tv_sec,
        omit[1] ? " omit" : "", now[1] ? " now" : "");
    if (chance(2)) {
        int n = a_slot();
        say(" %d", n);
        done(futimens(slot[n], t));
    } else {
        char *p = path();
        say(" %s", p);
        done(utimensat(AT_FDCWD, p, t, 0));
    }
}

static void op_stat(void) {
    struct stat st;
    memset(&st, 0, sizeof st);
    char *p = path();
    int n = a_slot();
    switch (pick(3)) {
    case 0:
        say("fstat %d", n);
        if (done(fstat(slot[n], &st)))
            say_stat(&st), say(" a %s", age(st.st_atime));
        break;
    case 1:
        say("lstat %s", p);
        if (done(lstat(p, &st)))
            say_stat(&st), say(" a %s", age(st.st_atime));
        break;
    default:
        say("stat %s", p);
        if (done(stat(p, &st)))
            say_stat(&st);
    }
}

static void op_access(void) {
    char *p = path();
    int mode = pick(8), flag = (chance(3) ? AT_EACCESS : 0) | (chance(3) ? AT_SYMLINK_NOFOLLOW : 0);
    say("access %s %d %#x", p, mode, flag);
    done(syscall(SYS_faccessat2, AT_FDCWD, p, mode, flag));
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

// Entries or names in an order that is not the file system's.
static void say_sorted(char **texts, int n) {
    qsort(texts, n, sizeof *texts, by_text);
    for (int i = 0; i < n; i++) {
        say(" %s", texts[i]);
        free(texts[i]);
    }
}

static void op_list(void) {
    int n = a_slot();
    say("getdents %d", n);
    char *texts[64];
    int count = 0;
    lseek(slot[n], 0, SEEK_SET);
    for (;;) {
        char space[2048];
        long got = syscall(SYS_getdents64, slot[n], space, sizeof space);
        if (got <= 0) {
            done(got);
            break;
        }
        for (long at = 0; at < got;) {
            struct dirent64 *entry = (struct dirent64 *)(space + at);
            char text[300];
            snprintf(text, sizeof text, "%s:%d", entry->d_name, entry->d_type);
            if (count < 64)
                texts[count++] = strdup(text);
            at += entry->d_reclen;
        }
    }
    say_sorted(texts, count);
}

// An access control list that Linux takes: owner, user 1000, group, mask, others.
static size_t a_list(unsigned char *to) {
    static const unsigned short tags[] = {1, 2, 4, 16, 32};
    to[0] = 2, to[1] = to[2] = to[3] = 0;
    size_t at = 4;
    for (int i = 0; i < 5; i++) {
        unsigned id = tags[i] == 2 ? 1000 : 0xffffffff;
        unsigned short permissions = pick(8);
        memcpy(to + at, &tags[i], 2), memcpy(to + at + 2, &permissions, 2), memcpy(to + at + 4, &id, 4);
        at += 8;
    }
    return at;
}

static void op_xattr(void) {
    static const char *const names[] = {"user.x", "user.y", "trusted.t", "user.", "nonsense", "system.posix_acl_access", "system.posix_acl_default"};
    const char *name = names[pick(COUNT_OF(names))];
    // Linux's overlay copies up what it then refuses to change.
    if (is_overlay && (!strcmp(name, "user.") || !strcmp(name, "nonsense")))
        name = "user.y";
    char *p = path(), list[1024];
    unsigned char value[200];
    int n = a_slot(), by_slot = chance(2);
    size_t has = pick(60);
    unsigned how = pick(4) % 3;
    ssize_t got;
    memset(value, 'v', sizeof value);
    switch (pick(5)) {
    case 0:
    case 1:
        if (strstr(name, "acl"))
            has = a_list(value);
        say("setxattr %s %zu %u", name, has, how);
        if (by_slot)
            say(" %d", n), done(fsetxattr(slot[n], name, value, has, how));
        else
            say(" %s", p), done(setxattr(p, name, value, has, how));
        break;
    case 2:
        say("getxattr %s", name);
        if (by_slot)
            say(" %d", n), got = fgetxattr(slot[n], name, value, sizeof value);
        else
            say(" %s", p), got = getxattr(p, name, value, chance(9) ? pick(9) : sizeof value);
        if (result(got) > 0)
            say(" #%lx", (unsigned long)digest(value, got));
        break;
    case 3:
        // Whether the removal of a list that is not there succeeds depends on the file system.
        if (strstr(name, "acl") && (by_slot ? fgetxattr(slot[n], name, value, sizeof value) : getxattr(p, name, value, sizeof value)) < 0)
            name = "user.x";
        say("removexattr %s", name);
        if (by_slot)
            say(" %d", n), done(fremovexattr(slot[n], name));
        else
            say(" %s", p), done(removexattr(p, name));
        break;
    default:
        say("listxattr");
        if (by_slot)
            say(" %d", n), got = flistxattr(slot[n], list, sizeof list);
        else
            say(" %s", p), got = llistxattr(p, list, sizeof list);
        if (done(got)) {
            char *texts[32];
            int count = 0;
            for (char *at = list; at < list + got && count < 32; at += strlen(at) + 1)
                texts[count++] = strdup(at);
            say_sorted(texts, count);
        }
    }
}

static void op_mapped(void) {
    int n = a_slot(), store = chance(2);
    struct stat st;
    if (fstat(slot[n], &st) || !S_ISREG(st.st_mode) || st.st_size == 0) {
        say("mmap %d: nothing", n);
        return;
    }
    off_t at = pick(st.st_size), from = at & ~4095l;
    size_t count = 1 + pick(st.st_size - at > 5000 ? 5000 : st.st_size - at);
    say("mmap %d %s %zu at %ld", n, store ? "store" : "load", count, (long)at);
    unsigned char *p = mmap(NULL, at - from + count, store ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, slot[n], from);
    if (!done(p == MAP_FAILED ? -1 : 0))
        return;
    if (store)
        memset(p + (at - from), 1 + pick(255), count);
    else
        say(" #%lx", (unsigned long)digest(p + (at - from), count));
    if (chance(3))
        say(" msync"), done(msync(p, at - from + count, MS_SYNC));
    munmap(p, at - from + count);
    // Stores that no page fault tells of leave the times of a file in the sandbox's memory as they were.
    if (store && !has_partner)
        futimens(slot[n], NULL);
}

static void op_copy(void) {
    int in = a_slot(), out = a_slot();
    size_t count = pick(9000);
    off_t from = an_offset(), to = an_offset();
    if (chance(2)) {
        say("copy_file_range %d %d %ld %ld %zu", in, out, (long)from, (long)to, count);
        result(copy_file_range(slot[in], &from, slot[out], &to, count, 0));
    } else {
        struct stat a, b;
        // What is read after it was written depends on the size of the kernel's buffers. Two names of one file may have numbers of
        // their own in an overlay, and a path alone may lead nowhere once somebody else has removed the file.
        int known = in != out && !fstat(slot[in], &a) && !fstat(slot[out], &b);
        if (in == out || (known && (a.st_ino == b.st_ino || (a.st_nlink > 1 && b.st_nlink > 1)))) {
            say("sendfile: the same file");
            return;
        }
        say("sendfile %d %d %ld %zu", in, out, (long)from, count);
        result(sendfile(slot[out], slot[in], &from, count));
    }
}

static void op_lock(void) {
    int n = a_slot();
    if (chance(2)) {
        static const struct flag how[] = {{LOCK_SH, "SH"}, {LOCK_EX, "EX"}, {LOCK_UN, "UN"}};
        int h = pick(3);
        say("flock %d %s", n, how[h].name);
        done(flock(slot[n], how[h].value | LOCK_NB));
        return;
    }
    static const struct flag types[] = {{F_RDLCK, "read"}, {F_WRLCK, "write"}, {F_UNLCK, "none"}};
    static const struct flag commands[] = {{F_SETLK, "SETLK"}, {F_GETLK, "GETLK"}, {F_OFD_SETLK, "OFD_SETLK"}, {F_OFD_GETLK, "OFD_GETLK"}};
    int t = pick(3), c = pick(4);
    struct flock lock = {.l_type = types[t].value, .l_whence = SEEK_SET, .l_start = pick(20), .l_len = pick(20)};
    say("fcntl %d %s %s %ld+%ld", n, commands[c].name, types[t].name, (long)lock.l_start, (long)lock.l_len);
    if (done(fcntl(slot[n], commands[c].value, &lock)) && c % 2) {
        say(" type %d", lock.l_type);
        if (lock.l_type != F_UNLCK)
            say(" %ld+%ld", (long)lock.l_start, (long)lock.l_len);
    }
}

static void op_sync(void) {
    int n = a_slot();
    switch (pick(3)) {
    case 0: say("fsync %d", n), done(fsync(slot[n])); break;
    case 1: say("fdatasync %d", n), done(fdatasync(slot[n])); break;
    default: say("sync_file_range %d", n), done(sync_file_range(slot[n], 0, 4096, SYNC_FILE_RANGE_WRITE));
    }
}

static void op_reopen(void) {
    int n = a_slot(), to = pick(SLOTS);
    char self[64], text[700];
    sprintf(self, "/proc/self/fd/%d", slot[n]);
    if (!has_host && chance(2)) {
        say("readlink of %d", n);
        ssize_t got = readlink(self, text, sizeof text - 1);
        if (got < 0) {
            done(-1);
            return;
        }
        text[got] = 0;
        // What lies above the sequence's directory differs between the places.
        char *from = strstr(text, "/seq-");
        char *below = from ? strchr(from + 1, '/') : NULL;
        char *last = below ? strrchr(below++, '/') : NULL;
        // A file without a name shows its number.
        if (last && last[1] == '#')
            strcpy(last + 1, "(unnamed)");
        say(" %s", below ? below : from ? "(top)" : "(other)");
        return;
    }
    struct stat st;
    int how = pick(3) | (chance(5) ? O_TRUNC : 0) | (chance(5) ? O_APPEND : 0);
    if (!fstat(slot[n], &st) && S_ISFIFO(st.st_mode))
        how |= O_NONBLOCK;
    // Whoever else changes the tree may have taken the names away, and then a file can be opened again for what it is open for.
    int has = fcntl(slot[n], F_GETFL);
    if (has_host && has & O_PATH) {
        say("reopen %d: it is a path", n);
        return;
    }
    if (has_host && (has & O_ACCMODE) != O_RDWR)
        how = (how & (O_APPEND | O_NONBLOCK)) | (has & O_ACCMODE);
    say("reopen %d as %d %#o", n, to, how);
    int fd = open(self, how);
    if (done(fd)) {
        close(slot[to]);
        slot[to] = fd;
    }
}

static void op_statfs(void) {
    struct statfs st;
    int n = a_slot();
    say("fstatfs %d", n);
    if (done(fstatfs(slot[n], &st)))
        say(" type %lx", (long)st.f_type);
}

static void op_umask(void) {
    int mask = chance(3) ? 0 : pick(0100);
    say("umask %o", mask);
    umask(mask);
}

static const struct {
    void (*run)(void);
    unsigned weight;
} OPS[] = {
    {op_open, 24}, {op_close, 4}, {op_read, 6}, {op_write, 10}, {op_seek, 4}, {op_truncate, 4}, {op_fallocate, 5},
    {op_rename, 12}, {op_link, 7}, {op_unlink, 9}, {op_mkdir, 9}, {op_symlink, 3}, {op_readlink, 2}, {op_mknod, 3},
    {op_chmod, 4}, {op_chown, 4}, {op_times, 3}, {op_stat, 10}, {op_access, 3}, {op_list, 4}, {op_xattr, 7},
    {op_mapped, 4}, {op_copy, 4}, {op_lock, 5}, {op_sync, 2}, {op_reopen, 4}, {op_statfs, 1}, {op_umask, 1},
};

static void step(uint64_t seed, unsigned number) {
    state = (seed << 20) + number;
    for (int i = 0; i < 4; i++)
        pick(2);
    length = 0;
    say("%u %s ", number, who == HOST ? "host" : who == USER ? "user" : "root");
    unsigned total = 0;
    for (unsigned i = 0; i < COUNT_OF(OPS); i++)
        total += OPS[i].weight;
    unsigned at = pick(total), i = 0;
    while (at >= OPS[i].weight)
        at -= OPS[i++].weight;
    OPS[i].run();
    line[length++] = '\n';
    line[length] = 0;
}

static void forget(void) {
    for (int i = 0; i < SLOTS; i++) {
        if (slot[i] >= 0)
            close(slot[i]);
        slot[i] = -1;
    }
    umask(022);
}

// One line about each entry below the current directory, in order of names; of numbers only which are the same.
static struct { dev_t dev; ino_t ino; } seen[512];
static int seen_count;

static void dump(int fd, const char *prefix, void (*print)(const char *)) {
    DIR *dir = fdopendir(fd);
    char *names[256];
    int count = 0;
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") && count < 256)
            names[count++] = strdup(entry->d_name);
    qsort(names, count, sizeof *names, by_text);
    for (int i = 0; i < count; i++) {
        struct stat st;
        char full[4000], list[1024];
        snprintf(full, sizeof full, "%s%s", prefix, names[i]);
        length = 0;
        say("tree %s", full);
        if (fstatat(dirfd(dir), names[i], &st, AT_SYMLINK_NOFOLLOW)) {
            done(-1);
        } else {
            say_stat(&st);
            int same = 0;
            while (same < seen_count && (seen[same].ino != st.st_ino || seen[same].dev != st.st_dev))
                same++;
            if (same == seen_count && seen_count < 512)
                seen[seen_count].dev = st.st_dev, seen[seen_count++].ino = st.st_ino;
            // The numbers of lower hard links that were copied up mean little on Linux.
            if (!is_overlay)
                say(" file %d", same);
        }
        int sub = S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) ? openat(dirfd(dir), names[i], O_RDONLY | O_NOFOLLOW) : -1;
        if (S_ISREG(st.st_mode) && sub >= 0) {
            ssize_t got = pread(sub, bytes, sizeof bytes, 0);
            say(" #%lx", got < 0 ? -1ul : (unsigned long)digest(bytes, got));
        }
        if (sub >= 0) {
            ssize_t got = flistxattr(sub, list, sizeof list);
            char *texts[32];
            int kept = 0;
            // What the host has of attributes in `trusted.` is the sandbox's own affair.
            for (char *at = list; at < list + got && kept < 32; at += strlen(at) + 1)
                if (!strstr(at, "trusted"))
                    texts[kept++] = strdup(at);
            say_sorted(texts, kept);
        }
        line[length++] = '\n';
        line[length] = 0;
        print(line);
        free(names[i]);
        if (sub >= 0 && S_ISDIR(st.st_mode)) {
            strcat(full, "/");
            dump(sub, full, print);
        } else if (sub >= 0) {
            close(sub);
        }
    }
    if (dir)
        closedir(dir);
}

static void remove_tree(int at, const char *name) {
    if (!unlinkat(at, name, 0))
        return;
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            remove_tree(fd, entry->d_name);
    if (dir)
        closedir(dir);
    unlinkat(at, name, AT_REMOVEDIR);
}

static void print_out(const char *text) {
    if (write(1, text, strlen(text)) < 0)
        _exit(3);
}

static void print_error(const char *text) {
    char all[8300];
    int n = snprintf(all, sizeof all, "host %s", text);
    if (write(2, all, n) < 0)
        _exit(3);
}

// Serves requests: `@c DIRECTORY` to go there, `@s SEED NUMBER` for a step, `@d` to describe the tree, `@l` to leave it.
static int serve(FILE *in, FILE *out) {
    static char request[9000];
    int top = open(".", O_RDONLY | O_DIRECTORY);
    unsigned long seed;
    unsigned number;
    forget();
    while (fgets(request, sizeof request, in)) {
        if (*request != '@') {
            fputs(request, stderr);
            continue;
        }
        strcpy(line, "done\n");
        if (request[1] == 'c') {
            request[strcspn(request, "\n")] = 0;
            if (chdir(request + 3))
                strcpy(line, "no directory\n");
        } else if (sscanf(request, "@s %lu %u", &seed, &number) == 2) {
            step(seed, number);
        } else if (request[1] == 'd') {
            seen_count = 0;
            dump(open(".", O_RDONLY | O_DIRECTORY), "", print_error);
            strcpy(line, "done\n");
        } else if (request[1] == 'l') {
            forget();
            if (fchdir(top))
                return 3;
        }
        fputs(line, out);
        fflush(out);
    }
    return 0;
}

static FILE *user_in, *user_out;

static void start_user(void) {
    int to[2], from[2];
    if (pipe(to) || pipe(from))
        exit(3);
    if (!fork()) {
        gid_t groups[] = {1000, 2000};
        close(to[1]);
        close(from[0]);
        if (setgroups(2, groups) || setresgid(1000, 1000, 1000) || setresuid(1000, 1000, 1000))
            _exit(3);
        who = USER;
        _exit(serve(fdopen(to[0], "r"), fdopen(from[1], "w")));
    }
    close(to[0]);
    close(from[1]);
    fcntl(to[1], F_SETFD, FD_CLOEXEC);
    user_out = fdopen(to[1], "w");
    user_in = fdopen(from[0], "r");
}

// Asks and gives the answer, in `line`.
static void ask(FILE *out, FILE *in, const char *request) {
    fputs(request, out);
    fflush(out);
    if (!fgets(line, sizeof line, in))
        exit(4);
}

static void both(const char *request) {
    ask(user_out, user_in, request);
    if (has_partner)
        ask(stdout, stdin, request);
}

static int wanted(const char *only, unsigned number) {
    while (only) {
        if (strtoul(only, NULL, 10) == number)
            return 1;
        only = strchr(only, ',');
        if (only)
            only++;
    }
    return 0;
}

int main(int argc, char **argv) {
    memset(slot, -1, sizeof slot);
    if (argc < 3 || chdir(argv[2]))
        return 2;
    if (!strcmp(argv[1], "--host")) {
        who = HOST;
        return serve(stdin, stdout);
    }
    if (argc < 7)
        return 2;
    uint64_t first = strtoull(argv[3], NULL, 10);
    unsigned count = atoi(argv[4]), steps = atoi(argv[5]);
    const char *actors = argv[6], *only = argc > 7 ? argv[7] : NULL;
    unsigned callers = strcspn(actors, "d");
    has_host = strchr(actors, 'h') != NULL;
    has_partner = has_host || actors[callers];
    struct statfs fs;
    is_overlay = !statfs(".", &fs) && fs.f_type == 0x794c7630;
    start_user();
    int top = open(".", O_RDONLY | O_DIRECTORY);
    for (uint64_t seed = first; seed < first + count; seed++) {
        char name[64], request[128];
        sprintf(name, "seq-%lu", (unsigned long)seed);
        sprintf(request, "@c %s\n", name);
        umask(0);
        if ((mkdir(name, 0777) && errno != EEXIST) || chdir(name)) {
            fprintf(stderr, "%s: %m\n", name);
            return 3;
        }
        both(request);
        forget();
        printf("sequence %lu\n", (unsigned long)seed);
        for (unsigned number = 0; number < steps; number++) {
            if (only && !wanted(only, number))
                continue;
            // The actor does not depend on who else takes part: a shorter sequence stays the same.
            state = seed * 31 + number;
            pick(2);
            char actor = actors[pick(callers)];
            sprintf(request, "@s %lu %u\n", (unsigned long)seed, number);
            if (actor == 'h')
                ask(stdout, stdin, request);
            else if (actor == 'u')
                ask(user_out, user_in, request);
            else
                step(seed, number);
            fputs(line, stdout);
            fflush(stdout);
        }
        forget();
        ask(user_out, user_in, "@l\n");
        fflush(stdout);
        seen_count = 0;
        dump(open(".", O_RDONLY | O_DIRECTORY), "", print_out);
        if (has_partner)
            ask(stdout, stdin, "@d\n"), ask(stdout, stdin, "@l\n");
        if (fchdir(top))
            return 3;
        remove_tree(AT_FDCWD, name);
    }
    fclose(user_out);
    wait(NULL);
    return 0;
}
