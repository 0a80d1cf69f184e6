"""Takes and closes descriptors without asking whose they are, as programs do after a fork.

Children fill every number that is free and talk through all of them, or close all that they find;
one lets go of its stderr and lives on. Prints what went wrong.
"""

import json
import os
import select
import socket
import sys
import time

CHILDREN = int(sys.argv[1])
NUMBERS = 128
ENOUGH = 60


def is_free(number):
    try:
        os.fstat(number)
    except OSError:
        return True
    return False


def fill(connection):
    """Every free number becomes the connection; what comes through it is for nobody else."""
    for _ in range(3):
        for number in range(3, NUMBERS):
            if is_free(number):
                os.dup2(connection.fileno(), number)
    for expected in range(20):
        if connection.recv(1) != bytes([expected]):
            return 1
        connection.send(bytes([expected]))
    return 0


def close_all(connection):
    """All numbers but one are closed, again and again, and given to files that stay empty."""
    os.closerange(3, connection.fileno())
    os.closerange(connection.fileno() + 1, NUMBERS)
    own = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
    for expected in range(20):
        if connection.recv(1) != bytes([expected]):
            return 1
        connection.send(bytes([expected]))
    return 0 if all(not is_free(number) for number in own) else 2


def child(work):
    """What a child that works made of it."""
    here, there = socket.socketpair()
    pid = os.fork()
    if not pid:
        here.close()
        os._exit(work(there))
    there.close()
    try:
        for number in range(20):
            here.send(bytes([number]))
            ready, _, _ = select.select([here], [], [], ENOUGH)
            if not ready:
                os.kill(pid, 9)
                return "hangs"
            if here.recv(1) != bytes([number]):
                return "is answered wrongly"
    except OSError as error:
        return str(error)
    finally:
        here.close()
        status = os.waitpid(pid, 0)[1]
    return status and "ends with %d" % status


def lets_go_of_stderr():
    """Whether the end of a child's stderr is seen while the child lives on."""
    reader, writer = os.pipe()
    stop, go_on = os.pipe()
    pid = os.fork()
    if not pid:
        os.dup2(writer, 2)
        os.closerange(writer, writer + 1)
        os.close(go_on)
        time.sleep(0.2)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 2)
        os.read(stop, 1)
        os._exit(0)
    os.close(writer)
    os.close(stop)
    ready, _, _ = select.select([reader], [], [], ENOUGH)
    ended = bool(ready) and os.read(reader, 1) == b""
    os.close(go_on)
    os.waitpid(pid, 0)
    os.close(reader)
    return ended


wrong = []
for work in (fill, close_all):
    for _ in range(CHILDREN):
        said = child(work)
        if said:
            wrong.append("%s: %s" % (work.__name__, said))
if not lets_go_of_stderr():
    wrong.append("stderr is kept")
print(json.dumps({"wrong": wrong}))
