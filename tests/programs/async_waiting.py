"""Tasks that wait, for a while. Prints, as JSON, the chains that samples of all tasks must show: names
of tasks and functions from the root on; and two tasks that wait for each other.

With the argument `python`, asyncio is the one that is written in Python; with `uvloop`, its loop is
that one's.
"""

import json
import os
import sys
import time

HOW = sys.argv[1] if len(sys.argv) > 1 else "c"
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 0.5

if HOW == "python":
    sys.modules["_asyncio"] = None

import asyncio

if HOW == "uvloop":
    import uvloop

EXPECTED = []


def task(coroutine, name):
    return asyncio.get_running_loop().create_task(coroutine, name=name)


def expect(*chain):
    EXPECTED.append(["<root>", "main"] + list(chain))


async def sleeper():
    await asyncio.sleep(SECONDS)


async def awaits(other):
    await other


async def numbers():
    await asyncio.sleep(SECONDS)
    yield 1


async def counts():
    async for _ in numbers():
        pass


async def locked(lock):
    await lock.acquire()


async def busy():
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        burn()
        await asyncio.sleep(0)


def burn():
    end = time.perf_counter() + 0.002
    while time.perf_counter() < end:
        pass


async def main():
    lock = asyncio.Lock()
    await lock.acquire()
    first = task(sleeper(), "plain")
    expect("<plain>", "sleeper", "sleep")
    second = task(awaits(task(awaits(task(sleeper(), "last")), "middle")), "first")
    expect("<first>", "awaits", "<middle>", "awaits", "<last>", "sleeper", "sleep")
    third = task(counts(), "counts")
    expect("<counts>", "counts", "numbers", "sleep")
    shared = task(sleeper(), "shared")
    left, right = task(awaits(shared), "left"), task(awaits(shared), "right")
    expect("<left>", "awaits", "<shared (2 parents)>", "sleeper", "sleep")
    expect("<right>", "awaits")
    grouped = asyncio.gather(task(sleeper(), "in both"))
    expect("<in both>", "sleeper", "sleep")
    lonely = task(locked(lock), "lonely")
    # Qualified names are there from 3.11 on.
    acquire = "Lock.acquire" if sys.version_info >= (3, 11) else "acquire"
    EXPECTED.append(["<lonely>", "locked", acquire])
    box = []

    async def in_circle(index):
        while len(box) < 2:
            await asyncio.sleep(0)
        await box[1 - index]

    box += [task(in_circle(index), "circle %d" % index) for index in range(2)]
    working = task(busy(), "working")
    await asyncio.gather(first, second, third, left, right, grouped, working)
    lock.release()
    await lonely


loop = uvloop.new_event_loop() if HOW == "uvloop" else asyncio.new_event_loop()
loop.run_until_complete(loop.create_task(main(), name="root"))
print(json.dumps(EXPECTED), flush=True)
# Those in the circle would complain, and cannot be cancelled.
os._exit(0)
