"""Terminals and executed processes through images: checkpoint.py RUNTIME DIRECTORY"""

import os
import subprocess
import sys
import tempfile
import time

from console_socket import Console
from terminal_session import PROMPT, SHELL

runtime, work = sys.argv[1:]
here = os.path.dirname(os.path.abspath(__file__))


def oci(*arguments):
    print("moat", *arguments)
    # In files: a container keeps the pipes that it is made with; what is executed behind it keeps nothing.
    if "-d" in arguments:
        subprocess.run([runtime, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, check=True, timeout=20)
        return ""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        status = subprocess.run([runtime, *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=errors, check=False,
                                timeout=20).returncode
        out.seek(0)
        errors.seek(0)
        if status:
            raise SystemExit(f"{arguments}: status {status}: {errors.read()}")
        return out.read()


def expect(what, got, wanted):
    if got != wanted:
        raise SystemExit(f"{what}: {got!r}, not {wanted!r}")


def answer(console, line):
    """What a line that is typed at the prompt is answered, without its echo."""
    console.send(line + "\r")
    return console.text_until(PROMPT).split("\n", 1)[-1].removesuffix("PROMPT> ").strip()


def restore(name, *flags):
    console = Console(work + "/" + name)
    oci("restore", "--detach", "--bundle", work + "/box", "--console-socket", console.path, *flags)
    console.receive()
    return console


def own_terminal():
    patch = '{"process": {"terminal": true, "env": ["PATH=/usr/bin:/bin", "PS1=PROMPT> ", "HISTFILE=", "TERM=dumb"]}}'
    subprocess.run([sys.executable, here + "/bundle.py", work + "/box", patch, *SHELL], check=True)
    console = Console(work + "/c1")
    oci("create", "--bundle", work + "/box", "--console-socket", console.path, "box")
    console.receive()
    oci("start", "box")
    console.until(PROMPT)
    console.resize(24, 90)
    answer(console, "until test \"$(stty size)\" = '24 90'; do sleep 0.05; done")
    for line in ["x=7", "stty erase ^H", "exec 5<>/dev/tty 6>/dev/console", "trap 'echo resized' WINCH"]:
        expect(line, answer(console, line), "")
    # In the middle of a job, which has the foreground.
    console.send("sleep 1000\r")
    time.sleep(0.5)
    oci("checkpoint", "--image-path", work + "/image", "--leave-running", "box")
    console.send("\x03")
    console.until(PROMPT)
    expect("the one that went on", answer(console, "echo $? $x"), "130 7")
    oci("delete", "--force", "box")

    # A terminal that has no size yet has that of the image.
    console = restore("c2", "--image-path", work + "/image", "box")
    console.send("\x03")
    console.until(PROMPT)
    expect("state", answer(console, "echo $? $x"), "130 7")
    expect("size", answer(console, "stty size"), "24 90")
    expect("name", answer(console, "tty; ps -o comm=,tty= -p $$"), "/dev/pts/0\nbash            pts/0")
    expect("settings", answer(console, "stty -a | grep -oE '\\berase = [^;]*'"), "erase = ^H")
    expect("/dev/tty", answer(console, "echo by tty >&5; readlink /proc/$$/fd/5"), "by tty\n/dev/tty")
    expect("/dev/console", answer(console, "echo by console >&6; readlink /proc/$$/fd/6"), "by console\n/dev/console")
    console.resize(30, 80)
    # Saved and ended, and once more: the second image is as good as the first. One that has another size says so.
    oci("checkpoint", "--image-path", work + "/second", "box")
    patch = '{"process": {"terminal": true, "consoleSize": {"height": 40, "width": 100}}}'
    subprocess.run([sys.executable, here + "/bundle.py", work + "/box", patch, *SHELL], check=True)
    console = restore("c3", "--image-path", work + "/second", "box")
    console.send("\r")
    console.until(rb"resized\r\n(.|\n)*" + PROMPT)
    expect("state", answer(console, "echo $x; tty; stty size"), "7\n/dev/pts/0\n40 100")
    console.send("exit 3\r")
    for _ in range(100):
        if '"stopped"' in oci("state", "box").replace(" ", ""):
            break
        time.sleep(0.1)
    oci("delete", "box")


def executed():
    subprocess.run([sys.executable, here + "/bundle.py", work + "/plain", "{}", "sleep", "1000"], check=True)
    oci("create", "--bundle", work + "/plain", "plain")
    oci("start", "plain")
    counting = "i=0; while :; do i=$((i + 1)); echo $i > /tmp/count; sleep 0.05; done"
    oci("exec", "-d", "plain", "sh", "-c", counting)
    # With a client, whose pipes end with it.
    piped = "trap '' PIPE; cat; echo end of input > /tmp/input; echo x || echo no output > /tmp/output"
    client = subprocess.Popen([runtime, "exec", "plain", "sh", "-c", piped], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL)
    # With a terminal, which hangs up.
    console = Console(work + "/c4")
    oci("exec", "-d", "--tty", "--console-socket", console.path, "--env", "PS1=PROMPT> ", "plain", *SHELL)
    console.receive()
    console.until(PROMPT)
    expect("name", answer(console, "tty"), "/dev/pts/0")
    console.send("trap 'echo hung up > /tmp/terminal' HUP; while :; do sleep 0.1; done\r")
    time.sleep(0.5)
    # A file of the host can't be found again, and that is said.
    with open(work + "/log", "w", encoding="ascii") as log:
        logging = subprocess.Popen([runtime, "exec", "plain", "sh", "-c", "echo logging; exec sleep 1000"], stdout=log,
                                   stdin=subprocess.DEVNULL)
        while not os.path.getsize(work + "/log"):
            time.sleep(0.05)
        refused = subprocess.run([runtime, "checkpoint", "--image-path", work + "/third", "plain"], capture_output=True,
                                 text=True, check=False)
        if "a file of the host that was given to exec" not in refused.stderr or refused.returncode == 0:
            raise SystemExit(f"not refused: {refused}")
        logging.terminate()
        logging.wait()
    oci("checkpoint", "--image-path", work + "/third", "plain")
    expect("the client's status", client.wait(), 137)
    oci("restore", "--detach", "--bundle", work + "/plain", "--image-path", work + "/third", "plain")
    show = lambda name: oci("exec", "plain", "cat", "/tmp/" + name).strip()
    eventually = "for _ in $(seq 100); do test -s /tmp/{0} && exec cat /tmp/{0}; sleep 0.1; done"
    for name, wanted in [("input", "end of input"), ("output", "no output"), ("terminal", "hung up")]:
        expect(name, oci("exec", "plain", "sh", "-c", eventually.format(name)).strip(), wanted)
    before = int(show("count"))
    time.sleep(0.5)
    if int(show("count")) <= before:
        raise SystemExit("what was executed does not go on")
    oci("delete", "--force", "plain")


own_terminal()
executed()
