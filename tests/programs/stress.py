"""Wears out what a profiler keeps of threads, stacks and code objects.

`threads` come and go, `crowd` is many at once, `deep` recurses as far as the machine allows and as
far as Python does, `churn` makes functions and drops them, so that others land at their addresses.
The functions are those of code_churn.py, of few kinds. Prints by how much the process's memory grew
after the first fifth of the work.
"""
import argparse
import json
import marshal
import random
import sys
import threading
import time

import code_churn

MOMENT = 0.0001
clock = time.perf_counter
# What tells one kind of function from another: its number, and the line where it begins.
KINDS = [(kind, random.Random(kind).randint(1, 900)) for kind in range(64)]


class Growth:
    """By how many bytes memory grew since the first fifth of the work."""

    def __init__(self, count):
        self.first = count // 5
        self.before = 0

    def step(self, number):
        if number == self.first:
            self.before = self.resident()

    def bytes(self):
        return self.resident() - self.before

    @staticmethod
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096


def one_moment(function):
    function(clock() + MOMENT, clock)


def threads(count):
    """Short threads, few at a time."""
    functions = [code_churn.make(*kind) for kind in KINDS]
    growth = Growth(count)
    at_a_time = 20
    for number in range(0, count, at_a_time):
        growth.step(number)
        wave = [
            threading.Thread(target=one_moment, args=(functions[(number + one) % len(functions)],))
            for one in range(at_a_time)
        ]
        for thread in wave:
            thread.start()
        for thread in wave:
            thread.join()
    return {"grown": growth.bytes()}


def some_moments(function, all_here):
    all_here.wait()
    for _ in range(20):
        time.sleep(0.02)
        function(clock() + MOMENT, clock)
    all_here.wait()


def crowd(count):
    """Many threads at once: all are there before any begins, and until all are done."""
    functions = [code_churn.make(*kind) for kind in KINDS]
    threading.stack_size(256 << 10)
    all_here = threading.Barrier(count)
    started = [
        threading.Thread(target=some_moments, args=(functions[one % len(functions)], all_here))
        for one in range(count)
    ]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return {}


def descend(levels):
    if levels:
        return descend(levels - 1)
    return bottom()


def bottom():
    # Stacks this deep are read a hundred times a second at least.
    until = clock() + 1.0
    while clock() < until:
        pass


def bottomless():
    return bottomless()


def deep(count):
    """A stack of `count` frames, then stacks that end in RecursionError."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(count + 100)
    # Up to 3.10 each call takes of the thread's own stack, too.
    threading.stack_size(1 << 30)
    diver = threading.Thread(target=descend, args=(count,))
    diver.start()
    diver.join()
    sys.setrecursionlimit(limit)
    ends = 0
    until = clock() + 0.3
    while clock() < until:
        try:
            bottomless()
        except RecursionError:
            ends += 1
    return {"ends": ends}


def churn(count):
    """Functions that are made, called for a moment, and dropped."""
    packed = [(marshal.dumps(code_churn.compiled(*kind)), kind) for kind in KINDS]
    dice = random.Random(1)
    growth = Growth(count)
    kind_at = {}
    reused = 0
    for number in range(count):
        growth.step(number)
        code, kind = dice.choice(packed)
        function = code_churn.made_of(marshal.loads(code), *kind)
        address = id(function.__code__)
        reused += kind_at.get(address, kind) != kind
        kind_at[address] = kind
        function(clock() + MOMENT / 10, clock)
        # The functions and their globals keep each other alive: cut the ring.
        function.__globals__.clear()
    return {"grown": growth.bytes(), "reused": reused}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["threads", "crowd", "deep", "churn"])
    parser.add_argument("count", type=int)
    options = parser.parse_args()
    print(json.dumps(globals()[options.what](options.count)))


if __name__ == "__main__":
    main()
