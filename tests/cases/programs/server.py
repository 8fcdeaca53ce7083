# What CPython can have going on at once. Every line that comes in is answered; "state" tells how far everything is.
import asyncio, fcntl, json, mmap, os, queue, signal, socket, subprocess, tempfile, threading, time

counts = [0] * 4
gate = threading.Condition()
work, done = queue.Queue(), queue.Queue()


def counts_up(place):
    while True:
        with gate:
            counts[place] += 1
            gate.notify_all()
        time.sleep(0.01)


def works():
    while True:
        done.put(work.get() + 1)


for place in range(4):
    threading.Thread(target=counts_up, args=(place,), daemon=True).start()
threading.Thread(target=works, daemon=True).start()

alarms = 0


def alarm(*_):
    global alarms
    alarms += 1


signal.signal(signal.SIGALRM, alarm)
signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
usr1 = 0


def on_usr1(*_):
    global usr1
    usr1 += 1


signal.signal(signal.SIGUSR1, on_usr1)

mapped_file = open("/srv/mapped", "w+b")
mapped_file.truncate(1 << 20)
mapped = mmap.mmap(mapped_file.fileno(), 1 << 20)
shared = mmap.mmap(-1, 4096)  # shared with a child that counts in it
if os.fork() == 0:
    n = 0
    while True:
        n += 1
        shared[0:8] = n.to_bytes(8, "little")
        time.sleep(0.01)
if os.fork() == 0:
    os._exit(7)  # a zombie: reaped on "reap" only
echo = subprocess.Popen(["/usr/bin/busybox", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
near, far = socket.socketpair()
nameless = tempfile.TemporaryFile(dir="/srv")
nameless.write(b"no name")
nameless.flush()
locked = open("/srv/locked", "w")
fcntl.lockf(locked, fcntl.LOCK_EX)
secret = os.urandom(1 << 20)  # only in memory
told = hash(secret)


def state():
    mapped[0:8] = (int.from_bytes(mapped[0:8], "little") + 1).to_bytes(8, "little")
    work.put(1)
    near.send(b"x")
    echo.stdin.write(b"line\n")
    with gate:
        gate.wait(5)
    nameless.seek(0)
    return {
        "counts": counts[:],
        "alarms": alarms,
        "usr1": usr1,
        "mapped": int.from_bytes(open("/srv/mapped", "rb").read(8), "little"),
        "shared": int.from_bytes(shared[0:8], "little"),
        "worker": done.get(timeout=5),
        "socket": far.recv(1).decode(),
        "pipe": echo.stdout.readline().decode().strip(),
        "nameless": nameless.read().decode(),
        "memory": hash(secret) == told,
        "ticks": ticks,
    }


ticks = 0


async def tick():
    global ticks
    while True:
        await asyncio.sleep(0.01)
        ticks += 1


async def serve(reader, writer):
    while line := (await reader.readline()).decode().strip():
        if line == "state":
            answer = json.dumps(state())
        elif line == "reap":
            pid, status = os.waitpid(-1, os.WNOHANG)
            answer = str(os.waitstatus_to_exitcode(status)) if pid else "nobody"
        elif line == "session":
            answer = json.dumps([os.getpid(), os.getsid(0), os.getpgid(0)])
        else:
            answer = "heard " + line
        writer.write((answer + "\n").encode())
        await writer.drain()


async def main():
    asyncio.create_task(tick())
    server = await asyncio.start_server(serve, "0.0.0.0", 8000)
    async with server:
        await server.serve_forever()


asyncio.run(main())
