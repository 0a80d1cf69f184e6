"""Every profiler of the comparison: how to get it, run it, and read what it says of itself."""
import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import stacks

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
CACHE = Path(os.environ.get("PYSAMP_CACHE") or Path.home() / ".cache" / "pysamp")
PEERS = CACHE / "peers"
PACKAGES = ["py-spy", "austin-dist==3.7.0"]


class Absent(Exception):
    """This profiler cannot be run here; the message says why."""


class Tool:
    """One profiler; its command wraps the program's, or its environment does."""

    name = "nothing"
    needs_rate = True  # one run a rate; the others are run once
    has_profile = True

    def prepare(self, python):
        """Raises Absent if it cannot profile this interpreter."""

    def version(self, python):
        return ""

    def command(self, python, program, rate, profile):
        return [python.path, *program]

    def environment(self, rate, profile):
        return {}

    def cpu_ns(self, cost):
        """What the profiler itself used, by the clocks of fixed_work.py."""
        return None

    def failed(self, printed):
        """The share of the samples that the profiler says it could not take."""
        return None

    def stacks(self, profile):
        return {}


class Outside(Tool):
    """A profiler in a process of its own, which starts the program."""

    def cpu_ns(self, cost):
        return cost["parent_ns"]


class Nothing(Tool):
    needs_rate = False
    has_profile = False


class Pysamp(Tool):
    library = None  # set by the command line

    def __init__(self, blocking):
        self.blocking = blocking
        self.name = "pysamp --blocking" if blocking else "pysamp"

    def prepare(self, python):
        if not Pysamp.library.exists():
            raise Absent(f"{Pysamp.library.name} is not built")

    def version(self, python):
        manifest = (REPOSITORY / "Cargo.toml").read_text()
        return re.search(r'^version = "(.*)"', manifest, re.M)[1]

    def environment(self, rate, profile):
        options = f"rate={rate},format=collapsed,output={profile}"
        if self.blocking:
            options += ",blocking"
        return {"LD_PRELOAD": str(Pysamp.library), "PYTHONSAMPLE": options}

    def cpu_ns(self, cost):
        return cost["process_ns"] - cost["thread_ns"]

    def failed(self, printed):
        said = re.search(r"([\d.]+) ?% failed", printed)
        return float(said[1]) / 100 if said else None

    def stacks(self, profile):
        return stacks.collapsed(profile, stacks.colon_frame, skip=1)


class PysampTrampolines(Pysamp):
    """What `-X perf` does, by pysamp, with a sample a second: what it costs to be ready."""

    needs_rate = False
    has_profile = False

    def __init__(self, backend):
        self.backend = backend
        self.name = f"trampolines, {backend}"

    def environment(self, rate, profile):
        options = f"rate=1hz,format=collapsed,perf={self.backend},output={profile}"
        return {"LD_PRELOAD": str(Pysamp.library), "PYTHONSAMPLE": options}


class Tachyon(Outside):
    def __init__(self, blocking):
        self.blocking = blocking
        self.name = "Tachyon --blocking" if blocking else "Tachyon"

    def prepare(self, python):
        if python.version[:2] < (3, 15):
            raise Absent("reads 3.15 only, from 3.15")

    def version(self, python):
        return ".".join(map(str, python.version))

    def command(self, python, program, rate, profile):
        options = ["-r", str(rate), "--collapsed", "-o", profile]
        if self.blocking:
            options.append("--blocking")
        return [python.path, "-m", "profiling.sampling", "run", *options, *program]

    def failed(self, printed):
        said = re.search(r"Error rate: ([\d.]+)", printed)
        return float(said[1]) / 100 if said else None

    def stacks(self, profile):
        return stacks.collapsed(profile, stacks.colon_frame, skip=1)


class PySpy(Outside):
    def __init__(self, blocking):
        self.blocking = blocking
        self.name = "py-spy" if blocking else "py-spy --nonblocking"

    def prepare(self, python):
        install()

    def version(self, python):
        return printed_version([PEERS / "bin" / "py-spy", "--version"])

    def command(self, python, program, rate, profile):
        options = ["-r", str(rate), "-f", "raw", "-o", profile]
        if not self.blocking:
            options.append("--nonblocking")
        return [str(PEERS / "bin" / "py-spy"), "record", *options, "--", python.path, *program]

    def failed(self, printed):
        said = re.search(r"Samples: (\d+) Errors: (\d+)", printed)
        if not said:
            return None
        good, bad = int(said[1]), int(said[2])
        return bad / max(good + bad, 1)

    def stacks(self, profile):
        return stacks.collapsed(profile, stacks.spy_frame)


class Austin(Outside):
    name = "Austin"

    def prepare(self, python):
        install()

    def version(self, python):
        return printed_version([PEERS / "bin" / "austin", "--version"])

    def command(self, python, program, rate, profile):
        options = ["-i", str(1_000_000 // rate), "-t", "1000", "-o", profile]
        return [str(PEERS / "bin" / "austin"), *options, python.path, *program]

    def failed(self, printed):
        plain = re.sub(r"\x1b\[[\d;]*m", "", printed)
        said = re.search(r"Error rate : (\d+)/(\d+)", plain)
        return int(said[1]) / max(int(said[2]), 1) if said else None

    def stacks(self, profile):
        return stacks.collapsed(profile, stacks.colon_frame, skip=2, time_is_weight=True)


class PerfTrampoline(Outside):
    """The interpreter's own support for perf, without perf: what it costs to be ready."""

    name = "-X perf"
    option = "perf"
    needs_rate = False
    has_profile = False

    def prepare(self, python):
        if python.version[:2] < (3, 12):
            raise Absent("came with 3.12")

    def version(self, python):
        return ".".join(map(str, python.version))

    def command(self, python, program, rate, profile):
        return [python.path, "-X", self.option, *program]


class PerfJitTrampoline(PerfTrampoline):
    name = "-X perf_jit"
    option = "perf_jit"

    def prepare(self, python):
        if python.version[:2] < (3, 13):
            raise Absent("came with 3.13")


class PerfRecord(PerfTrampoline):
    name = "-X perf, perf record"
    needs_rate = True
    has_profile = True

    def prepare(self, python):
        super().prepare(python)
        if not shutil.which("perf"):
            raise Absent("not available (perf is in Debian's linux-perf)")

    def version(self, python):
        return printed_version(["perf", "--version"])

    def command(self, python, program, rate, profile):
        target = super().command(python, program, rate, profile)
        return ["perf", "record", "-F", str(rate), "-g", "-o", profile, "--", *target]

    def stacks(self, profile):
        return stacks.perf_script(profile, "perf")


class TimerFloor(Tool):
    """No profiler: a thread that wakes at the rate and does nothing, to subtract."""

    name = "empty timer loop"
    has_profile = False

    def prepare(self, python):
        source = HERE / "timer_floor.rs"
        if not shutil.which("rustc"):
            raise Absent("needs rustc")
        if not self.built().exists() or self.built().stat().st_mtime < source.stat().st_mtime:
            PEERS.mkdir(parents=True, exist_ok=True)
            options = ["-O", "--edition", "2024", "-o", self.built(), source]
            subprocess.run(["rustc", *options], check=True)

    def built(self):
        return PEERS / "timer_floor"

    def command(self, python, program, rate, profile):
        return [str(self.built()), str(rate), python.path, *program]

    def cpu_per_tick_us(self, printed):
        said = re.search(r"(\d+) ticks, (\d+) ns", printed)
        return int(said[2]) / int(said[1]) / 1e3


ALL = [
    Nothing(),
    Pysamp(blocking=False),
    Pysamp(blocking=True),
    Tachyon(blocking=False),
    Tachyon(blocking=True),
    PySpy(blocking=True),
    PySpy(blocking=False),
    Austin(),
    PysampTrampolines("map"),
    PysampTrampolines("jitdump"),
    PerfTrampoline(),
    PerfJitTrampoline(),
    PerfRecord(),
    TimerFloor(),
]


@functools.cache
def install():
    """Puts the peers from PyPI into the cache, once for all runs."""
    if all((PEERS / "bin" / it).exists() for it in ("py-spy", "austin")):
        return
    say("installing " + ", ".join(PACKAGES))
    pip = [PEERS / "bin" / "python", "-m", "pip", "install", "--quiet", *PACKAGES]
    for command in [sys.executable, "-m", "venv", PEERS], pip:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = done.stderr.strip().splitlines() or ["no reason given"]
            raise Absent(f"cannot be installed: {reason[-1]}")


@functools.cache
def _version(*command):
    printed = subprocess.run(command, capture_output=True, text=True).stdout
    found = re.search(r"\d+(\.\d+)+", printed)
    return found[0] if found else ""


def printed_version(command):
    return _version(*map(str, command))


def build_pysamp():
    """Builds the release library; returns its path."""
    subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=REPOSITORY, check=True)
    target = os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target"
    return Path(target) / "release" / "libpysamp.so"


def say(text):
    print(text, file=sys.stderr, flush=True)
