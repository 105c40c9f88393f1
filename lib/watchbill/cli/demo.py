"""The whole story on this machine, no account: one issue, two agents racing for it, one checked pull request.

A practice forge on loopback, a real git repository, a scripted engine (or, with --engine, a real one), real checks.
Everything is left in one directory, named at the end.

examples:
  watchbill demo
  watchbill demo --json
  watchbill demo --keep        in ./watchbill-demo instead of the temporary directory
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import tempfile
from typing import Any, NamedTuple

from watchbill import evidence as blobs
from watchbill import money
from watchbill.cli import checkout, show, stage
from watchbill.cli.shared import Opened
from watchbill.cli.stage import Stage, Told
from watchbill.engines import ENGINES
from watchbill.errors import Fixable
from watchbill.host import host_id
from watchbill.ledger import db

HELP = "the whole story on this machine, no account"

_NAME = "acme/calc"
_FILES = {
    "calc.py": '"""A very small calculator."""\n\n\ndef add(a, b):\n    return a - b\n',
    "test_calc.py": "import unittest\n\nimport calc\n\n\nclass Add(unittest.TestCase):\n"
    "    def test_two_numbers(self):\n"
    "        self.assertEqual(calc.add(2, 3), 5)\n",
    "README.md": "# calc\n\nAdds.\n",
}
_ISSUE = {
    "title": "add() subtracts",
    "body": "`calc.add(2, 3)` answers -1. It should answer 5.\n",
    "labels": ["agent:implement", "agent:fixes-base"],
}
_STEPS = [
    {"message": "calc.add used the wrong operator; one character."},
    {"replace": {"path": "calc.py", "old": "return a - b", "new": "return a + b"}},
    {"usage": {"input_tokens": 5200, "output_tokens": 310, "cost_usd": 0.02}},
]


#: What each engine is told of the demonstration: a model that is enough for it.
_OPTIONS: dict[str, dict[str, Any]] = {"scripted": {"steps": _STEPS}, "claude": {"model": "sonnet"}}


class Played(NamedTuple):
    """What happened."""

    stage: Stage
    racers: list[Told]
    winner: Told
    whole: dict[str, Any]  # the winner's firing, as `show` has it
    diff: str


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine", default="scripted", help=f"one of {', '.join(ENGINES)} (default scripted, which is free)"
    )
    parser.add_argument("--keep", action="store_true", help="leave everything in ./watchbill-demo")
    parser.add_argument("--json", action="store_true", help="the same facts as one JSON object")


def run(args: argparse.Namespace) -> int:
    stage.end_cleanly()
    played = play(args)
    if args.json:
        print(json.dumps(as_object(played), indent=1))
    else:
        print("\n".join(lines(played)))
    return 0 if played.winner.answer.get("outcome") == "pull_request" else played.winner.status


def play(args: argparse.Namespace) -> Played:
    """Set the stage, fire both agents at once, gather what they left."""
    engine = stage.engine_map(args.engine, _OPTIONS.get(args.engine, {}))
    root = _root(args.keep)
    bare = os.path.join(root, "calc.git")
    checkout.make_bare(bare, _FILES, "Begin")
    agent = {"role": "implement", "engine": engine, "timeout": "10m", "caps": {"firing_usd": 0.50, "day_usd": 5}}
    check = f"{shlex.quote(sys.executable)} -m unittest -q"
    _say(args, f"setting up a forge, a repository and two agents in {root}")
    built = stage.build(root, _NAME, bare, _ISSUE, [check], {"fleet_day_usd": 5}, {"bosun": agent, "mate": agent})
    try:
        _say(args, "both agents fire at the same moment ...")
        racers = stage.fire(built, ["bosun", "mate"])
    finally:
        built.practice.close()
    for told in racers:
        if not told.answer:
            raise stage.last_words(told)
    winner = next(
        (
            told
            for told in racers
            if told.answer["number"] is not None
            and told.answer["cost_usd"] is not None
            and told.answer["outcome"] != "lost"
        ),
        racers[0],
    )
    fleet = Opened(built.home, db.open_ledger(built.home.ledger), None, host_id(built.home.host))
    whole = show.gather(fleet, winner.answer["firing"])
    diff = next((r for r in whole["evidence"] if r["kind"] == "diff"), None)
    return Played(built, racers, winner, whole, blobs.read_blob(built.home, diff["digest"]) if diff else "")


def _root(keep: bool) -> str:
    if not keep:
        return tempfile.mkdtemp(prefix="watchbill-demo-")
    root = os.path.abspath("watchbill-demo")
    if os.path.exists(root):
        raise Fixable("WB-DEMO-01", f"{root} is there already", fix=f"rm -r {shlex.quote(root)}")
    os.mkdir(root, mode=0o700)
    return root


def _say(args: argparse.Namespace, text: str) -> None:
    if not args.json:
        print(text, file=sys.stderr, flush=True)


def as_object(played: Played) -> dict[str, Any]:
    """The winner's object of `fire --json`, and where everything lies."""
    return {
        **played.winner.answer,
        "home": played.stage.home.root,
        "remote": played.stage.remote,
        "api_url": played.stage.practice.url,
        "racers": [told.answer for told in played.racers],
        "issue": {"repo": _NAME, "number": 1, "title": _ISSUE["title"], "labels": _ISSUE["labels"]},
        "checks": {"before": _checks(played.whole, "base_check"), "after": _checks(played.whole, "check")},
        "evidence": [{key: r[key] for key in ("kind", "digest", "size", "path")} for r in played.whole["evidence"]],
        "isolation": _isolation(played.whole),
        "next": _next(played),
    }


def _checks(whole: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    found = [r["summary"] for r in whole["evidence"] if r["kind"] == kind]
    return [{"command": s["command"], "exit": s["exit"], "tail": s["tail"]} for s in found]


def _isolation(whole: dict[str, Any]) -> str | None:
    return next((r["summary"]["isolation"] for r in whole["evidence"] if r["kind"] == "transcript"), None)


def lines(played: Played) -> list[str]:
    """The story as a newcomer reads it in a minute."""
    labels = ", ".join(_ISSUE["labels"])
    out = ["", "THE ISSUE", f'  {_NAME}#1 "{_ISSUE["title"]}", labelled {labels} by somebody who may write', ""]
    out += ["TWO AGENTS, woken at the same moment for this one issue", *_race(played), ""]
    out += [f"THE WORK of {played.winner.agent} (firing {played.winner.answer['firing']})", *_work(played), ""]
    out += ["THE RESULT", *_result(played), ""]
    out += ["THE EVIDENCE, made by the runner and not by the agent"]
    out += [f"  {record['kind']:<11} {record['path']}" for record in played.whole["evidence"]]
    out += ["", f"All of it lies in {played.stage.root}", "", "TYPE NEXT"]
    return out + [f"  {command}" for command in _next(played)]


def _race(played: Played) -> list[str]:
    out = []
    for told in played.racers:
        said = "claimed it" if told is played.winner else f"{told.answer['outcome']}: {told.answer['reason']}"
        out.append(f"  {told.agent:<6} exit {told.status:<3} {said}")
    return out


def _work(played: Played) -> list[str]:
    """The check before, the change, the check after."""
    diff = [line for line in played.diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    out = _checked(played, "base_check", "before")
    out += [f"  change  {diff[0]}", *(f"          {line}" for line in diff[1:])] if diff else ["  change  none"]
    out += _checked(played, "check", "after")
    isolation = _isolation(played.whole)
    if isolation == "none":
        return [*out, "  NOT isolated: neither bubblewrap nor Landlock is to be had here (apt install bubblewrap)"]
    return [*out, f"  agent and checks ran isolated by {isolation}; nothing that they start sees a credential"]


def _checked(played: Played, kind: str, word: str) -> list[str]:
    out = []
    for check in _checks(played.whole, kind):
        said = "passes" if check["exit"] == 0 else f"FAILS (exit {check['exit']})"
        out.append(f"  {word:<7} {said}: {check['command']}")
        if check["exit"] != 0:
            out += [f"          {line}" for line in check["tail"].splitlines() if "Error" in line][:2]
    return out


def _result(played: Played) -> list[str]:
    won = played.winner.answer
    if won["pull_request"]:
        out = [f"  pull request {_NAME}#{won['pull_request']} closes #1: one commit on branch {won['branch']}"]
    else:
        out = [f"  {won['outcome']}: {won['reason']}"]
    cost = round((won["cost_usd"] or 0) * money.MICRO)
    basis = _BASIS.get(won["cost_basis"], won["cost_basis"])
    return [*out, f"  cost {money.usd(cost)} of {money.usd(500_000)} ({basis})"]


_BASIS = {
    "engine": "as the engine reports it",
    "notional": "the list price; it draws on a subscription",
    "priced": "by its tokens",
    "free": "nothing was spent",
}


def _next(played: Played) -> list[str]:
    home, won = shlex.quote(played.stage.home.root), played.winner.answer
    loser = next((told.agent for told in played.racers if told is not played.winner), "mate")
    watchbill = _myself()
    commands = [
        f"{watchbill} --home {home} show {won['firing']}",
        f"{watchbill} --home {home} why {loser}",
        f"{watchbill} --home {home} why {_NAME}#1",
    ]
    if won["pull_request"]:
        commands.append(f"git -C {shlex.quote(played.stage.remote)} show {won['branch']}")
    return [*commands, f'{watchbill} try --repo . --issue "..." --engine command --argv "..."']


def _myself() -> str:
    """How this command can be typed again."""
    if shutil.which("watchbill"):
        return "watchbill"
    beside = os.path.join(os.path.dirname(sys.executable), "watchbill")
    return shlex.quote(os.path.relpath(beside) if os.path.exists(beside) else sys.argv[0])
