#!/usr/bin/env python3
"""Runs CPython's own tests of its trampolines, test_perf_profiler and test_perfmaps, on pysamp's.

    tests/perf_suite.py --python ~/.pyenv/versions/3.12.1/bin/python

The tests are those of each interpreter, unchanged. What they start as `sys.executable` is a script
that preloads pysamp, makes a call of pysamp's out of -X perf and -X perf_jit, and has tests/programs/
as_sys_functions.py take the place of the functions of `sys`. Where pysamp means to do something else
than CPython, the test is told so, in `adapt`, and in nothing else.

Ends with 1 if a test fails, or if one is skipped for a reason that is not known here.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

from regression import ROOT, environment, known_interpreters

FIRST_WITH_TRAMPOLINES = (3, 12)

LAUNCHER = """#!/bin/sh
# The options of Python's that stand before the program.
for argument; do
    shift
    case $argument in
        -Xperf) export PERF_SUITE_BACKEND=perf ;;
        -Xperf_jit) export PERF_SUITE_BACKEND=perf_jit ;;
        # Would keep the functions out, which come by the environment.
        -I) ;;
        *) set -- "$@" "$argument" ;;
    esac
done
echo $$ >>'{directory}/pids'
export LD_PRELOAD='{library}' PYTHONSAMPLE=0 PYTHONPATH='{directory}'
exec '{python}' "$@"
"""

# Why a test of CPython's may be skipped, by the test or here.
HOOK_TAKEN = "pysamp leaves another tool's frame hook alone; CPython takes its place"
COMPILES_AHEAD = "the functions that compile CPython's own stubs before the first call are tested"
JIT_GOES_ALONG = "the JIT leaves frames to whoever hooks them, and need not be off"
KNOWN_SKIPS = [
    HOOK_TAKEN,
    COMPILES_AHEAD,
    # The interpreter was built without frame pointers, by which this class has perf unwind. How such
    # interpreters are unwound is tested by the class of -X perf_jit.
    "Unwinding is unreliable",
    JIT_GOES_ALONG,
    "requires a real JIT",
]


def adapt(module, suite):
    """Tells the tests what pysamp means to do otherwise."""
    make_script = module.make_script

    def make_script_that_applies(directory, name, source):
        if "set_eval_frame_record" in source:
            raise unittest.SkipTest(HOOK_TAKEN)
        if "compile_perf_trampoline_entry" in source:
            raise unittest.SkipTest(COMPILES_AHEAD)
        return make_script(directory, name, source)

    module.make_script = make_script_that_applies
    for case in suite:
        # They would remove the maps of all processes there are.
        case.setUp = case.tearDown = lambda: None
        if case._testMethodName == "test_trampoline_works_with_forks":
            # A child's map is complete: what ran at the fork goes on in the child.
            case.assertNotIn = lambda symbol, text, case=case: (
                case.assertIn(symbol, text)
                if re.match("py::(foo|bar|baz):", symbol)
                else unittest.TestCase.assertNotIn(case, symbol, text)
            )
        if case._testMethodName == "test_sys_api_perf_jit_backend_in_subinterpreter":
            # CPython's trampolines and its JIT exclude each other.
            case.setUp = lambda case=case: case.skipTest(JIT_GOES_ALONG)
        if type(case).__name__ == "TestPerfProfilerWithDwarf":
            # Before 6.6 perf does not take CPython's dumps. It takes pysamp's.
            type(case).__unittest_skip__ = False


def flat(suite):
    for one in suite:
        yield from flat(one) if isinstance(one, unittest.TestSuite) else [one]


def inside(name, launcher):
    """Runs one of the modules, in the interpreter that it is of."""
    if name == "test_perfmaps":
        assert sys.is_stack_trampoline_active()
    suite = unittest.TestSuite(flat(unittest.defaultTestLoader.loadTestsFromName(f"test.{name}")))
    if name == "test_perf_profiler":
        sys.executable = launcher
        adapt(sys.modules[f"test.{name}"], suite)
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    unknown = [
        f"skipped for a reason that is not known: {test}: {why}"
        for test, why in result.skipped
        if not why.startswith(tuple(KNOWN_SKIPS))
    ]
    if name == "test_perfmaps":
        unknown += after_others()
    for line in unknown:
        print(line)
    sys.exit(bool(unknown) or not result.wasSuccessful() or result.testsRun == 0)


def after_others():
    """CPython's writer has added to the map, and closed it. pysamp goes on with it."""

    def called_after_the_others():
        pass

    called_after_the_others()
    with open(f"/tmp/perf-{os.getpid()}.map") as file:
        found = [line for line in file if "called_after_the_others" in line]
    if len(found) == 1 and sys.is_stack_trampoline_active():
        return []
    return [f"the map goes on with {found}"]


def run(python, name, library):
    """Runs a module and says what became of it."""
    with tempfile.TemporaryDirectory(prefix="pysamp-perf-suite-") as directory:
        directory = pathlib.Path(directory)
        launcher = directory / "python"
        launcher.write_text(LAUNCHER.format(library=library, directory=directory, python=python))
        launcher.chmod(0o755)
        functions = ROOT / "tests/programs/as_sys_functions.py"
        (directory / "sitecustomize.py").write_text(functions.read_text())
        start = [launcher, "-Xperf"] if name == "test_perfmaps" else [python]
        command = [*start, "-B", __file__, "--inside", name, launcher]
        variables = {**environment(), "TMPDIR": str(directory)}
        child = subprocess.Popen(command, env=variables, cwd=directory)
        try:
            return child.wait()
        finally:
            remove_leavings(directory)


def remove_leavings(directory):
    """Removes what was left for profilers by those who ran."""
    try:
        pids = (directory / "pids").read_text().split()
    except OSError:
        pids = []
    temporary = pathlib.Path("/tmp")
    files = [
        file
        for pid in pids
        for pattern in (f"perf-{pid}.map", f"jit-{pid}.dump", f"jitted-{pid}-*")
        for file in temporary.glob(pattern)
    ]
    # Children that were forked have what their parents had, among it a script in the directory.
    files += [
        file
        for file in temporary.glob("perf-*.map")
        if str(directory) in file.read_text(errors="replace")
    ]
    for file in files:
        file.unlink(missing_ok=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", action="append", help="an interpreter; may be repeated")
    built = ROOT / "target/release/libpysamp.so"
    parser.add_argument("--library", type=pathlib.Path, default=built)
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        inside(*arguments.inside)
    library = arguments.library.resolve()
    if not library.exists():
        parser.error(f"{library} is not there; cargo build --release makes it")

    probe = f"import sys; sys.exit(sys.version_info < {FIRST_WITH_TRAMPOLINES})"
    failed = []
    for python in arguments.python or known_interpreters():
        if subprocess.run([python, "-c", probe], check=False).returncode:
            continue
        for name in ("test_perf_profiler", "test_perfmaps"):
            print(f"{python} {name}", flush=True)
            if run(python, name, library):
                failed.append(f"{python} {name}")
    print("\n".join(["", *(f"failed: {one}" for one in failed), f"{len(failed)} failed"]))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
