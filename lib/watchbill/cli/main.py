"""The command line: one module a verb, and only the one that was asked for is imported.

A verb's module has `HELP` (one line), `arguments(parser)` and `run(args) -> int`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import Any

from watchbill import __version__
from watchbill.cli.boundary import guarded
from watchbill.home import find_home

#: In the order of `watchbill --help`: what a newcomer types first comes first.
VERBS = (
    "demo",
    "try",
    "fire",
    "status",
    "why",
    "show",
    "spend",
    "claims",
    "labels",
    "pause",
    "resume",
    "stop",
    "drill",
    "plan",
    "apply",
    "uninstall",
    "loop",
    "logs",
    "ledger",
    "doctor",
    "practice",
)
_MODULES = {"try": "trial"}  # `try` cannot name a module

_EXAMPLES = """examples:
  watchbill demo                          the whole story on this machine, no account
  watchbill try --repo . --issue "..." --engine command --argv "sed -i s/a/b/ file"
  watchbill fire bosun                    what the timer runs
  watchbill why acme/api#41               why it was taken, or not

`watchbill VERB --help` says more."""


def _parser(verb: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="watchbill",
        description="Puts coding agents on a duty roster.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"watchbill {__version__}")
    parser.add_argument("--home", help="the fleet's directory (default: $WATCHBILL_HOME or ~/.watchbill)")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    for name in VERBS:
        if verb not in (None, name):
            verbs.add_parser(name)
            continue
        module = _module(name)
        sub = verbs.add_parser(
            name, help=module.HELP, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        sub.add_argument("--home", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        module.arguments(sub)
        sub.set_defaults(run=module.run)
    return parser


def _module(verb: str) -> Any:
    return importlib.import_module(f"watchbill.cli.{_MODULES.get(verb, verb)}")


def run(argv: list[str]) -> int:
    """The whole command; its exit status."""
    verb = next((word for word in argv if word in VERBS), None)
    parser = _parser(verb)
    args = parser.parse_args(argv)
    if args.verb is None:
        parser.print_help()
        return 0
    if args.home:  # one word for it, also for what this process starts
        os.environ["WATCHBILL_HOME"] = find_home(os.environ, args.home).root
    try:
        return guarded(args)
    except BrokenPipeError:  # `watchbill show | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
