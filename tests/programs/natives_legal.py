"""Calls many C functions for short times, each in a Python function that says which it may call.

Several threads do so at once, with much garbage: samples fall between instructions, too, where the
GIL is handed on or the collector runs. Prints, for every function, what C code it may be in.
"""
import argparse
import functools
import gc
import itertools
import json
import math
import operator
import re
import threading
import time
import weakref

legal = {}


def may_call(*names):
    def register(function):
        legal[function.__qualname__] = sorted(names)
        if "natives" not in names:
            calls.append(function)
        return function

    return register


def called_back(*names):
    """For functions that C code calls; these names are their own."""

    def register(function):
        legal[function.__qualname__] = sorted(names)
        return function

    return register


calls = []
WORDS = ["one", "three", "two"] * 4
TABLE = {word: number for number, word in enumerate(WORDS)}


@called_back()
def identity(value):
    return value


@called_back("len")
def by_length(value):
    return len(value)


class Plain:
    pass


class Built:
    def __init__(self, value):
        self.value = value

    @property
    def twice(self):
        return self.value * 2

    def method(self):
        return self.value


legal["Built.__init__"] = legal["Built.method"] = []
legal["Built.twice"] = []


class Called:
    def __call__(self, value):
        return value


legal["Called.__call__"] = []


class Doomed:
    def __del__(self):
        math.sqrt(2.0)

    def __len__(self):
        return 3


legal["Doomed.__del__"] = ["math.sqrt"]
legal["Doomed.__len__"] = []


class Words(list):
    pass


@may_call("len")
def lengths():
    return len(WORDS) + len(TABLE) + len("abc")


@may_call("len", "max", "abs")
def nested():
    return max(len(WORDS), abs(len(TABLE)), len(WORDS[max(0, len(WORDS) - 1)]))


@may_call("list.append", "list.pop")
def methods():
    found = []
    found.append(1)
    found.append(2)
    return found.pop()


@may_call("getattr", "list.append", "list.index", "str.upper", "str.join")
def looked_up():
    found = ["b"]
    getattr(found, "append")("a")
    getattr(found, "index")("a")
    getattr("-", "join")(found)
    return getattr("x", "upper")()


@may_call("getattr")
def only_looked_up():
    found = ["b"]
    getattr(found, "append")
    getattr(found, "index")
    getattr(list, "append")
    getattr(type, "mro")
    return getattr("x", "upper")


@may_call("type")
def types():
    type(1), type("x"), type([])
    return type(WORDS)


@may_call("type", "list", "str", "dict")
def made_by_types():
    kind = type(WORDS)
    kind("abc")
    type("x")(3)
    return type(TABLE)(a=1)


@may_call("int", "str", "list", "dict", "range", "tuple", "set", "float")
def constructors():
    list(range(5))
    tuple("abc")
    set("abc")
    dict(a=1, b=2)
    str(12)
    float("1.5")
    return int("12")


@may_call("sorted")
def sorts():
    sorted(WORDS)
    return sorted(WORDS, reverse=True)


@may_call("sorted")
def sorts_by_key():
    return sorted(WORDS, key=by_length)


@may_call("list.sort", "list.copy")
def sorts_in_place():
    words = WORDS.copy()
    words.sort(key=identity)
    return words


@may_call("map", "list", "map.__next__")
def maps():
    for _ in map(identity, WORDS):
        pass
    return list(map(by_length, WORDS))


@may_call("filter", "tuple", "_functools.reduce")
def reduces():
    tuple(filter(by_length, WORDS))
    return functools.reduce(operator_of, WORDS, "")


@called_back("str > str")
def operator_of(one, other):
    return one if one > other else other


@may_call("re.Pattern.match", "re.Match.group", "re.Pattern.sub", "re.Pattern.findall")
def patterns():
    found = PATTERN.match("one two three")
    found.group(1)
    PATTERN.findall("a b c")
    return PATTERN.sub(substitute, "one two three")


@called_back("re.Match.group", "str.upper")
def substitute(match):
    return match.group(0).upper()


PATTERN = re.compile(r"(\w+)")


@may_call("functools.partial", "isinstance", "issubclass", "hasattr")
def partials():
    isinstance(WORDS, list)
    issubclass(bool, int)
    hasattr(WORDS, "nothing")
    return PARTIAL("a")


PARTIAL = functools.partial(identity)


@may_call("operator.itemgetter", "operator.attrgetter", "operator.methodcaller")
def getters():
    operator.itemgetter(1)(WORDS)
    operator.attrgetter("twice")(BUILT)
    return operator.methodcaller("method")(BUILT)


BUILT = Built(3)


@may_call("Built", "Plain")
def instances():
    Plain()
    Built(1)
    return Built(value=2).twice


@may_call("math.sqrt", "math.gcd", "math.integer.gcd", "divmod", "pow", "round", "_operator.add")
def numbers():
    math.sqrt(3.0)
    math.gcd(12, 18)
    divmod(7, 2)
    pow(3, 50)
    operator.add(1, 2)
    return round(2.5)


@may_call("Doomed", "len")
def dies_in_a_call():
    return len(Doomed())


@may_call("Doomed", "isinstance", "id", "repr")
def dies_in_others():
    isinstance(Doomed(), list)
    id(Doomed())
    return repr(Doomed())


@may_call("sorted", "max", "min", "str.format", "print")
def spread():
    sorted(*[WORDS], **{"reverse": True})
    min(*WORDS)
    "{a}{b}".format(**{"a": 1, "b": 2})
    return max(*[1, 2, 3], **{"key": identity})


@may_call("zip", "enumerate", "zip.__next__", "enumerate.__next__", "itertools.chain",
          "itertools.chain.__next__", "itertools.chain.from_iterable")
def iterates():
    for _, _ in zip(WORDS, WORDS):
        pass
    for _, _ in enumerate(WORDS):
        pass
    for _ in itertools.chain(WORDS, WORDS):
        pass
    return itertools.chain.from_iterable([WORDS])


@may_call("sum", "any", "all", "generator.__next__")
def generators():
    sum(len_of for len_of in NUMBERS)
    any(number > 100 for number in NUMBERS)
    for _ in generated():
        pass
    return all(number for number in NUMBERS)


NUMBERS = list(range(8))
for inner in ("generators.<locals>.<genexpr>",):
    legal[inner] = ["int > int"]


@called_back()
def generated():
    yield 1
    yield 2


@may_call("Words", "list.append", "list.extend", "list.__init__", "super")
def subclasses():
    words = Words()
    words.append(1)
    list.append(words, 2)
    words.extend([3])
    return words


@may_call("dict.get", "dict.items", "dict.setdefault", "dict.keys", "dict.fromkeys",
          "dict_itemiterator.__next__")
def dictionaries():
    TABLE.get("one")
    for _ in TABLE.items():
        pass
    dict.fromkeys("abc")
    {}.setdefault("a", [])
    return TABLE.keys()


@may_call("str.split", "str.join", "str.replace", "str.startswith", "str.encode", "bytes.decode")
def strings():
    "a b c".split()
    "-".join(WORDS)
    "abc".replace("b", "x")
    "abc".startswith("a")
    return "abc".encode().decode()


@may_call("int * int", "list + list", "str + str", "list == list", "str % str", "str < str",
          "int + int", "tuple == tuple", "list.__contains__", "dict.__contains__", "int ** int",
          "str.__contains__", "tuple.__contains__", "set | set", "set & set", "set", "list < list",
          "float ** float", "tuple + tuple", "float * float", "int // int", "int % int",
          "dict == dict", "int > int", "set == set", "dict | dict", "int << int", "list += list")
def operators():
    WORDS + WORDS
    WORDS == list_of_words
    "a" in WORDS
    "one" in TABLE
    "o" in "one"
    SET_A | SET_B
    SET_A & SET_B
    WORDS < list_of_words
    BIG * BIG
    BIG // 12345
    found = []
    found += WORDS
    (1, 2) + (3,)
    return "%s" % "a"


list_of_words = list(WORDS)
SET_A, SET_B = set("abc"), set("bcd")
BIG = 3 ** 200


@may_call("_thread.lock.acquire", "_thread.lock.release", "_thread.lock.__enter__", "time.sleep",
          "_thread.lock.__exit__", "_thread.allocate_lock", "_thread.lock", "builtins.lock")
def locks():
    LOCK.acquire()
    LOCK.release()
    return time.sleep(0)


LOCK = threading.Lock()


@may_call("weakref.ref", "weakref.ReferenceType", "Plain")
def references():
    target = Plain()
    reference = weakref.ref(target, on_end)
    del target
    return reference()


@called_back()
def on_end(reference):
    return reference


@may_call("next", "iter", "StopIteration", "ValueError", "KeyError", "dict.pop")
def exceptions():
    try:
        next(iter([]))
    except StopIteration:
        pass
    try:
        {}.pop("a")
    except KeyError:
        pass
    try:
        raise ValueError("a")
    except ValueError as error:
        return error


@may_call("gc.collect")
def collects():
    return gc.collect(0)


# Operators are C functions until their instruction is specialised.
@may_call("int += int")
def python_only():
    total = 0
    for number in NUMBERS:
        total += identity(number)
        total += BUILT.method()
    return CALLED(total)


CALLED = Called()


@may_call("Node")
def makes_garbage():
    for _ in range_of_ten:
        Node()


class Node:
    def __init__(self):
        self.me = self
        self.load = {}


legal["Node.__init__"] = []
range_of_ten = list(range(10))


def turn(until):
    while time.monotonic() < until:
        for call in calls:
            for _ in range_of_ten:
                call()


legal["turn"] = ["time.monotonic"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--threads", type=int, default=3)
    parser.add_argument("--only", help="the one function that is called; all if absent")
    options = parser.parse_args()
    if options.only:
        calls[:] = [globals()[options.only]]
    until = time.monotonic() + options.seconds
    threads = [threading.Thread(target=turn, args=(until,)) for _ in range(options.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(legal))


if __name__ == "__main__":
    main()
