"""Drives a shell in a container through a pseudo-terminal, as a person does: terminal.py docker|podman|ctr RUNTIME"""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

from terminal_session import PROMPT, SHELL, TerminalSession

client, runtime = sys.argv[1:]
SETTINGS = ["-e", "PS1=PROMPT> ", "-e", "HISTFILE=", "-e", "TERM=dumb"]


class Terminal(TerminalSession):
    """A terminal of 30 lines and 200 columns with a command in it."""

    def __init__(self, command):
        super().__init__()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 200, 0, 0))
            if client == "ctr":
                # It leaves output processed, which the terminal in the container has done.
                settings = termios.tcgetattr(0)
                settings[1] &= ~termios.ONLCR
                termios.tcsetattr(0, termios.TCSANOW, settings)
            os.execvp(command[0], command)

    def command(self, text, pattern=PROMPT):
        """Types a line and shows what comes back up to the next prompt; process ids differ from run to run."""
        self.send(text + "\r")
        out = re.sub(rb"\[(\d)\] \d+", rb"[\1] PID", self.until(pattern))
        print(out.decode().replace("\r", "").replace("PROMPT> ", "> "), flush=True)

    def end(self):
        """The exit status of the command, which has to end by itself; what it still says is not looked at."""
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if select.select([self.fd], [], [], 0.05)[0]:
                try:
                    os.read(self.fd, 4096)
                except OSError:
                    pass
        os.kill(self.pid, signal.SIGKILL)
        return "none: it hangs"


def session(terminal):
    """What has to work in any shell at a terminal."""
    terminal.until(PROMPT)
    terminal.command("echo hello")
    terminal.command("tty; ls -l /proc/self/fd/0 | sed 's/.*-> //'; test -t 0 && test -t 1 && test -t 2 && echo all")
    # The client passes the size on when it can, which is after the start.
    terminal.command("until test \"$(stty size)\" = '30 200'; do sleep 0.1; done; stty size")
    terminal.command("stty -a | grep -o -w -e '-\\?isig' -e '-\\?icanon' -e '-\\?echo' -e '-\\?opost'")
    terminal.command("ps -o comm=,tty= -p $$; test $(ps -o tpgid= -p $$) -gt 0 && echo foreground")
    # The change arrives as a signal for whoever is in the foreground.
    terminal.command("perl -e '$SIG{WINCH} = sub { exec q(stty size) }; $| = 1; print qq(ready\\n); sleep 20 while 1'", rb"\nready\r\n")
    terminal.resize(40, 220)
    print(terminal.text_until(PROMPT), flush=True)
    terminal.send("sleep 100\r")
    time.sleep(0.5)
    terminal.send("\x03")
    terminal.until(PROMPT)
    terminal.command("echo status $?")
    terminal.send("cat\r")
    time.sleep(0.3)
    terminal.send("typed\r")
    terminal.until(rb"typed\r\ntyped\r\n")
    terminal.send("\x1a")
    terminal.until(rb"Stopped.*cat\r\n")
    terminal.until(PROMPT)
    terminal.command("jobs")
    terminal.send("fg\r")
    terminal.until(rb"cat\r\n")
    terminal.send("\x04")
    terminal.until(PROMPT)
    terminal.command("sleep 0.3 & wait; echo done", rb"done\r\n(.|\r|\n)*PROMPT> $")
    terminal.command("seq 20000 | cksum; seq 3000 | tail -n 1")
    # As much as a terminal takes at once has to arrive whole.
    terminal.send("stty -echo; seq 20000; stty echo; echo end of list\r")
    text = terminal.until(rb"\nend of list\r\nPROMPT> $")
    numbers = re.findall(rb"(?m)^(\d+)\r$", text)
    print("numbers", numbers == [str(n).encode() for n in range(1, 20001)], flush=True)


def tool(*arguments):
    return subprocess.run([client, *arguments], capture_output=True, text=True, check=False).stdout.strip()


def by_ctr():
    """containerd's own client, which has names for everything."""
    settings = ["--env" if word == "-e" else word for word in SETTINGS]
    image = "docker.io/library/deb:1"
    print("== run -t")
    terminal = Terminal(["ctr", "run", "--runtime", runtime, "--rm", "-t", *settings, image, "box", *SHELL])
    session(terminal)
    terminal.send("exit 7\r")
    print("status", terminal.end())
    print("== exec -t")
    tool("run", "--runtime", runtime, "-d", *settings, image, "box", "sleep", "1000")
    terminal = Terminal(["ctr", "tasks", "exec", "-t", "--exec-id", "one", "box", *SHELL])
    session(terminal)
    terminal.send("exit 8\r")
    print("status", terminal.end())
    print("== exec -t ended by the end of the container")
    terminal = Terminal(["ctr", "tasks", "exec", "-t", "--exec-id", "two", "box", *SHELL])
    terminal.until(PROMPT)
    tool("tasks", "kill", "-s", "KILL", "box")
    print("status", terminal.end())
    tool("tasks", "delete", "box")
    tool("containers", "rm", "box")


if client == "ctr":
    by_ctr()
    sys.exit(0)
run = [client, "run", "--runtime", runtime, "--network", "none"]

print("== run -it")
terminal = Terminal([*run, "--rm", "-it", *SETTINGS, "deb:1", *SHELL])
session(terminal)
terminal.send("exit 7\r")
print("status", terminal.end())

print("== run -t, without input")
terminal = Terminal([*run, "--rm", "-t", "deb:1", "sh", "-c", "tty; test -t 1 && echo terminal; exit 3"])
print(terminal.text_until(rb"terminal\r+\n"), "status", terminal.end())

print("== exec -it")
tool(*run[1:], "-d", "--name", "box", *SETTINGS, "deb:1", "sleep", "1000")
terminal = Terminal([client, "exec", "-it", "box", *SHELL])
session(terminal)
terminal.send("exit 8\r")
print("status", terminal.end())
print("still", tool("inspect", "-f", "{{.State.Status}}", "box"))

print("== exec -it ended by a signal to the container")
terminal = Terminal([client, "exec", "-it", "box", *SHELL])
terminal.until(PROMPT)
tool("kill", "box")
print("status", terminal.end())
tool("rm", "box")

if client == "podman":
    # Its client does not notice the keys for detaching when they come at once.
    sys.exit(0)
print("== detach and attach")
terminal = Terminal([*run, "-it", "--name", "box", *SETTINGS, "deb:1", *SHELL])
terminal.until(PROMPT)
terminal.command("word=kept")
terminal.send("\x10\x11")
print("client", terminal.end())
print("container", tool("inspect", "-f", "{{.State.Status}}", "box"))
terminal = Terminal([client, "attach", "box"])
time.sleep(0.5)
terminal.send("echo $word\r")
print(terminal.until(rb"kept\r\nPROMPT> $").count(b"kept"))
terminal.send("exit 4\r")
print("status", terminal.end())
tool("rm", "box")
