"""Tasks that wait in a function whose name spells all that await it, go on to another, and end. Prints,
as JSON, what share of all their waiting each function had.

With the argument `python`, asyncio is the one that is written in Python.
"""

import json
import random
import sys
import time

if "python" in sys.argv:
    sys.modules["_asyncio"] = None

import asyncio

SECONDS = 2
spent = {}


class Walker:
    def __init__(self, loop):
        self.loop = loop
        self.gate = None

    def at(self, place):
        self.place = place
        self.since = time.monotonic()
        self.gate = self.loop.create_future()
        return self.gate

    def go(self, step):
        spent[self.place] = spent.get(self.place, 0) + time.monotonic() - self.since
        gate, self.gate = self.gate, None
        gate.set_result(step)


async def a(walker):
    while True:
        step = await walker.at("a")
        if step == "out":
            return
        await (a_b if step == "left" else a_c)(walker)


async def a_b(walker):
    while True:
        step = await walker.at("a_b")
        if step == "out":
            return
        await (a_b_d if step == "left" else a_b_e)(walker)


async def a_b_d(walker):
    await walker.at("a_b_d")
    await walker.at("a_b_d")


async def a_b_e(walker):
    await walker.at("a_b_e")


async def a_c(walker):
    await walker.at("a_c")
    await a_c_f(walker)


async def a_c_f(walker):
    await walker.at("a_c_f")


async def main():
    loop = asyncio.get_running_loop()
    tasks = {}

    def begin(number):
        walker = Walker(loop)
        tasks[number] = walker, loop.create_task(a(walker), name="walker")

    for number in range(600):
        begin(number)
    await asyncio.sleep(0)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        for number in random.sample(range(600), 30):
            walker, task = tasks[number]
            if task.done():
                begin(number)
            elif walker.gate is not None:
                walker.go(random.choice(["left", "right", "left", "out"]))
        await asyncio.sleep(0.002)
    for walker, task in tasks.values():
        if not task.done():
            walker.go("out")
            task.cancel()
    total = sum(spent.values())
    print(json.dumps({place: seconds / total for place, seconds in spent.items()}))


asyncio.new_event_loop().run_until_complete(main())
