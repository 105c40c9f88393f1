"""The two columns: the same checks in the person's shell, and again as the scheduler runs a firing."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import NamedTuple

from watchbill.doctor import credentials, layers, programs, reach, running, surroundings
from watchbill.doctor.finding import Finding, Look
from watchbill.doctor.layers import Layer

#: One check: helper programs have limits of their own (secrets.TIMEOUT_S, versions.TIMEOUT_S), and this is beyond.
CHECK_S = 60.0
#: All of the scheduler's column, which a unit of its own must have ended by then.
COLUMN_S = 60

Check = Callable[[Look], Iterator[Finding]]
#: (what is looked at, in both columns): to be seen in the words about one that hangs.
STEPS: tuple[tuple[str, Check], ...] = (
    ("environment", surroundings.look),
    ("git", programs.git),
    ("SQLite", programs.sqlite),
    ("Python", programs.python),
    ("GitHub", credentials.github),
    ("ssh", credentials.ssh),
    ("files", reach.look),
)


class Column(NamedTuple):
    """What one pair of eyes saw."""

    findings: tuple[Finding, ...]
    layers: tuple[Layer, ...] = ()  # with every way out that was tried; told of the shell's only


class _TooLong(BaseException):
    """No `except OSError` on the way takes it for its own."""


def seen_by(
    it: Look,
    done: Callable[[Iterable[Finding]], None] = lambda _: None,
    begins: Callable[[str], None] = lambda _: None,
    most_s: float | None = None,
) -> Column:
    """Every check of a column, one after the other; `begins` is told what is looked at, `done` what was found.

    `most_s`: what cannot be looked at by then is named.
    """
    until = None if most_s is None else time.monotonic() + most_s
    kept: list[Layer] = []

    def isolation(it: Look) -> Iterator[Finding]:
        kept.extend(layers.tried(it))
        yield from layers.told(it, tuple(kept))

    found: list[Finding] = []
    for name, check in (*STEPS, *running.each(it), ("isolation", isolation)):
        begins(name)
        left_s = CHECK_S if until is None else min(CHECK_S, until - time.monotonic())
        said = within(left_s, name, check, it) if left_s > 0 else [_skipped(name)]
        found += said
        done(said)
    return Column(tuple(found), tuple(kept))


def within(seconds: float, name: str, check: Check, it: Look) -> list[Finding]:
    """What it found; after so long, that it hangs. Only the first thread can be interrupted so."""
    found: list[Finding] = []

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _TooLong

    if threading.current_thread() is not threading.main_thread():
        return list(check(it))
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        for finding in check(it):
            found.append(finding)  # one by one: what it had found before it hung is kept
    except _TooLong:
        found.append(_hangs(name, f"no answer within {seconds:.0f} s"))
    except OSError as error:
        what = f"it cannot be looked at: {error.strerror or error}{f' ({error.filename})' if error.filename else ''}"
        fix = "see who may read it, and whether it is there"
        found.append(Finding("host", name, "wrong", what, "WB-DOCTOR-04", fix))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return found


def _hangs(name: str, what: str) -> Finding:
    fix = "a disk, a network drive or a helper program that does not answer: try it by hand"
    return Finding("host", name, "wrong", what, "WB-DOCTOR-04", fix)


def _skipped(name: str) -> Finding:
    fix = "mend what hangs, said above; then `watchbill doctor` again"
    return Finding("host", name, "wrong", "it was not looked at: what came before took too long", "WB-DOCTOR-04", fix)


def merged(shell: Iterable[Finding], scheduler: Iterable[Finding] | None) -> list[Finding]:
    """Findings of both, in the order of the first; what both saw is one."""
    mine = [one._replace(where="shell") for one in shell]
    if scheduler is None:
        return mine
    theirs = [one._replace(where="scheduler") for one in scheduler]
    for same in (_word_for_word, _by_id):
        of_both = _twins(mine, theirs, same)
        mine = [one._replace(where="both") if same(one) in of_both else one for one in mine]
        theirs = [one for one in theirs if same(one) not in of_both]
    found = mine + theirs
    checks = list(dict.fromkeys(one.check for one in found))
    subjects = list(dict.fromkeys((one.check, one.subject) for one in found))
    return sorted(found, key=lambda one: (checks.index(one.check), subjects.index((one.check, one.subject))))


Key = tuple[str | None, ...]


def _twins(mine: list[Finding], theirs: list[Finding], same: Callable[[Finding], Key | None]) -> set[Key | None]:
    """Keys of what one finding has here, and one there."""
    here = Counter(same(one) for one in mine if one.where != "both")
    there = Counter(same(one) for one in theirs)
    return {key for key in here if key is not None and here[key] == there[key] == 1}


def _word_for_word(one: Finding) -> Key:
    """The fix may be another: what mends a shell is not what mends a unit."""
    return one.check, one.subject, one.state, one.what, one.id


def _by_id(one: Finding) -> Key | None:
    """The same fault in other words, such as the PATH that was searched."""
    return (one.check, one.subject, one.state, one.id) if one.id else None
