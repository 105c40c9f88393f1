"""What the scheduler starts for `watchbill doctor`: `python -I -m watchbill.doctor.probe FILE`.

The first line of FILE is the question; each check appends its answer at once, so that what hangs later takes nothing
of it away. The last line is `{"over": true}`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from watchbill.doctor import columns
from watchbill.doctor.finding import Finding, Look, roster_of
from watchbill.errors import Fixable
from watchbill.home import Home

#: It ends before it is ended, so that nothing of it stays: a start of Python, and what one check needs to be cut short.
_AHEAD_S = 10.0


def main(path: str) -> int:
    with open(path, encoding="utf-8") as file:
        asked = json.loads(file.readline())
    home = Home(asked["home"])
    try:
        roster = roster_of(home)
    except Fixable:
        roster = None  # which the shell's column says

    def say(**answer: Any) -> None:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(answer) + "\n")

    def done(found: Iterable[Finding]) -> None:
        say(findings=[one._asdict() for one in found])

    it = Look(home, roster, "scheduler", asked["shell"])
    columns.seen_by(it, done, lambda name: say(began=name), columns.COLUMN_S - _AHEAD_S)
    say(over=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
