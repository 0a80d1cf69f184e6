"""Nests Python and C three times over: top, sorted, middle, reduce, bottom.

`bottom` works for most of the time, in C and in Python, for as many seconds of CPU time as it is told.
"""
import functools
import sys
import time


def top(until):
    sorted([until], key=middle)


def middle(until):
    return functools.reduce(bottom, [until, until])


def bottom(until, _):
    total = 0
    while time.thread_time() < until:
        for number in range(200):
            total += number * number
    return until


def main():
    end = time.thread_time() + float(sys.argv[1])
    while time.thread_time() < end:
        top(time.thread_time() + 0.002)


main()
