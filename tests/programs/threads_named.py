"""Runs threads with names of all kinds; prints by native id which each is to be known by."""
import _thread
import json
import threading
import time

born = {}
long = threading.Event()


def note(name=None):
    if name is None:
        name = threading.current_thread().name
    born[threading.get_native_id()] = name


def stays():
    note()
    long.wait()


def ends():
    note()
    time.sleep(0.5)


def is_renamed():
    time.sleep(0.3)
    threading.current_thread().name = "renamed"
    stays()


def has_dictionary():
    thread = threading.current_thread()
    # From here on the attributes are in a dictionary of their own.
    vars(thread)[7] = "not a string's key"
    stays()


def has_many_attributes():
    for number in range(100):
        setattr(threading.current_thread(), "attribute_%d" % number, number)
    stays()


def is_unknown():
    note("")
    long.wait()


class Slotted(threading.Thread):
    __slots__ = ("one", "two")

    def run(self):
        self.one = self.two = None
        stays()


class Failing(threading.Thread):
    """A name that nobody may call for."""

    name = property(lambda self: 1 / 0, lambda self, name: None)

    def run(self):
        note(self._name)
        long.wait()


def main():
    note()
    born_late = threading.Thread(target=stays)
    threads = [
        threading.Thread(target=stays, name="worker-\u03b1"),
        threading.Thread(target=stays, name="\U0001f40d <&> caf\u00e9"),
        threading.Thread(target=stays, name="n" * 300),
        threading.Thread(target=stays),
        threading.Thread(target=ends, name="ended"),
        threading.Thread(target=is_renamed, name="first"),
        threading.Thread(target=has_dictionary, name="dictionary"),
        threading.Thread(target=has_many_attributes, name="attributes"),
        Slotted(name="slotted"),
        Failing(name="failing"),
    ]
    for thread in threads:
        thread.start()
    _thread.start_new_thread(is_unknown, ())
    # The next one may have the identity of the one that has ended.
    threads[4].join()
    time.sleep(0.2)
    born_late.start()
    until = time.perf_counter() + 1
    while time.perf_counter() < until:
        sum(range(1000))
    print(json.dumps(born))
    long.set()
    for thread in threads + [born_late]:
        thread.join()


if __name__ == "__main__":
    main()
