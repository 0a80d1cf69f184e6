"""Takes SIGSEGV and SIGBUS for itself while stacks, and the memory that they are in, come and go.

Children do so at any time. Prints how many ended by a fault, and what they saw of the signals.
"""

import ctypes
import faulthandler
import json
import os
import random
import signal
import sys
import threading
import time

CHILDREN = int(sys.argv[1])
FAULTS = (signal.SIGSEGV, signal.SIGBUS)
C = ctypes.CDLL(None)
C.signal.restype = ctypes.c_void_p
C.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
# Any function will do: it is not called.
HANDLER = ctypes.cast(C.abs, ctypes.c_void_p).value


class Action(ctypes.Structure):
    """`struct sigaction`, of which the handler comes first."""

    _fields_ = [("handler", ctypes.c_void_p), ("rest", ctypes.c_char * 256)]


def handlers(numbers):
    """What the C library says that the signals lead to; `None` is the default."""
    action = Action()
    seen = []
    for number in numbers:
        assert C.sigaction(int(number), None, ctypes.byref(action)) == 0
        seen.append(action.handler)
    return seen


def deep(levels):
    if levels:
        deep(levels - 1)


def churn():
    while True:
        deep(900)


def is_left_alone(number):
    """Whether a signal that all threads block waits until one of them asks for it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    os.kill(os.getpid(), number)
    time.sleep(0.002)
    return signal.sigwait([number]) == number


def blocked():
    """0 if signals that all threads of the program block do not come to another one."""
    time.sleep(0.02)
    were_left_alone = is_left_alone(signal.SIGBUS)
    faulthandler.enable()
    # Until the sampler's thread has had a turn.
    time.sleep(0.05)
    return 0 if were_left_alone and is_left_alone(signal.SIGSEGV) else 1


def at_once():
    """0 if two threads that take a signal each both get it."""
    time.sleep(0.02)
    takers = [
        threading.Thread(target=C.signal, args=(int(fault), HANDLER)) for fault in FAULTS
    ]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join()
    return 0 if handlers(FAULTS) == [HANDLER] * 2 else 1


def child(number):
    """0 if nothing was seen that would not be seen otherwise."""
    if number % 4 == 1:
        return blocked()
    if number % 4 == 2:
        return at_once()
    for _ in range(2):
        threading.Thread(target=churn, daemon=True).start()
    time.sleep(random.Random(number).uniform(0.005, 0.03))
    were_default = handlers((*FAULTS, signal.SIGURG)) == [None] * 3
    # To set what is set already changes nothing.
    were_default &= all(C.signal(int(fault), None) is None for fault in FAULTS)
    faulthandler.enable()
    are_taken = None not in handlers(FAULTS)
    time.sleep(0.005)
    faulthandler.disable()
    are_default = handlers(FAULTS) == [None] * 2
    return 0 if were_default and are_taken and are_default else 1


ends = {}
for number in range(CHILDREN):
    pid = os.fork()
    if not pid:
        os._exit(child(number))
    status = os.waitpid(pid, 0)[1]
    if status:
        ends[status] = ends.get(status, 0) + 1
print(json.dumps({"ends": ends}))
