"""Runs code that does nothing but call, and dies in the way it is told to, or is killed.

Prints a line as it begins, and what one would print who ran to the end.
"""
import ctypes
import glob
import os
import sys
import time


def leaf(n):
    return n + 1


def busy(seconds):
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        for n in range(1000):
            leaf(n)


def cut_recordings(directory):
    busy(0.3)
    for recording in glob.glob(directory + "/*.pysamp"):
        os.truncate(recording, 0)
    busy(0.2)


ENDINGS = {
    "return": lambda: None,
    "abort": os.abort,
    "segfault": lambda: ctypes.string_at(0),
    "cut recordings": lambda: cut_recordings(sys.argv[3]),
}

if __name__ == "__main__":
    print("begins", flush=True)
    busy(float(sys.argv[2]))
    ENDINGS[sys.argv[1]]()
    print("ends", flush=True)
