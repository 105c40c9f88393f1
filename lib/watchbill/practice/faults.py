"""What goes wrong on purpose: a list of rules, looked through for each request before it is answered.

Rules are added from Python (`plan.add(Rule(...))`) or over HTTP (`POST /_practice/faults`, a rule as JSON object or a
list of them, with the fields of `Rule`; `DELETE` forgets them all). They hit git's requests as well as the API's.
"""

from __future__ import annotations

import re
import threading
from typing import Any, NamedTuple

#: kind -> what happens to a request that is hit.
KINDS = {
    "status": "nothing is done; answered with `status`, `body`, `headers`",
    "lost_before": "nothing is done; the connection ends without an answer",
    "lost_after": "it is done; the connection ends without an answer",
    "5xx_after": "it is done; answered with `status`",
    "delay": "it is done, `delay_s` late",
    "stale": "a read is answered from the state `seconds` or `writes` ago",
    "rate_primary": "nothing is done; 403 (or `status` 429), nothing remaining until `seconds` (default 60) from now",
    "rate_secondary": "nothing is done; 403 (or `status` 429) with Retry-After of `seconds` (default 60)",
}


class Rule(NamedTuple):
    """One thing that goes wrong."""

    kind: str  # a key of KINDS
    method: str = ""  # "" hits every method
    path: str = ""  # regular expression, searched in the path without the query
    login: str = ""  # "" hits everybody
    nth: int = 1  # the first request hit, counted over those that fit, from 1
    times: int | None = 1  # how many in a row are hit from there; None: all that come
    status: int = 502  # for status and 5xx_after
    body: str = ""  # for status; "" is a JSON object with a message
    headers: dict[str, str] = {}  # for status, and over those of rate_primary and rate_secondary; never written to
    delay_s: float = 0  # waited before anything else, for every kind
    seconds: float = 0  # for stale, rate_primary, rate_secondary
    writes: int = 0  # for stale
    lasting: bool = False  # for rate_primary: until its end every request of this login is hit; rate_secondary: writes


class Plan:
    """The rules in force, and how often each has fitted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[tuple[Rule, re.Pattern[str]]] = []
        self._fitted: list[int] = []
        self._lasting: dict[tuple[str, str], tuple[Rule, float]] = {}  # (login, kind) -> until when, epoch seconds

    def add(self, *rules: Rule) -> None:
        """Put rules into force; ValueError for an unknown kind, re.error for a bad pattern."""
        for rule in rules:
            if rule.kind not in KINDS:
                raise ValueError(f"no kind of fault: {rule.kind!r}; known are {', '.join(KINDS)}")
        compiled = [(rule, re.compile(rule.path)) for rule in rules]
        with self._lock:
            self._rules += compiled
            self._fitted += [0] * len(compiled)

    def clear(self) -> None:
        """Forget every rule."""
        with self._lock:
            self._rules, self._fitted, self._lasting = [], [], {}

    def fitted(self) -> int:
        """How many requests the rules in force have fitted so far, hit or not."""
        with self._lock:
            return sum(self._fitted)

    def strike(self, method: str, path: str, login: str, now: float = 0, *, git: bool = False) -> Rule | None:
        """The first rule that hits this request; every rule that fits it counts it. Git knows no lasting limit."""
        hit = None
        with self._lock:
            for index, (rule, pattern) in enumerate(self._rules):
                if rule.method not in {"", method} or rule.login not in {"", login} or not pattern.search(path):
                    continue
                self._fitted[index] += 1
                beyond = self._fitted[index] - rule.nth
                if hit is None and beyond >= 0 and (rule.times is None or beyond < rule.times):
                    hit = rule
            if hit is not None and hit.lasting:
                self._lasting[login, hit.kind] = hit, now + (hit.seconds or 60)
            return hit or (None if git else self._limit(method, login, now))

    def _limit(self, method: str, login: str, now: float) -> Rule | None:
        """The limit that this login has hit and that is not over."""
        for kind in ("rate_primary", "rate_secondary"):
            rule, until = self._lasting.get((login, kind), (None, 0.0))
            if rule is not None and now < until and (kind == "rate_primary" or method != "GET"):
                return rule._replace(seconds=until - now, delay_s=0)
        return None


def from_json(raw: Any) -> list[Rule]:
    """Rules as they came over HTTP; ValueError or TypeError when they are none."""
    return [Rule(**one) for one in (raw if isinstance(raw, list) else [raw])]
