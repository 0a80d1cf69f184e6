"""Spends half of its time in C functions, and measures how long each takes.

Each part calls one function, and works on in Python in between; what it calls is in the name that
it prints, as far as the interpreter can tell it. Prints nanoseconds: of each part the whole, and
what it spent in the call.
"""
import argparse
import functools
import gc
import json
import re
import sys
import time
import zlib

try:
    import numpy
except ImportError:
    numpy = None

NUMBERS = list(range(30000, 0, -1))
FEW = NUMBERS[:3000]
MANY = NUMBERS * 10
TEXT = "the quick brown fox " * 3000
PATTERN = ".*lazy"
DOCUMENT = json.dumps([{"a": number, "b": [1, 2.5, "x"]} for number in range(1000)])
BYTES = bytes(range(256)) * 400
clock = time.perf_counter
parts = {}


def part(name, call):
    parts[name] = call


def negative(number):
    return -number


def larger(one, other):
    return one if one > other else other


def in_sorted(number):
    return sorted((number,), key=negative)[0]


class Reversed:
    def __init__(self, number):
        self.number = number

    def __lt__(self, other):
        return other.number < self.number


REVERSED = [Reversed(number) for number in FEW[:500]]


part("sorted", lambda: sorted(NUMBERS))
part("sorted_key", lambda: sorted(FEW, key=negative))
part("sorted_lt", lambda: sorted(REVERSED))
part("nested", lambda: sorted(FEW[:1000], key=in_sorted))
part("reduce", lambda: functools.reduce(larger, FEW))
part("match", lambda: re.match(PATTERN, TEXT))
part("loads", lambda: json.loads(DOCUMENT))
part("compress", lambda: zlib.compress(BYTES))
part("sleep", lambda: time.sleep(0.005))
part("list", lambda: list(MANY))
part("collect", lambda: gc.collect())
part("spread", lambda: sorted(*[NUMBERS], **{"reverse": False}))
if numpy:
    VALUES = numpy.arange(200000)[::-1] % 997
    part("argsort", lambda: VALUES.argsort())


def works(ns):
    """Python code alone."""
    total = 0
    until = clock() + ns / 1e9
    while clock() < until:
        for number in FEW:
            total += number
            total ^= number
    return total


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=0.3)
    options = parser.parse_args()
    # Only where it is asked for.
    gc.disable()
    measured = {}
    for name, call in parts.items():
        # By then the interpreter has specialised what it calls.
        for _ in range(20):
            call()
        scope = {"call": call, "clock": clock, "works": works}
        # Each part has a function of its own name.
        exec(PART.format(name), scope)
        measured[name] = scope["part_" + name](clock() + options.seconds)
    print(json.dumps({"parts": measured, "numpy": bool(numpy)}))


PART = """
def part_{0}(until):
    begin = clock()
    spent = 0.0
    while clock() < until:
        before = clock()
        result = call()
        passed = clock() - before
        spent += passed
        del result
        works(passed * 1e9)
    return [(clock() - begin) * 1e9, spent * 1e9]
"""

if __name__ == "__main__":
    main()
