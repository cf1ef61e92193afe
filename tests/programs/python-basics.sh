# root: base
# platforms: systrap ptrace
# timeout: 120

# json, threading, subprocess, signal handlers, mmap.
exec python3 - <<'END'
import hashlib, json, mmap, os, queue, signal, subprocess, sys, tempfile, threading, time

data = {"numbers": list(range(1000)), "text": "päivää", "nested": [{"a": None, "b": [True, 1.5]}] * 10}
assert json.loads(json.dumps(data)) == data
print("json", hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16])

total, lock, work = 0, threading.Lock(), queue.Queue()
def count():
    global total
    for _ in range(5000):
        with lock:
            total += 1
    work.put(threading.current_thread().name)
threads = [threading.Thread(target=count, name=f"t{i}") for i in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
print("threads", total, sorted(work.get() for _ in threads))
event = threading.Event()
threading.Timer(0.05, event.set).start()
print("event", event.wait(5))

print("subprocess", subprocess.run(["sh", "-c", "echo out; echo err >&2; exit 3"], capture_output=True, text=True))
p = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
print("cat", len(p.communicate(b"x" * 1000000)[0]), p.returncode)
print("many", sum(int(subprocess.check_output(["sh", "-c", f"echo {i}"])) for i in range(30)))
p = subprocess.Popen(["sleep", "30"]); p.terminate(); print("terminated", p.wait())
try:
    subprocess.run(["sleep", "30"], timeout=0.1)
except subprocess.TimeoutExpired as e:
    print("timeout", e.cmd)

seen = []
signal.signal(signal.SIGUSR1, lambda n, f: seen.append(n))
for _ in range(5):
    os.kill(os.getpid(), signal.SIGUSR1)
signal.setitimer(signal.ITIMER_REAL, 0.02)
signal.signal(signal.SIGALRM, lambda n, f: seen.append(n))
signal.pause()
print("signals", [int(s) for s in seen])
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    os.kill(os.getpid(), signal.SIGINT); time.sleep(5)
except KeyboardInterrupt:
    print("interrupted")

with tempfile.TemporaryFile() as f:
    f.truncate(1 << 20)
    m = mmap.mmap(f.fileno(), 1 << 20)
    m[5000:5005] = b"hello"; m.flush()
    f.seek(5000); print("mmap", f.read(5), m.find(b"lo"))
    m.resize(1 << 21); m[-1] = 7; print("resized", len(m)); m.close()
anonymous = mmap.mmap(-1, 4096)
if os.fork() == 0:
    anonymous[0] = 65; os._exit(5)
print("shared", os.waitstatus_to_exitcode(os.wait()[1]), anonymous[0])
print(os.get_terminal_size.__name__, sys.version_info[:2], os.cpu_count() > 0)
END
