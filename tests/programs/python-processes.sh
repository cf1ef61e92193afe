# root: base
# platforms: systrap ptrace
# timeout: 180

# multiprocessing, by fork and by spawn, from a file, because spawn imports it.
cat > /tmp/work.py <<'END'
import multiprocessing as mp, os, sys
from concurrent.futures import ProcessPoolExecutor

def square(x):
    return x * x

def produce(q, n):
    for i in range(n):
        q.put(i)
    q.put(None)

def bump(value, lock):
    for _ in range(500):
        with lock:
            value.value += 1

def main(method):
    context = mp.get_context(method)
    with context.Pool(3) as pool:
        print(method, "pool", sum(pool.map(square, range(500))), pool.apply_async(square, (9,)).get(30))
    queue = context.Queue()
    p = context.Process(target=produce, args=(queue, 200)); p.start()
    print(method, "queue", sum(iter(queue.get, None))); p.join()
    value, lock = context.Value("i", 0), context.Lock()
    ps = [context.Process(target=bump, args=(value, lock)) for _ in range(3)]
    [p.start() for p in ps]; [p.join() for p in ps]
    print(method, "value", value.value, [p.exitcode for p in ps])
    a, b = context.Pipe(); a.send({"x": [1, 2]}); print(method, "pipe", b.recv())
    with ProcessPoolExecutor(2, mp_context=context) as e:
        print(method, "futures", list(e.map(square, range(5))))

if __name__ == "__main__":
    main("fork")
    main("spawn")
END
cd /tmp && exec python3 work.py
