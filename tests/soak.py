#!/usr/bin/env python3
"""Runs threaded servers under a light load for long, without and with pysamp, and watches what they hold.

    tests/soak.py --python ~/.pyenv/versions/3.12.1/bin/python --minutes 30

`pool` answers with threads that stay, `fresh` with one thread for each request, as the standard library's
threading server does. Each runs twice at once, as it is and with the library preloaded, and all are asked
for the same at the same rate. Their memory, descriptors and threads are read from /proc, and the share
of failed samples from the recording of the moment. From the middle on memory of a server with pysamp may
grow by no more than that of the same one without and `ROOM`, descriptors and threads may not be more, and in
the last tenth no more samples may fail than in the second, or one in 1,000. Until the middle, threads are
told apart, which takes memory: at the usual rate that ends after 14 minutes.

What is mapped from the recording counts by itself: it is bounded by the recording's own limits.

Ends with 1 if anything is wrong.
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent

KINDS = ("pool", "fresh")

# By how many bytes more than without pysamp memory may grow: what tables take when they double.
ROOM = 2 << 20

# More failed samples than this are a fault.
MOST_FAILED = 0.001

# How often to look, in seconds.
STEP = 10

PATIENCE = 60

SERVER = '''
import concurrent.futures
import hashlib
import http.server
import signal
import socketserver
import sys

MADE = """
def made_{kind}(number):
    return sum(range(number * 10))
"""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        number = int(self.path.rpartition("/")[2])
        body = work(number).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


def work(number):
    """Something to see: a recursion, a function that is made and dropped, an exception."""
    names = {}
    exec(compile(MADE.format(kind=number), "made_%d.py" % number, "exec"), names)
    value = b"%d" % names["made_%d" % number](number)
    for _ in range(number * 10):
        value = hashlib.sha256(value).digest()
    try:
        deeper(number)
    except ValueError as error:
        return value.hex() + str(error)


def deeper(left):
    if not left:
        raise ValueError("bottom")
    deeper(left - 1)


class Fresh(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


class Pool(http.server.HTTPServer):
    threads = concurrent.futures.ThreadPoolExecutor(8)

    def process_request(self, request, address):
        self.threads.submit(self.answer, request, address)

    def answer(self, request, address):
        try:
            self.finish_request(request, address)
        finally:
            self.shutdown_request(request)


def end(*_):
    raise SystemExit(3)


signal.signal(signal.SIGTERM, end)
server = {"pool": Pool, "fresh": Fresh}[sys.argv[1]](("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever(60)
'''


class Server:
    """A server that runs, and what it held each time it was looked at."""

    def __init__(self, kind, options, scratch, sampled):
        self.kind = kind
        self.sampled = sampled
        self.rows = []
        self.failures = []
        self.asked = 0
        self.options = options
        self.folder = scratch / f"{kind}-{'sampled' if sampled else 'plain'}"
        self.folder.mkdir()
        variables = plain_variables()
        if sampled:
            variables["LD_PRELOAD"] = str(options.library)
            variables["PYTHONSAMPLE"] = f"{options.options},collapsed,output={self.folder}/profile.txt"
        self.log = (self.folder / "log").open("w+b")
        self.process = subprocess.Popen(
            [options.python, "-B", scratch / "server.py", kind],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=variables,
        )
        self.port = int(self.process.stdout.readline())

    @property
    def name(self):
        return f"{self.kind} {'with' if self.sampled else 'without'} pysamp"

    def ask(self, until, rate):
        """Asks at an even rate. Answers are the same for the same number."""
        said = {}
        begun = time.monotonic()
        while time.monotonic() < until:
            number = self.asked % 40
            self.asked += 1
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
                connection.request("GET", f"/{number}")
                answer = connection.getresponse()
                heard = (answer.status, answer.read())
                connection.close()
                if heard[0] != 200 or said.setdefault(number, heard) != heard:
                    self.failures.append(f"{number}: {heard}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{number}: {error!r}")
            time.sleep(max(0, begun + self.asked / rate - time.monotonic()))

    def look(self):
        place = pathlib.Path("/proc", str(self.process.pid))
        status = dict(
            line.split(":", 1) for line in (place / "status").read_text().splitlines() if ":" in line
        )
        row = {
            "anonymous": int(status["RssAnon"].split()[0]) << 10,
            "mapped": (int(status["RssFile"].split()[0]) + int(status["RssShmem"].split()[0])) << 10,
            "files": len(os.listdir(place / "fd")),
            "threads": len(os.listdir(place / "task")),
            "cpu": sum(map(int, (place / "stat").read_text().rpartition(")")[2].split()[11:13])),
        }
        if self.sampled:
            row |= self.counts()
        self.rows.append(row)

    def counts(self):
        """What was sampled so far, as anyone can ask for it."""
        command = [self.options.command, "report", "--jsonl", "-o", "-", self.folder / "profile.pysamp"]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        lines = done.stdout.splitlines()
        first, last = json.loads(lines[0]), json.loads(lines[-1])
        kinds = {"samples": last["samples_total"], "profile bytes": len(done.stdout)}
        return kinds | {name: first[name] for name in ("ticks", "missed", "failed")}

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = "none: it does not end"
        self.log.seek(0)
        return code, self.log.read().decode(errors="replace")

    def grown(self, what):
        """By how much the least of something grew from the middle on: requests come and go."""
        tenth, middle = max(1, len(self.rows) // 10), len(self.rows) // 2
        before = min(row[what] for row in self.rows[middle : middle + tenth])
        return min(row[what] for row in self.rows[-tenth:]) - before

    def failed_share(self, begin, end):
        failed = self.rows[end]["failed"] - self.rows[begin]["failed"]
        samples = self.rows[end]["samples"] - self.rows[begin]["samples"]
        return failed / max(1, failed + samples)


def plain_variables():
    """This process's environment without what changes how Python or pysamp behave."""
    unwanted = ("LD_PRELOAD", "PYTHON", "PYSAMP")
    return {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}


def judge(plain, sampled):
    """What is wrong with a server under pysamp, beside the same one without."""
    for server in (plain, sampled):
        yield from (f"{server.name}: a request failed: {one}" for one in server.failures[:3])
        if server.asked < 100:
            yield f"{server.name} was asked {server.asked} times only"
    more = sampled.grown("anonymous") - plain.grown("anonymous")
    if more > ROOM:
        yield f"{sampled.name}: memory grew by {more} bytes more than without"
    for what in ("files", "threads"):
        # The least of them is when no request is under way.
        middle = len(sampled.rows) // 2
        halves = (sampled.rows[:middle], sampled.rows[middle:])
        before, after = (min(row[what] for row in half) for half in halves)
        # The pool's own threads begin one by one.
        begun = plain.rows[-1]["threads"] - plain.rows[0]["threads"] if what == "threads" else 0
        if after > before + max(0, begun):
            yield f"{sampled.name}: {after} {what}, after {before}"
    tenth = max(1, len(sampled.rows) // 10)
    early = sampled.failed_share(tenth, 2 * tenth)
    late = sampled.failed_share(-1 - tenth, -1)
    if late > max(early, MOST_FAILED):
        yield f"{sampled.name}: {late:.3%} of the samples failed at the end, {early:.3%} in the beginning"


def show(server):
    """What a server held, at some moments."""
    print(server.name, f"({server.asked} requests)")
    last = len(server.rows) - 1
    for at in sorted({last * tenth // 10 for tenth in range(11)}):
        row = server.rows[at]
        line = (
            f"  {(at + 1) * STEP:6} s: {row['anonymous'] / 1e6:7.2f} MB, {row['mapped'] / 1e6:7.2f} MB mapped, "
            f"{row['files']} files, {row['threads']} threads, {row['cpu'] / 100:.1f} s CPU"
        )
        if server.sampled:
            before = max(0, at - max(1, last // 10))
            share = server.failed_share(before, at)
            line += f"; {row['samples']} samples, {share:.4%} failed lately, {row['missed']} missed"
            line += f", profile of {row['profile bytes'] / 1e6:.2f} MB"
        print(line)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kinds", nargs="*", help=f"any of {', '.join(KINDS)}")
    parser.add_argument("--python", default=sys.executable, help="an interpreter")
    built = ROOT / "target/release"
    parser.add_argument("--library", type=pathlib.Path, default=built / "libpysamp.so")
    parser.add_argument("--command", type=pathlib.Path, default=built / "pysamp")
    parser.add_argument("--options", default="rate=1khz", help="as in PYTHONSAMPLE")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=10, help="requests a second, for each server")
    options = parser.parse_args()
    for path in (options.library, options.command):
        if not path.exists():
            parser.error(f"{path} is not there; cargo build --release makes it")
    options.library = options.library.resolve()
    for kind in options.kinds:
        if kind not in KINDS:
            parser.error(f"{kind} is none of {', '.join(KINDS)}")

    faults = []
    with tempfile.TemporaryDirectory(prefix="pysamp-soak-") as scratch, contextlib.ExitStack() as stack:
        scratch = pathlib.Path(scratch)
        (scratch / "server.py").write_text(SERVER)
        pairs = []
        for kind in options.kinds or KINDS:
            pair = [Server(kind, options, scratch, sampled) for sampled in (False, True)]
            pairs.append(pair)
            for server in pair:
                stack.callback(server.process.kill)
        every = [server for pair in pairs for server in pair]
        until = time.monotonic() + options.minutes * 60
        clients = [threading.Thread(target=one.ask, args=(until, options.rate)) for one in every]
        for client in clients:
            client.start()
        while time.monotonic() + STEP < until:
            time.sleep(STEP)
            for server in every:
                server.look()
        for client in clients:
            client.join()
        for plain, sampled in pairs:
            faults += judge(plain, sampled)
            for server in (plain, sampled):
                show(server)
            ends = [server.end() for server in (plain, sampled)]
            print(f"  {ends[1][1].strip()}")
            if ends[0][0] != ends[1][0]:
                faults.append(f"{sampled.name} ends with {ends[1][0]}, without with {ends[0][0]}")
            profile = sampled.folder / "profile.txt"
            if not profile.exists() or "server.py:work:" not in profile.read_text(errors="replace"):
                faults.append(f"{sampled.name} left no profile of its work")
    for fault in faults:
        print(fault)
    print(f"\n{len(faults)} wrong")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
