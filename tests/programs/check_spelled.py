"""Tells how many stacks of spelled_tree.py's collapsed profile can never have existed.

    python3 check_spelled.py [--json] collapsed.txt

Prints the samples inside the tree, the impossible ones among them with a few
examples, and the share of samples whose top frame is at each depth of the tree.
"""
import argparse
import json
import re
import sys

from spelled_tree import BRANCHES, DEPTH, FILE, LINES_EACH

FRAME = re.compile(r"(.*):([^:]*):(\d+)$", re.S)
SPELLED = re.compile(r"f(_[0-9])*$")
CALLS = {file: calls for calls, file in FILE.items()}
ROOT = ["<module>", "main", "walk"]
BARE = re.compile(r"<[^:]*>$")


def first_line(path):
    rank = 0
    for branch in path:
        rank = rank * BRANCHES + branch + 1
    return (rank + 1) * LINES_EACH


def legal_lines(calls, depth, child):
    """Lines, counted from the function's first, at which it may be: on top or calling `child`."""
    if child is not None:
        return (1,) if calls == "one" else (3 + 2 * child,)
    if depth == DEPTH or calls == "one":
        return range(0, 2)
    return range(0, 2 + 2 * BRANCHES)


def fault(frames):
    """Returns what is impossible about a stack (root first), or None."""
    above = None
    for position, (file, name, line) in enumerate(frames):
        if file not in CALLS:
            if above is not None:
                return f"{name} below {above}"
            if name == "f" or name.startswith("f_"):
                return f"{name} in {file}"
            continue
        if name == "<module>":
            above = name
            continue
        if not SPELLED.match(name):
            return f"{name} in {file}"
        callers = ROOT if name == "f" else [name[:-2]]
        actual = [name for _, name, _ in frames[:position]][-len(callers):]
        if actual != callers:
            return f"{name} called by {', '.join(actual) or 'nothing'}"
        path = [int(part) for part in name.split("_")[1:]]
        if len(path) > DEPTH or any(branch >= BRANCHES for branch in path):
            return f"{name} does not exist"
        below = frames[position + 1] if position + 1 < len(frames) else None
        child = None
        if below is not None:
            if not below[1].startswith(name + "_"):
                return f"{name} calls {below[1]}"
            child = int(below[1].rsplit("_", 1)[1])
        offset = line - first_line(path)
        if offset not in legal_lines(CALLS[file], len(path), child):
            callee = "itself on top" if below is None else below[1]
            return f"{name} at its line {offset} with {callee}"
        above = name
    return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.add_argument("profile")
    options = parser.parse_args()

    total = samples = impossible = unreadable = 0
    by_depth = [0] * (DEPTH + 1)
    faults = {}
    for text in open(options.profile, encoding="utf-8", errors="replace"):
        stack, _, count = text.rstrip("\n").rpartition(" ")
        count = int(count)
        total += count
        parts = stack.split(";")
        frames = [FRAME.match(part) for part in parts[1:] if not BARE.match(part)]
        if not parts[0].startswith("tid:") or not all(frames):
            unreadable += count
            faults[text.strip()] = "unreadable"
            continue
        frames = [(m[1], m[2], int(m[3])) for m in frames]
        wrong = fault(frames)
        if wrong:
            impossible += count
            faults[text.strip()] = wrong
        if frames and frames[-1][0] in CALLS and SPELLED.match(frames[-1][1]):
            samples += count
            by_depth[min(frames[-1][1].count("_"), DEPTH)] += count
    shares = [part / samples if samples else 0.0 for part in by_depth]
    examples = [f"{why}: {line}" for line, why in list(faults.items())[:5]]
    if options.json:
        json.dump(
            {
                "total": total,
                "samples": samples,
                "impossible": impossible,
                "unreadable": unreadable,
                "by_depth": by_depth,
                "examples": examples,
            },
            sys.stdout,
        )
        return 0
    print(f"{total} samples, {samples} of them inside the tree")
    share = impossible / total if total else 0.0
    print(f"{impossible} impossible ({share:.5%}), {unreadable} unreadable")
    print("self by depth:", " ".join(f"{share:.2%}" for share in shares))
    for example in examples:
        print("  ", example)
    return 1 if impossible or unreadable or not samples else 0


if __name__ == "__main__":
    sys.exit(main())
