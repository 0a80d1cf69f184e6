"""Greenlets that run and that wait. Prints, as JSON, the stacks that samples of them must show: what
stands for a greenlet and functions, root first.

    python3 greenlets.py raw|gevent|threads|churn [SECONDS]

`raw` and `gevent` have greenlets of every kind, `threads` one hub of gevent's in each of several
threads, `churn` makes and drops greenlets all the time, whose functions spell their callers.
"""

import json
import os
import sys
import threading
import time

HOW = sys.argv[1] if len(sys.argv) > 1 else "raw"
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0

WAITING = []
RUNNING = []


def until():
    return time.perf_counter() + SECONDS


def burn():
    return sum(range(300))


def raw():
    import greenlet

    main = greenlet.getcurrent()

    class Named(greenlet.greenlet):
        pass

    def waits():
        inner()

    def inner():
        main.switch()

    def key(number):
        main.switch()
        return number

    def sorts():
        sorted([2, 1], key=key)

    def numbers():
        main.switch()
        yield 1

    def iterates():
        for _ in numbers():
            pass

    def deep(depth):
        if depth:
            return deep(depth - 1)
        main.switch()

    def nested():
        child = greenlet.greenlet(nested_child)
        kept.append(child)
        child.switch()

    def nested_child():
        main.switch()

    def ends():
        burn()

    def works():
        end = until()
        while time.perf_counter() < end:
            burn()
        main.switch()

    kept = []
    for function in (waits, sorts, iterates, nested, ends):
        one = greenlet.greenlet(function)
        kept.append(one)
        one.switch()
    one = Named(deep)
    one.name = "deeply"
    kept.append(one)
    one.switch(30)
    kept.append(greenlet.greenlet(burn))  # never begins
    WAITING.extend(
        [
            ["<greenlet (raw.<locals>.waits)>", "waits", "inner"],
            ["<greenlet (raw.<locals>.sorts)>", "sorts", "key"],
            ["<greenlet (raw.<locals>.iterates)>", "iterates", "numbers"],
            ["<greenlet (raw.<locals>.nested)>", "nested"],
            ["<greenlet (raw.<locals>.nested_child)>", "nested_child"],
            ["<deeply (raw.<locals>.deep)>"] + ["deep"] * 31,
            ["<main greenlet (<module>)>", "<module>", "raw"],
        ]
    )
    RUNNING.append(["<greenlet (raw.<locals>.works)>", "works", "burn"])
    one = greenlet.greenlet(works)
    one.switch()
    for one in kept[:-1] + [one]:
        while not one.dead:
            one.switch()


def by_gevent():
    import gevent
    import gevent.event

    event = gevent.event.Event()

    def waits():
        event.wait()

    def key(number):
        event.wait()
        return number

    def sorts():
        sorted([2, 1], key=key)

    def works():
        end = until()
        while time.perf_counter() < end:
            burn()
        event.set()

    kept = [gevent.spawn(waits), gevent.spawn(sorts), gevent.spawn(waits)]
    kept[2].name = "third"
    gevent.sleep(0)
    kept.append(gevent.spawn(works))
    WAITING.extend(
        [
            ["<Greenlet (by_gevent.<locals>.waits)>", "waits"],
            ["<third (by_gevent.<locals>.waits)>", "waits"],
            ["<Greenlet (by_gevent.<locals>.sorts)>", "sorts", "key"],
            ["<main greenlet (<module>)>", "<module>", "by_gevent"],
        ]
    )
    RUNNING.append(["<Greenlet (by_gevent.<locals>.works)>", "works", "burn"])
    gevent.joinall(kept)


def by_threads():
    import gevent
    import gevent.event

    ready = threading.Barrier(3)

    def thread(number):
        event = gevent.event.Event()
        names = {"event": event, "until": until, "clock": time.perf_counter, "burn": burn}
        exec(
            "def waits_{0}(): event.wait()\n"
            "def works_{0}():\n"
            "    end = until()\n"
            "    while clock() < end: burn()\n"
            "    event.set()\n".format(number),
            names,
        )
        waits = gevent.spawn(names["waits_%d" % number])
        gevent.sleep(0)
        works = gevent.spawn(names["works_%d" % number])
        ready.wait()
        gevent.joinall([waits, works])

    for number in range(3):
        WAITING.append(["<Greenlet (waits_%d)>" % number, "waits_%d" % number])
        RUNNING.append(["<Greenlet (works_%d)>" % number, "works_%d" % number, "burn"])
    made = [threading.Thread(target=thread, args=(number,)) for number in range(3)]
    for one in made:
        one.start()
    for one in made:
        one.join()


CHURN = """
def leaf_{n}(depth):
    return depth

def step_{n}(depth):
    if depth:
        return step_{n}(depth - 1)
    switch()
    return leaf_{n}(depth)

def worker_{n}(rounds):
    for depth in range(rounds):
        step_{n}(depth % 7)
"""


def churn():
    import greenlet

    main = greenlet.getcurrent()
    names = {"switch": lambda: main.switch()}
    count = 8
    exec("".join(CHURN.format(n=n) for n in range(count)), names)
    workers = [names["worker_%d" % n] for n in range(count)]
    # Where a thread's greenlets are is found within its first samples.
    found = time.perf_counter() + 0.3
    while time.perf_counter() < found:
        burn()
    waiting = []
    made = 0
    end = until()
    while time.perf_counter() < end:
        for worker in workers:
            one = greenlet.greenlet(worker)
            one.switch(5)
            waiting.append(one)
            made += 1
        for one in waiting[-60:]:
            if not one.dead:
                one.switch()
        # Some are dropped in the middle of what they do.
        if len(waiting) > 400:
            del waiting[:200]
    os.write(2, b"made %d\n" % made)


{"raw": raw, "gevent": by_gevent, "threads": by_threads, "churn": churn}[HOW]()
print(json.dumps({"waiting": WAITING, "running": RUNNING}))
