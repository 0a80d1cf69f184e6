"""Two loops in two threads: one changes its task all the time, the other works in one for long. What
both note in one dictionary is so written to while it is read.

With the argument `python`, asyncio is the one that is written in Python.
"""

import sys
import threading
import time

if sys.argv[1] == "python":
    sys.modules["_asyncio"] = None

import asyncio

SECONDS = 1.5
TURN = 0.3
END = time.monotonic() + SECONDS


def task(coroutine, name):
    return asyncio.get_running_loop().create_task(coroutine, name=name)


async def hop():
    while time.monotonic() < END:
        await asyncio.sleep(0)


async def hopping():
    await asyncio.gather(*(task(hop(), "hop") for _ in range(20)))


def burn():
    until = time.monotonic() + TURN
    while time.monotonic() < until:
        pass


async def work():
    burn()


async def working():
    while time.monotonic() < END:
        await task(work(), "work")


def main():
    loops = [hopping, working]
    threads = [threading.Thread(target=lambda of: asyncio.run(of()), args=(of,)) for of in loops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
