"""How long profiles take to become pages and time lines, in how much memory, and how large they are.

One profile of really recorded samples: many_stacks.py under pysamp at the highest rate, run again
and again until there are enough, the runs added up. pysamp turns its own recording of it into a page
and time lines in one run; Tachyon's `replay` turns the same samples, as its binary file, into each.
"""
import collections
import gzip
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tools import Pysamp, say

HERE = Path(__file__).resolve().parent
RATE = 1_000_000
SECONDS = 8  # of one recording

Run = collections.namedtuple("Run", "seconds cpu_seconds peak_mb printed")

# Tachyon's command cannot write a binary file of what it reads; its own writer can.
REWRITE = """
import sys
from profiling.sampling.binary_collector import BinaryCollector
from profiling.sampling.binary_reader import BinaryReader
class OneByOne:
    def collect(self, stack_frames, timestamps_us):
        for timestamp_us in timestamps_us:
            collector.collect(stack_frames, timestamp_us)
with BinaryReader(sys.argv[1]) as reader:
    info = reader.get_info()
    collector = BinaryCollector(sys.argv[2], info["sample_interval_us"], compression="zstd")
    reader.replay_samples(OneByOne())
    collector.export(sys.argv[2])
"""


def run(*command):
    """Runs a command; the peak is what the kernel says of it alone."""
    say("conversion: " + " ".join(map(str, command[:6])).partition("\n")[0])
    begin = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        printed = process.stdout.read().decode(errors="replace")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - begin
    if process.returncode:
        sys.exit(f"conversion: {command[0]} fails: {printed}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, printed)


def pysamp(*options):
    return run(Pysamp.library.parent / "pysamp", *options)


def samples_in(printed):
    return int(re.findall(r"(\d+) samples", printed)[-1])


def record(python, folder, samples):
    """One recording of at least so many samples."""
    runs, sum_of_samples = [], 0
    while sum_of_samples < samples:
        path = folder / f"run{len(runs)}.pysamp"
        program = [python.path, HERE / "many_stacks.py", str(SECONDS)]
        done = pysamp("run", "-r", str(RATE), "--recording", "-o", path, "--", *program)
        runs.append(path)
        sum_of_samples += samples_in(done.printed)
    whole = folder / "whole.pysamp"
    pysamp("report", "--recording", "-o", whole, *runs)
    for path in runs:
        path.unlink()
    return whole


def zipped_size(path):
    packed = path.with_name(path.name + ".gz")
    with open(path, "rb") as plain, gzip.open(packed, "wb") as out:
        shutil.copyfileobj(plain, out)
    return packed.stat().st_size


def measure(bench, options):
    """Rows for two tables: times and memory, and sizes."""
    folder = Path(bench.folder.name)
    python = bench.python
    recording = options.recording or record(python, folder, options.samples)
    ours, binary = folder / "ours", folder / "ours.bin"
    samples = samples_in(pysamp("report", "--binary", "-o", binary, recording).printed)
    done = [pysamp("report", "--flamegraph", "--gecko", "-o", ours, recording)]
    done += [pysamp("report", "--flamegraph", "--gecko", "-o", ours, recording) for _ in range(2)]
    best = min(done, key=lambda it: it.seconds)
    rows = [["pysamp report, both", *timed(best), "", ""]]
    theirs = {"flamegraph": folder / "theirs.html", "gecko": folder / "theirs.json"}
    sampling = [python.path, "-m", "profiling.sampling", "replay"]
    replays = []
    for format, path in theirs.items():
        replays.append(run(*sampling, f"--{format}", "-o", path, binary))
        rows.append([f"Tachyon replay, {format}", *timed(replays[-1]), "", ""])
    seconds = sum(it.seconds for it in replays)
    cpu_seconds = sum(it.cpu_seconds for it in replays)
    ratios = [f"{seconds / best.seconds:.1f}", f"{cpu_seconds / best.cpu_seconds:.1f}"]
    peak_mb = max(it.peak_mb for it in replays)
    both = Run(seconds, cpu_seconds, peak_mb, "")
    rows.append(["Tachyon replay, both", *timed(both), *ratios])

    rewritten = folder / "theirs.bin"
    run(python.path, "-c", REWRITE, binary, rewritten)
    page, lines = ours.with_suffix(".html"), ours.with_suffix(".json")
    sizes = [
        ["binary", binary.stat().st_size, rewritten.stat().st_size],
        ["gecko, gzip", zipped_size(lines), zipped_size(theirs["gecko"])],
        ["HTML", page.stat().st_size, theirs["flamegraph"].stat().st_size],
    ]
    sizes = [[name, f"{own:,}", f"{its:,}", f"{its / own:.1f}"] for name, own, its in sizes]
    return samples, rows, sizes


def timed(it):
    return [f"{it.seconds:.2f}", f"{it.cpu_seconds:.2f}", f"{it.peak_mb:.0f}"]
