"""How tern speaks, for the contract's suite: PYTHONPATH=. WATCHBILL_DIALECTS=examples.engine.dialect"""

from __future__ import annotations

from examples.engine import tern

from support.dialects import Dialect

_VERBS = """
import json, os, signal, sys, time

END = "\\n"

def line(**told):
    sys.stdout.write(json.dumps(told) + END)
    sys.stdout.flush()

def said(text): line(event="say", text=text)
def used(input, output, usd=None):
    line(event="step", model="a-model", input=input, output=output, usd=(input + output) / 1e6 if usd is None else usd)
def window(utilization, resets_at): pass
def turned_away(kind): line(event="refused", status={"auth": 401, "billing": 402, "rate_limited": 429}.get(kind, 529))
def limited(until): line(event="refused", status=429, retry_at=until)
def gave_up(kind):
    turned_away(kind)
    line(event="end", ok=False)
def done(): line(event="end", ok=True)
def interrupted(): line(event="end", ok=False)
"""

DIALECT = Dialect(
    engine=tern,
    verbs=_VERBS,
    runs=lambda file: {"program": str(file)},
    missing={"program": "/nowhere/tern"},
    key="of-the-test",
    dollars=True,
    accounts=True,
    resumes=False,
    windows=False,
)
