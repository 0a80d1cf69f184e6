"""Works, sleeps, computes without the GIL and contends for it, and measures the CPU time of each.

    naps      uses the processor half of the time and sleeps the other half
    crunch    is in C code that has released the GIL, and allocates nothing before or after
    contend   runs in two threads at once that both want the GIL

Prints the CPU and wall time of each, and how long naps has slept, in nanoseconds.
"""
import argparse
import json
import threading
import time
import zlib

NAP = 0.02
DATA = bytes(range(256)) * (1 << 17)


def naps(until):
    slept = 0
    while time.monotonic() < until:
        busy_until = time.thread_time() + NAP
        while time.thread_time() < busy_until:
            pass
        before = time.monotonic_ns()
        time.sleep(NAP)
        slept += time.monotonic_ns() - before
    return slept


def crunch(until):
    while time.monotonic() < until:
        zlib.crc32(DATA)


def contend(until):
    total = 0
    while time.monotonic() < until:
        for number in range(2000):
            total += number
    return total


def measured(part, seconds, spent):
    wall, cpu = time.monotonic_ns(), time.thread_time_ns()
    result = part(time.monotonic() + seconds)
    used = time.thread_time_ns() - cpu
    name = part.__name__
    spent[name] = spent.get(name, 0) + used
    spent[name + "_wall"] = time.monotonic_ns() - wall
    spent[name + "_result"] = result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    spent = {}
    measured(naps, options.seconds, spent)
    measured(crunch, options.seconds / 2, spent)
    threads = [
        threading.Thread(target=measured, args=(contend, options.seconds, spent))
        for _ in range(2)
    ]
    before = time.monotonic_ns()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent["contend_span"] = time.monotonic_ns() - before
    print(json.dumps(spent))


if __name__ == "__main__":
    main()
