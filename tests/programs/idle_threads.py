"""Many threads that wait, of which one at a time is woken after long, works for some milliseconds, and waits again:
in Python, in C without the GIL, and in Python while another thread wants the GIL, too.

Prints, as JSON, how many nanoseconds each kind of work took, and how long the last kind had to wait for the GIL
before it began.
"""

import json
import threading
import time
import zlib

THREADS = 48
SECONDS = 1.6
TEXT = bytes(range(256)) * 16384

taken = {"works": 0, "packs": 0, "contends": 0, "waits": 0, "whole": 0}
clock = time.monotonic_ns


def works():
    end = time.thread_time_ns() + 4_000_000
    while time.thread_time_ns() < end:
        pass


def packs():
    zlib.compress(TEXT, 1)


def contends():
    works_on()


def works_on():
    end = time.thread_time_ns() + 1_000_000
    while time.thread_time_ns() < end:
        pass


class Worker(threading.Thread):
    def __init__(self):
        super().__init__(daemon=True)
        self.asked = threading.Semaphore(0)
        self.done = threading.Semaphore(0)

    def run(self):
        while True:
            self.asked.acquire()
            start = clock()
            self.kind()
            end = clock()
            taken[self.kind.__name__] += end - start
            if self.kind is contends:
                taken["waits"] += start - self.asked_ns
            self.done.release()


def spins(until):
    while clock() < until:
        pass


def main():
    workers = [Worker() for _ in range(THREADS)]
    for worker in workers:
        worker.start()
    begin = clock()
    for kind in (works, packs, contends):
        end = clock() + int(SECONDS * 1e9)
        turn = 0
        while clock() < end:
            worker = workers[turn % THREADS]
            turn += 1
            worker.kind = kind
            if kind is contends:
                worker.asked_ns = clock()
                worker.asked.release()
                spins(clock() + 15_000_000)
            else:
                worker.asked.release()
            worker.done.acquire()
            time.sleep(0.002)
    taken["whole"] = clock() - begin
    print(json.dumps(taken))


main()
