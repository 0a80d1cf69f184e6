"""Does what real programs do, in Python only, for some seconds: `many_stacks.py SECONDS`.

It reads its own standard library: tokens, syntax trees, differences, texts, patterns and mails.
"""
import ast
import difflib
import json.decoder
import json.encoder
import pprint
import re
import sys
import textwrap
import time
import tokenize
from email import policy
from email.parser import Parser
from pathlib import Path

FILES = ["textwrap.py", "json/decoder.py", "bisect.py", "heapq.py", "gettext.py", "shlex.py"]


def tokens(path):
    with open(path, "rb") as file:
        return sum(1 for _ in tokenize.tokenize(file.readline))


def tree(text):
    return ast.unparse(ast.parse(text))


def differences(text):
    lines = text.splitlines()[:120]
    return len(list(difflib.unified_diff(lines, lines[1::2] + lines[::3])))


def mail(text):
    message = "Subject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\nTo: a@example.org, b@example.org\n\n" + text[:2000]
    parsed = Parser(policy=policy.default).parsestr(message)
    return parsed["to"].addresses, parsed["subject"]


def notation(text):
    words = {str(number): line.split() for number, line in enumerate(text.splitlines()[:60])}
    encoder = json.encoder.JSONEncoder(indent=1)
    decoder = json.decoder.JSONDecoder()
    decoder.scan_once = json.scanner.py_make_scanner(decoder)
    pprint.pformat(decoder.decode("".join(encoder.iterencode(words))))


def patterns(text):
    re.purge()
    for word in set(text.split()[:40]):
        re.compile(re.escape(word) + r"(?:\s+(?P<next>[\w.]+))?|^\d{2,5}$")


def main(seconds):
    home = Path(ast.__file__).parent
    files = [home / name for name in FILES]
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for path in files:
            text = path.read_text("utf-8")
            tokens(path)
            tree(text)
            differences(text)
            mail(text)
            notation(text)
            patterns(text)
            textwrap.fill(text[:4000], 50)


if __name__ == "__main__":
    main(float(sys.argv[1]))
