"""Prints to both outputs and exits with 3, on any Python that there has been."""
import sys

sys.stdout.write("to stdout\n")
sys.stderr.write("to stderr\n")
total = 0
for number in range(300000):
    total += number * number
sys.exit(3)
