"""Walks a random tree of tiny functions whose names and lines spell their only legal callers.

The tree has seven levels and three children a node. `f_2_0` is called by `f_2`
only, `f` by `walk` only, and the function of rank r (breadth first) starts at
line 10 * (r + 1) of its file, so that a profile tells by itself whether each of its
stacks can have existed: check_spelled.py does.

Every call makes one random step down, every level costs about the same, and the
leaf returns at once: what a biased sampler loses first.

    --calls one    all children are called from one line, through a list
    --calls each   each child has a line of its own
"""
import argparse
import itertools
import json
import random
import time

DEPTH = 6
BRANCHES = 3
LINES_EACH = 10
FILE = {"one": "spelled_one.py", "each": "spelled_each.py"}


def tree():
    """Yields (rank, name) of every function, breadth first."""
    names = ["f"]
    rank = 0
    for _ in range(DEPTH + 1):
        for name in names:
            yield rank, name
            rank += 1
        names = [f"{name}_{branch}" for name in names for branch in range(BRANCHES)]


def body(name, calls):
    if name.count("_") == DEPTH:
        return ["    pass"]
    if calls == "one":
        return [f"    under_{name}[turn()]()"]
    lines = ["    way = turn()"]
    for branch in range(BRANCHES):
        test = "if" if branch == 0 else "elif"
        lines.append(f"    {test} way == {branch}:")
        lines.append(f"        {name}_{branch}()")
    return lines


def build(calls, seed):
    """Returns the root function of a new tree."""
    source = []
    for rank, name in tree():
        source += [""] * ((rank + 1) * LINES_EACH - 1 - len(source))
        source += [f"def {name}():"] + body(name, calls)
    turns = random.Random(seed).choices(range(BRANCHES), k=1 << 16)
    functions = {"turn": itertools.cycle(turns).__next__}
    exec(compile("\n".join(source), FILE[calls], "exec"), functions)
    for _, name in tree():
        if name.count("_") < DEPTH:
            below = [functions[f"{name}_{branch}"] for branch in range(BRANCHES)]
            functions[f"under_{name}"] = below
    return functions["f"]


def walk(f, seconds):
    walks = 0
    clock = time.perf_counter
    until = clock() + seconds
    while clock() < until:
        for _ in range(1000):
            f()
        walks += 1000
    return walks


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--calls", choices=sorted(FILE), default="one")
    options = parser.parse_args()
    f = build(options.calls, options.seed)
    before = time.process_time()
    walks = walk(f, options.seconds)
    cpu = time.process_time() - before
    print(json.dumps({"walks": walks, "cpu_ns_per_call": cpu / walks / (DEPTH + 1) * 1e9}))


if __name__ == "__main__":
    main()
