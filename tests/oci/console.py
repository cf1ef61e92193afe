"""Plays the part of a shim for terminals: console.py RUNTIME DIRECTORY"""

import os
import subprocess
import sys
import time

from console_socket import Console
from terminal_session import PROMPT, SHELL

runtime, work = sys.argv[1:]
here = os.path.dirname(os.path.abspath(__file__))


def oci(*arguments):
    result = subprocess.run([runtime, *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        print("status", result.returncode, arguments[0])
        print(result.stderr, file=sys.stderr)
    return result.stdout


def converse(console):
    console.until(PROMPT)
    console.resize(24, 90)
    for line in ["until test \"$(stty size)\" = '24 90'; do sleep 0.05; done; stty size", "tty", "ps -o comm=,tty= -p $$",
                 "ls -l /dev/console | cut -c 1"]:
        console.send(line + "\r")
        print(console.text_until(PROMPT))
    console.send("sleep 100\r")
    time.sleep(0.3)
    console.send("\x03")
    console.until(PROMPT)
    console.send("echo status $?\r")
    print(console.text_until(PROMPT))


def stopped(name):
    for _ in range(100):
        if '"stopped"' in oci("state", name).replace(" ", ""):
            return True
        time.sleep(0.1)
    return False


patch = '{"process": {"terminal": true, "env": ["PATH=/usr/bin:/bin", "PS1=PROMPT> ", "HISTFILE=", "TERM=dumb"]}}'
subprocess.run([sys.executable, here + "/bundle.py", work + "/box", patch, *SHELL], check=True)
console = Console(work + "/c1")
oci("create", "--bundle", work + "/box", "--console-socket", console.path, "box")
console.receive()
oci("start", "box")
converse(console)

executed = Console(work + "/c2")
oci("exec", "-d", "--tty", "--console-socket", executed.path, "--pid-file", work + "/pid", "box", *SHELL)
executed.receive()
converse(executed)
executed.send("exit\r")
time.sleep(0.3)

console.send("exit 3\r")
print("stopped", stopped("box"))
oci("delete", "box")

# Without a socket there is nowhere to send it to; and a socket without a terminal is a mistake too.
oci("create", "--bundle", work + "/box", "none")
subprocess.run([sys.executable, here + "/bundle.py", work + "/plain", "{}", "true"], check=True)
console = Console(work + "/c3")
oci("create", "--bundle", work + "/plain", "--console-socket", console.path, "plain")
