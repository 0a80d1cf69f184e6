"""Loops that do nothing but call a function which returns at once, in several ways.

Each loop is a function named `calls_...`, and what it calls is `brief`.
"""

import argparse
import time


class Object:
    def brief(self):
        pass


def closure():
    value = 1

    def brief():
        return value

    return brief


def brief(*_arguments):
    pass


def calls_method(times):
    thing = Object()
    for _ in range(times):
        thing.brief()


def calls_closure(times):
    call = closure()
    for _ in range(times):
        call()


def calls_function(times):
    for _ in range(times):
        brief(1, 2, 3)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    until = time.perf_counter() + options.seconds
    while time.perf_counter() < until:
        for loop in (calls_method, calls_closure, calls_function):
            loop(5000)


main()
