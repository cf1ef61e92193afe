# root: base
# platforms: systrap ptrace
# timeout: 90

# bash under a pseudo-terminal, driven like a user does: job control, ^C, ^Z, fg, bg, line editing.
exec python3 - <<'END'
import os, pty, re, select, signal, struct, fcntl, termios, time

pid, fd = pty.fork()
if pid == 0:
    os.environ.update(PS1="PROMPT> ", HISTFILE="", TERM="dumb")
    os.execv("/bin/bash", ["bash", "--norc", "--noprofile", "-i"])
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
seen = b""

def until(pattern, seconds=20):
    global seen
    end = time.monotonic() + seconds
    while not (m := re.search(pattern, seen)):
        if time.monotonic() > end or not select.select([fd], [], [], max(0, end - time.monotonic()))[0]:
            raise SystemExit(f"no {pattern} in {seen}")
        try:
            data = os.read(fd, 4096)
        except OSError:
            data = b""
        if not data:
            raise SystemExit(f"end of output before {pattern}: {seen}")
        seen += data
    before, seen = seen[:m.end()], seen[m.end():]
    return before

def command(text, pattern=rb"PROMPT> $"):
    os.write(fd, text.encode() + b"\r")
    # Process ids differ from run to run.
    out = re.sub(rb"\[(\d)\] \d+", rb"[\1] PID", until(pattern))
    print(out.decode().replace("\r", "").replace("PROMPT> ", "> "), flush=True)

until(rb"PROMPT> $")
command("echo hello")
command("tty | sed 's/[0-9]*$/N/'; stty size")
command("sleep 100 &")
command("jobs")
# With the job dead before `wait` begins bash says nothing: the sleep makes it tell in between.
command("kill %1; sleep 0.3; wait; jobs")
os.write(fd, b"sleep 100\r"); time.sleep(0.5); os.write(fd, b"\x03"); print("^C", until(rb"PROMPT> $").count(b"^C"))
command("echo status $?")
os.write(fd, b"cat\r"); time.sleep(0.5); os.write(fd, b"typed\r"); until(rb"typed\r\ntyped\r\n"); os.write(fd, b"\x1a"); until(rb"Stopped.*cat\r\n"); until(rb"PROMPT> $")
command("jobs")
os.write(fd, b"fg\r"); until(rb"cat\r\n"); os.write(fd, b"again\r"); until(rb"again\r\nagain\r\n"); os.write(fd, b"\x04"); until(rb"PROMPT> $")
command("echo after cat $?")
os.write(fd, b"sleep 0.5\r"); time.sleep(0.2); os.write(fd, b"\x1a"); until(rb"PROMPT> $")
command("bg; wait; echo done")
os.write(fd, b"echo wrong\x15echo right\r"); until(rb"\r\nright\r\n"); until(rb"PROMPT> $"); print("line killed")
os.write(fd, b"ech\x7fho erased\r"); until(rb"\r\nerased|not found"); until(rb"PROMPT> $"); print("erased")
command("for i in 1 2 3; do echo $i; done | tac")
command("sh -c 'kill -STOP $$; echo resumed' ", rb"Stopped[^\n]*\r\nPROMPT> $")
command("fg")
command("trap 'echo got INT' INT; kill -INT $$; trap - INT")
os.write(fd, b"read -t 5 x && echo \"got <$x>\"\r"); time.sleep(0.2); os.write(fd, b"some text\r"); until(rb"got <some text>"); until(rb"PROMPT> $"); print("read")
os.write(fd, b"exit 7\r")
print("exit", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
END
