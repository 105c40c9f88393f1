"""Run a firing that is killed with SIGKILL at one boundary of one effect: KIND WHERE AGENT...

WHERE: before-intent, after-intent, after-act, after-receipt. KIND "reserve": between examining an issue and reserving.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from watchbill import effects as door
from watchbill import reserve
from watchbill.cli.fire import leave, main

KIND, WHERE = sys.argv[1:3]
current = ""


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def around(function: Callable[..., Any], name: str, before: str = "", after: str = "") -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        global current
        if name == "intend":
            current = args[3]
        hit = current.startswith(KIND)
        if hit and before == WHERE:
            die()
        value = function(*args, **kwargs)
        if hit and after == WHERE:
            die()
        return value

    return wrapped


def perform(*args: Any, **kwargs: Any) -> Any:
    if WHERE == "after-receipt" and args[2].startswith(KIND):
        real_perform(*args, **kwargs)
        die()
    return real_perform(*args, **kwargs)


if KIND == "reserve":
    reserve.worst_case = die
real_perform = door.perform
door.perform = perform
door.effects.intend = around(door.effects.intend, "intend", before="before-intent")
door._act = around(door._act, "act", before="after-intent", after="after-act")

leave(main(sys.argv[3:], role="implement"))
