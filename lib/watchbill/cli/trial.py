"""`watchbill try`: a firing on a repository of yours, for an issue in your words, without GitHub.

It works in a bare clone in a temporary directory. Your repository gets one branch, `watchbill/try-<firing>`, and
nothing else: its checkout, index and config stay as they are. Without a check that passes there is no branch; the work
is kept, and its place is named.

examples:
  watchbill try --repo . --issue "Typo in README" --engine command --argv "sed -i s/teh/the/ README.md"
  watchbill try --repo ~/api --issue "Fix the parser" --body "..." --argv "my-agent --headless" --check "make test"
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
import tempfile
from typing import Any

from watchbill import git, money
from watchbill.cli import checkout, show, stage
from watchbill.cli.shared import Opened
from watchbill.cli.stage import Stage
from watchbill.engines import ENGINES, named
from watchbill.errors import Fixable
from watchbill.host import host_id
from watchbill.ledger import db

#: What a person who names no cap will hardly mind.
_CAP_USD = 2.0
HELP = "a firing on a repository of yours, without GitHub"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repo", required=True, metavar="PATH", help="a git repository with a commit checked out")
    parser.add_argument("--issue", required=True, metavar="TITLE", help="what is to be done, in a line")
    parser.add_argument("--body", default="", help="and in more words")
    parser.add_argument("--engine", default="command", help=f"one of {', '.join(ENGINES)} (default command)")
    parser.add_argument("--argv", metavar="COMMAND", help="for --engine command: the program and its arguments")
    parser.add_argument("--script", metavar="FILE", help="for --engine scripted: its steps (JSON)")
    parser.add_argument(
        "--check", action="append", default=[], metavar="COMMAND", help="what must pass; may be given several times"
    )
    parser.add_argument("--timeout", default="25m", help="the longest the engine may run (default 25m)")
    parser.add_argument("--model", help="the model, in the engine's own words")
    parser.add_argument(
        "--cap", type=float, metavar="USD", help=f"the most it may cost (default {_CAP_USD} where a key is needed)"
    )
    parser.add_argument("--isolation", default="auto", choices=("auto", "required", "none"))
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    stage.end_cleanly()
    git_dir, commit, branch = _source(args.repo)
    agent = _agent(args)
    root = tempfile.mkdtemp(prefix="watchbill-try-")
    bare = os.path.join(root, "repository.git")
    checkout.clone_bare(git_dir, bare, commit, branch)
    name = "local/" + (re.sub(r"[^A-Za-z0-9._-]", "-", os.path.basename(os.path.abspath(args.repo))) or "repository")
    issue = {"title": args.issue, "body": args.body, "labels": ["agent:implement", "agent:fixes-base"]}
    built = stage.build(root, name, bare, issue, args.check, {}, {"try": agent})
    try:
        told = stage.fire(built, ["try"], progress=sys.stderr.isatty())[0]
    except (KeyboardInterrupt, SystemExit):
        where = f"watchbill --home {shlex.quote(built.home.root)}"
        print(f"try: stopped; what it cost: {where} spend; where its work is: {where} why try", file=sys.stderr)
        raise
    finally:
        built.practice.close()
    if not told.answer:
        raise stage.last_words(told)
    answer = _land(args, built, git_dir, told.answer)
    if args.json:
        print(json.dumps(answer))
    else:
        print("\n".join(_lines(args, answer)))
    return told.status


def _source(path: str) -> tuple[str, str, str]:
    """The repository's git directory, its checked-out commit, and the name of its branch."""
    if not os.path.isdir(path):
        raise Fixable("WB-TRY-01", f"--repo {path}: there is no such directory")
    try:
        git_dir = checkout.common_dir(path)
        commit = git.rev_parse(git_dir, checkout.head_of(path))
    except git.GitError as error:
        raise Fixable(
            "WB-TRY-02",
            f"--repo {path}: not a git repository with a commit",
            why=str(error).splitlines()[-1],
            fix=f"git -C {shlex.quote(path)} init, then commit something",
        ) from error
    if os.path.exists(os.path.join(git_dir, "shallow")):
        raise Fixable(
            "WB-TRY-03",
            f"--repo {path}: its history is cut off (shallow)",
            fix=f"git -C {shlex.quote(path)} fetch --unshallow",
        )
    if checkout.object_format(path) != "sha1":
        raise Fixable(
            "WB-TRY-05",
            f"--repo {path}: its objects are named by {checkout.object_format(path)}",
            why="GitHub, and so the practice forge, has no such repositories",
        )
    if git.find(git_dir, "refs/heads/watchbill") is not None:
        raise Fixable(
            "WB-TRY-06",
            f"--repo {path}: a branch named `watchbill` stands where watchbill/try-... would go",
            fix=f"git -C {shlex.quote(path)} branch -m watchbill another-name",
        )
    branch = checkout.branch_of(path)
    return git_dir, commit, branch if branch and not branch.startswith("watchbill/") else "main"


def _agent(args: argparse.Namespace) -> dict[str, Any]:
    more: dict[str, Any] = {"model": args.model} if args.model else {}
    if args.engine == "command":
        if not args.argv:
            raise Fixable("WB-TRY-04", "--engine command needs --argv", fix='--argv "program and its arguments"')
        try:
            more["argv"] = shlex.split(args.argv)
        except ValueError as error:
            raise Fixable("WB-TRY-04", f"--argv {args.argv!r}: {error}", fix="close the quotes") from error
    if args.engine == "scripted":
        if not args.script:
            raise Fixable("WB-TRY-04", "--engine scripted needs --script", fix="--script steps.json")
        more["script"] = os.path.abspath(args.script)
    engine = {"use": args.engine, **more} if args.engine == "command" else stage.engine_map(args.engine, more)
    cap = _CAP_USD if args.cap is None and named(args.engine).variables else args.cap
    caps = {"firing_usd": cap} if cap is not None else {}
    return {"role": "implement", "engine": engine, "timeout": args.timeout, "isolation": args.isolation, "caps": caps}


def _land(args: argparse.Namespace, built: Stage, git_dir: str, told: dict[str, Any]) -> dict[str, Any]:
    """Bring the branch home, when there is one; name the kept work, when there is not."""
    fleet = Opened(built.home, db.open_ledger(built.home.ledger), None, host_id(built.home.host))
    whole = show.gather(fleet, told["firing"])
    kept = next((r["summary"] for r in whole["evidence"] if r["kind"] == "kept"), None)
    branch = commit = None
    if told["outcome"] == "pull_request":
        branch = f"watchbill/try-{told['firing']}"
        commit = git.rev_parse(built.remote, f"refs/heads/{told['branch']}")
        _bring_home(git_dir, built.remote, f"refs/heads/{told['branch']}", f"refs/heads/{branch}")
    return {
        **told,
        "repo": os.path.abspath(args.repo),
        "branch": branch,
        "commit": commit,
        "kept": {"ref": kept["ref"], "commit": kept["commit"], "mirror": kept["mirror"]} if kept else None,
        "checks": [
            {**{k: r["summary"][k] for k in ("command", "exit", "tail")}, "on": on}
            for on, kind in (("base", "base_check"), ("work", "check"))
            for r in whole["evidence"]
            if r["kind"] == kind
        ],
        "change": next((r["summary"] for r in whole["evidence"] if r["kind"] == "diff"), None),
        "isolation": next((r["summary"]["isolation"] for r in whole["evidence"] if r["kind"] == "transcript"), None),
        "evidence": [{key: r[key] for key in ("kind", "digest", "size", "path")} for r in whole["evidence"]],
        "home": built.home.root,
    }


def _bring_home(git_dir: str, remote: str, ref: str, to: str) -> None:
    try:
        git.bring(git_dir, remote, ref, to)
    except git.GitError as error:
        raise Fixable(
            "WB-TRY-07",
            f"the work is done, and its branch could not be brought into {git_dir}",
            why=str(error).splitlines()[-1].strip(),
            outcome="unavailable",
            fix=f"git --git-dir {shlex.quote(git_dir)} fetch {shlex.quote(remote)} {ref}:{to}",
        ) from error


def _reason(answer: dict[str, Any]) -> str:
    """Without what follows for a fleet: a limit or a refused key holds nobody here; the next `try` begins at once."""
    said = str(answer["reason"])
    return said.partition(";")[0] if answer["outcome"] in ("held", "unauthorized") else said


def _lines(args: argparse.Namespace, answer: dict[str, Any]) -> list[str]:
    near = os.path.relpath(answer["repo"])
    repo = shlex.quote(answer["repo"] if near.startswith("..") else near)
    landed = answer["branch"] is not None
    out = [
        f"try: branch {answer['branch']} in {answer['repo']}"
        if landed
        else f"try: {answer['outcome']}: {_reason(answer)}"
    ]
    for check in answer["checks"]:
        said = "passes" if check["exit"] == 0 else f"fails (exit {check['exit']})"
        out.append(f"  on the {check['on']}: {said}: {check['command']}")
        if check["exit"] != 0 and check["on"] == "work":
            out += [f"    | {line}" for line in check["tail"].splitlines()[-8:]]
    if not answer["checks"]:
        out.append("  unverified: no --check was given")
    change = answer["change"]
    if change:
        out.append(f"  change: {change['files']} file(s), +{change['added']} -{change['removed']}")
    if answer["cost_usd"] is not None:
        out.append(f"  cost: {money.usd(round(answer['cost_usd'] * money.MICRO))} ({answer['cost_basis']})")
    if answer["isolation"] == "none":
        why = ", as you asked" if args.isolation == "none" else ": neither bubblewrap nor Landlock is to be had here"
        out.append(f"  NOT isolated{why}")
    if answer["kept"]:
        kept = answer["kept"]
        out.append(f"  the work is kept; to have it: git -C {repo} fetch {shlex.quote(kept['mirror'])} {kept['ref']}")
    out.append(f"  evidence: {answer['home']}")
    if landed:
        out.append(f"next: git -C {repo} show {answer['branch']}")
    return out
