"""The programs that CPython 3.15's own tests of its sampling profiler sample.

With no argument, prints them as JSON, which takes 3.15. With a file and a number of seconds, runs one of
them, from when it says that it works, for so long.
"""

import json
import os
import sys
import threading
import time


def constants(function):
    waiting = [function.__code__]
    while waiting:
        for constant in waiting.pop().co_consts:
            if isinstance(constant, str) and "_test_sock" in constant:
                return constant
            if hasattr(constant, "co_consts"):
                waiting.append(constant)
    raise LookupError(f"{function.__qualname__} has no program")


def programs():
    from test.test_profiling.test_sampling_profiler import test_advanced, test_integration, test_modes

    work = test_integration.TestSampleProfilerIntegration
    work.setUpClass()
    return {
        "cpu": constants(test_modes.TestCpuModeFiltering.test_cpu_mode_integration_filtering),
        "gil": constants(test_modes.TestGilModeFiltering.test_gil_mode_integration_behavior),
        "exception": constants(
            test_modes.TestExceptionModeFiltering.test_exception_mode_integration_filtering
        ),
        "work": work.test_script,
        "async": constants(test_integration.TestAsyncAwareProfilingIntegration.setUpClass),
        "generators": test_integration._generate_deep_generators_script(),
        "gc": constants(test_advanced.TestGCFrameTracking.setUpClass),
    }


class Socket:
    def __init__(self, seconds):
        self.seconds = seconds

    def sendall(self, _):
        threading.Thread(target=self.end, daemon=True).start()

    def end(self):
        time.sleep(self.seconds)
        os._exit(0)


if len(sys.argv) == 1:
    print(json.dumps(programs()))
else:
    path, seconds = sys.argv[1:]
    with open(path) as file:
        program = file.read()
    exec(compile(program, path, "exec"), {"__name__": "__main__", "_test_sock": Socket(float(seconds))})
