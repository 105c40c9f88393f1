"""The program `launchctl`: the one place that runs it, and what its answers mean.

Its statuses are believed only as reasons to ask again: `bootstrap` answers 5 for "already loaded", "still being
ended", "disabled" and "bad file" alike, and 0 for what then does not start; `bootout` answers 3 for what is gone and 36
for what is going. Codes as `launchctl error N` explains them; only 113 means that a unit is not loaded.

A unit lives in the session at the screen (gui/UID), or, where nobody is logged in there, in the background one
(user/UID).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from watchbill.errors import Fixable
from watchbill.schedulers import launchd_print
from watchbill.schedulers.launchd_print import Printed

#: Nothing that is asked takes longer, on a machine that works.
TIMEOUT_S = 30.0
#: What a plist of ours says (ExitTimeOut), and as much again as launchd may take for the rest.
GONE_S = 25.0
#: Loading a unit is tried again for so long, while launchd still ends the one before.
LOADED_S = 6.0
_FIRST_WAIT_S, _MOST_WAIT_S = 0.05, 0.25
_WORTH_A_WORD_S = 1.0
_ASKED_AT_ONCE = 4

_NO_SUCH_SERVICE = 113
_DISABLED = 119
_NO_SUCH_DOMAIN = (112, 125, 134)  # no such, none that can, or none for such a unit
_TRY_AGAIN = (5, 36, 37)


class Said(NamedTuple):
    """An answer."""

    code: int
    out: str
    words: str  # stderr, on one line


class Service(NamedTuple):
    """A unit in a session that has it loaded."""

    domain: str
    label: str
    printed: Printed

    @property
    def target(self) -> str:
        return f"{self.domain}/{self.label}"


def missing() -> Fixable | None:
    """Why it cannot be run."""
    if shutil.which("launchctl") is not None:
        return None
    return Fixable(
        "WB-SCHED-20",
        "there is no launchctl on PATH",
        why="launchd is the scheduler of macOS",
        fix='[schedule] use = "systemd" on Linux, "loop" in a container; on a Mac, put /bin on PATH',
        outcome="unavailable",
    )


def domains() -> tuple[str, str]:
    """Where a unit may be loaded, in the order in which it is tried."""
    return f"gui/{os.getuid()}", f"user/{os.getuid()}"


def ask(*words: str) -> Said:
    """Run it. Fixable: it cannot be run, or does not answer."""
    if problem := missing():
        raise problem
    try:
        done = subprocess.run(
            ["launchctl", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _silent(f"launchctl {' '.join(words)}: {error}") from error
    out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
    return Said(done.returncode, out, " ".join(err.split()) or f"status {done.returncode}")


def services(label: str) -> tuple[Service, ...]:
    """Where it is loaded: nowhere, in one session, or in both. Fixable: launchd does not say."""
    asked = [(domain, ask("print", f"{domain}/{label}")) for domain in domains()]
    if all(said.code in _NO_SUCH_DOMAIN for _, said in asked):
        raise _silent(f"neither {' nor '.join(domains())} is a session of launchd's")
    found = (_service(domain, label, said) for domain, said in asked)
    return tuple(one for one in found if one)


def _service(domain: str, label: str, said: Said) -> Service | None:
    """What `print` answered."""
    if said.code == 0:
        return Service(domain, label, launchd_print.unit(said.out))
    if said.code == _NO_SUCH_SERVICE or said.code in _NO_SUCH_DOMAIN:
        return None
    raise _silent(f"launchctl print {domain}/{label}: {said.words}")


def _in(domain: str, label: str) -> Service | None:
    return _service(domain, label, ask("print", f"{domain}/{label}"))


def everywhere(labels: Sequence[str]) -> dict[str, tuple[Service, ...]]:
    """`services` of many. Whatever a session's own listing does not name is not loaded there, in whichever format it
    lists; only the others are asked about one by one, since no listing says what exactly is loaded."""
    sessions = {domain: ask("print", domain) for domain in domains()}
    if not any(said.code == 0 for said in sessions.values()):
        raise _silent("; ".join(f"launchctl print {domain}: {said.words}" for domain, said in sessions.items()))
    pairs = [(domain, label) for domain, said in sessions.items() for label in labels if label in said.out]
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        asked = zip(pairs, pool.map(lambda pair: _in(*pair), pairs), strict=True)
    found: dict[str, tuple[Service, ...]] = dict.fromkeys(labels, ())
    for (_, label), service in asked:
        found[label] += (service,) if service else ()
    return found


def at_screen() -> bool:
    """Whether somebody is logged in there. Fixable: launchd does not say."""
    return ask("print-disabled", domains()[0]).code not in _NO_SUCH_DOMAIN


def disabled() -> frozenset[str]:
    """Units that are not loaded at the next login, by `launchctl disable` or the switch in Login Items.

    One list a user, whichever session is asked. Fixable: launchd does not say.
    """
    for domain in domains():
        said = ask("print-disabled", domain)
        if said.code == 0:
            return frozenset(label for label, off in launchd_print.disabled(said.out).items() if off)
    raise _silent(f"launchctl print-disabled {domain}: {said.words}")


def enable(label: str) -> None:
    """So that it may be loaded. Whether that worked, `disabled` says."""
    _switch("enable", label)


def disable(label: str) -> None:
    _switch("disable", label)


def _switch(verb: str, label: str) -> None:
    for domain in domains():
        if ask(verb, f"{domain}/{label}").code == 0:
            return


def bootout(service: Service, say: Callable[[str], None]) -> str | None:
    """Have it forgotten, and wait until it is; why it is not. Whatever of it runs is ended by launchd."""
    said = ask("bootout", service.target)
    started, wait_s = time.monotonic(), _FIRST_WAIT_S
    told = False
    while _in(service.domain, service.label):
        waited_s = time.monotonic() - started
        if waited_s > GONE_S:
            return f"launchctl bootout {service.target}: {said.words}; after {waited_s:.0f} s it is still loaded"
        if waited_s > _WORTH_A_WORD_S and not told:
            told = True
            say(f"{service.label}: launchd is still ending it")
        time.sleep(wait_s)
        wait_s = min(wait_s * 2, _MOST_WAIT_S)
    return None


def bootstrap(label: str, path: str) -> str | None:
    """Load it from its file, in the first session that takes it; why none did."""
    words = []
    for domain in domains():
        said = _bootstrap(domain, label, path)
        if said.code == 0:
            return None
        words.append(f"launchctl bootstrap {domain}: {said.words}")
        if said.code not in _NO_SUCH_DOMAIN:
            break
    return "; ".join(words)


def _bootstrap(domain: str, label: str, path: str) -> Said:
    started, wait_s = time.monotonic(), _FIRST_WAIT_S
    while True:
        said = ask("bootstrap", domain, path)
        again = said.code in _TRY_AGAIN or said.code == _DISABLED
        if not again or time.monotonic() - started > LOADED_S:
            return said
        if _in(domain, label):
            return said._replace(code=0)  # by somebody, or by the call before; what it is, the caller asks
        if said.code in (5, _DISABLED):  # 5 says everything, also that
            ask("enable", f"{domain}/{label}")
        time.sleep(wait_s)
        wait_s = min(wait_s * 2, _MOST_WAIT_S)


def settled(label: str) -> Service | None:
    """Once it is loaded: where, and as what. None: it is not, even after a moment."""
    started = time.monotonic()
    while True:
        for domain in domains():
            if found := _in(domain, label):
                return found
        if time.monotonic() - started > _WORTH_A_WORD_S:
            return None
        time.sleep(_FIRST_WAIT_S)


def _silent(what: str) -> Fixable:
    return Fixable(
        "WB-SCHED-21",
        what,
        why="without an answer of launchd's nothing is known of the timers, and nothing is changed",
        fix="log in at the Mac's screen, or over ssh as the user whose fleet this is; then try again",
        outcome="unavailable",
    )
