// Works in a tree that another process of the host changes meanwhile: host_tree DIRECTORY SECONDS
//
// Whatever happens there, nothing that lies outside of the tree may be seen, read or made by its names. Outside lies a
// file `marker` with the text MARKER, so no name `marker` may ever be found. Results of single calls are not looked at: a name
// may stand for anything at any moment. Every open is O_NONBLOCK, because a FIFO in the place of a file is one here too.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WORKERS 4
#define MARKER "MARKER"

static unsigned seed;
static unsigned long calls, succeeded;

static void escaped(const char *how, const char *name) {
    printf("ESCAPED: %s %s\n", how, name);
    fflush(stdout);
    _exit(3);
}

static unsigned any(unsigned n) {
    seed = seed * 1103515245 + 12345;
    return (seed >> 16) % n;
}

static long did(long result) {
    calls++;
    succeeded += result >= 0;
    return result;
}

// Directories that the other process swaps, moves in and out, and turns into links; and what is below them.
static const char *const dirs[] = {"a", "b", "a/sub", "b/sub", "roam", "roam/sub", "a/sub/deep", "."};
static const char *const files[] = {"file", "swapped", "made-0", "made-1", "made-2", "link", "lost", "marker"};

static const char *path(char *buffer) {
    sprintf(buffer, "%s/%s", dirs[any(8)], files[any(8)]);
    return buffer;
}

// A name to give to a file: there is never a `marker` of our own.
static const char *new_path(char *buffer) {
    sprintf(buffer, "%s/%s", dirs[any(8)], files[any(7)]);
    return buffer;
}

static void look_at(int fd, const char *name) {
    char text[64] = "";
    struct stat st;
    if (did(fstat(fd, &st)) == 0 && S_ISREG(st.st_mode) && did(pread(fd, text, sizeof text - 1, 0)) > 0
        && strstr(text, MARKER))
        escaped("read", name);
}

static void list(const char *name) {
    int fd = did(open(name, O_RDONLY | O_DIRECTORY | O_NONBLOCK));
    if (fd < 0)
        return;
    DIR *dir = fdopendir(fd);
    if (!dir) {
        printf("an open directory has no attributes: %s\n", strerror(errno));
        _exit(4);
    }
    for (struct dirent *e; (e = readdir(dir));)
        if (strcmp(e->d_name, "marker") == 0)
            escaped("listed", name);
    closedir(dir);
}

static void one_step(void) {
    char one[256], two[256];
    struct stat st;
    int fd;
    const char *name = path(one);
    switch (any(18)) {
    case 0:
    case 1:
        if ((fd = did(open(name, O_RDONLY | O_NONBLOCK))) >= 0) {
            look_at(fd, name);
            close(fd);
        }
        break;
    case 2:
        if ((fd = did(open(name, O_RDWR | O_NONBLOCK | O_NOFOLLOW))) >= 0) {
            look_at(fd, name);
            did(fstat(fd, &st));
            if (S_ISREG(st.st_mode))
                did(pwrite(fd, "inside", 6, 0));
            close(fd);
        }
        break;
    case 3:
    case 4:
        if (did(any(2) ? stat(name, &st) : lstat(name, &st)) == 0 && strstr(name, "marker"))
            escaped("stat", name);
        break;
    case 5:
    case 6:
        list(dirs[any(8)]);
        break;
    case 7:
    case 8:
        sprintf(one, "%s/made-%u", dirs[any(8)], any(3));
        if ((fd = did(open(one, O_CREAT | O_RDWR | O_NONBLOCK | (any(2) ? O_EXCL : 0), 0644))) >= 0) {
            look_at(fd, one);
            close(fd);
        }
        break;
    case 9:
        did(unlink(name));
        break;
    case 10:
        did(mkdir(new_path(one), 0755));
        break;
    case 11:
        did(rename(name, new_path(two)));
        break;
    case 12:
        did(syscall(SYS_renameat2, AT_FDCWD, name, AT_FDCWD, new_path(two), 2));
        break;
    case 13:
        did(link(name, new_path(two)));
        break;
    case 14:
        did(symlink("../../outside/marker", new_path(one)));
        break;
    case 15:
        did(chmod(name, 0600 + any(0100)));
        did(chown(name, any(100), any(100)));
        did(truncate(name, any(10)));
        break;
    case 16:
        did(mkfifo(new_path(one), 0644));
        did(rmdir(name));
        break;
    default:
        // From within: `..` of a directory that may be outside just now.
        if (did(chdir(dirs[any(7)])) == 0) {
            if (did(stat("marker", &st)) == 0)
                escaped("stat", "marker from within");
            if ((fd = did(open("../marker", O_RDONLY | O_NONBLOCK))) >= 0) {
                look_at(fd, "../marker");
                escaped("opened", "../marker");
            }
            list("..");
            if ((fd = did(open("../escaped", O_CREAT | O_WRONLY | O_NONBLOCK, 0644))) >= 0)
                close(fd);
            did(mkdir("../escaped-dir", 0755));
            did(rename("file", "../escaped"));
            did(unlink("../marker"));
        }
        break;
    }
}

static void work(const char *tree, int seconds) {
    struct timespec now, end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += seconds;
    do {
        if (chdir(tree))
            escaped("lost", tree);
        for (int i = 0; i < 8; i++)
            one_step();
        clock_gettime(CLOCK_MONOTONIC, &now);
        // A run in which hardly anything worked has tested nothing: on a busy machine it takes longer.
    } while (now.tv_sec < end.tv_sec || (succeeded <= 500 && now.tv_sec < end.tv_sec + 40));
    printf("%s\n", succeeded > 500 && succeeded < calls ? "worked" : "IDLE");
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    setbuf(stdout, NULL);
    for (int i = 0; i < WORKERS; i++) {
        seed = i * 7919 + 17;
        if (fork() == 0) {
            work(argv[1], atoi(argv[2]));
            _exit(0);
        }
    }
    int failed = 0;
    for (int status; wait(&status) > 0;) {
        if (status)
            printf("a worker ended with status %#x\n", status);
        failed |= status;
    }
    puts(failed ? "failed" : "done");
    return failed != 0;
}
