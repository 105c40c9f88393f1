"""The verbs of the contract's programs, as any program of `command` says them. Prepended to them, never imported."""

import json
import os  # noqa: F401 - for the program that follows
import signal  # noqa: F401
import sys
import time  # noqa: F401

END = "\n"


def line(**said):
    sys.stdout.write(json.dumps(said) + END)
    sys.stdout.flush()


def said(text):
    line(type="message", text=text)


def used(input, output, usd=None):
    usd = (input + output) / 1e6 if usd is None else usd
    line(type="usage", input_tokens=input, output_tokens=output, cost_usd=usd)


def window(utilization, resets_at):
    line(type="window", name="five_hour", utilization=utilization, resets_at=resets_at)


def turned_away(kind):
    line(type=kind)


def limited(until):
    line(type="rate_limited", until=until)


gave_up = turned_away


def done():
    pass


interrupted = done
