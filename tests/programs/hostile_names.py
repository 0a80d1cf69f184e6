"""Profiles itself under names made to do harm, in every format, and reads each back with the
standard library's own parsers. Usage: hostile_names.py LIBRARY."""
import html.parser
import io
import json
import os
import pstats
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import types
import unicodedata
import xml.etree.ElementTree

LONG = 1000000
CUT = 4096
NAMES = [
    "\x1b[31mred\x1b]0;title\x07\x9b2J",
    "</script></title><script>alert(1)</script><!--<b>",
    "line\nbreak\r\n;tid:1;fake 99",
    "semi;colon:7",
    "lone\ud800surrogate",
    "bidi\u202etxt\u2066 and \ufeffnothing\U000e0041",
    "nul\x00byte",
    "\"quotes' `&amp;]]>\\",
    "\u2028 7",
    "m" * LONG,
]
SCRIPT = "\x1b]0;x\x07<b>\n\u202e;\\.py"
FORMATS = ["table", "pstats", "collapsed", "svg", "flamegraph"]


def stays(rest, seconds):
    if rest:
        rest[0](rest[1:], seconds)
    else:
        time.sleep(seconds)


def under(name):
    change = {"co_name": name, "co_filename": name}
    if hasattr(stays.__code__, "co_qualname"):
        change["co_qualname"] = name
    code = stays.__code__.replace(**change)
    return types.FunctionType(code, {"time": time})


def be_profiled():
    functions = [under(name) for name in NAMES]
    threads = []
    for name in NAMES:
        thread = threading.Thread(target=time.sleep, args=(0.2,))
        thread.name = name
        threads.append(thread)
        try:
            thread.start()
        except (ValueError, UnicodeError):
            # Newer versions hand the name to the system, which cannot take each.
            threads.pop()
    functions[0](functions[1:], 0.3)
    for thread in threads:
        thread.join()


def shown(name, separator=None):
    if len(name) > CUT:
        name = name[:CUT] + "\u2026"
    letters = []
    for letter in name:
        if "\ud800" <= letter <= "\udfff":
            letters.append("\ufffd")
        elif letter == separator:
            letters.append("\\x%02x" % ord(letter))
        elif letter == "\\":
            letters.append("\\\\")
        elif letter.isprintable():
            letters.append(letter)
        else:
            letters.append(repr(letter)[1:-1])
    return "".join(letters)


def plain(name):
    """As on the page, which leaves backslashes alone."""
    return shown(name).replace("\\\\", "\\")


def base(name):
    return name.rsplit("/", 1)[-1]


def inert(text, what):
    for letter in set(text) - set("\n"):
        category = unicodedata.category(letter)
        assert category not in ("Cc", "Cf", "Cs", "Zl", "Zp"), "%s: %r" % (what, letter)


def check_table(text):
    rows = text.split("Legend:")[0].splitlines()[2:-1]
    assert rows and all(re.match(r" *\d+/\d+ ", row) for row in rows), rows
    for name in NAMES:
        assert any(row.endswith("(%s)" % shown(name)) for row in rows), repr(name)[:60]


def check_pstats(path):
    out = io.StringIO()
    stats = pstats.Stats(path, stream=out)
    stats.print_stats().print_callers()
    inert(out.getvalue(), "what pstats prints")
    found = {(file, function) for file, line, function in stats.stats}
    for name in NAMES:
        assert (shown(name), shown(name)) in found, repr(name)[:60]


def check_collapsed(text):
    found = set()
    for line in text.splitlines():
        stack, count = line.rsplit(" ", 1)
        thread, *frames = stack.split(";")
        assert re.match(r"tid:\d+$", thread) and int(count) > 0, line[:60]
        if frames[-1] == "<GC>":
            frames.pop()
        assert all(re.search(r":\d+$", frame) for frame in frames), line[:60]
        found.update(frame.rsplit(":", 1)[0] for frame in frames)
    for name in NAMES:
        assert ":".join([shown(base(name), ";"), shown(name, ";")]) in found, repr(name)[:60]


def check_svg(text):
    elements = list(xml.etree.ElementTree.fromstring(text).iter())
    tags = [element.tag.rsplit("}", 1)[-1] for element in elements]
    assert tags.count("script") == 1 and "b" not in tags, tags
    titles = [element.text for element in elements if element.tag.endswith("title")]
    for name in NAMES:
        label = ":".join([shown(base(name), ";"), shown(name, ";")])
        assert any(title.startswith(label) for title in titles), repr(name)[:60]


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = []
        self.texts = {}

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.texts.setdefault(self.tags[-1] if self.tags else "", []).append(data)


def check_flamegraph(text):
    page = Page()
    page.feed(text)
    page.close()
    assert page.tags.count("script") == 2 and "b" not in page.tags, page.tags
    assert page.texts["title"][0].startswith(plain(SCRIPT)), page.texts["title"]
    found = json.loads(page.texts["script"][0])
    threads = [name for process, tid, name, is_main, interpreter in found["threads"]]
    [[pid, parent, program, command, python]] = found["processes"]
    for text in found["strings"] + threads + [program, python] + command:
        inert(text, "the page's data")
    for name in NAMES:
        assert plain(name) in found["strings"], repr(name)[:60]
    # Those that the system has a say in may be missing.
    for name in (NAMES[1], NAMES[3]):
        assert name in threads, (name, threads)


def main():
    library = sys.argv[1]
    with tempfile.TemporaryDirectory() as directory:
        script = os.path.join(directory, SCRIPT)
        shutil.copy(__file__, script)
        children = []
        for format in FORMATS:
            environment = dict(os.environ, LD_PRELOAD=library)
            output = os.path.join(directory, format + "-%n")
            environment["PYTHONSAMPLE"] = "limit=1000,format=%s,output=%s" % (format, output)
            argv = [sys.executable, "-B", script] + NAMES[:4]
            children.append(subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE))
        for format, child in zip(FORMATS, children):
            said = child.communicate()[1].decode()
            assert child.returncode == 0, said
            assert re.match(r"pysamp: wrote [^\n]+ samples [^\n]+\n$", said), repr(said)
            inert(said, "the banner")
            [path] = [os.path.join(directory, name) for name in os.listdir(directory)
                      if name.startswith(format + "-")]
            assert os.stat(path).st_mode & 0o777 == 0o600
            if format == "pstats":
                check_pstats(path)
                continue
            with open(path, encoding="utf-8", newline="") as file:
                text = file.read()
            inert(text.replace("\t", " "), format)
            globals()["check_" + format](text)


if __name__ == "__main__":
    if "LD_PRELOAD" in os.environ:
        be_profiled()
    else:
        main()
