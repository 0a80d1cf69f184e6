"""Functions that are called through others which call whatever they are given, from several places each.

Whatever is in the name or on the line of any frame tells what is called in the end: _one or _two, never both in one
stack.
"""

import argparse
import functools
import time


def leaf_one(_=None):
    pass


def leaf_two(_=None):
    pass


def helps():
    pass


def deep_one():
    helps()


def deep_two():
    helps()


def runs(called):
    called()


def passes(*arguments, **options):
    return options["called"](*arguments)


def maps(called):
    return [*map(called, (1,))]


ord_two = functools.partial(ord, "2")


class Holder:
    def __init__(self, called):
        self.called = called

    def go(self):
        self.called()


class Methods:
    holds_one = Holder(leaf_one)
    holds_two = Holder(leaf_two)


def first():
    runs(leaf_one)
    runs(leaf_two)


def second():
    runs(leaf_two)
    runs(leaf_one)


def only_one():
    runs(leaf_one)


def only_two():
    runs(leaf_two)


def with_options():
    passes(called=leaf_one)
    passes(1, called=leaf_two)


def through_c():
    maps(leaf_one)
    maps(leaf_two)


def through_methods():
    Methods.holds_one.go()
    Methods.holds_two.go()


def deeper():
    runs(deep_one)
    runs(deep_two)


def not_pythons():
    runs(leaf_one)
    runs(ord_two)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2.0)
    end = time.monotonic() + parser.parse_args().seconds
    while time.monotonic() < end:
        for _ in range(500):
            first()
            second()
            only_one()
            only_two()
            with_options()
            through_c()
            through_methods()
            deeper()
            not_pythons()


main()
