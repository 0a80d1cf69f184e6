"""Computes Fibonacci numbers the dense way: nothing but calls, for a number of seconds.

Prints the calls made and what one cost, so that runs with and without a profiler
can be compared.
"""
import argparse
import json
import time

CALLS_OF_FIB_15 = 1973


def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    calls = 0
    before = time.process_time()
    until = time.perf_counter() + options.seconds
    while time.perf_counter() < until:
        fib(15)
        calls += CALLS_OF_FIB_15
    cpu = time.process_time() - before
    print(json.dumps({"calls": calls, "cpu_ns_per_call": cpu / calls * 1e9}))


if __name__ == "__main__":
    main()
