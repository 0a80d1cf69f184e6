"""Compares pysamp with its peers, interleaved on the same fixed work: `python3 benches/peers`.

The peers are installed where they are missing. What is printed:

    table     (the default) slowdown, cost, completeness and truth of every profiler
    pairs     the slowdown of pysamp, in as many pairs of runs as its interval needs
    cpu       the sampler's CPU per sample, 30 frames deep, beyond an empty timer loop
    fastest   samples per second of pysamp and Tachyon when asked for as many as can be
    conversion  time, memory and size of what reports and Tachyon's replay make of one profile
"""
import argparse
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import conversion
import measure
import stacks
import tools

HEADS = [
    "tool", "version", "rate", "slowdown (95% interval)", "CPU µs/sample", "samples",
    "of those due", "failed", "impossible", "truth error pp",
]  # fmt: skip


def find_python(wanted):
    """A path or a version such as 3.15, looked for where the tests look."""
    name = f"python{wanted}"
    places = os.environ.get("PYSAMP_PYTHONS", "").split(":")
    places += [wanted, shutil.which(name) or ""]
    pyenv = Path.home() / ".pyenv" / "versions"
    places += [str(it) for it in pyenv.glob(f"*/bin/{name}")]
    places.append(str(tools.CACHE / "interpreters" / wanted / "bin" / name))
    for place in places:
        if os.path.isfile(place) and (os.sep in wanted or os.path.basename(place) == name):
            ask = "import sys; print(*sys.version_info[:3])"
            asked = subprocess.run([place, "-c", ask], capture_output=True, text=True)
            if asked.returncode == 0:
                version = tuple(map(int, asked.stdout.split()))
                return measure.Python(os.path.realpath(place), version)
    sys.exit(f"peers: no interpreter {wanted} is found; tests/provision.sh gets one")


def hertz(text):
    match = re.fullmatch(r"(\d+)(k|khz|m|mhz|hz)?", text, re.I)
    if not match:
        raise argparse.ArgumentTypeError(f"{text} is not a rate such as 10khz")
    unit = (match[2] or "hz")[0].lower()
    return int(match[1]) * {"h": 1, "k": 1000, "m": 1_000_000}[unit]


def parse(arguments):
    parser = argparse.ArgumentParser(
        prog="python3 benches/peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("what", nargs="?", default="table", choices=list(WHATS))
    add("--python", action="append", help="version or path, may be repeated; 3.15 if absent")
    add("--rate", action="append", type=hertz, help="may be repeated; 1khz and 10khz if absent")
    add("--rounds", type=int, default=5, help="of table, cpu and fastest")
    add("--seconds", type=float, default=2.0, help="the fixed work takes without a profiler")
    add("--truth-seconds", type=float, default=4.0, help="of the truth program; 0 for none")
    add("--pairs", type=int, default=15, help="the fewest")
    add("--most-pairs", type=int, default=400)
    add("--precision", type=float, default=0.003, help="half the interval's width to reach")
    add("--tools", help="comma-separated names or beginnings of names; for pairs, pysamp if absent")
    add("--samples", type=int, default=10_000_000, help="of conversion, the fewest")
    add("--recording", type=Path, help="of conversion; made if absent")
    add("--library", type=Path, help="libpysamp.so; built from this repository if absent")
    programs = tools.REPOSITORY / "tests" / "programs"
    add("--programs", type=Path, default=programs, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.rate = options.rate or [1000, 10_000]
    options.python = [find_python(it) for it in options.python or ["3.15"]]
    return options


def chosen(options, default):
    """The tools to run, by their names or, where a word is none, by how their names begin."""
    wanted = [it.lower() for it in (options.tools.split(",") if options.tools else default)]
    names = {tool.name.lower() for tool in tools.ALL}

    def is_wanted(name):
        return any(name == it or it not in names and name.startswith(it) for it in wanted)

    return [tool for tool in tools.ALL if not wanted or is_wanted(tool.name.lower())]


def named(name):
    return next(tool for tool in tools.ALL if tool.name == name)


def percent(share):
    """As many digits as mean something; what is not zero does not look like it."""
    if share == 0:
        return "0"
    return f"{share:.1%}" if share >= 0.01 else f"{100 * share:.2g}%"


def interval(found, digits):
    return f"{found.median:,.{digits}f} ({found.low:,.{digits}f}..{found.high:,.{digits}f})"


def cells(row, python):
    rate = f"{row.rate:,}" if row.rate else ""
    if row.absent:
        return [row.tool.name, "", rate, row.absent]
    line = [row.tool.name, row.tool.version(python), rate]
    line.append(interval(measure.confidence(row.slowdowns), 3))
    line.append(f"{statistics.median(row.cpu_us):.1f}" if row.cpu_us else "")
    if row.tool.has_profile and not row.samples:
        line += ["0", "0", "", ""]  # perf, where Python is built without frame pointers
    elif row.samples:
        impossible = percent(row.impossible / row.samples)
        if row.unreadable:
            impossible += f" + {percent(row.unreadable / row.samples)} unreadable"
        failed = percent(statistics.mean(row.failed)) if row.failed else ""
        line += [f"{row.samples:,}", percent(row.samples / row.due), failed, impossible]
    else:
        line += [""] * 4
    line.append(f"{statistics.median(row.truth_errors):+.2f}" if row.truth_errors else "")
    return line


def show(heads, lines):
    """Prints a table that is Markdown too; a line that is too short says why in its last cell."""
    full = [line for line in lines if len(line) == len(heads)]
    widths = [max(len(line[at]) for line in [heads, *full]) for at in range(len(heads))]
    widths[0] = max([widths[0], *(len(line[0]) for line in lines)])
    for line in [heads, ["-" * width for width in widths], *lines]:
        padded = [cell.ljust(width) for cell, width in zip(line, widths)]
        print("| " + " | ".join(padded) + " |", flush=True)


def table(bench, options):
    picked = [tool for tool in chosen(options, []) if tool is not named("empty timer loop")]
    rows = measure.rows_for(bench, picked, options.rate)
    measure.compare(
        bench,
        named("nothing"),
        rows,
        options.seconds,
        fewest=options.rounds,
        most=options.rounds,
        truth_seconds=options.truth_seconds,
    )
    rows.sort(key=lambda row: row.rate)
    show(HEADS, [cells(row, bench.python) for row in rows])
    for row in rows:
        for example in row.examples[:2]:
            tools.say(f"impossible, by {row.tool.name} at {row.rate}: {example}")


def pairs(bench, options):
    rows = measure.rows_for(bench, chosen(options, ["pysamp"]), options.rate)
    measure.compare(
        bench,
        named("nothing"),
        rows,
        options.seconds,
        fewest=options.pairs,
        most=max(options.pairs, options.most_pairs),
        precision=options.precision,
    )
    lines = []
    for row in rows:
        line = [row.tool.name, f"{row.rate:,}"]
        if row.absent:
            line.append(row.absent)
        else:
            line.append(str(len(row.slowdowns)))
            line.append(interval(measure.confidence(row.slowdowns), 4))
        lines.append(line)
    show(["tool", "rate", "pairs", "slowdown (95% interval)"], lines)


def cpu(bench, options):
    """The difference of two loops that wake equally often beside the same program."""
    under = 30 - 7  # what is there anyway: module, run, under, module, main, walk, leaf
    floor, nothing = named("empty timer loop"), named("nothing")
    floor.prepare(bench.python)
    size = bench.sized(nothing, "steady", options.seconds, under)
    picked = [it for it in chosen(options, ["pysamp"]) if it.has_profile]
    lines = []
    for row in measure.rows_for(bench, picked, options.rate):
        line = [row.tool.name, f"{row.rate:,}"]
        lines.append(line)
        empty, full = [], []
        try:
            for _ in range(options.rounds if not row.absent else 0):
                outcome = bench.run(row.tool, row.rate, "steady", size, under)
                samples, depth = section(outcome)
                full.append(row.tool.cpu_ns(outcome.cost) / samples / 1e3)
                printed = bench.run(floor, row.rate, "steady", size, under).printed
                empty.append(floor.cpu_per_tick_us(printed))
        except tools.Absent as absent:
            row.absent = str(absent)
        if row.absent:
            line.append(row.absent)
            continue
        beyond = measure.confidence([sample - tick for sample, tick in zip(full, empty)])
        line += [f"{depth:.0f}", f"{statistics.median(empty):.2f}"]
        line += [f"{statistics.median(full):.2f}", interval(beyond, 2)]
    show(["tool", "rate", "depth", "µs/empty tick", "µs/sample", "beyond (95% interval)"], lines)


def section(outcome):
    """The samples of the work itself, and their mean depth."""
    inside = stacks.within(outcome.stacks, "walk")
    samples = sum(it.samples for it in inside.values())
    frames = sum(len(stack or ()) * it.samples for stack, it in inside.items())
    return samples, frames / max(samples, 1)


def fastest(bench, options):
    """As many samples as can be, about 25 frames deep: of a leaf that loops and of calls only."""
    rate = 1_000_000
    nothing = named("nothing")
    lines = []
    for work, under in ("steady", 25 - 7), ("tree", 25 - 10):
        size = bench.sized(nothing, work, options.seconds, under)
        picked = [it for it in chosen(options, ["pysamp", "tachyon"]) if it.has_profile]
        rows = measure.rows_for(bench, picked, [rate])
        speeds = {row: [] for row in rows}
        depths = {}
        for _ in range(options.rounds):
            turn = [row for row in rows if not row.absent]
            for row in random.sample(turn, len(turn)):
                tools.say(f"fastest, {work}: {row.tool.name}")
                try:
                    outcome = bench.run(row.tool, rate, work, size, under)
                except tools.Absent as absent:
                    row.absent = str(absent)
                    continue
                samples, depths[row] = section(outcome)
                speeds[row].append(samples / outcome.cost["wall_ns"] * 1e9)
                row.add_work(bench, outcome)
        for row in rows:
            line = [row.tool.name, work]
            lines.append(line)
            if row.absent:
                line.append(row.absent)
                continue
            line += [f"{depths[row]:.0f}", interval(measure.confidence(speeds[row]), 0)]
            line.append(percent(statistics.mean(row.failed)) if row.failed else "")
            line.append(percent(row.impossible / row.samples) if row.samples else "")
    show(["tool", "work", "depth", "samples/s (95% interval)", "failed", "impossible"], lines)


def convert(bench, options):
    samples, times, sizes = conversion.measure(bench, options)
    print(f"{samples:,} samples\n")
    show(["what", "seconds", "CPU s", "peak MB", "ratio of s", "ratio of CPU s"], times)
    print()
    show(["file", "pysamp, bytes", "Tachyon, bytes", "ratio"], sizes)


WHATS = {
    "table": table,
    "pairs": pairs,
    "cpu": cpu,
    "fastest": fastest,
    "conversion": convert,
}


def main():
    options = parse(sys.argv[1:])
    if any(isinstance(tool, tools.Pysamp) for tool in chosen(options, [])):
        tools.Pysamp.library = (options.library or tools.build_pysamp()).resolve()
    load = os.getloadavg()[0]
    if load > 0.5:
        tools.say(f"peers: other programs run too (load {load:.1f}), so the times are unsure")
    show_what = WHATS[options.what]
    for python in options.python:
        version = ".".join(map(str, python.version))
        print(f"\nCPython {version}, {os.cpu_count()} CPUs\n", flush=True)
        show_what(measure.Bench(python, options.programs), options)


if __name__ == "__main__":
    main()
