#!/usr/bin/env python3
"""Runs CPython's own regression tests without and with pysamp, and compares the verdicts.

    tests/regression.py --python ~/.pyenv/versions/3.12.1/bin/python test_signal test_gc

Every module is run twice, side by side, once as it is and once with the library preloaded. Compared
are the verdict on each test method, the verdict of the run (which tells, too, whether a test left
threads, signal handlers or files behind), crashes and hangs, but not tests that skip themselves
because LD_PRELOAD is set. A test whose verdicts differ is run again, on its own, twice each way:
what can be seen without pysamp, too, is not a difference.

Ends with 1 if there is any difference.
"""

import argparse
import collections
import concurrent.futures
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = pathlib.Path(os.environ.get("PYSAMP_CACHE", "~/.cache/pysamp")).expanduser()

# What touches threads, signals, processes, frames and tracing. Where a name stands for a package
# of modules, all of them are run.
TESTS = """
    test_threading test_signal test_faulthandler test_fork1 test_multiprocessing_fork
    test_multiprocessing_spawn test_multiprocessing_forkserver test_concurrent_futures
    test_subprocess test_asyncio test_generators test_coroutines test_gc test_sys_settrace
    test_sys_setprofile test_os test_posix test_socket test_interpreters test_embed
""".split()

# The part of it for which a build server has the time.
SHORT = """
    test_threading test_signal test_faulthandler test_fork1 test_generators test_coroutines
    test_gc test_sys_settrace test_sys_setprofile test_posix
""".split()

# Tests that hang in a virtual machine without its hypervisor's help, pysamp or not.
IGNORED = "*VSOCK*"

OPTIONS = "rate=10khz,format=collapsed"

# What the test runner's exit code says of a whole run. More than one thing can be wrong.
ENDS = {
    0: "success",
    1: "error",
    2: "tests failed",
    3: "environment altered",
    4: "no tests ran",
    5: "failed at first, then passed",
}

# A process that keeps LD_PRELOAD, but not PYTHONSAMPLE, writes the page that the bare form promises:
# in the test's directory, which so is not as it was.
PAGES = (
    r"files was modified by \S+",
    r" *Before: \[\] *",
    r" *After: +\[(?:'pysamp_[-\d]+\.html'(?:, )?)+\] *",
)
WARNING = re.compile(r"^Warning -- (.*)$", re.MULTILINE)

# What tests that trace system calls do where anything is preloaded.
SKIPPED_ITSELF = "skipped for LD_PRELOAD"


class Outcome:
    """What became of one run of one module."""

    def __init__(self, end, seconds, methods, output):
        self.end = end
        self.seconds = seconds
        # The verdicts on each method, sorted: an inherited method can run more than once.
        self.methods = methods
        self.output = output

    @property
    def is_cut_short(self):
        return self.end.startswith(("crash", "hang"))


class Runner:
    """Runs the tests of one interpreter."""

    def __init__(self, python, arguments):
        self.python = python
        self.arguments = arguments

    def modules(self, names):
        """The modules that each name stands for, all under their own if there are no names."""
        listed = self.call(["--list-tests"]).split()

        # Packages are listed by module: `test.test_asyncio.test_events`. What was a module of its own
        # may be one of a package in a later version: `test.test_os.test_posix`.
        def modules(name):
            own = [one for one in listed if one == name or one.startswith(f"test.{name}.")]
            return own or [one for one in listed if one.endswith(f".{name}")]

        return {name: modules(name) for name in names or listed}

    def call(self, arguments):
        command = [self.python, "-m", "test", *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, env=environment(), check=False)
        return done.stdout.decode(errors="replace")

    def run(self, module, sampled, only=()):
        with tempfile.TemporaryDirectory(prefix="pysamp-regression-") as scratch:
            scratch = pathlib.Path(scratch)
            report = scratch / "report.xml"
            # Both at once mean different things in different versions.
            selected = [word for method in only for word in ("--match", method)]
            selected = selected or ["--ignore", IGNORED]
            command = [
                *[self.python, "-m", "test", "--verbose", "--fail-env-changed"],
                *["--junit-xml", str(report), *selected, module],
            ]
            variables = environment()
            if sampled:
                if not self.arguments.linked:
                    variables["LD_PRELOAD"] = str(self.arguments.library)
                variables["PYTHONSAMPLE"] = f"{self.arguments.options},output={scratch}/%p.profile"
            end, seconds, output = watch(command, variables, scratch, self.arguments.limit)
            if sampled and end == ENDS[3] and has_only_pages(output):
                end = ENDS[0]
            if sampled and not any(scratch.glob("*.profile")) and end == ENDS[0]:
                end = "not profiled"
            return Outcome(end, seconds, verdicts(report, output), output)


def environment():
    """This process's environment without what changes how Python or pysamp behave."""
    unwanted = ("LD_PRELOAD", "PYTHON", "PYSAMP")
    return {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}


def watch(command, variables, scratch, limit):
    """Runs a command for a bounded time. Returns its end, how long it took and what it said."""
    start = time.monotonic()
    with open(scratch / "output", "w+b") as file:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=variables,
            start_new_session=True,
        )
        try:
            code = child.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        seconds = time.monotonic() - start
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()
        file.seek(0)
        output = file.read().decode(errors="replace")
    if code is None:
        end = f"hang in {last_started(output)}"
    elif code < 0:
        end = f"crash by {signal.Signals(-code).name} in {last_started(output)}"
    else:
        end = ENDS.get(code, f"exit code {code}")
    return end, seconds, output


def has_only_pages(output):
    """Whether all that a run has altered is that such pages are there."""
    warnings = WARNING.findall(output)
    return len(warnings) == len(PAGES) and all(map(re.fullmatch, PAGES, warnings))


def last_started(output):
    """The test that was under way when the output ended."""
    started = re.findall(r"^(test\w+ \(\S+\))", output, re.MULTILINE)
    return started[-1] if started else "no test"


def verdicts(report, output):
    """The verdicts on each method, by its name."""
    found = collections.defaultdict(list)
    try:
        cases = list(xml.etree.ElementTree.parse(report).iter("testcase"))
    except (OSError, xml.etree.ElementTree.ParseError):
        return {}
    # A method of which only a subtest failed has no name in the report, only in the output.
    for case in (case for case in cases if case.get("name")):
        tags = [child.tag for child in case if not child.tag.startswith("system-")]
        verdict = " ".join(tags) or case.get("result")
        if verdict == "skipped" and "LD_PRELOAD" in case.findtext("skipped"):
            verdict = SKIPPED_ITSELF
        found[case.get("name")].append(verdict)
    failed = re.compile(r"^(ERROR|FAIL): (\w+) \(([\w.]+)\)", re.MULTILINE)
    for kind, method, place in failed.findall(output):
        name = place if place.endswith(f".{method}") else f"{place}.{method}"
        if name not in found:
            found[name] = [f"{kind} in a subtest"]
    return {name: sorted(several) for name, several in found.items()}


def unlike(plain, sampled):
    """The names of the methods whose verdicts differ."""
    names = plain.methods.keys() | sampled.methods.keys()
    return sorted(
        name
        for name in names
        if sampled.methods.get(name) not in (plain.methods.get(name), [SKIPPED_ITSELF])
    )


def compare(runner, module):
    """Runs a module both ways. Returns a line on it, and its differences."""
    with concurrent.futures.ThreadPoolExecutor() as both:
        plain, sampled = both.map(lambda sampled: runner.run(module, sampled), [False, True])
    times = f"{plain.seconds:.1f} s, {sampled.seconds:.1f} s"
    if plain.is_cut_short:
        return f"cannot be compared: {plain.end} without pysamp ({times})", []
    if sampled.is_cut_short:
        return f"DIFFERS ({times})", [describe(module, plain.end, sampled.end, sampled.output)]
    differing = unlike(plain, sampled)
    if not differing and plain.end == sampled.end:
        return f"{len(plain.methods)} tests, {plain.end} ({times})", []

    again = [[runner.run(module, sampled, differing) for sampled in (False, True)] for _ in "12"]
    differences = []
    for name in differing:
        without = [one.methods.get(name) for one, _ in again] + [plain.methods.get(name)]
        under = [one.methods.get(name) for _, one in again]
        if any(verdict not in without for verdict in under):
            differences.append(describe(name, without, under, story(name, again[-1][1].output)))
    if not differing:
        ends = [one.end for one, _ in again] + [plain.end]
        under = [one.end for _, one in again]
        if any(end not in ends for end in under):
            differences.append(describe(module, ends, under, again[-1][1].output))
    if differences:
        return f"DIFFERS ({times})", differences
    unstable = ", ".join(differing) or sampled.end
    return f"{len(plain.methods)} tests, same again but for {unstable} the first time ({times})", []


def describe(name, without, under, output):
    tail = "\n".join(f"    {line}" for line in output.splitlines()[-60:])
    return f"{name}\n  without pysamp: {without}\n  with pysamp:    {under}\n{tail}"


def story(name, output):
    """What the output says of a failed method."""
    method = name.rpartition(".")[2]
    told = re.search(rf"^(?:ERROR|FAIL): {re.escape(method)} .*?(?=^(?:=====|-----+\nRan))",
                     output, re.MULTILINE | re.DOTALL)
    return told[0] if told else output


def known_interpreters():
    """What `tests/provision.sh` found, as far as pysamp supports it and it has its tests."""
    try:
        rows = [line.split("\t") for line in (CACHE / "interpreters.tsv").read_text().splitlines()]
    except OSError:
        return []

    def has_tests(path):
        probe = [path, "-c", "import test.test_gc"]
        return subprocess.run(probe, stderr=subprocess.DEVNULL, check=False).returncode == 0

    supported = [path for _, path, version in rows if 8 <= int(version.split(".")[1]) <= 15]
    return [path for path in supported if has_tests(path)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tests", nargs="*", help="names of test modules, such as test_signal")
    parser.add_argument("--python", action="append", help="an interpreter; may be repeated")
    parser.add_argument("--all", action="store_true", help="run the whole suite")
    parser.add_argument("--short", action="store_true", help="run what takes few minutes")
    built = ROOT / "target/release/libpysamp.so"
    parser.add_argument("--library", type=pathlib.Path, default=built)
    parser.add_argument("--linked", action="store_true", help="preload nothing: it is linked in")
    parser.add_argument("--options", default=OPTIONS, help="as in PYTHONSAMPLE")
    parser.add_argument("--limit", type=float, default=600, help="seconds until a run hangs")
    arguments = parser.parse_args()
    arguments.library = arguments.library.resolve()
    if not arguments.linked and not arguments.library.exists():
        parser.error(f"{arguments.library} is not there; cargo build --release makes it")

    names = arguments.tests or (None if arguments.all else SHORT if arguments.short else TESTS)
    found = 0
    for python in arguments.python or known_interpreters():
        runner = Runner(python, arguments)
        compared = set()
        for name, modules in runner.modules(names).items():
            if not modules:
                print(f"{python} {name}: not there")
            for module in (one for one in modules if one not in compared):
                compared.add(module)
                line, differences = compare(runner, module)
                print(f"{python} {module}: {line}", flush=True)
                for difference in differences:
                    print(difference, flush=True)
                found += len(differences)
    print(f"\n{found} differences")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
