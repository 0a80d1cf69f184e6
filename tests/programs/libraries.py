"""Does what other people's libraries do to a process: stacks that are switched in C, event loops
written in C, threads that are not Python's.

    python3 libraries.py greenlet|gevent|uvloop|numpy TRUTH

What it prints is the same each time. How long each of its workers took of the CPU is written to
the file TRUTH, as JSON. The workers' functions spell whose they are: `step_3` is called by
`turn_3` only, and that by `worker_3`.
"""
import hashlib
import json
import sys
import threading
import time

WORKERS = 6
ROUNDS = int(sys.argv[3]) if sys.argv[3:] else 1000

WORKER = """
def leaf_{n}(number):
    return (number * 5 + {n}) & 0xFFFF

def step_{n}(number, depth):
    if depth:
        return step_{n}(leaf_{n}(number), depth - 1)
    return number

def turn_{n}(number):
    before = clock()
    for _ in range({units}):
        number = step_{n}(number, 8)
    spent[{n}] += clock() - before
    return number
"""

PLAIN = """
def worker_{n}(number):
    for _ in range(rounds):
        number = turn_{n}(number)
        switch()
    return number
"""

COROUTINE = """
async def worker_{n}(number):
    for _ in range(rounds):
        number = turn_{n}(number)
        await switch()
    return number
"""


def workers(kind, switch):
    """Functions of which each does more than the one before, and a list of what each took."""
    names = {"clock": time.thread_time, "spent": [0.0] * WORKERS, "rounds": ROUNDS}
    names["switch"] = switch
    text = "".join((WORKER + kind).format(n=n, units=20 + 20 * n) for n in range(WORKERS))
    exec(compile(text, "workers.py", "exec"), names)
    return [names["worker_%d" % n] for n in range(WORKERS)], names["spent"]


def by_greenlet():
    import greenlet

    hub = greenlet.getcurrent()
    made, spent = workers(PLAIN, lambda: hub.switch())
    running = [greenlet.greenlet(worker) for worker in made]
    results = {}
    waiting = list(enumerate(running))
    while waiting:
        for n, one in waiting:
            value = one.switch(n) if one else one.switch(n)
            if one.dead:
                results[n] = value
        waiting = [(n, one) for n, one in waiting if not one.dead]
    print(sorted(results.items()))
    return spent


def by_gevent():
    from gevent import monkey

    monkey.patch_all()
    import socket
    import subprocess

    import gevent
    import gevent.pool

    made, spent = workers(PLAIN, lambda: time.sleep(0))
    pool = gevent.pool.Pool(WORKERS)
    jobs = [pool.spawn(worker, n) for n, worker in enumerate(made)]

    # Threads and sockets are the library's now.
    listener = socket.create_server(("127.0.0.1", 0)) if hasattr(socket, "create_server") else None
    heard = []

    def serve():
        connection, _ = listener.accept()
        with connection:
            while True:
                data = connection.recv(100)
                if not data:
                    return
                heard.append(data)
                connection.sendall(data.upper())

    server = threading.Thread(target=serve)
    server.start()
    with socket.create_connection(listener.getsockname()) as client:
        answers = []
        for n in range(50):
            client.sendall(b"word %d" % n)
            answers.append(client.recv(100))
    server.join()
    listener.close()
    child = subprocess.run(
        [sys.executable, "-S", "-c", "print(6 * 7)"], stdout=subprocess.PIPE, env={}
    )
    gevent.joinall(jobs, raise_error=True)
    print([job.value for job in jobs], heard == [one.lower() for one in answers], child.stdout)
    return spent


def by_uvloop():
    import asyncio
    import os
    import signal

    import uvloop

    async def switch():
        await asyncio.sleep(0)

    made, spent = workers(COROUTINE, switch)

    async def serve(reader, writer):
        while True:
            line = await reader.readline()
            if not line:
                break
            writer.write(line.upper())
        writer.close()

    async def main():
        loop = asyncio.get_running_loop()
        caught = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, caught.set)
        jobs = [asyncio.ensure_future(worker(n)) for n, worker in enumerate(made)]
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        answers = []
        for n in range(50):
            writer.write(b"word %d\n" % n)
            answers.append(await reader.readline())
        writer.close()
        server.close()
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.wait_for(caught.wait(), 30)
        child = await asyncio.create_subprocess_exec(
            *[sys.executable, "-S", "-c", "print(6 * 7)"], stdout=asyncio.subprocess.PIPE, env={}
        )
        out, _ = await child.communicate()
        blocking = await loop.run_in_executor(None, sum, range(1000))
        print(await asyncio.gather(*jobs), answers[-1], out, blocking, type(loop).__module__)

    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(main())
    loop.close()
    return spent


def by_numpy():
    import numpy

    made, spent = workers(PLAIN, lambda: None)
    results = [None] * WORKERS

    def run(n):
        dice = numpy.random.RandomState(n)
        # Large enough for the library to have its own threads multiply.
        one = dice.randint(0, 50, (300, 300)).astype(float)
        sums = [made[n](n)]
        for _ in range(5):
            one = (one @ one.T) % 97
            sums.append(int(one.sum()))
        results[n] = sums + [hashlib.md5(numpy.sort(one, axis=None).tobytes()).hexdigest()]

    threads = [threading.Thread(target=run, args=(n,)) for n in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(results)
    return spent


def main():
    spent = globals()["by_" + sys.argv[1]]()
    with open(sys.argv[2], "w") as file:
        json.dump(spent, file)


if __name__ == "__main__":
    main()
