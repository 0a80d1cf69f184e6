#!/usr/bin/env python3
"""Runs servers under load, without and with pysamp, and compares what their clients see.

    tests/servers.py --python ~/.pyenv/versions/3.12.1/bin/python gunicorn-gevent celery

Each server is started twice, one after the other, once as it is and once with the library
preloaded; is asked for the same things by several clients at once; and is ended by SIGTERM while
none of them waits. Compared are the answers and how the server ended. No request may fail, every
worker that has answered must leave a profile in which its work is seen, and nothing else may be
left. Latencies are shown, not judged.

The servers are installed from the package index into an environment of their own, once for each
interpreter. Ends with 1 if anything is wrong.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = pathlib.Path(os.environ.get("PYSAMP_CACHE", "~/.cache/pysamp")).expanduser()

OPTIONS = "rate=1khz"

CLIENTS = 8

# What is asked for: the answer to each number takes another time.
NUMBERS = range(1, 40)

# How long a server may take to start, and to end.
PATIENCE = 60

APPLICATION = '''
import hashlib
import os


def work(number):
    value = b"%d" % number
    for _ in range(number * 20):
        value = hashlib.sha256(value).digest()
    return value.hex()


def respond(path):
    number = int(path.rpartition("/")[2])
    return work(number).encode(), str(os.getpid())


def wsgi(environ, start_response):
    body, pid = respond(environ["PATH_INFO"])
    length = str(len(body))
    start_response("200 OK", [("Content-Length", length), ("X-Worker", pid)])
    return [body]


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": kind + ".complete"})
            if kind == "lifespan.shutdown":
                return
    body, pid = respond(scope["path"])
    length = b"%d" % len(body)
    headers = [(b"content-length", length), (b"x-worker", pid.encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
'''

# Whoever sends a task writes it to another folder than the one that workers look at, and moves it:
# the broker itself would read half a message. Answers are given in the same way.
TASKS = '''
import json
import os

import celery

import application

app = celery.Celery("tasks", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": "queue",
    "data_folder_out": "outbox",
    "control_folder": "control",
    "polling_interval": 0.005,
}


@app.task(ignore_result=True)
def respond(number, place):
    with open(place + ".part", "w") as file:
        json.dump([application.work(number), str(os.getpid())], file)
    os.rename(place + ".part", place)
'''

# Asks for tasks, several at once. Prints what they tell.
TASK_CLIENT = '''
import json
import os
import sys
import time

import tasks

numbers, seconds, clients, patience = json.loads(sys.argv[1])
heard = []
until = time.monotonic() + seconds
turn = 0
while time.monotonic() < until:
    asked = []
    for _ in range(clients):
        number = numbers[turn % len(numbers)]
        turn += 1
        place = os.path.abspath("results/%d-%d" % (os.getpid(), turn))
        asked.append((number, time.monotonic(), place))
        tasks.respond.delay(number, place)
        for name in os.listdir("outbox"):
            os.rename("outbox/" + name, "queue/" + name)
    while asked:
        for one in list(asked):
            number, start, place = one
            if os.path.exists(place):
                with open(place) as file:
                    body, worker = json.load(file)
                heard.append((number, [200, body], worker, time.monotonic() - start))
                asked.remove(one)
            elif time.monotonic() - start > patience:
                heard.append((number, ["no answer"], None, patience))
                asked.remove(one)
        time.sleep(0.001)
print(json.dumps(heard))
'''


class Server:
    """How to start a server, and how to ask it."""

    def __init__(self, packages, command):
        self.packages = packages
        self.command = command

    def ready(self, port, process, environment, scratch):
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                ask(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE), 1)
                return True
            time.sleep(0.05)
        return False

    def load(self, port, seconds, environment, scratch):
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            until = time.monotonic() + seconds
            clients = [pool.submit(client, port, until, first) for first in range(CLIENTS)]
            return [answer for one in clients for answer in one.result()]


class TaskServer(Server):
    """One that is not asked by HTTP."""

    def ready(self, port, process, environment, scratch):
        return bool(self.load(port, 0.01, environment, scratch)) and process.poll() is None

    def load(self, port, seconds, environment, scratch):
        wishes = json.dumps([list(NUMBERS), seconds, CLIENTS, PATIENCE])
        command = [environment / "bin/python", scratch / "client.py", wishes]
        done = subprocess.run(
            command, cwd=scratch, env=plain_variables(), stdout=subprocess.PIPE, check=True
        )
        return [Answer(*answer) for answer in json.loads(done.stdout)]


def gunicorn(*how):
    command = ["python", "-m", "gunicorn", "-w", "2", "-b", "127.0.0.1:{port}", *how]
    return Server(["gunicorn", "gevent", "packaging"], [*command, "application:wsgi"])


SERVERS = {
    "gunicorn-sync": gunicorn("-k", "sync"),
    "gunicorn-gthread": gunicorn("-k", "gthread", "--threads", "4"),
    "gunicorn-gevent": gunicorn("-k", "gevent"),
    "uvicorn": Server(
        ["uvicorn", "uvloop"],
        [
            *["python", "-m", "uvicorn", "--loop", "uvloop", "--workers", "2"],
            *["--no-access-log", "--port", "{port}", "application:asgi"],
        ],
    ),
    "uwsgi": Server(
        ["uwsgi"],
        [
            *["uwsgi", "--http-socket", "127.0.0.1:{port}", "--master", "--processes", "2"],
            *["--die-on-term", "--disable-logging", "--module", "application:wsgi"],
        ],
    ),
    "celery": TaskServer(
        ["celery"],
        [
            *["python", "-m", "celery", "-A", "tasks", "worker", "--pool", "prefork"],
            *["-c", "2", "--without-gossip", "--without-mingle", "--without-heartbeat"],
        ],
    ),
}

Answer = collections.namedtuple("Answer", "number said worker seconds")


def ask(connection, number):
    """One request on a connection; returns what is the same each time, and who answered."""
    connection.request("GET", f"/{number}")
    response = connection.getresponse()
    body = response.read().decode()
    return [response.status, body], response.headers["X-Worker"]


def client(port, until, first):
    """Asks until it is time, each request on a connection of its own."""
    heard = []
    turn = first
    while time.monotonic() < until:
        number = NUMBERS[turn % len(NUMBERS)]
        turn += CLIENTS
        start = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            said, worker = ask(connection, number)
        except (OSError, http.client.HTTPException) as error:
            said, worker = [repr(error)], None
        connection.close()
        heard.append(Answer(number, said, worker, time.monotonic() - start))
    return heard


class Outcome:
    """What became of one run of one server."""

    def __init__(self, answers, status, log, profiles):
        self.answers = answers
        self.status = status
        self.log = log
        # Of each process that left one, by its id.
        self.profiles = profiles

    def failures(self):
        return [answer for answer in self.answers if answer.said[0] != 200]

    def latency(self, share):
        times = sorted(answer.seconds for answer in self.answers)
        return times[int(share * (len(times) - 1))] * 1e3 if times else float("nan")

    def workers(self):
        return {answer.worker for answer in self.answers if answer.worker}


def plain_variables():
    """This process's environment without what changes how Python or pysamp behave."""
    unwanted = ("LD_PRELOAD", "PYTHON", "PYSAMP")
    return {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(server, environment, options, library):
    """Starts a server, loads it, ends it. `library` is None for a run without pysamp."""
    with tempfile.TemporaryDirectory(prefix="pysamp-servers-") as scratch:
        scratch = pathlib.Path(scratch)
        (scratch / "application.py").write_text(APPLICATION)
        (scratch / "tasks.py").write_text(TASKS)
        (scratch / "client.py").write_text(TASK_CLIENT)
        for folder in ("queue", "outbox", "control", "results", "profiles"):
            (scratch / folder).mkdir()
        variables = plain_variables()
        if library:
            variables["LD_PRELOAD"] = str(library)
            variables["PYTHONSAMPLE"] = f"{options.options},collapsed,output=profiles/%p.txt"
        port = free_port()
        program, *words = (word.format(port=port) for word in server.command)
        log = scratch / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [environment / "bin" / program, *words],
                cwd=scratch,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            answers = []
            if server.ready(port, process, environment, scratch):
                answers = server.load(port, options.seconds, environment, scratch)
            status = ended(process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        left = (scratch / "profiles").iterdir()
        profiles = {path.name: path.read_text(errors="replace") for path in left}
        return Outcome(answers, status, log.read_text(errors="replace"), profiles)


def ended(process):
    """Ends a server as an operator does, and tells how that went."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        status = process.wait(PATIENCE)
        # Helpers such as the resource tracker of multiprocessing outlive it by a moment.
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            os.killpg(process.pid, 0)
            time.sleep(0.02)
        return f"{status}, but not all of its processes end"
    except subprocess.TimeoutExpired:
        return "it does not end"
    except ProcessLookupError:
        return status


def said(outcome):
    """What was said to each number."""
    return {(answer.number, str(answer.said)) for answer in outcome.answers}


def judge(plain, sampled):
    """What is wrong with a run under pysamp, beside the same without."""
    if not plain.answers or plain.failures():
        yield f"does not work without pysamp either: {plain.failures()[:3]}"
        return
    if not sampled.answers:
        yield "does not answer"
    for answer in sampled.failures()[:3]:
        yield f"a request failed: {answer}"
    if not said(sampled) <= said(plain):
        yield f"other answers: {sorted(said(sampled) - said(plain))[:3]}"
    if sampled.status != plain.status:
        yield f"ended with {sampled.status}, but {plain.status} without pysamp"
    tracebacks = [outcome.log.count("Traceback") for outcome in (plain, sampled)]
    if tracebacks[0] != tracebacks[1]:
        yield f"{tracebacks[1]} tracebacks, but {tracebacks[0]} without pysamp"
    for worker in sorted(sampled.workers()):
        profile = sampled.profiles.get(f"{worker}.txt", "")
        if not re.search(r";application\.py:work:\d+[; ]", profile):
            yield f"worker {worker} left no profile of its work"
    others = [name for name in sampled.profiles if not name.endswith(".txt")]
    if others:
        yield f"it left {others}"


def compare(name, python, options):
    """Runs one server both ways. Returns a line on it, and what is wrong."""
    server = SERVERS[name]
    environment, problem = installed(python, server.packages)
    if problem:
        return f"cannot be installed: {problem}", []
    plain = run(server, environment, options, None)
    sampled = run(server, environment, options, options.library)
    faults = list(judge(plain, sampled))
    if faults:
        log = "\n".join(f"    {line}" for line in sampled.log.splitlines()[-40:])
        faults[-1] += f"\n{log}"
    ratio = sampled.latency(0.99) / plain.latency(0.99)
    line = (
        f"{len(plain.answers)} and {len(sampled.answers)} requests, "
        f"{len(sampled.failures())} failed, {len(sampled.workers())} workers, "
        f"{len(sampled.profiles)} profiles; median {plain.latency(0.5):.1f} and "
        f"{sampled.latency(0.5):.1f} ms, p99 {plain.latency(0.99):.1f} and "
        f"{sampled.latency(0.99):.1f} ms, ratio {ratio:.2f}"
    )
    return ("WRONG: " if faults else "") + line, faults


def installed(python, packages):
    """The interpreter's environment with the packages in it, and what is in the way of that."""
    version = subprocess.run(
        [python, "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3] + sys.abiflags)"],
        stdout=subprocess.PIPE,
        check=True,
    )
    environment = CACHE / "servers" / version.stdout.decode().strip()
    if not (environment / "bin/python").exists():
        subprocess.run([python, "-m", "venv", environment], env=plain_variables(), check=True)
    for package in packages:
        mark = environment / f".has-{package}"
        if mark.exists():
            continue
        done = subprocess.run(
            [environment / "bin/python", "-m", "pip", "install", "-q", package],
            env=plain_variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode:
            return environment, f"{package}: {done.stdout.decode(errors='replace')[-300:]}"
        mark.touch()
    return environment, None


def known_interpreters():
    """What `tests/provision.sh` found, as far as pysamp supports it."""
    try:
        rows = [line.split("\t") for line in (CACHE / "interpreters.tsv").read_text().splitlines()]
    except OSError:
        return []
    return [path for _, path, version in rows if 8 <= int(version.split(".")[1]) <= 15]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("servers", nargs="*", help=f"any of {', '.join(SERVERS)}")
    parser.add_argument("--python", action="append", help="an interpreter; may be repeated")
    built = ROOT / "target/release/libpysamp.so"
    parser.add_argument("--library", type=pathlib.Path, default=built)
    parser.add_argument("--options", default=OPTIONS, help="as in PYTHONSAMPLE")
    parser.add_argument("--seconds", type=float, default=10, help="how long the load lasts")
    options = parser.parse_args()
    options.library = options.library.resolve()
    if not options.library.exists():
        parser.error(f"{options.library} is not there; cargo build --release makes it")
    for name in options.servers:
        if name not in SERVERS:
            parser.error(f"{name} is none of {', '.join(SERVERS)}")

    wrong = 0
    for python in options.python or known_interpreters():
        for name in options.servers or SERVERS:
            line, faults = compare(name, python, options)
            print(f"{python} {name}: {line}", flush=True)
            for fault in faults:
                print(f"  {fault}", flush=True)
            wrong += bool(faults)
    print(f"\n{wrong} wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
