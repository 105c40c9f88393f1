"""The host itself: its clock, the room on its disk, whether it is a guest that is put to sleep."""

from __future__ import annotations

import contextlib
import email.utils
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from watchbill import fitness
from watchbill.clock import moment
from watchbill.doctor.finding import Finding, Look
from watchbill.errors import Fixable
from watchbill.ledger import firings, migrate

#: A claim is taken over `grace` (two minutes, unless said otherwise) after its end by the clock of another host.
SKEW_S = 60
TIMEOUT_S = 5.0
_RELEASE = "/proc/sys/kernel/osrelease"


def clock(it: Look) -> Iterator[Finding]:
    """By GitHub's clock, when it answers; by the ledger's newest row, which cannot be of tomorrow; and by timedated."""
    now, apart = time.time(), None
    if it.roster is not None:
        apart = _apart(it.roster.fleet.api_url)
    fix = "set the clock, and let it be kept right: timedatectl set-ntp true (macOS: sntp -sS time.apple.com)"
    if apart is not None and abs(apart) > SKEW_S:
        what = f"the clock is {abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} GitHub's: claims end by it"
        yield Finding("host", "clock", "wrong", what, "WB-DOCTOR-11", fix)
    newest = None
    with contextlib.suppress(Fixable):  # which is said elsewhere
        newest = firings.newest(it.home.ledger)
    if newest is not None and newest > now + SKEW_S:
        what = f"the clock says {moment(int(now))}, and the ledger's newest firing began at {moment(newest)}"
        yield Finding("host", "clock", "wrong", what, "WB-DOCTOR-11", fix)
    elif apart is None or abs(apart) <= SKEW_S:
        told = "" if apart is None else f", within {SKEW_S} s of GitHub's"
        yield Finding("host", "clock", "ok", f"{moment(int(now))}{told}")
    if _kept_right() is False:
        yield Finding("host", "clock", "note", "nothing keeps the clock right", "WB-DOCTOR-11", fix)


def _apart(api_url: str) -> float | None:
    """How far ahead of the forge's clock ours is, seconds (RFC 9110, Date: to the second); None: it does not answer."""
    request = urllib.request.Request(api_url, method="HEAD", headers={"User-Agent": "watchbill-doctor"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
            date = reply.headers.get("Date")
    except urllib.error.HTTPError as refused:
        with refused:
            date = refused.headers.get("Date")
    except (OSError, ValueError):
        return None
    with contextlib.suppress(ValueError, TypeError):
        return time.time() - email.utils.parsedate_to_datetime(date or "").timestamp()
    return None


def _kept_right() -> bool | None:
    """Whether systemd says that the clock follows a server (timedatectl(1)); None: nobody can say."""
    program = shutil.which("timedatectl")
    if program is None:
        return None
    try:
        done = subprocess.run([program, "show", "-p", "NTPSynchronized", "--value"], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=TIMEOUT_S, check=False)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {"yes": True, "no": False}.get(done.stdout.strip())


def room(it: Look) -> Iterator[Finding]:
    """By the floors of `[host]`, where a firing would be refused."""
    if it.roster is None or not os.path.isdir(it.home.root):
        return
    wanted = it.roster.fleet.host
    found = fitness.read(it.home.root, wanted)
    for name, left, least in (
        ("min_free", found.free_bytes, wanted.min_free_bytes),
        ("min_inodes", found.free_inodes, wanted.min_inodes),
    ):
        if left is not None and left < least:
            unit = "bytes" if name == "min_free" else "inodes"
            what = f"{left} {unit} are free where the fleet lies, and firings begin with {least}"
            fix = f"make room, `watchbill ledger prune`, or lower [host] {name}"
            yield Finding("host", "disk", "wrong", what, "WB-DOCTOR-12", fix)
        elif left is not None:
            yield Finding("host", "disk", "ok", f"{left} {'bytes' if name == 'min_free' else 'inodes'} are free")
    try:
        migrate.refuse_network(it.home.ledger)
    except Fixable as problem:
        yield Finding("host", "disk", "wrong", f"{problem.what}: {problem.why}", problem.id, problem.fix)


def guest(it: Look, release: str = _RELEASE) -> Iterator[Finding]:
    """WSL: Microsoft stops the virtual machine with its last window (learn.microsoft.com, WSL, .wslconfig)."""
    with contextlib.suppress(OSError), open(release, encoding="ascii", errors="replace") as file:
        if "microsoft" in file.read().lower() and it.roster is not None:
            what = "this is WSL: Windows stops it soon after its last window closes, and no timer wakes it"
            fix = "leave a window open; what was missed is made up for once, when it runs again"
            yield Finding("host", "WSL", "note", what, "WB-DOCTOR-20", fix, "scheduler")
