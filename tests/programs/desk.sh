# root: desk
# timeout: 240

# A developer's session: ssh in, edit, git, gcc, gdb, a virtual environment, tmux, crontab, at. Typed into a terminal like a user
# does; what is shown has to be what Linux shows, and nothing more: no warning of any of the programs.
useradd -m -s /bin/bash dev
mkdir -p /run/sshd
/usr/sbin/sshd -E /root/sshd.log
su dev -c 'mkdir -m 700 ~/.ssh; ssh-keygen -q -t ed25519 -N "" -f ~/.ssh/id; cat ~/.ssh/id.pub > ~/.ssh/authorized_keys'
# One time zone and no message of the day, so that each login shows the same.
: > /etc/motd
rm -f /etc/update-motd.d/*
cp /home/dev/.ssh/id /root/id
atd
exec python3 - <<'END'
import os, pty, re, select, struct, fcntl, termios, time, subprocess

pid, fd = pty.fork()
if pid == 0:
    os.environ["TERM"] = "xterm"
    os.execvp("ssh", ["ssh", "-q", "-i", "/root/id", "-o", "StrictHostKeyChecking=no", "dev@127.0.0.1"])
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
seen = b""
PROMPT = rb"PROMPT> $"

def until(pattern, seconds=60):
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

def send(text):
    os.write(fd, text.encode())

def tidy(out):
    """Without what differs from run to run, and how the terminal is told to show it."""
    out = re.sub(rb"\x1b(\[[0-9;?]*[a-zA-Z]|[()][A-Z0-9]|[=>])", b"", out).decode().replace("\r", "")
    out = re.sub(r"^\[(\d)\] \d+$", r"[\1] N", out, flags=re.M)
    out = re.sub(r"\b(pid|process|LWP|Thread|PID) [0-9a-fx]+", r"\1 N", out)
    return re.sub(r"0x[0-9a-f]{6,}", "ADDRESS", out).replace("PROMPT> ", "> ")

def command(text, seconds=60):
    send(text + "\r")
    print(tidy(until(PROMPT, seconds)), flush=True)

# The prompt comes when the login is done, whatever it shows before.
until(rb"\$ $")
send("PS1='PROMPT'\\>' '; bind 'set enable-bracketed-paste off'; export GIT_PAGER=cat LC_ALL=C.UTF-8; stty rows 30 cols 100\r")
until(PROMPT)
command("whoami; id; pwd; tty | tr -d 0-9; stty size; echo $TERM $SHELL $HOME; echo ${SSH_CONNECTION% *} | cut -d' ' -f1,3")
command("cat /proc/self/loginuid > /dev/null && echo told; test -w /proc/self/loginuid; echo $?")
command("ps -o user,tty,args --no-headers | sed 's/pts.[0-9]*/pts/'")
command("ulimit -a | grep -c .; umask")

# An editor: what is typed is in the file, and the terminal is as it was.
command("mkdir project && cd project && git init -q -b main . && git config user.name Dev && git config user.email d@e")
# Its last line, which it shows when it has the terminal.
send("vi -u NONE main.c\r")
until(rb'"main\.c" \[New')
send("iint total;\rint add(int n) { total += n; return total; }\rint main(void) {\rfor (int i = 1; i < 4; i++) add(i);\rreturn total == 6 ? 0 : 1;\r}\x1b")
send(":%s/total == 6/total == 3+3/\r:wq\r")
until(PROMPT)
command("cat main.c; ls -A; stty -a | grep -o ' echo \\| icanon '")
send("vi -u NONE main.c\r")
until(rb'"main\.c" 6 lines')
send("\x1a")
until(PROMPT)
command("jobs")
send("fg\r")
until(rb"int total")
send(":q!\r")
until(PROMPT)

command("printf 'main: main.c\\n\\tcc -g -o main main.c\\n' > Makefile; make && ./main; echo $?; make")
command("git add . && GIT_COMMITTER_DATE='2026-01-01T00:00:00Z' git commit -q --date 2026-01-01T00:00:00Z -m first && git status --short && git log --format='%an %s' --stat | cat")
command("printf 'main\\n' > .gitignore; git rm -q --cached main; git stash -q; git branch -a; git diff HEAD --stat; git fsck 2>&1 | tail -1; git gc -q; git log --oneline | wc -l")
command("gdb -q -nx -batch -ex 'break main' -ex run -ex 'watch total' -ex c -ex c -ex 'bt' -ex 'delete' -ex c main 2>&1 | grep -v -e debuginfod -e 'libthread_db' -e '^$'")

command("python3 -m venv --without-pip env && . env/bin/activate && python -c 'import sys; print(sys.prefix != sys.base_prefix, sys.stdin.isatty())'; deactivate")
command("python3 -m venv env2 && env2/bin/pip --version | cut -d' ' -f1 && env2/bin/pip list --disable-pip-version-check 2>&1 | cut -d' ' -f1", 120)

# Two windows and a pane of a multiplexer, left and taken up again.
send("tmux -f /dev/null new-session -s work 'PS1=\"in> \" bash --norc --noprofile'\r")
until(rb"1049h")
until(rb"in> ")
send("echo one; tty | tr -d 0-9\r")
# It may draw all of the screen anew in between.
until(rb"(?s)one[\r\n\x1b].*pts")
send("\x02c")
until(rb"1:")
send("\x02d")
until(rb"detached[^\n]*\n")
until(PROMPT)
command("tmux list-windows -t work -F '#{window_index} #{window_panes}'; tmux split-window -t work:0 'sleep 1000'; tmux list-panes -t work:0 | wc -l")
command("tmux capture-pane -p -t work:0.0 | grep -v '^$'")
command("tmux kill-server; while tmux has-session 2> /dev/null; do sleep 0.1; done; tmux ls 2>&1 | sed 's/on .*//'")

command("echo 'echo at $(whoami) $(cat /proc/self/loginuid > /dev/null && echo told) > ~/at.done' | at now 2>&1 | grep -c '^job'; until [ -s ~/at.done ]; do sleep 0.1; done; cat ~/at.done; atq", 90)
command("echo '@reboot echo cron $(whoami) > ~/cron.done' | crontab - && crontab -l")
# The daemon runs such jobs when it begins.
print("cron", subprocess.run(["cron"]).returncode, flush=True)
command("until [ -s ~/cron.done ]; do sleep 0.1; done; cat ~/cron.done; crontab -r; crontab -l")

command("sleep 1000 & sleep 0.1; kill %1; sleep 0.3; wait; find . -newer Makefile -name '*.c' | wc -l; du -s . > /dev/null; df . > /dev/null; uptime > /dev/null; free > /dev/null; echo $?")
send("exit\r")
until(rb"logout[^$]*")
pid, status = os.waitpid(pid, 0)
print("ended", status)
# The daemon hears of the end by itself; two of its processes write of that, in any order.
while not all(word in (log := open("/root/sshd.log").read()) for word in ("Disconnected", "logout()")):
    time.sleep(0.1)
print("\n".join(sorted(re.sub(r"port \d+|SHA256:\S+|\[\d+\]", "X", log).splitlines())))
END
