"""The compiled roster: what a firing reads instead of parsing TOML, YAML and Markdown.

`roster.py` (pydantic, yaml) writes `roster.json`; this module reads it with the standard library only, because it
lies on the way to a refusal. The shapes below are the whole contract between the two.
"""

import json
import os
from typing import Any, NamedTuple, TypeGuard

VERSION = 5


class Cap(NamedTuple):
    """A limit on spend."""

    scope: str  # firing | issue | day (the agent's) | fleet_day | fleet_month
    unit: str  # usd (counted in micro-dollars) | tokens | turns | firings
    limit: int  # in the unit above


class Use(NamedTuple):
    """An engine that an agent may run on, and whose quota that draws on."""

    engine: str  # a key of engines.ENGINES, or the dotted path of somebody's module
    account: str  # as `account` names it; else the secret reference in `key`; else the engine (and program)
    model: str | None
    most_used_ppm: int | None  # no firing while a window of the account's subscription is as full as this
    request_micro: int | None  # the most that one request can cost, micro-dollars; None: as the engine's module says


class Agent(NamedTuple):
    """One line of the roster."""

    name: str
    description: str
    role: str
    schedule: str  # as written; "manual" when absent
    slots: tuple[tuple[int, ...], ...]  # the same shifted, as slots.py reads it; empty: by hand, an interval
    engine: dict[str, Any]  # {"use": "command", "argv": [...], "fallback": ...}: keys beyond `use` belong to the engine
    uses: tuple[Use, ...]  # that engine, then its fallback; empty for a role that runs none
    model: str | None
    tools: tuple[str, ...]  # what its file lets the engine use, in claude's names; empty: as the engine's module thinks
    timeout_s: int  # wall time of one engine run
    caps: tuple[Cap, ...]  # this agent's own: scopes firing and day
    isolation: str  # required | auto | none
    takes: str  # the label it may claim
    repos: tuple[str, ...]  # full names, a subset of the fleet's
    prompt: str  # the body of the agent file, a jinja2 template with `{{ brief }}`
    extra: dict[str, Any]  # foreign keys of the front matter, passed through


class Labels(NamedTuple):
    """The lifecycle's label names; every one configurable (DESIGN section 5)."""

    implement: str = "agent:implement"
    in_flight: str = "agent:in-flight"
    pr_open: str = "agent:pr-open"
    done: str = "agent:done"
    needs_human: str = "needs:human"
    do_not_pickup: str = "do-not-pickup"
    plan_pending: str = "agent:plan-pending-approval"
    authored: str = "agent:authored"
    fixes_base: str = "agent:fixes-base"


class Repo(NamedTuple):
    """What the fleet knows about one repository."""

    full_name: str
    remote: str  # URL or path for git
    checks: tuple[str, ...]  # shell commands, run in order; empty: pull requests are drafts, marked unverified
    check_timeout_s: int
    protected: tuple[str, ...]  # fnmatch patterns an agent may not touch, beyond the built-in ones
    claims: str = "refs/watchbill"  # where claim refs are: there, or below refs/heads; the same on every host
    pushes_per_minute: int = 6  # of this host, all processes together; what GitHub recommends for a repository


class Claims(NamedTuple):
    """Timing of claims, in seconds (DESIGN section 6)."""

    ttl_s: int = 2700
    grace_s: int = 120
    renew_s: int = 600


class Host(NamedTuple):
    """When this host is not fit to work; 0: not asked."""

    min_free_bytes: int = 500_000_000  # of the file system that the home lies on
    min_inodes: int = 0  # of the same
    max_load_ppm: int = 0  # the load average of a minute for each processor, in millionths
    min_battery_pct: int = 0  # while it runs on its battery


class Breaker(NamedTuple):
    """When an agent that fails again and again is stopped."""

    failures: int = 5  # in a row; 0: never
    wait_s: int = 3600  # doubled from time to time


class Price(NamedTuple):
    """What a million tokens cost, in micro-dollars. Source: the operator's [prices] table."""

    input: int
    output: int
    cache_read: int
    cache_write: int


class Timers(NamedTuple):
    """How the operating system starts firings on this host: [schedule] of fleet.toml."""

    use: str = "auto"  # auto | systemd | launchd | loop
    path: str = ""  # PATH of what timers start; empty: `schedulers.units.default_path()`
    margin_s: int = 900  # what a firing may take beyond engine and checks: git, GitHub, queues of locks
    env: dict[str, str] = {}  # further variables of what timers start; never a secret, the system shows them


class Fleet(NamedTuple):
    """Everything in fleet.toml that a firing needs."""

    repos: dict[str, Repo]
    trust: tuple[str, ...]  # "association:MEMBER", "user:octocat"
    caps: tuple[Cap, ...]  # scopes issue, fleet_day, fleet_month
    timezone: str  # IANA name; the day of a cap
    poll_s: int  # how long the shared poll stays fresh for a scheduled firing
    labels: Labels
    claims: Claims
    api_url: str
    auth: str  # "gh" | "token:<secret reference>"
    engines: dict[str, dict[str, Any]]  # [engines.NAME] tables as written
    hosts: int  # how many hosts the fleet has; what is capped for all of them is divided among them already
    unmeasured: str  # deny | charge-reservation | allow-and-alert: a run whose cost nobody could measure
    prices: dict[str, Price]  # by model; "*": of models that nobody knows
    host: Host
    breaker: Breaker
    ledger_keep_s: int  # how long `ledger prune` keeps history
    isolation_rw: tuple[str, ...]  # further paths an engine and checks may write, e.g. a package cache
    timers: Timers


class Compiled(NamedTuple):
    """roster.json as a value."""

    digest: str  # sha256 of the sources; every firing records it
    sources: tuple[tuple[str, int, int], ...]  # (path relative to the home, size in bytes, mtime in ns)
    fleet: Fleet
    agents: dict[str, Agent]


def to_json(compiled: Compiled) -> str:
    """The text of roster.json."""
    fleet = compiled.fleet._asdict()
    fleet["repos"] = {name: repo._asdict() for name, repo in compiled.fleet.repos.items()}
    fleet["caps"] = [cap._asdict() for cap in compiled.fleet.caps]
    fleet["labels"] = compiled.fleet.labels._asdict()
    fleet["claims"] = compiled.fleet.claims._asdict()
    fleet["host"] = compiled.fleet.host._asdict()
    fleet["breaker"] = compiled.fleet.breaker._asdict()
    fleet["timers"] = compiled.fleet.timers._asdict()
    fleet["prices"] = {model: price._asdict() for model, price in compiled.fleet.prices.items()}
    agents = {
        name: {
            **agent._asdict(),
            "caps": [cap._asdict() for cap in agent.caps],
            "uses": [use._asdict() for use in agent.uses],
        }
        for name, agent in compiled.agents.items()
    }
    return json.dumps(
        {
            "version": VERSION,
            "digest": compiled.digest,
            "sources": compiled.sources,
            "fleet": fleet,
            "agents": agents,
        },
        indent=1,
        sort_keys=True,
    )


def from_json(text: str) -> Compiled:
    """The value of roster.json; KeyError, TypeError or ValueError when it is not ours (the caller compiles anew)."""
    raw = json.loads(text)
    if raw["version"] != VERSION:
        raise ValueError(f"roster.json has version {raw['version']}, this program writes {VERSION}")
    f = raw["fleet"]
    fleet = Fleet(
        repos={
            name: Repo(**{**r, "checks": tuple(r["checks"]), "protected": tuple(r["protected"])})
            for name, r in f["repos"].items()
        },
        trust=tuple(f["trust"]),
        caps=tuple(Cap(**c) for c in f["caps"]),
        timezone=f["timezone"],
        poll_s=f["poll_s"],
        labels=Labels(**f["labels"]),
        claims=Claims(**f["claims"]),
        api_url=f["api_url"],
        auth=f["auth"],
        engines=f["engines"],
        hosts=f["hosts"],
        unmeasured=f["unmeasured"],
        prices={model: Price(**price) for model, price in f["prices"].items()},
        host=Host(**f["host"]),
        breaker=Breaker(**f["breaker"]),
        ledger_keep_s=f["ledger_keep_s"],
        isolation_rw=tuple(f["isolation_rw"]),
        timers=Timers(**f["timers"]),
    )
    agents = {
        name: Agent(
            **{
                **a,
                "caps": tuple(Cap(**c) for c in a["caps"]),
                "uses": tuple(Use(**u) for u in a["uses"]),
                "repos": tuple(a["repos"]),
                "tools": tuple(a["tools"]),
                "slots": tuple(tuple(mask) for mask in a["slots"]),
            }
        )
        for name, a in raw["agents"].items()
    }
    return Compiled(raw["digest"], tuple((p, s, m) for p, s, m in raw["sources"]), fleet, agents)


def load(path: str) -> Compiled | None:
    """The compiled roster, or None when there is none that this program can read."""
    try:
        with open(path, encoding="utf-8") as file:
            return from_json(file.read())
    except (OSError, KeyError, TypeError, ValueError):
        return None


def is_current(known: Compiled | None, root: str) -> TypeGuard[Compiled]:
    """Whether there is one, and no source below `root` was edited since it was compiled."""
    return known is not None and known.sources == source_facts(root)


def source_facts(root: str) -> tuple[tuple[str, int, int], ...]:
    """(relative path, size, mtime_ns) of every source of the roster that exists, sorted; no file is read."""
    names = ["fleet.toml"]
    try:
        names += [f"agents/{n}" for n in os.listdir(os.path.join(root, "agents")) if n.endswith(".md")]
    except OSError:
        pass
    found = []
    for name in sorted(names):
        try:
            stat = os.stat(os.path.join(root, name))
        except OSError:
            continue
        found.append((name, stat.st_size, stat.st_mtime_ns))
    return tuple(found)
