"""Lives as it is told to: with signals of its own, tracing, subinterpreters, or next to nothing."""
import ctypes
import errno
import faulthandler
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time


def work(seconds=0.1):
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        sum(n * n for n in range(1000))


def tracebacks(how, file):
    """How often a traceback is in a file, and whether all its frames are this program's."""
    how(file)
    # Nothing runs meanwhile: the interpreter's watchdog reads frames that may be gone, and faults there.
    time.sleep(0.3)
    faulthandler.cancel_dump_traceback_later()
    work()
    file.seek(0)
    text = file.read().decode()
    own = os.path.basename(__file__)
    return text.count("most recent call first"), own in text, "pysamp" in text


def report_faults():
    faulthandler.enable()
    print(faulthandler.is_enabled())

    def by_signal(file):
        faulthandler.register(signal.SIGUSR1, file)
        os.kill(os.getpid(), signal.SIGUSR1)

    for how in (
        by_signal,
        lambda file: faulthandler.dump_traceback(file),
        lambda file: faulthandler.dump_traceback_later(0.02, file=file),
    ):
        with tempfile.TemporaryFile() as file:
            print(*tracebacks(how, file))


def fault():
    """To be run with an enabled faulthandler; ends by a signal."""
    work()
    faulthandler._sigsegv()


def own_signals():
    for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGURG, signal.SIGUSR1, signal.SIGUSR2):
        print(number, signal.getsignal(number))
        seen = []
        signal.signal(number, lambda number, frame: seen.append(number))
        work(0.03)
        os.kill(os.getpid(), number)
        work(0.03)
        print(seen)
        signal.signal(number, signal.SIG_DFL)
        work(0.03)


def own_timers():
    for timer, number in ((signal.ITIMER_PROF, signal.SIGPROF), (signal.ITIMER_REAL, signal.SIGALRM)):
        seen = []
        signal.signal(number, lambda number, frame: seen.append(number))
        signal.setitimer(timer, 0.005, 0.005)
        while len(seen) < 10:
            work(0.01)
        signal.setitimer(timer, 0)
        print(number, set(seen))


def blocked_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
    work()
    print(len(signal.pthread_sigmask(signal.SIG_BLOCK, [])) > 50)
    os.kill(os.getpid(), signal.SIGTERM)
    print(signal.sigwait([signal.SIGTERM]))


def traced():
    def called(depth):
        return depth and called(depth - 1)

    for install in sys.settrace, sys.setprofile:
        events = []

        def hook(frame, event, argument):
            if frame.f_code is called.__code__:
                events.append((event, frame.f_lineno - called.__code__.co_firstlineno))
            return hook

        install(hook)
        called(20)
        work(0.05)
        install(None)
        print(len(events), events[:3], events[-3:])


def subinterpreters():
    for name in "_interpreters", "_xxsubinterpreters":
        try:
            module = __import__(name)
            break
        except ImportError:
            continue
    done = 0
    for _ in range(100):
        interpreter = module.create()
        module.run_string(interpreter, "for n in range(100): sum(range(100))")
        module.destroy(interpreter)
        done += 1
    print(done, len(module.list_all()))


def stopped():
    stop = "kill -STOP %d; sleep 0.1; kill -CONT %d" % (os.getpid(), os.getpid())
    child = subprocess.Popen(["sh", "-c", stop])
    while child.poll() is None:
        work(0.02)
    work()
    print(child.returncode)


def one_processor():
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("done")


def few_descriptors():
    for most in 8, 5, 3:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, 8))
        work(0.05)
        opened = []
        try:
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            print(opened, error.errno)
        for descriptor in opened:
            os.close(descriptor)


def numbers_of_descriptors():
    """What is opened has the lowest number that is free, all the time."""
    numbers = set()
    end = time.monotonic() + 0.6
    while time.monotonic() < end:
        for _ in range(200):
            descriptor = os.open(os.devnull, os.O_RDONLY)
            numbers.add(descriptor)
            os.close(descriptor)
    print(numbers)


def little_memory():
    with open("/proc/self/statm") as statm:
        size = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (16 << 20), resource.RLIM_INFINITY))
    try:
        bytearray(64 << 20)
    except MemoryError:
        print("no memory")
    names = {}
    for number in range(2000):
        exec("def f%d(): return %d" % (number, number), names)
        names["f%d" % number]()
    work()
    print(len(names))


# Of seccomp's filters: what to do with a word of the system call's number and arguments.
LOAD, EQUAL, HAS_BITS, ANSWER = 0x20, 0x15, 0x45, 0x06
NUMBER, FIRST_ARGUMENT = 0, 16
ALLOW, FAIL, KILL_THREAD = 0x7FFF0000, 0x00050000, 0
PROCESS_VM_READV, CLONE, CLONE3 = 310, 56, 435


def install_filter(program, everywhere=False):
    """A seccomp filter for this thread and what it starts, or for all threads that there are."""
    code = b"".join(struct.pack("HBBI", *one) for one in program)
    buffer = ctypes.create_string_buffer(code)
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    NO_NEW_PRIVILEGES, SECCOMP, FILTER = 38, 317, 1
    if libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.syscall(SECCOMP, FILTER, everywhere, header):
        raise OSError(ctypes.get_errno(), "seccomp")


def forbid_reads(answer=FAIL | errno.EPERM, everywhere=False):
    forbidden = [(EQUAL, 0, 1, PROCESS_VM_READV), (ANSWER, 0, 0, answer)]
    install_filter([(LOAD, 0, 0, NUMBER), *forbidden, (ANSWER, 0, 0, ALLOW)], everywhere)


def forbid_threads():
    CLONE_THREAD = 0x10000
    install_filter([
        (LOAD, 0, 0, NUMBER),
        # The C library takes the older call then, whose flags can be looked at.
        (EQUAL, 0, 1, CLONE3),
        (ANSWER, 0, 0, FAIL | errno.ENOSYS),
        (EQUAL, 0, 3, CLONE),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (HAS_BITS, 0, 1, CLONE_THREAD),
        (ANSWER, 0, 0, FAIL | errno.EAGAIN),
        (ANSWER, 0, 0, ALLOW),
    ])


def begin_anew(way):
    os.execve(sys.executable, [sys.executable, "-B", __file__, way], dict(os.environ))


def forbidden_reads():
    """The program starts anew under a filter that forbids process_vm_readv."""
    forbid_reads()
    begin_anew("forbidden")


def forbidden():
    work(0.2)
    print("worked")


def reads_forbidden_later():
    work()
    forbid_reads()
    forbidden()


def reads_forbidden_to_all():
    """Memory is read by system call only, and then not at all."""
    faulthandler.enable()
    work()
    forbid_reads(everywhere=True)
    forbidden()


def reads_that_kill():
    faulthandler.enable()
    work(0.3)
    forbid_reads(KILL_THREAD, everywhere=True)
    forbidden()


def forbidden_threads():
    """The program starts anew under a filter that forbids threads."""
    forbid_threads()
    begin_anew("threadless")


def threadless():
    work()
    child = os.fork()
    if child == 0:
        work()
        os._exit(3)
    print("child ended with", os.waitpid(child, 0)[1])
    try:
        threading.Thread(target=work).start()
    except RuntimeError as error:
        print(error)
    work()


def threads_forbidden_later():
    work()
    forbid_threads()
    threadless()


def daemon():
    """Forks, and the child forks at once."""
    work()
    heard, said = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            work()
            os.write(said, b"grandchild")
            os._exit(0)
        os._exit(0)
    os.close(said)
    os.wait()
    # Until the grandchild has ended.
    print(b"".join(iter(lambda: os.read(heard, 100), b"")))


def ordinary():
    work()
    child = subprocess.run([sys.executable, "-c", "print(1)"], stdout=subprocess.PIPE)
    print(child.stdout)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    print("done")


WAYS = {
    "faulthandler": report_faults,
    "fault": fault,
    "signals": own_signals,
    "timers": own_timers,
    "blocked signals": blocked_signals,
    "tracing": traced,
    "subinterpreters": subinterpreters,
    "stopped": stopped,
    "one processor": one_processor,
    "few descriptors": few_descriptors,
    "numbers of descriptors": numbers_of_descriptors,
    "little memory": little_memory,
    "forbidden reads": forbidden_reads,
    "forbidden": forbidden,
    "reads forbidden later": reads_forbidden_later,
    "reads forbidden to all": reads_forbidden_to_all,
    "reads that kill": reads_that_kill,
    "forbidden threads": forbidden_threads,
    "threadless": threadless,
    "threads forbidden later": threads_forbidden_later,
    "daemon": daemon,
    "ordinary": ordinary,
}

if __name__ == "__main__":
    WAYS[sys.argv[1]]()
