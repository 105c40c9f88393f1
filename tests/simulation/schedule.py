"""One schedule: a plan drawn from a seed, run to its end, and what came of it."""

from __future__ import annotations

import random
import time
import zlib
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from simulation import fleet, outside
from simulation.fleet import IMPLEMENTERS, LEDGERS, STEWARD
from simulation.people import Act, People, plan
from simulation.server import BOT, PERSON, Server
from simulation.watch import OVERSHOOT_MICRO, Violation, Watch
from simulation.world import Host, Proc, Rates, World
from watchbill.compiled import Cap, Claims

_ROUNDS = 9
_DAY_S = 86_400.0


class Plan(NamedTuple):
    """Everything about a schedule that is known before it runs."""

    seed: int
    depth: str
    hosts: int
    issues: int
    acts: tuple[Act, ...]
    rates: Rates
    skews_s: tuple[float, ...]  # two minutes, or, of a host nobody looks after, hours
    aligned: bool  # timers of all hosts fire in the same second
    period_s: float
    horizon_s: float
    crew: tuple[int, ...]  # how many implementers a host has
    stewards: tuple[bool, ...]  # does this host sweep while the schedule runs
    ttl_s: int
    grace_s: int
    renew_s: int
    outages: tuple[tuple[float, float, str], ...]  # begin, end, of what
    as_person: bool  # the fleet acts in a person's name
    fleet_day_micro: int
    failing: float  # of all engine runs
    works: tuple[float, float] | None = None  # seconds that an engine takes, from and to; None: drawn widely


class Outcome(NamedTuple):
    """What came of it."""

    plan: Plan
    violations: list[Violation]
    counts: Counter[str]
    faults: dict[Any, str]
    trace: list[str] | None
    took_s: float


def draw(seed: int, depth: str = "claims") -> Plan:
    """The plan of a seed."""
    rng = random.Random(hash((seed, 71)))
    hosts = rng.choice((2, 2, 3, 3, 4))
    issues = rng.choice((1, 1, 1, 2))
    ttl = rng.choice((400, 600))
    horizon = ttl * rng.uniform(3.0, 5.0)
    calm = rng.random() < 0.1
    p = {
        name: 0.0 if calm else rng.choice(values)
        for name, values in {
            "crash": (0.0, 0.003, 0.015),
            "lost": (0.0, 0.005, 0.03),
            "unanswered": (0.0, 0.005, 0.03),
            "late": (0.0, 0.004, 0.015),
            "freeze": (0.0, 0.002, 0.008),
            "stale": (0.0, 0.1, 0.3),
        }.items()
    }
    rough = 0.0 if calm else rng.choice((0.0, 0.2, 0.5))
    outages: list[tuple[float, float, str]] = []
    if not calm and rng.random() < 0.15:
        begin = horizon * rng.random()
        end = begin + rng.choice((30.0, 300.0, 1200.0))
        outages += [(begin, end, part) for part in rng.choice((("api",), ("git",), ("api", "git")))]
    return Plan(
        seed=seed,
        depth=depth,
        hosts=hosts,
        issues=issues,
        acts=tuple(plan(rng, issues, horizon, rng.choice((0.0, 0.5, 1.0)), rough)),
        rates=Rates(**p),
        skews_s=tuple(rng.uniform(-120.0, 120.0) * (60.0 if rng.random() < 0.05 else 1.0) for _ in range(hosts)),
        aligned=rng.random() < 0.5,
        period_s=ttl * rng.uniform(0.4, 1.0),
        horizon_s=horizon,
        crew=tuple(rng.choice((1, 1, 2)) for _ in range(hosts)),
        stewards=tuple(rng.random() < 0.6 for _ in range(hosts)),
        ttl_s=ttl,
        grace_s=ttl // 6,
        renew_s=ttl // 4,
        outages=tuple(outages),
        as_person=rng.random() < 0.25,
        fleet_day_micro=3_000_000 if rng.random() < 0.1 else fleet.FLEET_DAY_MICRO,
        failing=rng.choice((0.1, 0.2, 0.6)),
    )


def run(p: Plan, *, replay: Mapping[Any, str] | None = None, trace: bool = False) -> Outcome:
    """Run a schedule inside `fleet.shipped(p.depth)`. `replay`: these faults, and no others."""
    began = time.perf_counter()
    with fleet.chance(p.seed), fleet.place(p.depth) as home_of:
        schedule = _Schedule(p, dict(replay) if replay is not None else None, trace, home_of)
        try:
            schedule.busy()
            schedule.quiet()
            return schedule.outcome(time.perf_counter() - began)
        finally:
            schedule.close()


class _Schedule:
    def __init__(self, p: Plan, replay: dict[Any, str] | None, trace: bool, home_of: Any) -> None:
        self.plan = p
        self.home_of = home_of
        world = self.world = World(p.seed, p.rates, p.ttl_s, replay, trace)
        server = self.server = outside.GIT.server = Server(world, PERSON if p.as_person else BOT)
        fleet._FORGES[:] = [outside.ForgePort(server)]
        self.watch = Watch(world, server, p.renew_s)
        compiled = fleet.roster(Claims(p.ttl_s, p.grace_s, p.renew_s), p.depth)
        caps = (Cap("fleet_day", "usd", p.fleet_day_micro),)
        self.roster = compiled._replace(fleet=compiled.fleet._replace(caps=caps))
        world.outages = list(p.outages)
        world.beat_s = p.renew_s / 3
        world.engine_plan = self._engine_plan
        world.check_is_red = self._check_is_red
        world.on_boot = self._timers
        world.on_ledger_loss = self._lose_ledger
        self.ordinals: Counter[tuple[int, str]] = Counter()
        for index in range(p.hosts):
            host = Host(world, index, p.skews_s[index])
            host.connection = LEDGERS.take()
            world.hosts.append(host)
        for number in range(1, p.issues + 1):
            server.open_issue(f"Issue {number} is broken")
        self.people = People(world, server, list(p.acts), random.Random(p.seed))
        for host in world.hosts:
            self._timers(host)

    # The busy time

    def busy(self) -> None:
        world, p = self.world, self.plan
        world.run(p.horizon_s)
        self.people.done = True
        latest = p.horizon_s + 4 * p.ttl_s  # whoever is frozen wakes among those who went on
        while world.now < latest and any(host.frozen_until > world.now for host in world.hosts):
            world.run(min(latest, world.now + p.ttl_s / 2))
        world.quiet = True
        world.outages = []
        world.drain(world.now + 50 * self.plan.ttl_s)

    def _agents(self, host: Host) -> list[str]:
        sweeps = [STEWARD] if self.plan.stewards[host.index] and SWEEPS else []
        return [*IMPLEMENTERS[: self.plan.crew[host.index]], *sweeps]

    def _timers(self, host: Host) -> None:
        boots = host.boots
        for at, agent in enumerate(self._agents(host)):
            own = zlib.crc32(f"{self.plan.seed}{host.name}{agent}".encode()) % 1000 / 1000
            first = self.plan.period_s * (own if not self.plan.aligned or boots > 1 else 0.1) + 7.0 * at
            if agent == STEWARD:
                first += self.plan.period_s * own
            self.world.at(self.world.now + first, partial(self._due, host, boots, agent))

    def _due(self, host: Host, boots: int, agent: str) -> None:
        if host.boots != boots or host.down or self.world.quiet:
            return
        self.world.at(
            self.world.now + self.plan.period_s * (1.5 if agent == STEWARD else 1.0),
            partial(self._due, host, boots, agent),
        )
        self._money(host)
        if host.frozen_until <= self.world.now:
            self._fire(host, agent)

    def _fire(self, host: Host, agent: str) -> None:
        if any(proc.agent == agent for proc in host.procs.values()):
            self.watch.counts["refused"] += 1
            return
        ordinal = self.ordinals[host.index, agent] = self.ordinals[host.index, agent] + 1
        if fleet.fire(self.world, host, agent, ordinal, self.roster, self.home_of(host)) is not None:
            self.watch.counts["firings"] += 1

    def _engine_plan(self, proc: Proc) -> tuple[str, float, int]:
        """(how it ends, how long it takes, what it costs): the firing's own, in every variation of the schedule."""
        rng = random.Random(hash((self.plan.seed, *proc.key, 5)))
        how, draw = "ok", rng.random()
        if not self.world.quiet and draw < self.plan.failing:
            how = "crash" if draw < 0.6 * self.plan.failing else "no_change"
        length = 10.0 * (self.plan.ttl_s * 0.25) ** rng.random() if rng.random() < 0.8 else self.plan.ttl_s * 1.6
        if self.plan.works:
            how, length = "ok", rng.uniform(*self.plan.works)
        spends = int(rng.choice((0.02, 0.3, 1.0)) * fleet.CAP_MICRO) + (OVERSHOOT_MICRO if rng.random() < 0.2 else 0)
        return how, length, spends

    def _check_is_red(self, proc: Proc, log: str) -> bool:
        draw = zlib.crc32(repr((self.plan.seed, *proc.key)).encode()) % 100
        return not self.world.quiet and draw < 8 and log.endswith("verify.log")

    def _lose_ledger(self, host: Host) -> None:
        LEDGERS.give_back(host.connection)
        host.connection = LEDGERS.take()
        host.unknown_trees |= set(host.worktrees)

    # The quiet time

    def quiet(self) -> None:
        """Nothing goes wrong any more, people have gone home, and every host that is left fires and sweeps."""
        world, p = self.world, self.plan
        world.say("", "--- quiet from here on ---")
        if p.fleet_day_micro < fleet.FLEET_DAY_MICRO:
            world.run(world.now + _DAY_S)
        for host in world.hosts:
            host.frozen_until = min(host.frozen_until, world.now)
            world.boot(host, loses_ledger=False)
        living = [host for host in world.hosts if not host.gone]
        crew = [STEWARD, *IMPLEMENTERS[:1]] if SWEEPS else list(IMPLEMENTERS[:1])
        gaps = (p.grace_s + 10.0, p.ttl_s + p.grace_s + 10.0)
        for turn in range(_ROUNDS):
            for host in living:
                for agent in crew:
                    self._fire(host, agent)
                    world.drain(world.now + 50 * p.ttl_s)
            left = self.watch.unsettled(SWEEPS)
            if not left:
                break
            world.run(world.now + gaps[turn % 2])
        self.watch.violations += left
        for violation in left:
            world.say("VIOLATION", f"{violation.kind} #{violation.number}: {violation.text}")
        for host in living:
            self._money(host)

    def _money(self, host: Host) -> None:
        self.watch.money(host, self.plan.fleet_day_micro, len(IMPLEMENTERS))

    def outcome(self, took_s: float) -> Outcome:
        world, watch = self.world, self.watch
        for proc, error in world.bugs:
            watch.violations.append(Violation("bug", world.now, 0, f"{proc.name}: {error!r}"))
        for issue in self.server.issues.values():
            watch.counts["second comments"] += max(0, len(issue.comments) - 1)
        watch.counts["crashes"] = world.crashes
        watch.counts["freezes"] = world.freezes
        return Outcome(self.plan, watch.violations, watch.counts, world.faults, world.trace, took_s)

    def close(self) -> None:
        self.world.stop()
        for host in self.world.hosts:
            LEDGERS.give_back(host.connection)


def _sweeps() -> bool:
    from watchbill import firing

    return "sweep" in getattr(firing, "STORIES", {})


#: Whether the fleet has somebody who sweeps.
SWEEPS = _sweeps()
