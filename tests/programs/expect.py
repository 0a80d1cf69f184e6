"""Lets a program write down, from inside, what a profiler ought to see of it.

A scenario ends in a loop of this shape, whose second line is marked HERE:

    until = begin("what it is")
    while clock() < until: pass

`begin` records the whole stack of its caller and that the next line is where
samples will find it, for SPAN seconds. `report` prints it all as JSON. What is
recorded comes from `sys._getframe`, so it is right by definition in each version.
"""
import json
import sys
import threading
import time

SPAN = 0.1
STARTED = time.monotonic()

clock = time.monotonic
scenarios = []


def describe(frame):
    code = frame.f_code
    name = getattr(code, "co_qualname", code.co_name)
    return [code.co_filename.rpartition("/")[2], name, frame.f_lineno]


def stack_of(frame):
    """A frame's whole stack, root first."""
    frames = []
    while frame is not None:
        frames.append(describe(frame))
        frame = frame.f_back
    frames.reverse()
    return frames


def note(scenario, stack, thread):
    scenarios.append(
        {
            "scenario": scenario,
            "tid": thread.native_id,
            "thread": thread.name,
            "stack": stack,
        }
    )


def begin(scenario):
    """Records the caller's stack, with its next line on top; returns when it is to end."""
    stack = stack_of(sys._getframe(1))
    stack[-1][2] += 1
    note(scenario, stack, threading.current_thread())
    return clock() + SPAN


def busy(scenario):
    until = begin(scenario)
    while clock() < until: pass  # HERE


def observe(scenario, thread):
    """Records where another thread is blocked; call it once it surely is."""
    note(scenario, stack_of(sys._current_frames()[thread.ident]), thread)


def report():
    print(json.dumps({"span": SPAN, "wall": clock() - STARTED, "scenarios": scenarios}))
