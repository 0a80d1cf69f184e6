"""Does one fixed piece of work under a profiler and writes down what the work itself cost.

    python fixed_work.py PROGRAMS RESULT WORK [SIZE] [--under FRAMES]

WORK is `tree` (random walks down spelled_tree.py of the folder PROGRAMS), `steady`
(a leaf that loops), both done SIZE times below FRAMES more frames, or `truth`
(truth.py, for SIZE seconds). RESULT becomes a JSON object. Before the work,
recursion in `warm_up` gives a profiler on the outside the time to attach.
"""
import argparse
import contextlib
import io
import json
import os
import sys
import time

WARM_UP_SECONDS = 0.5


def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def warm_up(seconds):
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        fib(12)


def clocks():
    """Wall, own thread, own process and parent process; the last is a profiler outside."""
    parent_cpu = ~os.getppid() << 3 | 2  # what clock_getcpuclockid answers on Linux
    return {
        "wall_ns": time.perf_counter_ns(),
        "thread_ns": time.thread_time_ns(),
        "process_ns": time.process_time_ns(),
        "parent_ns": time.clock_gettime_ns(parent_cpu),
    }


def leaf():
    number = 1
    for step in range(20000):
        number = (number * 5 + step) & 0xFFFF


def walk(work, times):
    for _ in range(times):
        work()


def main(work, times, cost):
    before = clocks()
    walk(work, times)
    after = clocks()
    cost.update((name, after[name] - before[name]) for name in after)


def under(frames, names):
    """Calls main below more frames; `<module>`, `main`, `walk` stay the tree's last callers."""
    if frames:
        under(frames - 1, names)
    else:
        exec("main(work, times, cost)", names)


def truth(seconds):
    import truth

    sys.argv[1:] = ["--seconds", str(seconds)]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        truth.main()
    return json.loads(printed.getvalue())


def run():
    parser = argparse.ArgumentParser()
    parser.add_argument("programs")
    parser.add_argument("result")
    parser.add_argument("work", choices=["tree", "steady", "truth"])
    parser.add_argument("size", type=float)
    parser.add_argument("--under", type=int, default=0)
    options = parser.parse_args()

    sys.path.insert(0, options.programs)
    cost = {"pid": os.getpid()}
    if options.work == "truth":
        warm_up(WARM_UP_SECONDS)
        cost.update(truth(options.size))
    else:
        work = leaf
        if options.work == "tree":
            import spelled_tree

            work = spelled_tree.build("one", seed=1)
        warm_up(WARM_UP_SECONDS)
        names = {"main": main, "work": work, "times": int(options.size), "cost": cost}
        under(options.under, names)
    with open(options.result, "w") as out:
        json.dump(cost, out)


if __name__ == "__main__":
    run()
