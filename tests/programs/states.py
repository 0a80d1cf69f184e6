"""Collects garbage, handles exceptions and waits for the GIL, and measures how long each takes.

    collects   makes cycles, so that the collector runs often
    handles    works half of the time in an `except` block
    spins      runs in two threads that both want the GIL
    dozes      sleeps, and waits for the GIL that those hold

Prints nanoseconds: the whole of each part, and of it what was the collector's, what was spent in
the block, what the threads waited although they could run.
"""
import argparse
import gc
import json
import threading
import time

WORK = 0.01
NAP = 0.03
spent = {}


def add(name, ns):
    spent[name] = spent.get(name, 0) + ns


class Node:
    def __init__(self):
        self.me = self
        self.load = [[] for _ in range(30)]


def on_collection(phase, info, started=[0]):
    if phase == "start":
        started[0] = time.monotonic_ns()
    else:
        passed = time.monotonic_ns() - started[0]
        add("collecting", passed)
        add("collecting_%d" % info["generation"], passed)


def collects(until):
    keep = []
    while time.monotonic() < until:
        keep.append([Node() for _ in range(50)])
        if len(keep) > 200:
            keep.clear()


def busy(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def handles(until):
    while time.monotonic() < until:
        busy(WORK)
        try:
            raise ValueError("expected")
        except ValueError:
            before = time.monotonic_ns()
            busy(WORK)
            add("handling", time.monotonic_ns() - before)


def spins(until):
    total = 0
    before = time.monotonic_ns()
    while time.monotonic() < until:
        for number in range(2000):
            total += number
    wall = time.monotonic_ns() - before
    # At any time one of the two has it, and the other waits.
    return wall, wall // 2


def dozes(until):
    wall = slept = 0
    while time.monotonic() < until:
        before = time.monotonic_ns()
        time.sleep(NAP)
        passed = time.monotonic_ns() - before
        wall += passed
        slept += min(passed, int(NAP * 1e9))
    return wall, wall - slept


def measured(name, part, seconds):
    before = time.monotonic_ns()
    part(time.monotonic() + seconds)
    spent[name] = time.monotonic_ns() - before


def contend(seconds):
    until = time.monotonic() + seconds
    results = {}

    def run(name, part):
        results[name] = part(until)

    parts = [("spins", spins), ("spins_too", spins), ("dozes", dozes)]
    threads = [threading.Thread(target=run, args=part) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for part, name in [("spins", "spins"), ("spins_too", "spins"), ("dozes", "dozes")]:
        wall, waiting = results[part]
        add(name, wall)
        add(name + "_waiting", waiting)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    gc.callbacks.append(on_collection)
    measured("collects", collects, options.seconds)
    gc.callbacks.remove(on_collection)
    measured("handles", handles, options.seconds)
    contend(options.seconds)
    print(json.dumps(spent))


if __name__ == "__main__":
    main()
