"""Resumes chains of generators whose names spell who may resume them, as fast as it can.

`pull_2` iterates `chain_2_0`, which delegates to `chain_2_1`, and that to
`chain_2_2`. A generator's frame is alive while it is suspended, and is linked
anew at each resumption: a stack that mixes two chains, or skips a link, is torn.
"""
import argparse
import json
import time

CHAINS = 4
LINKS = 4

LINK = """
def chain_{chain}_{link}(n):
    yield n
    yield from chain_{chain}_{below}(n)
    yield n
"""

LAST = """
def chain_{chain}_{link}(n):
    for step in range(n):
        yield step
"""

PULL = """
def pull_{chain}(n):
    for item in chain_{chain}_0(n):
        pass
"""


def build():
    """Returns the functions that pull on one chain each."""
    text = ""
    for chain in range(CHAINS):
        for link in range(LINKS):
            source = LAST if link == LINKS - 1 else LINK
            text += source.format(chain=chain, link=link, below=link + 1)
        text += PULL.format(chain=chain)
    functions = {}
    exec(compile(text, "chains.py", "exec"), functions)
    return [functions["pull_%d" % chain] for chain in range(CHAINS)]


def run(pulls, seconds):
    items = 0
    clock = time.perf_counter
    until = clock() + seconds
    while clock() < until:
        for _ in range(100):
            for pull in pulls:
                pull(3)
        items += 100 * len(pulls) * (3 + 2 * (LINKS - 1))
    return items


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    print(json.dumps({"items": run(build(), options.seconds)}))


if __name__ == "__main__":
    main()
