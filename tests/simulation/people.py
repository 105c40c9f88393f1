"""Whoever else acts on the repository: labels, closes, merges, pushes, says do-not-pickup; often at bad moments.

What a person will do is part of the plan, drawn beforehand: at a time, or some seconds after something happened for
the nth time. So a person can be taken out of a schedule that fails, and the rest stays as it was.
"""

from __future__ import annotations

import random
from functools import partial
from typing import NamedTuple

from simulation.server import PERSON, Entry, Server
from simulation.world import Host, Proc, World

TAKE = "agent:implement"
NOT_THIS = "do-not-pickup"


#: What befalls the host that claimed last, or the server; no person does it.
_BREAKS = ("freeze", "long freeze", "power cut", "api away", "git away")


class Act(NamedTuple):
    """One thing a person does."""

    issue: int
    trigger: str  # "start", or the kind of a log entry: claimed | publishing | published | pull opened | ...
    nth: int  # of the trigger, from 1
    delay_s: float
    what: str


def plan(rng: random.Random, issues: int, horizon_s: float, busy: float, rough: float) -> list[Act]:
    """What people do in one schedule; `busy`: how much, 0 to 1.

    `rough`: how often the machine that has just claimed freezes or loses power, which no person asked for.
    """
    acts: list[Act] = []

    def soon(shortest: float, longest: float) -> float:
        return float(shortest * (longest / shortest) ** rng.random())

    for issue in range(1, issues + 1):
        acts.append(Act(issue, "start", 1, rng.choice((0.0, 300.0 * rng.random())), "label"))
        for nth in (1, 2, 3):
            draw = rng.random()
            for at, what in ((0.3, "merge"), (0.6, "close pull"), (0.68, "push"), (0.72, "relabel"), (0.76, "close")):
                if draw < at * (0.4 + 0.6 * busy):
                    acts.append(Act(issue, "pull opened", nth, soon(0.2, 3000.0), what))
                    break
            if rng.random() < 0.6:
                acts.append(Act(issue, "pull closed", nth, soon(0.5, 1500.0), "label"))
            if rng.random() < 0.15 * busy:
                acts.append(Act(issue, "pull closed", nth, soon(0.5, 1500.0), "reopen pull"))
            if rng.random() < 0.5:
                acts.append(Act(issue, "closed", nth, soon(5.0, 1500.0), "reopen"))
            if rng.random() < 0.5:
                acts.append(Act(issue, "reopened", nth, soon(0.5, 600.0), "relabel"))
            if rng.random() < 0.2 * busy:
                what = rng.choice(("close", "not this", "relabel", "push", "unlabel"))
                acts.append(Act(issue, "claimed", nth, soon(0.2, 1500.0), what))
            if rng.random() < 0.15 * busy:
                what = rng.choice(("close", "not this", "relabel", "push", "merge", "close pull"))
                acts.append(Act(issue, "published", nth, soon(0.05, 30.0), what))
            if rng.random() < rough:
                acts.append(Act(issue, "claimed", nth, soon(0.1, 300.0), rng.choice(("freeze", "freeze", "power cut"))))
            if rng.random() < rough / 2:
                acts.append(Act(issue, "publishing", nth, 0.0, "freeze"))
            if rng.random() < rough / 2:
                acts.append(Act(issue, "claimed", nth, 0.0, rng.choice(("api away", "api away", "git away"))))
            if rng.random() < rough / 2:
                what = rng.choice(("freeze", "power cut", "api away", "git away"))
                acts.append(
                    Act(issue, rng.choice(("published", "pull opened", "finished")), nth, soon(0.01, 5.0), what)
                )
        while rng.random() < 0.4 * busy:
            what = rng.choice(
                (
                    "unlabel",
                    "label",
                    "relabel",
                    "close",
                    "reopen",
                    "not this",
                    "this again",
                    "push",
                    "close pull",
                    "reopen pull",
                    "merge",
                )
            )
            acts.append(Act(issue, "start", 1, horizon_s * rng.random(), what))
        if any(act.what == "not this" for act in acts) and rng.random() < 0.6:
            acts.append(Act(issue, "start", 1, horizon_s * (0.5 + 0.5 * rng.random()), "this again"))
    return acts


class People:
    """Carries the acts out."""

    def __init__(self, world: World, server: Server, acts: list[Act], rng: random.Random) -> None:
        self._world = world
        self._server = server
        self._rng = rng
        self._counts: dict[tuple[int, str], int] = {}
        self._owners: dict[int, Host] = {}  # issue -> who claimed it last
        self._waiting: dict[tuple[int, str, int], list[Act]] = {}
        self.done = False  # people have gone home
        for act in acts:
            if act.trigger == "start":
                world.at(act.delay_s, partial(self._do, act))
            else:
                self._waiting.setdefault((act.issue, act.trigger, act.nth), []).append(act)
        server.listeners.append(self._seen)
        world.on_publishing = self._publishing

    def _seen(self, entry: Entry) -> None:
        kind = entry.kind
        if kind == "claim" and entry.facts["record"] is not None:
            record = entry.facts["record"]
            if record.sequence == 0 and record.state == "active":
                kind = "claimed"
                self._owners[entry.number] = entry.by.host
            elif record.state in ("published", "pr"):
                kind = {"published": "published", "pr": "finished"}[record.state]
        if kind in ("claimed", "published", "finished", "pull opened", "pull closed", "closed", "reopened"):
            for act in self._triggered(entry.number, kind):
                self._world.at(self._world.now + act.delay_s, partial(self._do, act))

    def _triggered(self, number: int, kind: str) -> list[Act]:
        nth = self._counts[number, kind] = self._counts.get((number, kind), 0) + 1
        return self._waiting.get((number, kind, nth), [])

    def _publishing(self, proc: Proc, number: int) -> None:
        """Between a push's reading of the refs and its sending."""
        for act in self._triggered(number, "publishing"):
            self._break(proc.host, act.what, int(proc.rng.random() * 1000))

    def _do(self, act: Act) -> None:
        server, number = self._server, act.issue
        if self.done or number not in server.issues:
            return
        issue = server.issues[number]
        opened = [p for p in server.pulls_of(number) if p.state == "open"]
        closed = [p for p in server.pulls_of(number) if p.state == "closed" and not p.merged]
        draw = int(act.delay_s * 1e6) % 1009  # its own, so that no act changes another's
        if act.what in _BREAKS:
            self._break(self._owners[number], act.what, draw)
            return
        self._world.say("PERSON", f"{act.what} #{number}")
        if act.what == "label":
            server.label(number, (TAKE,), PERSON, None)
        elif act.what == "relabel":
            server.unlabel(number, TAKE, PERSON, None)
            server.label(number, (TAKE,), PERSON, None)
        elif act.what == "unlabel":
            for name in list(issue.labels):
                server.unlabel(number, name, PERSON, None)
        elif act.what == "not this":
            server.label(number, (NOT_THIS,), PERSON, None)
        elif act.what == "this again":
            server.unlabel(number, NOT_THIS, PERSON, None)
        elif act.what in ("close", "reopen"):
            server.set_state(number, "closed" if act.what == "close" else "open", None)
        elif act.what == "close pull" and opened:
            server.close_pull(opened[-1].number, None)
        elif act.what == "reopen pull" and closed:
            server.reopen_pull(closed[-1].number, None)
        elif act.what == "merge" and opened:
            server.merge_pull(opened[-1].number, squash=draw % 2 == 0, delete_branch=draw % 3 == 0)
        elif act.what == "push":
            branches = [ref for ref in server.refs if ref.startswith(f"refs/heads/watchbill/issue-{number}")]
            server.push_by_person((branches or [f"refs/heads/watchbill/issue-{number}"])[0].removeprefix("refs/heads/"))

    def _break(self, host: Host, what: str, draw: int) -> None:
        chance = random.Random(draw)
        now = self._world.now
        if self._world.quiet:
            return
        if what in ("api away", "git away"):
            length_s = 5.0 * 60.0 ** (0.2 + 0.8 * chance.random())
            self._world.outages.append((now, now + length_s, what.partition(" ")[0]))
            self._world.say("SERVER", f"{what} for {length_s:.0f} s")
        elif host.down:
            pass
        elif what in ("freeze", "long freeze"):
            long = chance.random() < 0.7 or what == "long freeze"
            host.freeze(self._world.ttl_s * (1.3 + 2.0 * chance.random()) if long else 60.0, "its lid is closed")
        else:
            self._world.power_off(host, chance, "while it owns an issue")
