"""Switches pysamp's trampolines on and off by its C functions, in a process that it is preloaded into.

    statuses        what the functions return, and what is in the files by then
    churn COUNT     code objects are made, run and dropped
    toggle COUNT    trampolines are switched while threads call functions
    forks COUNT     children have maps of their own, complete
    freed COUNT     functions of code_churn.py are made, run for a moment and freed; switches nothing

Prints JSON. The files of the process itself are left for the caller.
"""
import ctypes
import functools
import json
import marshal
import operator
import os
import random
import re
import sys
import threading
import time
import types

import code_churn

OK, INVALID_OPTIONS, NOT_ACTIVE, HOOK_TAKEN = 0, 1, 3, 10

with_gil = ctypes.PyDLL(None)
without_gil = ctypes.CDLL(None)
activate = with_gil.pysamp_activate_stack_trampoline
deactivate = with_gil.pysamp_deactivate_stack_trampoline


def map_of(pid):
    return "/tmp/perf-%d.map" % pid


def names(pid=None):
    """Names in a map, by address; each line must be as it should."""
    found = {}
    with open(map_of(pid or os.getpid()), errors="surrogateescape") as file:
        for line in file:
            address, size, name = re.fullmatch("([0-9a-f]+) ([0-9a-f]+) (.*)\n", line).groups()
            assert address not in found, line
            assert int(size, 16) < 128, line
            found[address] = name
    return found


def counted(name, pid=None):
    return sum(found == "py::%s:%s" % (name, __file__) for found in names(pid).values())


def make(name):
    """A new function of that name."""
    def made(value):
        return value + 1
    try:
        code = made.__code__.replace(co_name=name, co_qualname=name)
    except TypeError:
        code = made.__code__.replace(co_name=name)
    return types.FunctionType(code, globals(), name)


def statuses():
    assert activate(None) == INVALID_OPTIONS
    assert activate(b"perf_map") == INVALID_OPTIONS
    assert deactivate() == NOT_ACTIVE

    before, first, again, off, late = map(make, ["before", "first", "again", "off", "late"])
    assert before(1) == 2
    assert activate(b"perf") == OK
    assert activate(b"perf") == OK
    assert first(1) == 2 and first(1) == 2
    assert counted("before") == 0 and counted("first") == 1, names()
    status = os.stat(map_of(os.getpid()))
    assert status.st_mode & 0o7777 == 0o600

    assert deactivate() == OK
    assert deactivate() == NOT_ACTIVE
    assert off(1) == 2
    assert counted("off") == 0

    # The dump has what the map had, and what comes then.
    assert activate(b"perf_jit") == OK
    assert again(1) == 2
    with open("/tmp/jit-%d.dump" % os.getpid(), "rb") as file:
        dump = file.read()
    for name, times in [("first", 1), ("again", 1), ("off", 0)]:
        assert dump.count(b"py::%s:" % name.encode()) == times, name
    assert counted("again") == 0
    assert activate(b"perf") == OK
    assert counted("again") == 1
    assert deactivate() == OK

    # Without the GIL, the main thread does it as soon as it runs Python code.
    assert without_gil.pysamp_activate_stack_trampoline(b"perf") == OK
    for _ in range(1000):
        pass
    assert late(1) == 2
    assert counted("late") == 1
    assert without_gil.pysamp_deactivate_stack_trampoline() == OK
    for _ in range(1000):
        pass
    assert deactivate() == NOT_ACTIVE

    hook_taken()


def hook_taken():
    """Another frame hook is left alone. It is not called: no Python function is."""
    if hasattr(sys, "activate_stack_trampoline"):
        sys.activate_stack_trampoline("perf")
        status = activate(b"perf"), without_gil.pysamp_activate_stack_trampoline(b"perf")
        sys.deactivate_stack_trampoline()
    else:
        main = with_gil.PyInterpreterState_Main
        main.restype = ctypes.c_void_p
        default = ctypes.cast(with_gil._PyEval_EvalFrameDefault, ctypes.c_void_p).value
        other = ctypes.cast(with_gil.Py_IsInitialized, ctypes.c_void_p).value
        interpreter = main()
        if sys.version_info >= (3, 9):
            set_hook = with_gil._PyInterpreterState_SetEvalFrameFunc
            set_hook.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        else:
            words = (ctypes.c_void_p * 200).from_address(interpreter)
            place = list(words).index(default)
            set_hook = functools.partial(operator.setitem, words)
            interpreter = place
        set_hook(interpreter, other)
        status = activate(b"perf"), activate(b"perf_jit")
        set_hook(interpreter, default)
    assert status == (HOOK_TAKEN, HOOK_TAKEN), status
    error = with_gil.pysamp_last_error
    error.restype = ctypes.c_char_p
    assert b"another tool" in error(), error()


def churn(count):
    assert activate(b"perf") == OK
    kinds = count // 5
    for number in range(count):
        assert make("made_%d" % (number % kinds))(number) == number + 1
    found = list(names().values())
    made = [name for name in found if name.startswith("py::made_")]
    assert len(made) == len(set(made)) == kinds, (len(made), kinds)
    assert deactivate() == OK


def toggle(count):
    done = threading.Event()
    calls = []

    def deep(depth):
        return depth and 1 + deep(depth - 1)

    def call(number):
        times = 0
        while not done.is_set():
            assert deep(20) == 20
            assert make("thread_%d_%d" % (number, times % 100))(times) == times + 1
            times += 1
        calls.append(times)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for number in range(count):
        assert activate(b"perf" if number % 10 else b"perf_jit") == OK
        assert deep(5) == 5
        assert deactivate() == OK
    done.set()
    for thread in threads:
        thread.join()
    assert len(calls) == len(threads)
    return calls


def forks(count):
    assert activate(b"perf") == OK
    for number in range(count):
        make("parent_%d" % number)(number)
        parent = names()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                make("child_%d" % number)(number)
                own = names()
                # The child's map knows what the parent knew, at the same addresses.
                missing = [item for item in parent.items() if own.get(item[0]) != item[1]]
                assert not missing, missing
                assert counted("child_%d" % number) == 1
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0, number
        os.remove(map_of(child))
        assert counted("child_%d" % number) == 0
    assert deactivate() == OK


def freed(count):
    kinds = [(kind, 1 + 7 * kind) for kind in range(64)]
    packed = [marshal.dumps(code_churn.compiled(*kind)) for kind in kinds]
    dice = random.Random(1)
    clock = time.thread_time
    addresses = set()
    for _ in range(count):
        kind = dice.randrange(len(kinds))
        function = code_churn.made_of(marshal.loads(packed[kind]), *kinds[kind])
        addresses.add(id(function.__code__))
        function(clock() + 0.0002, clock)
        # The functions and their globals keep each other alive: cut the ring.
        function.__globals__.clear()
    return {"addresses": len(addresses)}


def main():
    mode, *arguments = sys.argv[1:]
    outcome = globals()[mode](*map(int, arguments))
    print(json.dumps({"pid": os.getpid(), "outcome": outcome}))


if __name__ == "__main__":
    main()
