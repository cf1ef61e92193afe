"""What a file system says when it is full, natively and in a sandbox: each way to write, to make and to name; see
crates/cli/tests/full_disk.rs, which compares. The argument is a directory on a small file system."""

import errno
import mmap
import os
import signal
import sys

os.chdir(sys.argv[1])
BIG = b"x" * (1 << 20)
FAR = 1 << 30


def name(error):
    return errno.errorcode[error.errno]


def attempt(what, body):
    try:
        print(what, body(), flush=True)
    except OSError as error:
        print(what, name(error), flush=True)


def opened(path, flags=os.O_RDWR | os.O_CREAT):
    return os.open(path, flags, 0o600)


def until_full(fd, write):
    """Writes until nothing more goes: the error, and whether what was said to be written is there."""
    done = 0
    while True:
        try:
            n = write(done)
        except OSError as error:
            return name(error), done > 0, os.fstat(fd).st_size == done
        if n == 0:
            return "nothing"
        done += n


def remove(*paths):
    for path in paths:
        if os.path.exists(path):
            os.unlink(path)
    # Some file systems free blocks later.
    os.sync()


def by_splice(fd):
    read, write = os.pipe()
    done = 0
    os.write(write, BIG[:60000])
    try:
        while done < 60000:
            done += os.splice(read, fd, 60000 - done)
    except OSError:
        if done == 0:
            raise
    finally:
        os.close(read)
        os.close(write)
    return done


def fill(how):
    remove("f", "source")
    fd = opened("f")
    more = opened("f", os.O_WRONLY | {"append": os.O_APPEND, "dsync": os.O_DSYNC}.get(how, 0))
    memory = os.memfd_create("source")
    os.write(memory, BIG)
    source = opened("source")
    if how == "copy":
        os.write(source, BIG[:200001])
    ways = dict(
        write=lambda at: os.write(fd, BIG[:300001]),
        pwritev=lambda at: os.pwritev(fd, [BIG[:1000], BIG[:200000]], at),
        append=lambda at: os.write(more, BIG[:300001]),
        dsync=lambda at: os.write(more, BIG[:300001]),
        sendfile=lambda at: os.sendfile(fd, memory, 0, 300001),
        splice=lambda at: by_splice(fd),
        copy=lambda at: os.copy_file_range(source, fd, 200001, 0),
    )
    try:
        return until_full(fd, ways[how])
    finally:
        for each in (fd, more, memory, source):
            os.close(each)


for how in "write pwritev append dsync sendfile splice copy".split():
    attempt("fill by " + how, lambda: fill(how))

remove("f", "source")
fd = opened("f")
until_full(fd, lambda at: os.write(fd, BIG))
until_full(fd, lambda at: os.write(fd, b"y"))
attempt("one more byte", lambda: os.write(fd, b"z"))
attempt("overwrite", lambda: os.pwrite(fd, b"z" * 100, 5))
attempt("a byte far out", lambda: os.pwrite(fd, b"z", FAR))
attempt("truncate up", lambda: (os.ftruncate(fd, 2 * FAR), os.fstat(fd).st_size))
attempt("read back", lambda: os.pread(fd, 3, 5))


def store():
    page = mmap.mmap(fd, 4096, offset=FAR)
    pid = os.fork()
    if pid == 0:
        page[0] = 1
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def read_into_mapping():
    read, write = os.pipe()
    os.write(write, b"abc")
    return os.readv(read, [mmap.mmap(fd, 4096, offset=FAR + 8192)])


attempt("store to a hole", store)
attempt("read into a hole", read_into_mapping)
attempt("fallocate", lambda: os.posix_fallocate(fd, FAR // 2, 4 << 20))
os.close(fd)
remove("f")


def nodes(make):
    """Makes as many as there can be: the error, and whether any was made."""
    made = 0
    try:
        while made < 4000:
            make("n%d" % made)
            made += 1
        return "no end"
    except OSError as error:
        return name(error), made > 0
    finally:
        for i in range(made):
            try:
                os.unlink("n%d" % i)
            except IsADirectoryError:
                os.rmdir("n%d" % i)
        os.sync()


def new_file(path):
    os.close(opened(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))


for what, make in dict(
    create=new_file, mkdir=os.mkdir, symlink=lambda path: os.symlink("x" * 200, path), mkfifo=os.mkfifo
).items():
    attempt("many by " + what, lambda: nodes(make))


def when_no_node_is_left(body):
    made = []
    try:
        while len(made) < 4000:
            new_file("n%d" % len(made))
            made.append("n%d" % len(made))
    except OSError:
        pass
    try:
        return body()
    finally:
        for path in made:
            os.unlink(path)
        os.sync()


new_file("one")
attempt("O_TMPFILE", lambda: when_no_node_is_left(lambda: os.close(os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600))))
attempt("rename", lambda: when_no_node_is_left(lambda: os.rename("one", "two")))
os.mkdir("d")
os.rename("two", "one")


def in_a_directory_that_grows(act):
    made = 0
    try:
        while made < 3000:
            act("d/" + "l" * 200 + str(made))
            made += 1
        return "no end"
    except OSError as error:
        return name(error)
    finally:
        for entry in os.listdir("d"):
            os.unlink("d/" + entry)


fd = opened("f")
until_full(fd, lambda at: os.write(fd, BIG))
until_full(fd, lambda at: os.write(fd, b"y"))
os.close(fd)
attempt("links", lambda: in_a_directory_that_grows(lambda path: os.link("one", path)))
remove("f")


def attributes():
    made = 0
    try:
        while made < 5000:
            os.setxattr("one", "user.n%d" % made, b"v" * 1000)
            made += 1
        return "no end"
    except OSError as error:
        return name(error), made


attempt("attributes", attributes)
attempt("an attribute too long", lambda: os.setxattr("one", "user.long", b"v" * 65537))
