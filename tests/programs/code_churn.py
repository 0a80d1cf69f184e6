"""Makes functions whose names spell their file and first line, runs each for a moment and frees it.

The next one lands at the same addresses, so a profiler that remembers code
objects by address alone mixes them up. `outer_000123_045` starts at line 45 of
`made_000123.py` and calls only `inner_000123_047`. Prints how many
functions there were and how many of them reused an earlier one's address.
"""
import argparse
import json
import random
import time

SOURCE = """{blank}def outer_{serial:06}_{first:03}(until, clock):
    inner_{serial:06}_{second:03}(until, clock)
def inner_{serial:06}_{second:03}(until, clock):
    while clock() < until:
        pass
"""


def compiled(serial, first):
    text = SOURCE.format(blank="\n" * (first - 1), serial=serial, first=first, second=first + 2)
    return compile(text, "/made/made_%06d.py" % serial, "exec")


def made_of(code, serial, first):
    functions = {}
    exec(code, functions)
    return functions["outer_%06d_%03d" % (serial, first)]


def make(serial, first):
    return made_of(compiled(serial, first), serial, first)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    dice = random.Random(options.seed)
    clock = time.perf_counter
    seen = set()
    serial = reused = 0
    end = clock() + options.seconds
    while clock() < end:
        outer = make(serial, dice.randint(1, 900))
        address = id(outer.__code__)
        reused += address in seen
        seen.add(address)
        outer(clock() + 0.0002, clock)
        # The functions and their globals keep each other alive: cut the ring.
        outer.__globals__.clear()
        del outer
        serial += 1
    print(json.dumps({"functions": serial, "reused": reused}))


if __name__ == "__main__":
    main()
