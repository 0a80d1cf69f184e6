"""Runs one of every kind of frame, each for a moment at a known line, and prints what was where.

Each scenario keeps its thread busy (or blocked) in one place and records its
own stack there; see expect.py.
"""
import asyncio
import contextlib
import ctypes
import functools
import re
import signal
import sys
import threading
import time

from expect import SPAN, begin, busy, clock, observe, report

ONE = (1,)


def plain():
    until = begin("plain function")
    while clock() < until: pass  # HERE


def through_busy():
    busy("plain function, called")


def recurse(n):
    if n:
        return recurse(n - 1)
    until = begin("recursion")
    while clock() < until: pass  # HERE


def even(n):
    return odd(n - 1) if n else busy("mutual recursion")


def odd(n):
    return even(n - 1) if n else busy("mutual recursion, odd")


def deep(n):
    # Enough frames to span several chunks of the interpreter's data stack.
    a = b = c = d = e = f = g = h = n
    if n:
        return deep(n - 1)
    until = begin("deep recursion")
    while clock() < until: pass  # HERE
    return a, b, c, d, e, f, g, h


def generator():
    yield 1
    until = begin("generator")
    while clock() < until: pass  # HERE
    yield 2


def delegate(n):
    if n:
        yield from delegate(n - 1)
    else:
        yield
        until = begin("generator behind yield from, nested")
        while clock() < until: pass  # HERE
    # Up to 3.9 what is behind a branch has the line of the last one.
    return n


def generators():
    for _ in generator():
        pass
    for _ in delegate(3):
        pass
    sent = delegate_by_send()
    next(sent)
    try:
        sent.send("go")
    except StopIteration:
        pass


def delegate_by_send():
    word = yield
    busy("generator resumed by send(%r)" % word)


def comprehensions():
    [busy("list comprehension") for _ in ONE]
    {busy("set comprehension") for _ in ONE}
    {_: busy("dict comprehension") for _ in ONE}
    [busy("comprehension in a comprehension") for _ in [0 for _ in ONE]]
    [[busy("comprehension within a comprehension") for _ in ONE] for _ in ONE]
    for _ in (busy("generator expression") for _ in ONE):
        pass
    any(busy("generator expression run by any()") for _ in ONE)


def lambdas():
    (lambda: busy("lambda"))()
    (lambda f: f())(lambda: busy("lambda called by a lambda"))


class Methods:
    attribute = 1

    def method(self):
        until = begin("method")
        while clock() < until: pass  # HERE

    @classmethod
    def of_class(cls):
        busy("class method")

    @staticmethod
    def of_none():
        busy("static method")

    @property
    def value(self):
        busy("property")

    def __getattr__(self, name):
        busy("__getattr__ for " + name)

    def __call__(self):
        busy("__call__")

    def __lt__(self, other):
        busy("__lt__ from list.sort")
        return True

    def __enter__(self):
        busy("__enter__")

    def __exit__(self, *error):
        busy("__exit__")

    def __del__(self):
        busy("__del__")


def methods():
    it = Methods()
    it.method()
    it.of_class()
    it.of_none()
    it.value
    it.missing
    it()
    del it
    keep = [Methods(), Methods()]
    Methods.__del__ = lambda self: None
    keep.sort()
    with keep[0]:
        busy("body of with")


class Built:
    def __init__(self, is_last):
        if is_last:
            busy("__init__ that has been called often")


def constructors():
    for number in range(1000): Built(number == 999)


def outer():
    count = 1

    def inner():
        until = begin("closure")
        while clock() < until: pass  # HERE
        return count

    def deeper():
        def deepest():
            busy("closure in a closure")
            return count
        return deepest()

    inner()
    deeper()


def decorate(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper


@decorate
@decorate
def decorated(*args, **kwargs):
    busy("twice decorated function")


def class_bodies():
    class Slow:
        until = begin("class body")
        while clock() < until: pass  # HERE

    class Meta(type):
        def __new__(mcs, name, bases, space):
            busy("metaclass __new__")
            return super().__new__(mcs, name, bases, space)

    class Made(metaclass=Meta):
        pass

    class Base:
        def __init_subclass__(cls):
            busy("__init_subclass__")

    class Derived(Base):
        pass


async def awaited(n):
    if n:
        return await awaited(n - 1)
    await asyncio.sleep(0)
    until = begin("coroutine, nested")
    while clock() < until: pass  # HERE


async def agen():
    yield 1
    await asyncio.sleep(0)
    until = begin("asynchronous generator")
    while clock() < until: pass  # HERE
    yield 2


@contextlib.asynccontextmanager
async def amanager():
    busy("asynchronous context manager")
    yield


async def tasks():
    await awaited(3)
    async for _ in agen():
        pass
    [_ async for _ in agen()]
    async with amanager():
        busy("body of async with")
    await asyncio.gather(named_task("a"), named_task("b"))
    asyncio.get_running_loop().call_soon(busy, "callback of the event loop")
    await asyncio.sleep(0)


async def named_task(name):
    await asyncio.sleep(0)
    busy("task " + name)


def executed():
    exec(compile("from expect import busy\nbusy('exec of a string')", "<string>", "exec"), {})
    eval("busy('eval of a string')")
    text = "\n" * 70000 + "def far(busy):\n\n" + "\n" * 400 + "    busy('far down a file')\n"
    space = {}
    exec(compile(text, "/made/up/far away.py", "exec"), space)
    space["far"](busy)
    # Far enough into the bytecode that offsets and jumps need extended arguments.
    text = "def long(busy, x):\n" + "    x = x + 1; x = x - 1\n" * 6000 + "    busy('long function')\n"
    exec(compile(text, "/made/up/long.py", "exec"), space)
    space["long"](busy, 0)


def names():
    # One, two and four bytes a character in memory.
    for name in ("größe", "функция", "\U00020000\U00020001", "f" * 300):
        space = {}
        text = "def %s(busy):\n    busy('name %s')\n" % (name, name[:9])
        exec(compile(text, "/дир/%s.py" % name[:60], "exec"), space)
        space[name](busy)


def callbacks():
    sorted([1], key=lambda _: busy("key of sorted()"))
    list(map(lambda _: busy("function of map()"), ONE))
    functools.reduce(lambda a, b: busy("function of reduce()"), (1, 2))
    functools.partial(busy, "function of partial()")()
    re.sub("a", lambda _: busy("function of re.sub()") or "", "a")
    ctypes.CFUNCTYPE(None)(lambda: busy("ctypes callback"))()
    sys.intern("x") and max(ONE, key=lambda _: busy("key of max(), after and"))


@contextlib.contextmanager
def manager():
    busy("context manager, entering")
    yield
    busy("context manager, leaving")


def blocks():
    with manager():
        busy("body of with, over a generator")
    try:
        raise ValueError
    except ValueError:
        until = begin("except")
        while clock() < until: pass  # HERE
    finally:
        until = begin("finally")
        while clock() < until: pass  # HERE
    try:
        leave()
    except KeyError:
        busy("except, of a callee's error")


def leave():
    try:
        raise KeyError
    finally:
        busy("finally, on the way out")


def several(*args):
    busy("callee of a call over several lines")


def lines():
    several(
        1,
        busy("argument of a call over several lines"),
        [
            busy("element in it"),
        ],
    )
    value = (
        busy("left operand")
        or busy("right operand")
    )
    if (
        value
        or not busy("condition over several lines")
    ):
        busy("after the condition")
    while True:
        busy("before break"); break
    return {
        "key":
            busy("value of a key"),
    }


def on_signal():
    signal.signal(signal.SIGUSR1, lambda number, frame: busy("signal handler"))
    signal.raise_signal(signal.SIGUSR1)
    for _ in range(10):  # where the handler runs, at the latest
        pass
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)


def traced():
    def tracer(frame, event, arg):
        if event == "call" and frame.f_code is through_busy.__code__:
            busy("function of setprofile()")
    sys.setprofile(tracer)
    through_busy()
    sys.setprofile(None)


class Worker(threading.Thread):
    def run(self):
        busy("thread of a subclass")


def work(name):
    until = begin("thread " + name)
    while clock() < until: pass  # HERE


def sleeper():
    until = begin("thread in sleep")
    time.sleep(SPAN)  # HERE


def wait_for_lock(lock):
    lock.acquire()


def threads():
    workers = [
        threading.Thread(target=work, args=(name,), name=name)
        for name in ("worker-α", "рабочий", "worker with a long name, with spaces; and so on")
    ]
    workers += [Worker(name="subclass"), threading.Thread(target=sleeper, name="sleeper")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def blocked():
    lock = threading.Lock()
    lock.acquire()
    event = threading.Event()
    waiters = [
        threading.Thread(target=wait_for_lock, args=(lock,), name="waiter for a lock"),
        threading.Thread(target=event.wait, name="waiter for an event"),
    ]
    for waiter in waiters:
        waiter.start()
    time.sleep(0.05)
    for waiter in waiters:
        observe(waiter.name, waiter)
    until = begin("main thread in sleep")
    time.sleep(SPAN)  # HERE
    lock.release()
    event.set()
    for waiter in waiters:
        waiter.join()


def main():
    import known_import
    plain()
    through_busy()
    recurse(20)
    even(10)
    odd(10)
    deep(600)
    generators()
    comprehensions()
    lambdas()
    methods()
    constructors()
    outer()
    decorated(1, two=2)
    class_bodies()
    asyncio.run(tasks())
    executed()
    names()
    callbacks()
    blocks()
    lines()
    on_signal()
    traced()
    threads()
    blocked()
    report()


if __name__ == "__main__":
    main()
