"""Does one after the other what time lines show: work, sleep, collections, exceptions, tasks."""

import asyncio
import gc
import threading
import time


def work(seconds):
    end = time.perf_counter() + seconds
    total = 0
    while time.perf_counter() < end:
        for number in range(500):
            total += number * number
    return total


def descend(depth):
    return descend(depth - 1) if depth else work(0.05)


def handle():
    try:
        raise ValueError("expected")
    except ValueError:
        work(0.1)


def collect():
    garbage = [[number] for number in range(50_000)]
    for _ in range(20):
        gc.collect()
    return garbage


async def wait(seconds):
    await asyncio.sleep(seconds)
    work(seconds)


async def tasks():
    await asyncio.gather(wait(0.02), wait(0.04))


def background():
    time.sleep(0.1)
    work(0.15)
    handle()


thread = threading.Thread(target=background, name="wörker <b>&\"'")
thread.start()
descend(30)
work(0.1)
collect()
time.sleep(0.1)
asyncio.run(tasks())
thread.join()
