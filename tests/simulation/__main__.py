"""`make simulate`: many schedules on all cores, a table, and exit status 1 when one of them broke a promise."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from typing import Any, NamedTuple

from simulation import fleet, schedule, shrink
from simulation.ablations import ABLATIONS
from simulation.schedule import Outcome
from simulation.watch import KINDS

_CHUNK = 50
#: Lines of a trace that tell the story; the rest is behind --all.
_TELLING = (
    "SERVER",
    "PERSON",
    "VIOLATION",
    "FREEZES",
    "KILLED",
    "LOSES POWER",
    "boots",
    "no answer",
    " firing ",
    "ended: ",
    "quiet from",
    "[late]",
)
_BORING = ("ended: idle", "ended with 0", "commented")


class Tally(NamedTuple):
    """What many schedules came to."""

    schedules: int
    counts: Counter[str]
    kinds: Counter[str]  # schedules with such a violation
    first: dict[str, int]  # kind -> the lowest seed
    cpu_s: float


def tally(job: tuple[str, str, int, int]) -> Tally:
    """Schedules of some seeds, in this process."""
    depth, ablate, begin, end = job
    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    first: dict[str, int] = {}
    began = time.process_time()
    with fleet.shipped(depth, ABLATIONS[ablate].patches if ablate else None):
        for seed in range(begin, end):
            outcome = schedule.run(schedule.draw(seed, depth))
            counts += outcome.counts
            for kind in sorted({violation.kind for violation in outcome.violations}):
                kinds[kind] += 1
                first.setdefault(kind, seed)
    return Tally(end - begin, counts, kinds, first, time.process_time() - began)


def together(tallies: Any, until: tuple[str, ...] = ()) -> Tally:
    """All of them, in order; or those up to the first with a violation of one of these kinds."""
    schedules, cpu_s = 0, 0.0
    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    first: dict[str, int] = {}
    for one in tallies:
        schedules += one.schedules
        cpu_s += one.cpu_s
        counts += one.counts
        kinds += one.kinds
        for kind, seed in one.first.items():
            first[kind] = min(seed, first.get(kind, seed))
        if sys.stderr.isatty():
            print(f"\r{schedules} schedules, {dict(kinds) or 'no violation'} ", end="", file=sys.stderr, flush=True)
        if set(until) & set(kinds):
            break
    return Tally(schedules, counts, kinds, first, cpu_s)


def simulate(depth: str, ablate: str, begin: int, count: int, processes: int, until: tuple[str, ...] = ()) -> Tally:
    jobs = [(depth, ablate, at, min(at + _CHUNK, begin + count)) for at in range(begin, begin + count, _CHUNK)]
    if processes == 1:
        return together(map(tally, jobs), until)
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        return together(pool.imap(tally, jobs), until)


def table(total: Tally, depth: str, ablate: str, begin: int, took_s: float) -> str:
    counts = total.counts
    rows: list[tuple[str, Any]] = [
        ("depth", depth + (f", without: {ABLATIONS[ablate].what}" if ablate else "")),
        ("schedules", f"{total.schedules} (seeds {begin} to {begin + total.schedules - 1})"),
        ("firings", f"{counts['firings']}, {counts['runs']} ran an engine, {counts['refused']} refused"),
        ("pull requests", counts["pulls"]),
        ("crashes, freezes", f"{counts['crashes']}, {counts['freezes']}"),
        ("double runs (waste)", counts["double runs"]),
        ("raced by a person", counts["raced"]),
        ("second comments", counts["second comments"]),
    ]
    for kind in KINDS:
        where = f", first at seed {total.first[kind]}" if kind in total.first else ""
        rows.append((kind, f"{total.kinds[kind]} schedules{where}" if total.kinds[kind] else 0))
    each = 1000 * total.cpu_s / max(1, total.schedules)
    rows.append(("took", f"{took_s:.0f} s; {each:.1f} ms of a core a schedule"))
    return "\n".join(f"{name:<22}{value}" for name, value in rows)


def told(outcome: Outcome, everything: bool) -> str:
    """A trace for people."""
    lines = outcome.trace or []
    idle = {line[12:].split(maxsplit=1)[0] for line in lines if "ended: idle" in line}
    for line in lines:
        idle -= {who for who in idle if f"by {who} " in line or (line[12:].startswith(who) and "no answer" in line)}
    lines = [line for line in lines if line[12:].split(maxsplit=1)[0] not in idle]
    if not everything:
        lines = [
            line
            for line in lines
            if any(word in line for word in _TELLING) and not any(word in line for word in _BORING)
        ]
    facts = outcome.plan._replace(acts=())
    acts = [f"  #{a.issue} {a.trigger} {a.nth} +{a.delay_s:.1f} s: {a.what}" for a in outcome.plan.acts]
    found = [f"{v.kind} at {v.at:.0f}: #{v.number} {v.text}" for v in outcome.violations]
    return "\n".join([str(facts), *acts, *lines, "", *(found or ["no violation"])])


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    parser.add_argument("--n", type=int, default=1000, help="how many schedules")
    parser.add_argument("--depth", choices=("claims", "whole"), default="claims")
    parser.add_argument("--seed", type=int, default=0, help="the first, or with --trace and --shrink the only seed")
    parser.add_argument("--ablate", choices=("", *ABLATIONS), default="", help="take one ingredient away")
    parser.add_argument("--first", action="store_true", help="stop at the first violation that the ablation leads to")
    parser.add_argument("--trace", action="store_true", help="show one schedule")
    parser.add_argument("--shrink", action="store_true", help="show the least of one schedule that still fails")
    parser.add_argument("--kind", default="", help="with --shrink: the kind of violation to keep")
    parser.add_argument(
        "--all", action="store_true", help="every line of firings that did something, not only what tells the story"
    )
    parser.add_argument("--json", action="store_true", help="the numbers as one JSON object")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    if given.trace or given.shrink:
        with fleet.shipped(given.depth, ABLATIONS[given.ablate].patches if given.ablate else None):
            plan = schedule.draw(given.seed, given.depth)
            outcome = schedule.run(plan, trace=True)
            if given.shrink and outcome.violations:
                kind = given.kind or outcome.violations[0].kind
                outcome = shrink.shrink(plan, kind, lambda text: print(text, file=sys.stderr))
        print(told(outcome, given.all))
        return 1 if outcome.violations else 0
    until = (ABLATIONS[given.ablate].finds if given.ablate else KINDS) if given.first else ()
    began = time.monotonic()
    total = simulate(given.depth, given.ablate, given.seed, given.n, given.processes, until)
    took_s = time.monotonic() - began
    if given.json:
        print(
            json.dumps(
                {"depth": given.depth, "ablate": given.ablate, "seed": given.seed, "took_s": took_s, **total._asdict()}
            )
        )
    else:
        print(table(total, given.depth, given.ablate, given.seed, took_s))
    if total.first:
        kind, seed = min(total.first.items(), key=lambda found: found[1])
        more = f" ABLATE={given.ablate}" if given.ablate else ""
        print(
            f"first violation: {kind}, seed {seed}; make simulate DEPTH={given.depth}{more} SEED={seed} ARGS=--shrink",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
