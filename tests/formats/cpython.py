"""Feeds samples to the collectors of CPython's own sampler, and writes what they make of them.

Run by 3.15 as `cpython.py INTO`, with JSON on stdin: the sampling interval and, for each sample, thread,
count and frames, leaf first: file, name, and line, end line, column, end column (from 1, 0 if unknown).
"""
import contextlib
import io
import json
import marshal
import os
import sys

from _remote_debugging import FrameInfo, InterpreterInfo, LocationInfo, ThreadInfo
from profiling.sampling.jsonl_collector import JsonlCollector
from profiling.sampling.pstats_collector import PstatsCollector
from profiling.sampling.stack_collector import CollapsedStackCollector


def frame(file, name, location):
    line, end_line, column, end_column = location
    if line == 0:
        return FrameInfo((file, None, name, None))
    where = LocationInfo((line, end_line, column - 1, end_column - 1))
    return FrameInfo((file, where, name, None))


def main(into):
    given = json.load(sys.stdin)
    collectors = {
        "collapsed": CollapsedStackCollector(given["interval_us"]),
        "pstats": PstatsCollector(given["interval_us"]),
        "jsonl": JsonlCollector(given["interval_us"]),
    }
    for sample in given["samples"]:
        frames = [frame(*one) for one in sample["frames"]]
        thread = ThreadInfo((sample["tid"], 0, frames))
        for collector in collectors.values():
            # As many as there are times: that is how a sample is given more than once.
            collector.collect([InterpreterInfo((0, [thread]))], range(sample["count"]))
    for name, collector in collectors.items():
        with contextlib.redirect_stdout(io.StringIO()):
            collector.export(os.path.join(into, name))
    with open(os.path.join(into, "pstats"), "rb") as file:
        stats = marshal.load(file)
    rows = [[key, value[:4], list(value[4].items())] for key, value in stats.items() if len(key) == 3]
    others = [key for key in stats if len(key) != 3]
    with open(os.path.join(into, "pstats.json"), "w") as file:
        json.dump({"rows": rows, "others": others}, file)
    with open(os.path.join(into, "table"), "w") as file, contextlib.redirect_stdout(file):
        collectors["pstats"].print_stats(sort=0, limit=15, show_summary=True)


main(sys.argv[1])
