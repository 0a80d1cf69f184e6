"""Is profiled only now and then, by its own signals. Usage: controlled.py MODE DIRECTORY."""
import os
import signal
import sys
import time
import warnings


def stay(name, seconds=0.15):
    """Sleeps in a function of that name, so that nothing hangs on how busy the machine is."""
    namespace = {"time": time, "end": time.monotonic() + seconds}
    exec("def %s():\n while time.monotonic() < end: time.sleep(0.002)" % name, namespace)
    namespace[name]()


def wait_until(is_so, seconds=20):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


def is_caught():
    with open("/proc/self/status") as status:
        caught = [line.split()[1] for line in status if line.startswith("SigCgt")]
    return int(caught[0], 16) >> (signal.SIGUSR2 - 1) & 1


def wait_for(name):
    path = os.path.join(sys.argv[2], name)
    wait_until(lambda: os.path.exists(path))
    return path


def signal_self():
    os.kill(os.getpid(), signal.SIGUSR2)


def dumps():
    wait_until(is_caught)
    assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL
    stay("one")
    signal_self()
    wait_for("%d.0001" % os.getpid())
    stay("two")
    signal_self()
    wait_for("%d.0002" % os.getpid())
    stay("three")


def forked():
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    wait_until(is_caught)
    child = os.fork()
    dumps()
    if child:
        assert os.waitpid(child, 0)[1] == 0


def toggled():
    wait_until(is_caught)
    stay("before")
    signal_self()
    stay("inside")
    signal_self()
    wait_for("%d.0001" % os.getpid())
    stay("between")
    signal_self()
    stay("again")


def paused_again():
    wait_until(is_caught)
    signal_self()
    stay("inside")
    signal_self()
    wait_for("%d.0001" % os.getpid())
    stay("after")


def never_begun():
    wait_until(is_caught)
    stay("before")


def taken_before():
    assert signal.getsignal(signal.SIGUSR2) == signal.SIG_IGN
    # By then the signal would have been taken.
    stay("one", 0.4)
    signal_self()
    stay("two")
    assert not is_caught()


def taken_later():
    seen = []
    wait_until(is_caught)
    assert signal.signal(signal.SIGUSR2, lambda number, frame: seen.append(number)) == signal.SIG_DFL
    for count in (1, 2):
        signal_self()
        stay("one", 0.1)
        assert len(seen) == count


def rotated():
    stay("first", 0.25)
    stay("middle", 0.5)
    stay("last", 0.25)


def age():
    """Of this process, in seconds."""
    with open("/proc/self/stat") as stat:
        start = int(stat.read().rsplit(") ", 1)[1].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - start / os.sysconf("SC_CLK_TCK")


def delayed():
    # Not longer, as the delay may have begun with the process.
    stay("early", 0.3 - age())
    stay("meanwhile", 0.5)
    stay("late")


def timed():
    stay("in_time")
    path = wait_for(str(os.getpid()))
    with open(path) as file:
        before = file.read()
    stay("too_late")
    # The exit adds nothing.
    print(len(before))


if __name__ == "__main__":
    globals()[sys.argv[1]]()
