"""Start agents at their times, in the foreground: for a container, and for machines without launchd and systemd.

examples:
  watchbill loop               until SIGTERM or Ctrl-C; its firings are then asked to end
  watchbill loop --once        what is due, or was missed, and then leave: for somebody else's cron
  watchbill loop --catch-up    have the system start what was missed while this host was off

`[schedule] use = "loop"` in fleet.toml says that this is how firings start here. One loop a home; it takes up edits of
the roster by itself. stdout and stderr of what it starts are appended to the agent's log (`watchbill logs AGENT`).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Iterator

from watchbill import lock, signals
from watchbill.cli import shared
from watchbill.errors import Fixable
from watchbill.home import Home
from watchbill.schedulers import launchctl, loop, missed, registry, units
from watchbill.schedulers.rounds import Rounds

HELP = "start agents at their times, in the foreground"


def arguments(parser: argparse.ArgumentParser) -> None:
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--once", action="store_true", help="start what is due or was missed, wait for it, leave")
    how.add_argument("--catch-up", action="store_true", help="have the system's scheduler start what was missed")


def run(args: argparse.Namespace) -> int:
    if args.catch_up:
        return _catch_up(args)
    home = shared.home_of(args)
    try:
        with lock.agent_lock(loop.lock_path(home)):
            return _go_round(home, args.once)
    except lock.Busy as busy:
        raise Fixable(
            "WB-SCHED-30",
            f"{home.root}: another loop runs for this fleet",
            why=f"{loop.lock_path(home)} is locked",
            fix="end that one first; one starts every agent of a fleet",
            outcome="running",
        ) from busy


def _go_round(home: Home, once: bool) -> int:
    rounds = Rounds(home, _say)
    with _wakened() as (woken, asked):
        try:
            while not asked:
                wait_s = rounds.look()
                if once and rounds.problem:
                    raise rounds.problem
                if once and rounds.idle:
                    return 0
                if select.select([woken], [], [], wait_s)[0]:
                    os.read(woken, 4096)
        finally:
            rounds.end_all()
        return 128 + asked[0]


@contextlib.contextmanager
def _wakened() -> Iterator[tuple[int, list[int]]]:
    """A descriptor that can be read when a child has ended or we were asked to, and by which signals we were."""
    asked: list[int] = []
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    os.set_blocking(reading, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    heard = {number: signal.signal(number, lambda got, _: asked.append(got)) for number in signals.asking()}
    heard[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        yield reading, asked
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # agents are started also when nobody reads that, or its disk is full
        os.write(2, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n".encode(errors="replace"))


def _catch_up(args: argparse.Namespace) -> int:
    fleet = shared.opened(args)
    if fleet.roster is None:
        return 78
    scheduler = registry.usable(fleet.roster.fleet.timers.use)
    if scheduler.name != "launchd":
        print(f"{scheduler.name} catches up by itself", file=sys.stderr)
        return 0
    now = int(time.time())
    failed = False
    for name, done in missed.of_fleet(fleet.home, fleet.ledger, fleet.roster, fleet.host, now).items():
        if missed.slot_of(fleet.roster.agents[name].slots, done, now) is None:
            continue
        loaded = launchctl.services(units.unit_name(fleet.home, name))
        if loaded and loaded[0].printed.running:
            print(f"{name}: is at work")
            continue
        said = launchctl.ask("kickstart", loaded[0].target) if loaded else None
        if said is not None and said.code == 0:
            print(f"{name}: started")
        elif said is not None:
            failed = True
            print(f"{name}: {said.words}", file=sys.stderr)
    return 69 if failed else 0
