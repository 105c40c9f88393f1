"""Questions to systemd's user manager, and orders: by `systemctl --user`, and what its answers mean.

Answers are read only where they are meant for programs (`show`: systemctl(1)). Every call has an end, whatever the
manager does.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from calendar import timegm
from collections.abc import Iterator, Mapping, Sequence

from watchbill.errors import Fixable

#: Names in one call: a command line holds more, but one slow call says less about where it hangs than two.
_BATCH = 250
_TIMEOUT_S = 30
#: A reload reads every unit of this user again.
RELOAD_S = 90
_UNITS = {"y": 31_557_600, "month": 2_629_800, "w": 604_800, "d": 86_400, "h": 3600, "min": 60, "s": 1, "ms": 1e-3,
          "us": 1e-6}  # fmt: skip
_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)(y|month|w|d|h|min|ms|us|s)(?: |$)")
_DATE = re.compile(
    r"(?:[A-Z][a-z]{2} )?([0-9]{4})-([0-9]{2})-([0-9]{2}) ([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]+)? UTC"
)


def runtime_directory() -> str:
    """$XDG_RUNTIME_DIR; where a session did not set it (cron, `su`), the place that logind makes for this user."""
    return os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"


def answers() -> bool:
    """Whether a user manager listens at its own socket; systemctl asks there, with or without a bus."""
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(5)
        try:
            door.connect(os.path.join(runtime_directory(), "systemd", "private"))
        except OSError:
            return False
    return True


def systemctl(*argv: str, timeout_s: float = _TIMEOUT_S) -> subprocess.CompletedProcess[str]:
    """One call, whatever its exit status. Fixable WB-SCHED-13: it did not end in time, or could not be started."""
    # The zone and the language of whoever asks must not change the answer.
    ours = {"LC_ALL": "C", "TZ": "UTC", "XDG_RUNTIME_DIR": runtime_directory(), "SYSTEMD_COLORS": "0"}
    try:
        return subprocess.run(
            ["systemctl", "--user", "--no-pager", "--no-ask-password", *argv],
            env={**os.environ, **ours},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise silent(f"`systemctl --user {argv[0]}` did not end within {timeout_s:.0f} s", "") from late
    except OSError as error:
        raise silent(f"systemctl could not be started: {error.strerror}", "") from error


def must(*argv: str, timeout_s: float = _TIMEOUT_S) -> str:
    """The same, where nothing can go on without it: its output. Fixable WB-SCHED-13 with its words."""
    ended = systemctl(*argv, timeout_s=timeout_s)
    if ended.returncode != 0:
        raise silent(f"`systemctl --user {argv[0]}` failed", ended.stderr)
    return ended.stdout


def tell(verb: str, names: Sequence[str], *options: str) -> str:
    """An order for many units, in few calls: what was said on stderr. Who obeyed is to be asked afterwards."""
    said = [systemctl(verb, *options, *some, timeout_s=_TIMEOUT_S + len(some)).stderr for some in _batches(names)]
    return "".join(said)


def tell_each(verb: str, names: Sequence[str], *options: str) -> dict[str, str]:
    """The same where one that is refused would keep the rest of its call from being heard: words by who was refused."""
    refused: dict[str, str] = {}
    waiting = list(_batches(names))
    while waiting:
        some = waiting.pop()
        ended = systemctl(verb, *options, *some, timeout_s=_TIMEOUT_S + len(some))
        if ended.returncode != 0 and len(some) > 1:
            middle = len(some) // 2
            waiting += [some[:middle], some[middle:]]
        elif ended.returncode != 0:
            refused[some[0]] = " ".join(ended.stderr.split())
    return refused


def show(names: Sequence[str], properties: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """Properties by unit and name; a property that has several values has several lines. Fixable WB-SCHED-13.

    A unit that the manager does not know is there all the same: LoadState says `not-found`.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for some in _batches(names):
        said = must("show", *some, f"--property={','.join(properties)}", timeout_s=_TIMEOUT_S + len(some))
        # In the order of the names: a unit's Id is another than its name where that is an alias.
        for name, block in zip(some, said.split("\n\n"), strict=False):
            values: dict[str, list[str]] = {}
            for line in block.splitlines():
                key, _, value = line.partition("=")
                values.setdefault(key, []).append(value)
            found[name] = values
    missing = set(names) - set(found)
    if missing:
        raise silent("`systemctl --user show` did not answer for every unit", ", ".join(sorted(missing)[:3]))
    return found


def loads() -> dict[str, str]:
    """LoadState of whatever the manager has in mind, by name, in one question. Fixable WB-SCHED-13."""
    said = must("list-units", "--all", "--full", "--plain", "--no-legend")
    return {words[0]: words[1] for line in said.splitlines() if len(words := line.split(None, 2)) > 1}


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(names), _BATCH):
        yield names[first : first + _BATCH]


def silent(what: str, said: str) -> Fixable:
    """The manager does not do what it was asked."""
    fix = "see `systemctl --user status` and `journalctl --user -e`; then the same again"
    return Fixable("WB-SCHED-13", what, why=" ".join(said.split())[:500], fix=fix, outcome="unavailable")


def one(values: Mapping[str, list[str]], name: str) -> str:
    """A property's only value; empty where it has none."""
    return values.get(name, [""])[0]


def epoch(value: str) -> int | None:
    """UTC epoch seconds of a moment as `show` words it: a date in UTC, or @seconds (--timestamp=unix of later ones)."""
    if value.startswith("@") and value[1:].isdigit():
        return int(value[1:])
    match = _DATE.fullmatch(value)
    return timegm(tuple(int(part) for part in match.groups())) if match else None


def epoch_of_span(value: str) -> int | None:
    """The same of a moment on the monotonic clock, since boot: "11h 25min 6.4s"; None: never ("infinity", "0")."""
    parts = _SPAN.findall(value)
    if not parts or _SPAN.sub("", value):
        return None
    since_boot = sum(float(number) * _UNITS[unit] for number, unit in parts)
    return round(time.time() - time.monotonic() + since_boot)
