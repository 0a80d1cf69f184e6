"""Runs waves of threads that come and go, each with functions that spell the thread's name.

Thread `t-0042` runs `work_0042` and nothing of any other thread: it computes,
sleeps, or waits for a lock, by turns. Prints the threads' names by native id.
"""
import argparse
import json
import threading
import time

WORK = """
def work_{number:04}(until):
    while clock() < until:
        compute_{number:04}()
        sleep_{number:04}()
        wait_{number:04}()

def compute_{number:04}():
    for _ in range(2000):
        pass

def sleep_{number:04}():
    sleep(0.001)

def wait_{number:04}():
    with lock:
        sleep(0.0001)
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=30, help="at a time")
    parser.add_argument("--waves", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.4, help="of each wave")
    options = parser.parse_args()
    shared = {"clock": time.perf_counter, "sleep": time.sleep, "lock": threading.Lock()}
    # By the order of their starts: the system may give an id of an ended thread to a later one.
    born = []

    def body(number, until):
        born.append([threading.get_native_id(), threading.current_thread().name])
        shared["work_%04d" % number](until)

    for wave in range(options.waves):
        until = time.perf_counter() + options.seconds
        threads = []
        for number in range(wave * options.threads, (wave + 1) * options.threads):
            exec(compile(WORK.format(number=number), "work_%04d.py" % number, "exec"), shared)
            thread = threading.Thread(target=body, args=(number, until), name="t-%04d" % number)
            thread.start()
            threads.append(thread)
        for thread in threads:
            thread.join()
    print(json.dumps({"main": threading.get_native_id(), "threads": born}))


if __name__ == "__main__":
    main()
