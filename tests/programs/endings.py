"""Ends in the way it is told to; one way is to print what an application can see of its process."""
import atexit
import concurrent.futures
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings


def surroundings():
    """Whatever of the process a library inside it may not change."""
    yield "directory", os.getcwd()
    for descriptor in range(3):
        yield "descriptor %d" % descriptor, os.readlink("/proc/self/fd/%d" % descriptor)[:5]
    shell = subprocess.run(["sh", "-c", "echo /proc/self/fd/*"], stdout=-1, close_fds=False)
    yield "descriptors of a child", shell.stdout
    # Not the real-time ones: the sampler may take one that nobody uses.
    for number in range(1, signal.SIGRTMIN - 2):
        yield "handler of %d" % number, signal.getsignal(number)
    yield "mask", signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(("SigIgn", "SigBlk")):
                # Signals 32 and 33 are the C library's own, for its threads.
                name, mask = line.split()
                yield name, hex(int(mask, 16) & ~(3 << 31))
    yield "threads", [thread.name for thread in threading.enumerate()]
    yield "arguments", sys.argv[1:]
    yield "switch interval", sys.getswitchinterval()
    yield "hooks", (sys.gettrace(), sys.getprofile(), threading.active_count())
    yield "limits", [resource.getrlimit(limit) for limit in range(resource.RLIMIT_NOFILE + 1)]
    mask = os.umask(0o077)
    os.umask(mask)
    yield "umask", oct(mask)


def look_around():
    for fact in surroundings():
        print(*fact)


def work():
    until = time.perf_counter() + 0.05
    while time.perf_counter() < until:
        sum(n * n for n in range(1000))


def forked(end):
    child = os.fork()
    if child == 0:
        work()
        return end()
    status = os.waitpid(child, 0)[1]
    print("child ended with", status, flush=True)


def in_a_thread(target, *arguments):
    # CPython 3.12 and later warn of forks beside other threads, of which there is one.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    thread = threading.Thread(target=target, args=arguments)
    thread.start()
    thread.join()


def pool():
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
        # Long enough for both to have one.
        jobs = [executor.submit(time.sleep, 0.1) for worker in range(2)]
        print([job.result() for job in jobs])


def execute():
    os.execv(sys.executable, [sys.executable, "-c", "print('anew'); exit(5)"])


def execute_in_vain():
    nonsense = tempfile.NamedTemporaryFile(prefix="nonsense", delete=False)
    nonsense.write(b"no program")
    nonsense.close()
    os.chmod(nonsense.name, 0o700)
    for path in os.devnull, "/nowhere", nonsense.name:
        try:
            os.execv(path, ["nothing"])
        except OSError as error:
            print(error)
    os.unlink(nonsense.name)
    work()


def start(target, **how):
    thread = threading.Thread(target=target, **how)
    thread.start()
    return thread


def late():
    time.sleep(0.05)
    print("late thread", flush=True)


def forever():
    while True:
        time.sleep(0.001)
        work()


def interrupted():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)


def fails():
    raise RuntimeError("on purpose: größe")


def handled():
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)


def alarmed():
    # Interrupted system calls are resumed, and none is interrupted for another's reason.
    seen = []
    signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    time.sleep(0.05)
    print("alarms", len(seen))


def pipes():
    process = subprocess.Popen([sys.executable, "-c", "print(input())"], stdin=-1, stdout=-1)
    print(process.communicate(b"through a child\n")[0], process.returncode)
    print(subprocess.run(["sh", "-c", "echo a shell; exit 9"]).returncode)


ENDINGS = {
    "return": lambda: None,
    "a look around": look_around,
    "exit 3": lambda: sys.exit(3),
    "exit with a message": lambda: sys.exit("a message"),
    "an exception": fails,
    "interrupted": interrupted,
    "os._exit": lambda: os._exit(4),
    "abort": os.abort,
    "SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "SIGTERM, handled": handled,
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGSEGV": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "an alarm": alarmed,
    "exec": execute,
    "exec that fails": execute_in_vain,
    "forked child that returns": lambda: forked(lambda: sys.exit(0)),
    "forked child that leaves at once": lambda: forked(lambda: os._exit(6)),
    "forked child of a thread": lambda: in_a_thread(forked, lambda: None),
    "forked child of a thread, which starts another": lambda: in_a_thread(forked, lambda: start(late)),
    "forked child that executes": lambda: forked(lambda: (work(), execute())),
    "pool in a thread": lambda: in_a_thread(pool),
    "children": pipes,
    "a thread that ends later": lambda: start(late),
    "a daemon thread left running": lambda: start(forever, daemon=True),
    "all descriptors closed": lambda: os.closerange(3, 4096),
    "a closed stderr": lambda: os.close(2),
    "half a million bytes": lambda: sys.stdout.write("x" * 500000),
}


def main():
    print("to stdout")
    print("to stderr", file=sys.stderr)
    atexit.register(print, "at exit")
    work()
    sys.stdout.flush()
    ENDINGS[sys.argv[1]]()


if __name__ == "__main__":
    main()
