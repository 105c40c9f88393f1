"""What can be held and resumed, as it is named on the command line: an agent's name, or one of the options below."""

from __future__ import annotations

import argparse
import re
import shlex

from watchbill import engines
from watchbill.cli import shared
from watchbill.errors import Fixable
from watchbill.ledger.holds import Hold
from watchbill.roster_errors import nearest

#: Scope -> the subject that its bare option names.
_BARE = {"fleet": "", "github": ""}
_NAMED = ("repo", "issue", "role", "engine", "account", "model")
_ISSUE = re.compile(r"([\w.-]+/[\w.-]+)#([1-9][0-9]{0,17})")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("agent", nargs="?", help="its codename")
    parser.add_argument("--fleet", action="store_true", help="every agent")
    parser.add_argument("--host", action="store_true", help="every agent on this host")
    parser.add_argument("--repo", metavar="OWNER/NAME", help="this repository")
    parser.add_argument("--issue", metavar="OWNER/NAME#N", help="this issue")
    parser.add_argument("--role", metavar="NAME", help="every agent that plays this role")
    parser.add_argument("--engine", metavar="NAME", help="every agent that can run on nothing else")
    parser.add_argument("--account", metavar="NAME", help="the same, for all engines that draw on this account")
    parser.add_argument("--model", metavar="NAME", help="the same, for runs of this model")
    parser.add_argument("--github", action="store_true", help="every agent that would ask GitHub, which is every agent")


def named(args: argparse.Namespace, fleet: shared.Opened) -> tuple[str, str]:
    """The one scope and subject that was named; Fixable for none, and for two."""
    found = [(scope, subject) for scope, subject in _BARE.items() if getattr(args, scope)]
    found += [("host", fleet.host)] if args.host else []
    found += [(scope, getattr(args, scope)) for scope in ("agent", *_NAMED) if getattr(args, scope) is not None]
    if len(found) != 1:
        fix = f"`watchbill {args.verb} AGENT`, or one of the options of `watchbill {args.verb} --help`"
        raise Fixable("WB-PAUSE-01", f"{args.verb} what?", why="name one, and only one" if found else "", fix=fix)
    return found[0]


def checked(scope: str, subject: str, fleet: shared.Opened) -> None:
    """Fixable for what nobody knows: a hold on it would hold nothing."""
    if scope == "issue":
        match = _ISSUE.fullmatch(subject)
        if match is None:
            raise Fixable("WB-PAUSE-02", f"{subject!r} is no issue", fix="--issue OWNER/NAME#N")
        scope, subject = "repo", match[1]
    choices = known(scope, fleet)
    if choices is not None and subject not in choices:
        raise Fixable(
            "WB-PAUSE-02",
            f"no {_NOUN.get(scope, scope)} is called {subject!r}",
            why="" if fleet.roster else "there is no roster that can be read",
            fix=f"one of: {', '.join(choices) or 'none'}{guess(subject, choices)}",
        )


_NOUN = {"repo": "repository of this fleet"}


def guess(word: str, choices: list[str]) -> str:
    """` (did you mean 'x'?)`, where one is near."""
    text = nearest(word, choices)
    return text if "did you mean" in text else ""


def known(scope: str, fleet: shared.Opened) -> list[str] | None:
    """What a scope's subjects are in this fleet; None where anything may be one."""
    roster = fleet.roster
    agents = list(roster.agents.values()) if roster else []
    uses = [use for agent in agents for use in agent.uses]
    if scope == "agent":
        return sorted(agent.name for agent in agents)
    if scope == "repo":
        return sorted(roster.fleet.repos) if roster else []
    if scope == "role":
        return sorted({agent.role for agent in agents})
    if scope == "engine":
        return sorted({use.engine for use in uses} | set(engines.ENGINES))
    if scope == "account":
        return sorted({use.account for use in uses})
    return None


def said(scope: str, subject: str) -> str:
    """A subject in a sentence: `bosun`, `the fleet`, `engine claude`."""
    bare = {"fleet": "the fleet", "host": "this host", "github": "GitHub"}
    return bare.get(scope) or (subject if scope in ("agent", "repo", "issue") else f"{scope} {subject}")


def lifting(hold: Hold, host: str) -> str:
    """The command that lifts this hold, and what else was set on the same."""
    if hold.scope == "host" and hold.subject != host:
        return f"watchbill resume --hold {hold.id}"
    if hold.scope in ("fleet", "host", "github"):
        return f"watchbill resume --{hold.scope}"
    option = "" if hold.scope == "agent" else f"--{hold.scope} "
    return f"watchbill resume {option}{shlex.quote(hold.subject)}"
