"""Runs the fixed work under one tool at a time, and the statistics over many such runs."""
import collections
import json
import os
import random
import statistics
import subprocess
import tempfile
from pathlib import Path

import stacks
from tools import Absent, say

HERE = Path(__file__).resolve().parent
ATTEMPTS = 3  # Austin in particular may fail to find the interpreter that it has started
TIMEOUT_SECONDS = 180
RESAMPLES = 4000

Python = collections.namedtuple("Python", "path version")
Outcome = collections.namedtuple("Outcome", "cost printed stacks")
Interval = collections.namedtuple("Interval", "median low high")


class Bench:
    """One interpreter with the programs to run on it, and a folder to run them in."""

    def __init__(self, python, programs):
        self.python = python
        self.programs = str(programs)
        self.folder = tempfile.TemporaryDirectory(prefix="pysamp-peers-")

    def run(self, tool, rate, work, size, under=0):
        """Runs a piece of work under a tool until that succeeds once."""
        for _ in range(ATTEMPTS):
            try:
                return self.attempt(tool, rate, work, size, under)
            except Absent as failure:
                reason = failure
        raise reason

    def attempt(self, tool, rate, work, size, under):
        with tempfile.TemporaryDirectory(dir=self.folder.name) as folder:
            result = os.path.join(folder, "result.json")
            profile = os.path.join(folder, "profile")
            program = [str(HERE / "fixed_work.py"), self.programs, result, work]
            program += [str(size), "--under", str(under)]
            printed = run(
                tool.command(self.python, program, rate, profile),
                cwd=folder,
                env={**os.environ, **tool.environment(rate, profile)},
            )
            if not os.path.exists(result):
                raise Absent("fails: " + last_line(printed))
            with open(result) as text:
                cost = json.load(text)
            try:
                if tool.has_profile and not os.path.exists(profile):
                    raise Absent("writes no profile: " + last_line(printed))
                found = tool.stacks(profile) if tool.has_profile else {}
            finally:
                Path(f"/tmp/perf-{cost['pid']}.map").unlink(missing_ok=True)
            return Outcome(cost, printed, found)

    def sized(self, tool, work, seconds, under=0):
        """How often the work is to be done to take that long."""
        size = 100
        while True:
            took = self.run(tool, 0, work, size, under).cost["wall_ns"] / 1e9
            if took > seconds / 5:
                return max(1, round(size * seconds / took))
            size *= 8


def run(command, **options):
    """Runs a command to its end; returns what it printed."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_SECONDS,
            **options,
        )
    except subprocess.TimeoutExpired:
        raise Absent(f"does not end within {TIMEOUT_SECONDS} s") from None
    return done.stdout.decode(errors="replace")


def last_line(printed):
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    return lines[-1] if lines else "it says nothing"


def confidence(values):
    """The median with its 95% interval by bootstrap."""
    dice = random.Random(1)
    medians = sorted(
        statistics.median(dice.choices(values, k=len(values))) for _ in range(RESAMPLES)
    )
    low, high = medians[RESAMPLES // 40], medians[-RESAMPLES // 40]
    return Interval(statistics.median(values), low, high)


class Row:
    """Everything measured of one tool at one rate."""

    def __init__(self, tool, rate):
        self.tool = tool
        self.rate = rate
        self.absent = None
        self.slowdowns = []
        self.cpu_us = []
        self.failed = []
        self.truth_errors = []
        self.samples = self.impossible = self.unreadable = 0
        self.due = 0.0
        self.examples = []

    def settled(self, fewest, precision):
        if len(self.slowdowns) < fewest:
            return False
        found = confidence(self.slowdowns)
        return (found.high - found.low) / 2 <= precision

    def add_work(self, bench, outcome, bare_wall_ns=None):
        wall = outcome.cost["wall_ns"]
        if bare_wall_ns:
            self.slowdowns.append(wall / bare_wall_ns)
        failed = self.tool.failed(outcome.printed)
        if failed is not None:
            self.failed.append(failed)
        if not self.tool.has_profile:
            return
        truth = stacks.tree_truth(stacks.within(outcome.stacks, "walk"), bench.programs)
        self.samples += truth.samples
        self.impossible += truth.impossible
        self.unreadable += truth.unreadable
        self.examples += truth.examples
        self.due += wall / 1e9 * self.rate
        cpu = self.tool.cpu_ns(outcome.cost)
        if cpu is not None and truth.samples:
            self.cpu_us.append(cpu / truth.samples / 1e3)

    def add_truth(self, outcome):
        share = stacks.share_of_dense(outcome.stacks)
        if share is not None:
            self.truth_errors.append(100 * (share - outcome.cost["wall_share_of_dense"]))


def rows_for(bench, tools, rates):
    """A row a tool and rate, those that cannot run here marked so."""
    rows = []
    for tool in tools:
        reason = None
        try:
            tool.prepare(bench.python)
        except Absent as absent:
            reason = str(absent)
        for rate in rates if tool.needs_rate else [0]:
            row = Row(tool, rate)
            row.absent = reason
            rows.append(row)
    return rows


def compare(bench, nothing, rows, seconds, fewest, most, precision=0.0, truth_seconds=0.0):
    """Round after round, each row in random order, paired with nothing on the same work.

    After the fewest rounds a row stops where its interval is as narrow as asked for:
    half of it within the precision.
    """
    size = bench.sized(nothing, "tree", seconds)
    for number in range(1, most + 1):
        turn = [row for row in rows if not row.absent and not row.settled(fewest, precision)]
        for row in random.sample(turn, len(turn)):
            say(f"round {number}: {row.tool.name} {row.rate or ''}")
            try:
                with_it, without = pair(bench, row, nothing, size)
                row.add_work(bench, with_it, without.cost["wall_ns"])
                if truth_seconds and row.tool.has_profile:
                    row.add_truth(bench.run(row.tool, row.rate, "truth", truth_seconds))
            except Absent as absent:
                row.absent = str(absent)


def pair(bench, row, nothing, size):
    """The work with the row's tool and without, one right after the other in random order."""
    if random.random() < 0.5:
        without = bench.run(nothing, 0, "tree", size)
        return bench.run(row.tool, row.rate, "tree", size), without
    with_it = bench.run(row.tool, row.rate, "tree", size)
    return with_it, bench.run(nothing, 0, "tree", size)
