"""Firings killed at random instants under random faults of the forge, and many hosts at once; then the fleet runs on.

    python tests/crash/chance.py --n 200 --seed 1 --report PATH     as `make crash`: JSON to PATH, a table to stdout

A trial is named by its seed and number, and these decide everything but the machine's own timing: which story, which
faults, at which share of a firing's usual time it is killed. `--only 17` runs that trial alone.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import math
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from crash.right import issues, wrong
from crash.room import Room, Story, crossings, room
from crash.zygote import Forked
from support.fleet import LABEL, QUICK, rested
from support.forge import REPO
from watchbill.practice.faults import Rule

#: How often each story is told.
STORIES = {"lands": 7, "red": 2, "scan": 1}
_PATHS = {"lands": "done.txt", "red": "red.txt", "scan": ".github/workflows/x.yml"}
_AGENTS = 4
_A_FLEET = 20  # trials in one fleet, then a fresh one
#: Agents die one time after the other here; a breaker would hold them, and nobody would be left to kill.
NO_BREAKER = "[breaker]\nfailures = 0\n"
_WRITES = r"/labels|/comments|/pulls$|git-receive-pack"
_LISTS = r"/repos/acme/api/(issues|pulls)$|/comments$|/events$"


def a_fault(chance: random.Random) -> Rule:
    """One thing that goes wrong, at one of the first requests that it fits."""
    kind = chance.choice(["lost_after", "lost_after", "5xx_after", "lost_before", "rate_secondary", "stale"])
    nth = chance.randint(1, 8)
    if kind == "stale":
        return Rule("stale", "GET", _LISTS, nth=1, times=chance.randint(1, 6), writes=chance.randint(1, 6))
    if kind == "rate_secondary":
        return Rule("rate_secondary", chance.choice(["GET", "POST"]), r"/repos/", nth=nth, seconds=1)
    return Rule(kind, chance.choice(["", "POST", "POST"]), chance.choice([_WRITES, r"/repos/|\.git/"]), nth=nth)


def names() -> dict[str, tuple[Story, str]]:
    """The agents of a trial: as many of each story as may die in one."""
    return {f"{story}{n}": (Story(_PATHS[story]), "") for story in STORIES for n in range(_AGENTS)}


def trial(here: Room, seed: int, number: int, usual_s: float) -> dict[str, Any]:
    """One issue, up to three firings killed over it, then the running on; what happened and what is wrong."""
    chance = random.Random(f"{seed}/{number}")
    story = chance.choices(list(STORIES), list(STORIES.values()))[0]
    rules = [a_fault(chance) for _ in range(chance.choice([0, 1, 1, 2, 3]))]
    here.it.world.issue("octocat", f"Trial {number}", labels=[LABEL])
    here.it.world.practice.faults.add(*rules)
    deaths = []
    for n in range(chance.choice([1, 1, 1, 2, 3])):
        share = chance.random()
        firing = here.start(f"{story}{n}", how="kill")
        ended = let_die(here, firing, share * usual_s)
        seen = crossings(firing.log)
        where = seen[-1][1] if seen else "before the gates"
        deaths.append({"share": round(share, 3), "killed": ended == -signal.SIGKILL, "where": where})
    here.it.world.practice.faults.clear()
    found = settled(here, 2 * len(deaths))
    faults = [rule._asdict() for rule in rules]
    return {"seed": seed, "number": number, "story": story, "faults": faults, "deaths": deaths, "wrong": found}


def let_die(here: Room, firing: Forked, after_s: float) -> str | int:
    """Kill it so many seconds from now, if it still runs."""
    until = time.monotonic() + after_s
    while time.monotonic() < until:
        if here.zygote.state(firing) != "running":
            break
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):
        if here.zygote.state(firing) == "running":
            os.kill(firing.pid, signal.SIGKILL)
    return here.zygote.wait(firing)


def settled(here: Room, firings: int) -> list[str]:
    """At most so many further firings, and one sweep; what is wrong then."""
    time.sleep(1.05)  # a secondary limit has passed; a grace has
    try:
        here.run_on(firings)
    except AssertionError as error:
        return [str(error)]
    here.sweep()
    return wrong([here.it], here.ran)


def trials(tmp_path: Path, seed: int, numbers: list[int]) -> list[dict[str, Any]]:
    """These trials in one fleet, stopping at the first that ends wrong: those after it would find its leavings."""
    found = []
    with room(tmp_path, remote="http", toml=QUICK + NO_BREAKER) as here:
        here.enlist(names())
        usual_s = warm_up(here)
        for number in numbers:
            found.append(trial(here, seed, number, usual_s))
            if found[-1]["wrong"]:
                break
    return found


def warm_up(here: Room, firings: int = 3) -> float:
    """How long a firing takes here and now, in seconds."""
    took = []
    for _ in range(firings):
        here.it.world.issue("octocat", "Warm up", labels=[LABEL])
        began = time.monotonic()
        assert here.zygote.fire(here.it.home, "relief")["outcome"] == "pull_request"
        took.append(time.monotonic() - began)
    return 1.1 * min(took)


# -- many hosts --------------------------------------------------------------------------------------------------------

CONTEST = '[claims]\nttl = "4s"\nrenew = "1s"\ngrace = "1s"\n' + NO_BREAKER
_KILLED = 0.25  # of all firings
_DEADLINE_S = 600


def contest(tmp_path: Path, seed: int, hosts: int, count: int) -> dict[str, Any]:
    """So many issues, so many hosts with a home and ledger each, firing at once, one in four killed; one host is gone
    for the second half. What is wrong at the end, when each issue must have its one pull request."""
    chance = random.Random(f"{seed}/hosts")
    with room(tmp_path, remote="http", toml=CONTEST) as first:
        first.enlist(names())
        usual_s = warm_up(first, 2)
        places = [first, *(first.other_host(f"host{n}") for n in range(1, hosts))]
        warm = _answered(first)
        for number in range(count):
            first.it.world.issue("octocat", f"Issue {number}", labels=[LABEL])
        began = time.monotonic()
        ends = _race(places, chance, warm + count, usual_s)
        for here in places:
            rested(here.it)
        _at_rest(places)
        found = wrong([here.it for here in places], first.ran)
        found += [f"#{i.number} rests as {i.phase}" for i in issues(first.it.world) if i.phase != "pr"]
        took = round(time.monotonic() - began, 1)
    return {"seed": seed, "hosts": hosts, "issues": count, "ends": dict(ends), "took_s": took, "wrong": found}


def _race(places: list[Room], chance: random.Random, count: int, usual_s: float) -> collections.Counter[str]:
    """Every host fires again and again until so many issues are answered; how the firings ended.

    Who is to be killed dies at some share of a firing's usual time; one that ended before that has another die for it.
    """
    ends: collections.Counter[str] = collections.Counter()
    running: dict[int, tuple[Forked, float]] = {}
    escaped = 0
    until = time.monotonic() + _DEADLINE_S
    while (answered := _answered(places[0])) < count:
        assert time.monotonic() < until, f"{answered} of {count} answered: {dict(ends)}"
        there = places[:-1] if answered > count // 2 else places
        for n, here in enumerate(places):
            if n not in running and here in there:
                rested(here.it)
                dies = chance.random() < _KILLED or escaped > 0
                dies_after = chance.random() * usual_s if dies else math.inf
                running[n] = here.start("relief"), time.monotonic() + dies_after
                escaped -= 1 if dies and escaped else 0
        for n, (firing, dies_at) in list(running.items()):
            state = places[n].zygote.state(firing)
            if state == "running" and time.monotonic() > dies_at:
                os.kill(firing.pid, signal.SIGKILL)
            elif state != "running":
                killed = state == -signal.SIGKILL
                ends["killed" if killed else _outcome(firing)] += 1
                escaped += not killed and dies_at < math.inf
                del running[n]
        time.sleep(0.05)
    for n, (firing, _) in running.items():
        places[n].zygote.wait(firing)
    return ends


def _answered(here: Room) -> int:
    """How many issues have their pull request; what went to a person after three deaths is given back by one."""
    (repo,) = here.it.world.practice.snapshot().repos.values()
    shown = repo.issues.values()
    for issue in shown:
        if "needs:human" in issue.labels:
            path = f"/repos/{REPO}/issues/{issue.number}/labels"
            here.it.world.ask("octocat", "POST", path, {"labels": [LABEL]})
    return sum("agent:pr-open" in issue.labels for issue in shown)


def _outcome(firing: Forked) -> str:
    lines = [line for line in firing.out.read_text().splitlines() if line.startswith("{")]
    return str(json.loads(lines[0])["outcome"]) if lines else firing.out.read_text()


def _at_rest(places: list[Room]) -> None:
    for here in places:
        here.run_on(40)
    for here in places:
        here.sweep()


# -- the report --------------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=200, help="trials")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", type=int, help="this trial alone")
    parser.add_argument("--hosts", type=int, default=6)
    parser.add_argument("--issues", type=int, default=50, help="for the hosts; 0: none")
    parser.add_argument("--report", type=Path, help="where to write what happened, as JSON")
    asked = parser.parse_args()
    print(f"seed {asked.seed}: repeat with --seed {asked.seed}", flush=True)
    found: list[dict[str, Any]] = []
    todo = [asked.only] if asked.only is not None else list(range(asked.n))
    while todo:
        with tempfile.TemporaryDirectory() as place:
            os.environ["HOME"] = place
            done = trials(Path(place), asked.seed, todo[:_A_FLEET])
        for one in done:
            print(f"  {line_of(one)}", flush=True)
        found, todo = found + done, todo[len(done) :]
    report: dict[str, Any] = {"seed": asked.seed, "trials": found}
    if asked.issues:
        with tempfile.TemporaryDirectory() as place:
            os.environ["HOME"] = place
            report["hosts"] = contest(Path(place), asked.seed, asked.hosts, asked.issues)
    if asked.report:
        asked.report.write_text(json.dumps(report, indent=1) + "\n")
    print(table(report))
    bad = [one for one in [*found, report.get("hosts", {"wrong": []})] if one["wrong"]]
    return 1 if bad else 0


def line_of(one: dict[str, Any]) -> str:
    faults = ", ".join(f"{rule['kind']} {rule['nth']}" for rule in one["faults"]) or "no fault"
    deaths = "; ".join(death["where"] if death["killed"] else "(lived)" for death in one["deaths"])
    said = f"{one['number']:4} {one['story']:6} {faults:45} {deaths}"
    return said + "".join(f"\n       WRONG {problem}" for problem in one["wrong"])


def table(report: dict[str, Any]) -> str:
    trials = report["trials"]
    deaths = [death for one in trials for death in one["deaths"]]
    steps = collections.Counter(d["where"].split(":")[0].split(" (")[0] for d in deaths if d["killed"])
    kinds = collections.Counter(rule["kind"] for one in trials for rule in one["faults"])
    rows = [
        ("trials", len(trials)),
        ("firings killed", sum(death["killed"] for death in deaths)),
        ("that ended before their time", sum(not death["killed"] for death in deaths)),
        ("faults", ", ".join(f"{kind} {n}" for kind, n in kinds.most_common())),
        ("killed in", ", ".join(f"{step} {n}" for step, n in steps.most_common())),
        ("trials that ended wrong", sum(bool(one["wrong"]) for one in trials)),
    ]
    if hosts := report.get("hosts"):
        rows += [
            ("hosts, issues", f"{hosts['hosts']}, {hosts['issues']} in {hosts['took_s']} s"),
            ("their firings", ", ".join(f"{end} {n}" for end, n in sorted(hosts["ends"].items()))),
            ("issues without exactly their one pull request", len(hosts["wrong"])),
        ]
    return "\n".join(f"{name:46} {value}" for name, value in rows)


if __name__ == "__main__":
    sys.exit(main())
