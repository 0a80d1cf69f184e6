"""Works at instructions that are known, and says of each of its functions what dis says of it."""

import ctypes
import dis
import json
import opcode
import operator
import sys
import time

MINOR = sys.version_info[1]
clock = time.perf_counter
SPAN = 0.25


class Box:
    def __init__(self):
        self.value = 1

    @property
    def busy(self):
        return spin(300)

    def __getitem__(self, key):
        return spin(300)


def spin(n):
    total = 0
    for i in range(n):
        total = total + i
    return total


def attributes(box, n):
    total = 0
    for i in range(n):
        total += box.value
    return total


# Calls from instructions that are followed by a cache, and from some that are not.
def inline_calls(box):
    return spin(300) + box.busy + box[0] + sum(spins()) + spin(*(300,)) + max([1, 2], key=spin_key)


def spins():
    for _ in range(3):
        yield spin(300)


def spin_key(_):
    return spin(300)


# One line, two instructions, each as long as it says; the parts of the line take turns.
def shares(a, b, needle, text, spent):
    t0 = clock(); a * b; t1 = clock(); needle in text; t2 = clock()
    spent["multiply"] += t1 - t0
    spent["contains"] += t2 - t1


# Among so many names the last one's number is too large for a byte. What it names is copied in C.
exec("def wide(data, box):\n    if box:\n"
     + "".join(f"        box.n{n}\n" for n in range(300))
     + "    for _ in range(100):\n        data.raw\n")


def covered(n):
    total = 0
    for i in range(n):
        total += spin(i % 7)
    return total


def names():
    table = dict(opcode.opmap)
    if MINOR in (11, 12):
        table = dict(dis._all_opmap)
    elif MINOR > 12:
        table.update(opcode._specialized_opmap)
    return {name: number for name, number in table.items() if number < 256}


def caches():
    if MINOR not in (11, 12):
        return {}
    entries = opcode._inline_cache_entries
    return {name: entries[number] for name, number in opcode.opmap.items() if number < 256 and entries[number]}


def instructions(code, is_plain):
    by_number = {number: name for name, number in names().items()}
    adaptive = code._co_code_adaptive if MINOR >= 11 else code.co_code
    positions = list(code.co_positions()) if MINOR >= 11 else None
    listed = []
    for found in dis.get_instructions(code):
        place = positions and positions[found.offset // 2]
        listed.append([found.offset // 2, found.opname, by_number[adaptive[found.offset]], place])
    if is_plain and MINOR >= 11:
        said = [(one.offset // 2, one.opname) for one in dis.get_instructions(code, adaptive=True)]
        assert said == [(index, name) for index, _, name, _ in listed], (said, listed)
    return listed


def repeat(function, *arguments):
    end = clock() + SPAN
    while clock() < end:
        function(*arguments)


def monitored(function, *arguments):
    monitoring = sys.monitoring
    monitoring.use_tool_id(4, "opcodes")
    events = monitoring.events.LINE | monitoring.events.INSTRUCTION
    for event in (monitoring.events.LINE, monitoring.events.INSTRUCTION):
        monitoring.register_callback(4, event, operator.is_)
    for events in (monitoring.events.LINE, events):
        monitoring.set_local_events(4, function.__code__, events)
        repeat(function, *arguments)


def main():
    spent = {"multiply": 0, "contains": 0}
    box = Box()
    number = 3**30000
    text = "ab" * 60000 + "c"
    repeat(spin, 3000)
    repeat(attributes, box, 3000)
    repeat(inline_calls, box)
    for _ in range(4):
        repeat(shares, number, number, "bac", text, spent)
    repeat(wide, ctypes.create_string_buffer(100_000), None)
    # Before it was called the frame of a module is at no instruction that is known.
    functions = [spin, attributes, inline_calls, spins, spin_key, shares, wide]
    if MINOR >= 12:
        monitored(covered, 300)
    else:
        sys.settrace(lambda *_: None)
        repeat(covered, 300)
        sys.settrace(None)
    plain = {function.__name__: instructions(function.__code__, True) for function in functions}
    return {
        "opcodes": names(),
        "families": getattr(opcode, "_specializations", {}) and dict(opcode._specializations),
        "caches": caches(),
        "functions": {**plain, "covered": instructions(covered.__code__, False)},
        "spent": spent,
    }


print(json.dumps(main()))
