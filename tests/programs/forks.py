"""Forks, spawns and starts workers as often as it is told to. Prints as JSON how many ended well,
and which were so long that they must have been sampled."""
import json
import multiprocessing
import os
import subprocess
import sys
import time


def work(seconds):
    """Of a processor's time: however busy the others are, the sampler has its turn meanwhile."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        sum(range(100))


def worker(number, queue):
    work(0.02)
    queue.put(os.getpid())
    queue.close()
    queue.join_thread()
    os._exit(0)


def main():
    forks, spawns, workers = map(int, sys.argv[1:])
    ended = 0
    lived = []
    for number in range(forks):
        is_long = number % 5 == 0
        child = os.fork()
        if child == 0:
            work(0.03 if is_long else number % 3 * 0.0005)
            os._exit(0)
        ended += os.waitpid(child, 0)[1] == 0
        if is_long:
            lived.append(child)
    code = "import time\nuntil = time.process_time() + 0.03\nwhile time.process_time() < until: pass"
    for _ in range(spawns):
        child = subprocess.Popen([sys.executable, "-S", "-c", code])
        ended += child.wait() == 0
        lived.append(child.pid)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=worker, args=(n, queue)) for n in range(workers)]
    for process in processes:
        process.start()
    lived += [queue.get() for _ in processes]
    for process in processes:
        process.join()
        ended += process.exitcode == 0
    print(json.dumps({"ended": ended, "lived": lived}))


if __name__ == "__main__":
    main()
