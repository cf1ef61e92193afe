"""Programs that say what they have committed, and the check that it is there after a crash.

  crash.py commit DIRECTORY      prints a line `KIND NUMBER` after each commit, for ever
  crash.py verify DIRECTORY      reads such lines; exit status 1 and a line for each commit that is missing

Each kind goes on after the last number that it finds, so that one directory serves many crashes.
"""

import os
import sqlite3
import sys


def report(kind, number):
    os.write(1, b"%s %d\n" % (kind.encode(), number))


def sync_directory(path):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)


class Database:
    """sqlite with one of its journals, and every commit on the disk."""

    def __init__(self, directory, mode):
        self.path = os.path.join(directory, mode + ".db")
        self.mode = mode

    def commit(self):
        base = sqlite3.connect(self.path, isolation_level=None)
        base.execute("pragma journal_mode=%s" % self.mode)
        base.execute("pragma synchronous=full")
        base.execute("create table if not exists log(number integer primary key, text)")
        number = base.execute("select coalesce(max(number), 0) from log").fetchone()[0]
        while True:
            number += 1
            base.execute("begin immediate")
            base.execute("insert into log values(?, ?)", (number, "x" * (number * 37 % 3000)))
            base.execute("update log set text = text || 'y' where number = ?", (number // 2,))
            base.execute("commit")
            report(self.mode, number)

    def verify(self, reported):
        last = max(reported)
        base = sqlite3.connect(self.path, isolation_level=None)
        state = base.execute("pragma integrity_check").fetchall()
        if state != [("ok",)]:
            yield "integrity_check of %s: %s" % (self.path, state[:3])
        count, most = base.execute("select count(*), coalesce(max(number), 0) from log").fetchone()
        if most < last or count != most:
            yield "%s: %d rows up to %d, %d were reported" % (self.path, count, most, last)


class Replaced:
    """A file that is replaced by rename(2): there is always one, whole, and the last reported or a later."""

    def __init__(self, directory):
        self.directory = os.path.join(directory, "replaced")
        self.path = os.path.join(self.directory, "state")

    def read(self):
        try:
            with open(self.path) as f:
                words = f.read().split("\n")
        except FileNotFoundError:
            return 0
        # The number, a filling, the number again.
        if len(words) != 4 or words[0] != words[2] or words[3]:
            raise ValueError("%s is torn: %r" % (self.path, words[:1]))
        return int(words[0])

    def commit(self):
        os.makedirs(self.directory, exist_ok=True)
        number = self.read()
        while True:
            number += 1
            with open(self.path + ".new", "w") as f:
                f.write("%d\n%s\n%d\n" % (number, "z" * (number * 131 % 20000), number))
                f.flush()
                os.fsync(f.fileno())
            os.rename(self.path + ".new", self.path)
            sync_directory(self.directory)
            report("replaced", number)

    def verify(self, reported):
        last = max(reported)
        found = self.read()
        if found < last:
            yield "%s has %d, %d was reported" % (self.path, found, last)


class Made:
    """Files that are made, kept for a while and removed."""

    KEPT = 8

    def __init__(self, directory):
        self.directory = os.path.join(directory, "made")

    def path(self, number):
        return os.path.join(self.directory, str(number))

    def numbers(self):
        return sorted(int(name) for name in os.listdir(self.directory)) if os.path.isdir(self.directory) else []

    def commit(self):
        os.makedirs(self.directory, exist_ok=True)
        number = max(self.numbers(), default=0)
        while True:
            number += 1
            fd = os.open(self.path(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            os.write(fd, b"%d" % number)
            os.fsync(fd)
            os.close(fd)
            for old in self.numbers():
                if old <= number - self.KEPT:
                    os.unlink(self.path(old))
            sync_directory(self.directory)
            report("made", number)

    def verify(self, reported):
        last = max(reported)
        there = self.numbers()
        # A number that was not reported may be half made: a crash came between.
        for number in sorted(n for n in reported if n > last - self.KEPT + 1):
            if number not in there:
                yield "%s is not there, %d was reported" % (self.path(number), last)
            elif open(self.path(number)).read() != str(number):
                yield "%s is not whole" % self.path(number)


class Log:
    """A log to which records are appended, durable by a flag of open(2) or by a call."""

    RECORD = 48

    def __init__(self, directory, kind):
        self.path = os.path.join(directory, kind)
        self.kind = kind

    def record(self, number):
        return (b"%s %d " % (self.kind.encode(), number)).ljust(self.RECORD - 1, b".") + b"\n"

    def commit(self):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_DSYNC if self.kind == "dsync" else 0)
        fd = os.open(self.path, flags, 0o644)
        # What a crash has cut short goes.
        number = os.fstat(fd).st_size // self.RECORD
        os.ftruncate(fd, number * self.RECORD)
        while True:
            number += 1
            os.write(fd, self.record(number))
            if self.kind == "fdatasync":
                os.fdatasync(fd)
            report(self.kind, number)

    def verify(self, reported):
        last = max(reported)
        with open(self.path, "rb") as f:
            text = f.read()
        whole = len(text) // self.RECORD
        if whole < last:
            yield "%s has %d records, %d were reported" % (self.path, whole, last)
        for number in range(1, whole + 1):
            if text[(number - 1) * self.RECORD:number * self.RECORD] != self.record(number):
                yield "%s: record %d is %r" % (self.path, number, text[(number - 1) * self.RECORD:number * self.RECORD])
                break


def kinds(directory):
    return {
        "wal": Database(directory, "wal"),
        "delete": Database(directory, "delete"),
        "replaced": Replaced(directory),
        "made": Made(directory),
        "dsync": Log(directory, "dsync"),
        "fdatasync": Log(directory, "fdatasync"),
    }


def commit(directory):
    for kind in kinds(directory).values():
        if os.fork() == 0:
            kind.commit()
    os.wait()


def verify(directory):
    reported = {}
    for line in sys.stdin:
        words = line.split()
        # The last line may be cut off.
        if len(words) == 2 and line.endswith("\n"):
            reported.setdefault(words[0], set()).add(int(words[1]))
    there = kinds(directory)
    missing = [line for name in there if name in reported for line in there[name].verify(reported[name])]
    print("\n".join(missing) if missing else " ".join("%s %d" % (name, max(all)) for name, all in sorted(reported.items())))
    return 1 if missing else 0


if __name__ == "__main__":
    what = {"commit": commit, "verify": verify}[sys.argv[1]]
    sys.exit(what(sys.argv[2]))
