"""`make bench`: the speeds that DESIGN's table asks for, as ratios within one run.

Machines are noisy: what is compared runs in turns, and a row is the median of at least five rounds. `--quick` takes
smaller numbers, `--only` some parts, `--json` prints one object. `--peers PYTHON` compares with huey and
agent-hub-mcp, where that interpreter has them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from bench import claiming, history, starts
from bench.table import Row, show
from caps.__main__ import ours

_PARTS = ("starts", "claims", "history", "caps")


def caps(*, quick: bool) -> list[Row]:
    """Caps with many processes and kills: what `make caps` judges."""
    result = ours(8 if quick else 32, 1, 0.1)
    who = f"caps, {result['processes']} processes, {result['killed']} killed"
    wrong = len(result["violations"])
    return [
        Row(f"{who}: overshoot or unrecorded", wrong, "violations", wrong, "<= 0"),
        Row(f"{who}: utilisation", result["grants"], "grants", result["worst_utilisation"], ">= 0.95"),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=_PARTS)
    parser.add_argument("--peers", metavar="PYTHON")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rounds = args.rounds if args.quick else max(5, args.rounds)
    parts = {
        "starts": lambda: starts.measure(rounds),
        "claims": lambda: claiming.measure(rounds, quick=args.quick, peers=args.peers),
        "history": lambda: history.measure(rounds, quick=args.quick),
        "caps": lambda: caps(quick=args.quick),
    }
    rows = [row for name in _PARTS if name in args.only for row in parts[name]()]
    if args.json:
        print(json.dumps({"schema": 2, "rows": [row.as_json() for row in rows]}))
    else:
        show(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
