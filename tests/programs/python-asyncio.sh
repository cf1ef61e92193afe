# root: base
# platforms: systrap ptrace
# timeout: 120

# asyncio: pipes of processes, sockets, timers, signals, threads.
exec python3 - <<'END'
import asyncio, os, signal

async def echo(reader, writer):
    while line := await reader.readline():
        writer.write(line.upper()); await writer.drain()
    writer.close()

async def client(port, n):
    r, w = await asyncio.open_connection("127.0.0.1", port)
    out = []
    for i in range(20):
        w.write(f"client {n} line {i}\n".encode()); out.append(await r.readline())
    w.close(); await w.wait_closed()
    return len(out), out[-1]

async def main():
    p = await asyncio.create_subprocess_exec("tr", "a-z", "A-Z", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    print("pipe", await p.communicate(b"hello asyncio"))
    many = await asyncio.gather(*(asyncio.create_subprocess_shell(f"sleep 0.0{i}; exit {i}") for i in range(8)))
    print("exits", [await p.wait() for p in many])
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print("tcp", await asyncio.gather(*(client(port, n) for n in range(10))))
    server.close(); await server.wait_closed()
    server = await asyncio.start_unix_server(echo, "/tmp/sock")
    r, w = await asyncio.open_unix_connection("/tmp/sock")
    w.write(b"unix\n"); print("unix", await r.readline()); w.close(); server.close()
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, event.set)
    loop.call_later(0.02, os.kill, os.getpid(), signal.SIGUSR1)
    await asyncio.wait_for(event.wait(), 5); print("signal")
    print("thread", await asyncio.to_thread(sum, range(1000)))
    try:
        await asyncio.wait_for(asyncio.sleep(10), 0.05)
    except asyncio.TimeoutError:
        print("timeout")

asyncio.run(main())
END
