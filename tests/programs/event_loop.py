"""An event loop with next to nothing to do between two looks for what has happened, each a system call.

Prints nanoseconds: the whole, and of it what looking took.
"""

import asyncio
import json
import time

SECONDS = 3.0
spent = {"looks": 0}


def burn():
    for _ in range(300):
        pass


async def work():
    burn()


async def main():
    before = time.perf_counter_ns()
    end = before + int(SECONDS * 1e9)
    while time.perf_counter_ns() < end:
        await asyncio.get_running_loop().create_task(work())
    spent["main"] = time.perf_counter_ns() - before


loop = asyncio.new_event_loop()
select = loop._selector.select


def looks(timeout):
    before = time.perf_counter_ns()
    found = select(timeout)
    spent["looks"] += time.perf_counter_ns() - before
    return found


loop._selector.select = looks
loop.run_until_complete(main())
loop.close()
print(json.dumps(spent))
