"""A terminal as a test talks to it: what is typed, and what is shown up to a pattern."""

import fcntl
import os
import re
import select
import struct
import termios
import time

PROMPT = rb"PROMPT> $"
SHELL = ["bash", "--norc", "--noprofile", "--noediting", "-i"]


class TerminalSession:
    """The master side of a terminal; whoever makes one sets `fd`."""

    fd = -1

    def __init__(self):
        self.seen = b""

    def resize(self, lines, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def send(self, text):
        os.write(self.fd, text.encode())

    def until(self, pattern, seconds=15):
        """What is shown up to and with the pattern; the test ends where it does not come."""
        end = time.monotonic() + seconds
        while not (m := re.search(pattern, self.seen)):
            if time.monotonic() > end or not select.select([self.fd], [], [], max(0, end - time.monotonic()))[0]:
                raise SystemExit(f"no {pattern} in {self.seen}")
            try:
                data = os.read(self.fd, 4096)
            except OSError:
                data = b""
            if not data:
                raise SystemExit(f"end of output before {pattern}: {self.seen}")
            self.seen += data
        before, self.seen = self.seen[: m.end()], self.seen[m.end() :]
        return before

    def text_until(self, pattern):
        return self.until(pattern).decode().replace("\r", "")
