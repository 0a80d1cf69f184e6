"""Starts processes in every way: fork, spawn, a forkserver, another program; and ends them in several.

Prints for each kind its process ids, and the id of the process that has started them.
"""
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

CHILD = "import os, time; print(os.getpid(), os.getppid(), flush=True)\nbusy = time.time() + %f\n" \
        "while time.time() < busy: pass"


def busy(seconds):
    until = time.time() + seconds
    while time.time() < until:
        pass


def work(connection):
    busy(0.2)
    connection.send(os.getpid())


def started(method):
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs,))
    process.start()
    pid = ours.recv()
    process.join()
    return pid


def run(seconds):
    output = subprocess.run([sys.executable, "-c", CHILD % seconds], stdout=subprocess.PIPE).stdout
    return [int(part) for part in output.split()]


def forked(end):
    pid = os.fork()
    if pid == 0:
        busy(0.3)
        end()
    os.waitpid(pid, 0)
    return pid


def main():
    pids = {method: started(method) for method in ["fork", "spawn", "forkserver"]}
    pids["subprocess"], parent = run(0.2)
    pids["short"], _ = run(0.05)
    pids["_exit"] = forked(lambda: os._exit(3))
    pids["killed"] = forked(lambda: os.kill(os.getpid(), signal.SIGKILL))
    busy(0.1)
    print(json.dumps({"pids": pids, "parent": parent, "own": os.getpid()}))


if __name__ == "__main__":
    main()
