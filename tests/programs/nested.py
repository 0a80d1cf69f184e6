"""Nests Python and C three times over: top, sorted, middle, reduce, bottom.

`bottom` works for most of the time, in C and in Python. Prints its process id.
"""
import functools
import os
import sys
import time


def top(until):
    sorted([until], key=middle)


def middle(until):
    return functools.reduce(bottom, [until, until])


def bottom(until, _):
    total = 0
    while time.perf_counter() < until:
        for number in range(200):
            total += number * number
    return until


def main():
    end = time.perf_counter() + float(sys.argv[1])
    while time.perf_counter() < end:
        top(time.perf_counter() + 0.002)


print(os.getpid(), flush=True)
main()
