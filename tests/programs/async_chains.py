"""Tasks in every relation that asyncio knows. Prints, as JSON, for each the chain that a sample of its
leaf must show: names of tasks and functions from the root on.

With the argument `python`, asyncio is the one that is written in Python; with `replaced`, its classes
are, at once or late; with `uvloop`, its loop is that one's.
"""

import json
import sys
import time

HOW = sys.argv[1] if len(sys.argv) > 1 else "c"
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 0.05

if HOW == "python":
    sys.modules["_asyncio"] = None

import asyncio
import threading

if HOW.startswith("replaced"):
    # As `nest_asyncio` does.
    time.sleep(0.1 if HOW == "replaced late" else 0)
    asyncio.Task = asyncio.tasks._CTask = asyncio.tasks.Task = asyncio.tasks._PyTask
    asyncio.Future = asyncio.futures._CFuture = asyncio.futures.Future = asyncio.futures._PyFuture
    if sys.version_info >= (3, 14):
        asyncio.current_task = asyncio.tasks.current_task = asyncio.tasks._py_current_task

if HOW == "uvloop":
    import uvloop

VERSION = sys.version_info[:2]
EXPECTED = {}


def task(coroutine, name):
    return asyncio.get_running_loop().create_task(coroutine, name=name)


def expect(leaf, *chain):
    EXPECTED[leaf] = list(chain)


def burn(seconds=SECONDS):
    # A busy machine gives it less of the time, and no less work.
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


# Each leaf has a function of its own, which is how its samples are found.


async def leaf_plain():
    burn()


async def plain():
    expect("leaf_plain", "<root>", "root", "plain", "leaf_plain", "burn")
    await leaf_plain()


async def leaf_awaited():
    burn()


async def awaited():
    expect("leaf_awaited", "<root>", "root", "awaited", "<task awaited>", "leaf_awaited", "burn")
    await task(leaf_awaited(), "task awaited")


async def leaf_gathered():
    burn()


async def under_gather():
    await leaf_gathered()


async def gathered():
    expect("leaf_gathered", "<root>", "root", "gathered", "<in gather>", "under_gather", "leaf_gathered", "burn")
    await asyncio.gather(task(under_gather(), "in gather"), asyncio.sleep(0))


async def leaf_nested():
    burn()


async def nested():
    expect("leaf_nested", "<root>", "root", "nested", "<in both>", "leaf_nested", "burn")
    inner = asyncio.gather(task(leaf_nested(), "in both"), asyncio.sleep(0))
    await asyncio.gather(inner, asyncio.sleep(0))


async def leaf_waited():
    burn()


async def waited():
    expect("leaf_waited", "<root>", "root", "waited", "wait", "_wait", "<in wait>", "leaf_waited", "burn")
    await asyncio.wait([task(leaf_waited(), "in wait")])


async def leaf_shielded():
    burn()


async def shielded():
    expect("leaf_shielded", "<root>", "root", "shielded", "<in shield>", "leaf_shielded", "burn")
    await asyncio.shield(task(leaf_shielded(), "in shield"))


async def leaf_timed():
    burn()


async def timed():
    chain = ["<root>", "root", "timed", "wait_for", "<in time>", "leaf_timed", "burn"]
    expect("leaf_timed", *chain)
    await asyncio.wait_for(task(leaf_timed(), "in time"), 60)


async def leaf_yielding():
    burn()


async def numbers():
    await task(leaf_yielding(), "in generator")
    yield 1


async def yielding():
    expect("leaf_yielding", "<root>", "root", "yielding", "numbers", "<in generator>", "leaf_yielding", "burn")
    async for _ in numbers():
        pass


async def leaf_deep():
    burn()


async def deep(depth):
    if depth:
        await task(deep(depth - 1), "depth %d" % (depth - 1))
    else:
        await leaf_deep()


async def deeply():
    chain = ["<root>", "root", "deeply", "deep"]
    for depth in reversed(range(9)):
        chain += ["<depth %d>" % depth, "deep"]
    expect("leaf_deep", *chain, "leaf_deep", "burn")
    await deep(9)


async def leaf_diamond():
    burn()


async def late():
    # The others await it by then.
    await asyncio.sleep(0.01)
    await leaf_diamond()


async def side(below):
    await below


async def diamond():
    expect(
        "leaf_diamond",
        *["<root>", "root", "diamond", "<left>", "side", "<shared (2 parents)>", "late", "leaf_diamond", "burn"]
    )
    shared = task(late(), "shared")
    await asyncio.gather(task(side(shared), "right"), task(side(shared), "left"))


async def leaf_grouped():
    burn()


async def grouped():
    leaving = ["TaskGroup.__aexit__"]
    if hasattr(asyncio.TaskGroup, "_aexit"):
        leaving.append("TaskGroup._aexit")
    expect("leaf_grouped", "<root>", "root", "grouped", *leaving, "<in group>", "leaf_grouped", "burn")
    async with asyncio.TaskGroup() as group:
        group.create_task(leaf_grouped(), name="in group")


async def leaf_limited():
    burn()


async def limited():
    expect("leaf_limited", "<root>", "root", "limited", "<in limit>", "leaf_limited", "burn")
    async with asyncio.timeout(60):
        await task(leaf_limited(), "in limit")


async def leaf_odd():
    burn()


async def odd():
    expect("leaf_odd", "<root>", "root", "odd", "<n\u00e4me \u4efb\u52a1>", "leaf_odd", "burn")
    await task(leaf_odd(), "n\u00e4me \u4efb\u52a1")


async def root():
    for each in (plain, awaited, gathered, nested, waited, shielded, timed, yielding, deeply, diamond, odd):
        await each()
    if VERSION >= (3, 11):
        await grouped()
        await limited()


async def leaf_first():
    burn()


async def leaf_second():
    burn()


async def loops(leaf, name):
    await task(leaf(), name)


def in_thread(leaf, name):
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(loop.create_task(loops(leaf, name), name="of " + name))
    finally:
        loop.close()


def main():
    loop = uvloop.new_event_loop() if HOW == "uvloop" else asyncio.new_event_loop()
    loop.run_until_complete(loop.create_task(root(), name="root"))
    loop.close()
    expect("leaf_first", "<of first>", "loops", "<first>", "leaf_first", "burn")
    expect("leaf_second", "<of second>", "loops", "<second>", "leaf_second", "burn")
    pairs = [(leaf_first, "first"), (leaf_second, "second")]
    threads = [threading.Thread(target=in_thread, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(EXPECTED))


main()
