"""Puts pysamp's trampolines behind the functions of `sys` that switch CPython's own.

For CPython's own tests: see tests/perf_suite.py, which has this imported at the start of a process
that pysamp is preloaded into. PERF_SUITE_BACKEND, if it is there, is switched on at once.
"""
import ctypes
import os
import sys

OK, INVALID_OPTIONS = 0, 1

_library = ctypes.PyDLL(None)
_library.pysamp_last_error.restype = ctypes.c_char_p
_library.PyInterpreterState_Get.restype = ctypes.c_void_p
_hook = _library._PyInterpreterState_GetEvalFrameFunc
_hook.argtypes, _hook.restype = [ctypes.c_void_p], ctypes.c_void_p
_default = ctypes.cast(_library._PyEval_EvalFrameDefault, ctypes.c_void_p).value


def activate_stack_trampoline(backend, /):
    status = _library.pysamp_activate_stack_trampoline(backend.encode())
    if status == INVALID_OPTIONS:
        raise ValueError(f"invalid backend: {backend}")
    if status != OK:
        raise RuntimeError(_library.pysamp_last_error().decode())


def deactivate_stack_trampoline():
    _library.pysamp_deactivate_stack_trampoline()


def is_stack_trampoline_active():
    return _hook(_library.PyInterpreterState_Get()) != _default


for function in (
    activate_stack_trampoline,
    deactivate_stack_trampoline,
    is_stack_trampoline_active,
):
    setattr(sys, function.__name__, function)

if "PERF_SUITE_BACKEND" in os.environ:
    # Children choose for themselves.
    activate_stack_trampoline(os.environ.pop("PERF_SUITE_BACKEND"))
