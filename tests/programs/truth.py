"""Alternates call-dense recursion with a flat loop and measures what each part really cost.

Phases last 10 to 50 ms, at random. Prints each part's share of the time that
both took, by the thread's own CPU clock and by the wall clock. In a profile the
parts are told apart by the frames `dense` and `flat`.
"""
import argparse
import json
import random
import time


def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def dense(until):
    while time.perf_counter() < until:
        fib(10)


def flat(until):
    number = 1
    while time.perf_counter() < until:
        for step in range(200):
            number = (number * 5 + step) & 0xFFFF


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    dice = random.Random(options.seed)
    cpu = {dense: 0, flat: 0}
    wall = {dense: 0, flat: 0}
    part = dense
    end = time.perf_counter() + options.seconds
    while time.perf_counter() < end:
        length = dice.uniform(0.010, 0.050)
        cpu_before, wall_before = time.thread_time_ns(), time.perf_counter_ns()
        part(time.perf_counter() + length)
        cpu[part] += time.thread_time_ns() - cpu_before
        wall[part] += time.perf_counter_ns() - wall_before
        part = flat if part is dense else dense
    print(
        json.dumps(
            {
                "cpu_share_of_dense": cpu[dense] / sum(cpu.values()),
                "wall_share_of_dense": wall[dense] / sum(wall.values()),
                "wall_seconds": sum(wall.values()) / 1e9,
            }
        )
    )


if __name__ == "__main__":
    main()
