"""Take away every timer of this fleet from the system. The fleet itself stays: agents, ledger, worktrees, logs.

examples:
  watchbill uninstall
  watchbill uninstall --dry-run

A firing that runs is left alone, where the system can do that (systemd); where it would be killed (launchd) its timer
stays until it has ended, and the exit status is 75. `watchbill stop --now` ends what runs.
"""

from __future__ import annotations

import argparse
import sys

from watchbill.cli import shared
from watchbill.cli.apply import told
from watchbill.home import Home
from watchbill.schedulers import applying

HELP = "take this fleet's timers away from the system"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="say what would go, and leave it")


def run(args: argparse.Namespace) -> int:
    with shared.files_at_fault():
        return _uninstall(args, shared.home_of(args))


def _uninstall(args: argparse.Namespace, home: Home) -> int:
    names = applying.installed(home)
    if args.dry_run:
        for name in names:
            print(f"would remove the timer of {name}")
        return 0
    done = applying.uninstall(home, lambda text: print(text, file=sys.stderr))
    if not names:
        print("there was no timer of this fleet")
    return told(done, home, None)
