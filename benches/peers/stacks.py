"""Reads the stacks that each profiler writes, and tells how many of them are true."""
import collections
import re
import subprocess
import sys

# A frame is (file's base name, function, line or None if it is not told); a stack is a
# tuple of frames, root first.
Counted = collections.namedtuple("Counted", "samples weight")
Truth = collections.namedtuple("Truth", "samples impossible unreadable examples")

FEWEST_FOR_A_SHARE = 100
BARE = ("<GC>", "<native>")
COLON = re.compile(r"(.*):([^:]*):(-?\d+)$", re.S)
SPY = re.compile(r"(.*) \((.*?)(?::(\d+))?\)$", re.S)
PERF = re.compile(r"\s*[0-9a-f]+ py::(.*):([^:]*)$")


def basename(path):
    return path.rpartition("/")[2]


def line_of(text):
    """Tachyon may say -1, and py-spy nothing, of a function that has only just begun."""
    return int(text) if text and int(text) > 0 else None


def colon_frame(text):
    """`file:function:line`, as pysamp, Tachyon and Austin write it."""
    match = COLON.match(text)
    return match and (basename(match[1]), match[2], line_of(match[3]))


def spy_frame(text):
    """`function (file:line)`, as py-spy writes it."""
    match = SPY.match(text)
    return match and (basename(match[2]), match[1], line_of(match[3]))


def collapsed(path, frame, skip=0, time_is_weight=False):
    """Reads lines `frame;frame;... number`, whose first `skip` parts are no frames.

    The number is the count of samples, or the time that one sample stands for.
    A stack with a part that is no frame is kept under the key None.
    """
    found = collections.defaultdict(lambda: [0, 0])
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            stack, _, number = line.rstrip("\n").rpartition(" ")
            if not stack or stack.startswith("#"):
                continue
            parts = stack.split(";")[skip:]
            frames = tuple(frame(part) for part in parts if part not in BARE)
            entry = found[frames if all(frames) else None]
            entry[0] += 1 if time_is_weight else int(number)
            entry[1] += int(number)
    return {stack: Counted(*entry) for stack, entry in found.items()}


def perf_script(path, perf):
    """Reads a perf.data: events parted by blank lines, leaf first, Python frames among others."""
    command = [perf, "script", "-i", path, "-F", "ip,sym"]
    text = subprocess.run(command, capture_output=True, text=True, errors="replace").stdout
    found = collections.Counter()
    for event in re.split(r"\n\s*\n", text):
        frames = filter(None, map(PERF.match, event.splitlines()))
        found[tuple((basename(it[2]), it[1], None) for it in frames)[::-1]] += 1
    return {stack: Counted(count, count) for stack, count in found.items()}


def within(stacks, function):
    """Only the stacks in which the function is; a stack that cannot be read stays in."""
    return {
        stack: counted
        for stack, counted in stacks.items()
        if stack is None or any(name == function for _, name, _ in stack)
    }


def fault_of_names(stack):
    """check_spelled's verdict on a stack without lines: `f_2_0` is called by `f_2` only."""
    caller = None
    for file, name, _ in stack:
        if file == "spelled_one.py" and name != "<module>":
            expected = name.rpartition("_")[0] or "walk"
            if caller != expected:
                return f"{name} called by {caller}"
        caller = name
    return None


def tree_truth(stacks, programs):
    """Judges the stacks of spelled_tree.py."""
    if programs not in sys.path:
        sys.path.insert(0, programs)
    from check_spelled import fault

    samples = impossible = unreadable = 0
    examples = []
    for stack, counted in stacks.items():
        samples += counted.samples
        if stack is None:
            unreadable += counted.samples
            continue
        lines = all(line is not None for _, _, line in stack)
        why = fault(stack) if lines else fault_of_names(stack)
        if why:
            impossible += counted.samples
            examples.append(why)
    return Truth(samples, impossible, unreadable, examples[:5])


def share_of_dense(stacks):
    """The share of truth.py's two parts that the profile gives to `dense`, if it saw them."""
    parts = [
        [counted for stack, counted in within(stacks, part).items() if stack]
        for part in ("dense", "flat")
    ]
    if sum(it.samples for part in parts for it in part) < FEWEST_FOR_A_SHARE:
        return None
    dense, flat = (sum(it.weight for it in part) for part in parts)
    return dense / (dense + flat)
