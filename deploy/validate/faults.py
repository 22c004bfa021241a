"""Collects what is wrong, and ends the program with it."""

import re
import sys

faults = []


def expect(holds, what):
    """Notes a sentence where something does not hold."""
    if not holds:
        faults.append(what)


def finish():
    """Prints the faults; the exit code is 1 where there are any."""
    for fault in faults:
        print(fault)
    sys.exit(1 if faults else 0)


def seconds(duration):
    """The seconds in 20s, 2m or 1h."""
    number, unit = re.fullmatch(r"(\d+)(s|m|h)", duration).groups()
    return int(number) * {"s": 1, "m": 60, "h": 3600}[unit]
