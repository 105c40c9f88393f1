"""fleet.toml and agents/*.md -> one value, or every problem in them at once.

The only importer of pydantic and yaml: a firing reads roster.json (`compiled`) and comes here after an edit.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tomllib
import typing
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from watchbill import compiled, money
from watchbill import roster_values as values
from watchbill.compiled import Agent, Breaker, Cap, Claims, Compiled, Fleet, Host, Labels, Price, Repo, Timers
from watchbill.roster_checks import check_agent, check_env, check_fleet
from watchbill.roster_engines import uses
from watchbill.roster_errors import Path, RosterErrors, Source, check_prompt, explain, toml_lines
from watchbill.schedulers import schedule, spread


def compile_roster(root: str) -> Compiled:
    """Read the roster below `root` and write roster.json, when it would change. Raises RosterErrors."""
    roster = read_roster(root)
    text, path = compiled.to_json(roster), os.path.join(root, "roster.json")
    try:
        with open(path, encoding="utf-8") as file:
            if file.read() == text:
                return roster
    except (OSError, ValueError):
        pass
    aside = f"{path}.{os.getpid()}"
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(aside, path)
    return roster


def read_roster(root: str) -> Compiled:
    """fleet.toml and agents/*.md below `root`. Raises RosterErrors with every problem there is."""
    facts = compiled.source_facts(root)  # before reading: an edit meanwhile makes the result stale, not wrong
    digest = hashlib.sha256()
    sources = [Source("fleet.toml"), *(Source(f"agents/{name}") for name in _agent_files(root))]
    texts = [_read(root, source, digest) for source in sources]
    fleet = _fleet_of(sources[0], texts[0], root) if texts[0] is not None else None
    agents: dict[str, Agent] = {}
    where: dict[str, str] = {}
    for source, text in zip(sources[1:], texts[1:], strict=True):
        agent = _agent_of(source, text, fleet) if text is not None else None
        if agent and agent.name in where:
            source.add(("name",), f"{agent.name!r} is the name of the agent in {where[agent.name]} as well")
        elif agent:
            where[agent.name], agents[agent.name] = source.name, agent
    problems = [line for source in sources for line in source.told()]
    if len(sources) == 1:
        problems.append(_no_agents(root))
    if problems or fleet is None:
        raise RosterErrors(problems)
    return Compiled(digest.hexdigest(), facts, fleet, agents)


def _agent_files(root: str) -> list[str]:
    """Hidden names are left out: editors and macOS leave such files behind."""
    try:
        names = os.listdir(os.path.join(root, "agents"))
    except OSError:
        return []
    return sorted(name for name in names if name.endswith(".md") and not name.startswith("."))


def _no_agents(root: str) -> str:
    there = os.path.isdir(os.path.join(root, "agents"))
    what = "there is no *.md file in it" if there else "there is no such folder"
    return f"agents/:1: {what}; an agent is one file there, for example agents/bosun.md"


def _read(root: str, source: Source, digest: Any) -> str | None:
    try:
        with open(os.path.join(root, source.name), "rb", opener=_no_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                source.add_at(1, "is no regular file")
                return None
            data = file.read()
    except OSError as error:
        hint = '; it begins with [fleet] and repos = ["owner/name"]' if source.name == "fleet.toml" else ""
        source.add_at(1, f"cannot be read in {root}: {error.strerror}{hint}")
        return None
    digest.update(f"{source.name}\0{len(data)}\0".encode() + data)
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as bad:
        line = data.count(b"\n", 0, bad.start) + 1
        source.add_at(line, f"is not UTF-8: byte {bad.start} is 0x{data[bad.start]:02x}; save the file as UTF-8")
        return None


def _no_waiting(path: str, flags: int) -> int:
    """A pipe by an agent's name would be waited for until somebody writes into it."""
    return os.open(path, flags | os.O_NONBLOCK)


Seconds = Annotated[int, BeforeValidator(values.seconds)]
Period = Annotated[int, BeforeValidator(values.period)]
Usd = Annotated[int | None, BeforeValidator(values.micro_dollars)]
Share = Annotated[int, BeforeValidator(values.price)]
Count = Annotated[int | None, BeforeValidator(values.count)]
Name = Annotated[str, BeforeValidator(values.full_name)]
Label = Annotated[str, BeforeValidator(values.label)]
Secret = Annotated[str, BeforeValidator(values.reference)]
EngineName = Annotated[str, BeforeValidator(values.engine_name)]
Words = Annotated[list[str], BeforeValidator(values.listed)]


class _Table(BaseModel):
    """A table or map of ours: what it does not name is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _FleetTable(_Table):
    repos: list[Name]
    trust: list[Annotated[str, BeforeValidator(values.trust)]] = []
    timezone: Annotated[str, BeforeValidator(values.zone)] = ""  # the host's own
    poll: Seconds = 60
    hosts: Annotated[int, BeforeValidator(values.hosts)] = 1


class _FleetCaps(_Table):
    fleet_day_usd: Usd = None
    fleet_day_tokens: Count = None
    fleet_day_turns: Count = None
    fleet_day_firings: Count = None
    fleet_month_usd: Usd = None
    fleet_month_tokens: Count = None
    fleet_month_turns: Count = None
    fleet_month_firings: Count = None
    issue_usd: Usd = None
    issue_tokens: Count = None
    issue_turns: Count = None
    issue_firings: Count = None
    unmeasured: Literal["deny", "charge-reservation", "allow-and-alert"] = "charge-reservation"


class _PriceTable(_Table):
    """Dollars for a million tokens."""

    input: Share
    output: Share
    cache_read: Share | None = None  # as input
    cache_write: Share | None = None


class _HostTable(_Table):
    min_free: Annotated[int, BeforeValidator(values.size)] = Host().min_free_bytes
    min_inodes: Annotated[int, BeforeValidator(values.whole)] = Host().min_inodes
    max_load: Annotated[int, BeforeValidator(values.load_ppm)] = Host().max_load_ppm
    min_battery: Annotated[int, BeforeValidator(values.percent)] = Host().min_battery_pct


class _BreakerTable(_Table):
    failures: Annotated[int, BeforeValidator(values.whole)] = Breaker().failures
    wait: Period = Breaker().wait_s


class _ScheduleTable(_Table):
    use: Annotated[str, BeforeValidator(values.scheduler)] = Timers().use
    path: Annotated[str, BeforeValidator(values.search_path)] = Timers().path
    margin: Period = Timers().margin_s
    env: dict[str, str] = {}


class _LedgerTable(_Table):
    keep: Period = 90 * 86_400


class _LabelsTable(_Table):
    implement: Label = Labels().implement
    in_flight: Label = Labels().in_flight
    pr_open: Label = Labels().pr_open
    done: Label = Labels().done
    needs_human: Label = Labels().needs_human
    do_not_pickup: Label = Labels().do_not_pickup
    plan_pending: Label = Labels().plan_pending
    authored: Label = Labels().authored
    fixes_base: Label = Labels().fixes_base


class _ClaimsTable(_Table):
    ttl: Period = Claims().ttl_s
    grace: Seconds = Claims().grace_s
    renew: Period = Claims().renew_s


class _GithubTable(_Table):
    auth: Annotated[str, BeforeValidator(values.auth)] = "gh"
    api_url: Annotated[str, BeforeValidator(values.api_url)] = "https://api.github.com"


class _SlackTable(_Table):
    channel: str = ""
    token: Secret = ""
    webhook: Secret = ""
    api_url: Annotated[str, BeforeValidator(values.api_url)] = "https://slack.com/api"


class _RepoTable(_Table):
    checks: Words = []
    remote: Annotated[str | None, BeforeValidator(values.remote)] = None
    check_timeout: Period = 1200
    protected: list[str] = []
    claims: Annotated[str, BeforeValidator(values.claims)] = "refs/watchbill"
    pushes_per_minute: Annotated[int, BeforeValidator(values.per_minute)] = 6


class _IsolationTable(_Table):
    rw: list[Annotated[str, BeforeValidator(values.folder)]] = []


class _FleetFile(_Table):
    fleet: _FleetTable
    caps: _FleetCaps = _FleetCaps()
    labels: _LabelsTable = _LabelsTable()
    claims: _ClaimsTable = _ClaimsTable()
    github: _GithubTable = _GithubTable()
    engines: dict[str, dict[str, Any]] = {}
    slack: _SlackTable = _SlackTable()
    repo: dict[str, _RepoTable] = {}
    isolation: _IsolationTable = _IsolationTable()
    prices: dict[str, _PriceTable] = {}
    host: _HostTable = _HostTable()
    breaker: _BreakerTable = _BreakerTable()
    ledger: _LedgerTable = _LedgerTable()
    schedule: _ScheduleTable = _ScheduleTable()


def _fleet_of(source: Source, text: str, root: str) -> Fleet | None:
    try:
        raw = tomllib.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError) as bad:  # also a number of more digits than Python reads
        place = re.search(r"\(at line ([0-9]+), column ([0-9]+)\)", str(bad))
        what = re.sub(r" \(at .*\)$", "", str(bad))
        source.add_at(int(place[1]) if place else text.count("\n") + 1, f"is not TOML: {what}")
        return None
    source.lines = toml_lines(text)
    model = _validated(_FleetFile, source, raw)
    if model is None:
        return None
    fleet = _fleet(model, root)
    check_fleet(source, fleet, model.fleet.repos, model.repo)
    check_env(source, ("schedule", "env"), model.schedule.env, "the system shows to everybody")
    if "PATH" in model.schedule.env:
        source.add(
            ("schedule", "env", "PATH"), 'has a key of its own; right would be: path = "/usr/local/bin:/usr/bin:/bin"'
        )
    return fleet


def _fleet(model: _FleetFile, root: str) -> Fleet:
    repos = {}
    for name in model.fleet.repos:
        table = model.repo.get(name) or _RepoTable()
        remote = _resolved(table.remote, root) if table.remote else f"https://github.com/{name}.git"
        repos[name] = Repo(
            name,
            remote,
            tuple(table.checks),
            table.check_timeout,
            tuple(table.protected),
            table.claims,
            table.pushes_per_minute,
        )
    return Fleet(
        repos=repos,
        trust=tuple(model.fleet.trust),
        caps=tuple(_divided(cap, model.fleet.hosts) for cap in _caps(model.caps)),
        timezone=model.fleet.timezone,
        poll_s=model.fleet.poll,
        labels=Labels(**model.labels.model_dump()),
        claims=Claims(model.claims.ttl, model.claims.grace, model.claims.renew),
        api_url=model.github.api_url,
        auth=model.github.auth,
        engines={name: values.plain(table) for name, table in model.engines.items()},
        hosts=model.fleet.hosts,
        unmeasured=model.caps.unmeasured,
        prices={name: _price(table) for name, table in model.prices.items()},
        host=Host(model.host.min_free, model.host.min_inodes, model.host.max_load, model.host.min_battery),
        breaker=Breaker(model.breaker.failures, model.breaker.wait),
        ledger_keep_s=model.ledger.keep,
        isolation_rw=tuple(os.path.expanduser(path) for path in model.isolation.rw),
        timers=Timers(model.schedule.use, model.schedule.path, model.schedule.margin, model.schedule.env),
    )


def _price(table: _PriceTable) -> Price:
    """Cached input is not cheaper than input unless somebody says so."""
    read, written = table.cache_read, table.cache_write
    return Price(
        table.input, table.output, table.input if read is None else read, table.input if written is None else written
    )


def _divided(cap: Cap, hosts: int) -> Cap:
    """What is capped for the whole fleet is this host's share. An issue's cap is not: its claim's record counts it."""
    return cap if cap.scope in ("issue", "firing") else cap._replace(limit=money.share(cap.limit, hosts))


def _resolved(remote: str, root: str) -> str:
    """A path below the home becomes absolute: git runs elsewhere. `git@host:path` is no path."""
    if "://" in remote or re.match(r"[^/]+:", remote):
        return remote
    return os.path.normpath(os.path.join(root, os.path.expanduser(remote)))


def _caps(table: BaseModel) -> tuple[Cap, ...]:
    found = []
    for key, limit in table.model_dump(exclude={"unmeasured"}).items():
        scope, _, unit = key.rpartition("_")
        if limit is not None:
            found.append(Cap(scope, unit, limit))
    return tuple(found)


# an agent's file


class _EngineMap(BaseModel):
    """`use` and `fallback` are ours; the other keys belong to the engine."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    use: EngineName
    fallback: EngineName | None = None


class _AgentCaps(_Table):
    firing_usd: Usd = None
    firing_tokens: Count = None
    firing_turns: Count = None
    day_usd: Usd = None
    day_tokens: Count = None
    day_turns: Count = None
    day_firings: Count = None


class _AgentLabels(_Table):
    takes: Label = ""  # the fleet's label for implement


class _WatchbillMap(_Table):
    role: Annotated[str, BeforeValidator(values.role)]
    engine: Annotated[_EngineMap | None, BeforeValidator(values.engine_map)] = None
    every: Annotated[str | None, BeforeValidator(values.words)] = None
    at: Annotated[str | None, BeforeValidator(values.words)] = None
    schedule: str | None = None
    timeout: Period = 1500
    caps: _AgentCaps = _AgentCaps()
    isolation: Literal["required", "auto", "none"] = "auto"
    labels: _AgentLabels = _AgentLabels()
    repos: list[str] | None = None


class _AgentFile(_Table):
    name: Annotated[str, BeforeValidator(values.agent_name)]
    watchbill: _WatchbillMap
    description: str = ""
    model: str | None = None
    tools: Annotated[list[str], BeforeValidator(values.tools)] = []


def _agent_of(source: Source, text: str, fleet: Fleet | None) -> Agent | None:
    found = _front_matter(source, text)
    if found is None:
        return None
    raw, body, first_line = found
    map_ = raw.get("watchbill")
    role = map_.get("role") if isinstance(map_, dict) else None
    check_prompt(source, body, first_line, needed=role not in values.WITHOUT_ENGINE)
    ours = {key: value for key, value in raw.items() if key in _AgentFile.model_fields}
    extra = {key: values.plain(value) for key, value in raw.items() if key not in ours}
    if "watchbill" not in ours and "watchbil" in " ".join(extra).lower():
        ours = raw  # misspelt: let the word be found
    model = _validated(_AgentFile, source, ours)
    if model is None:
        return None
    agent = _agent(source, model, fleet, body)._replace(extra=extra)
    check_agent(source, agent, fleet)
    return agent


def _agent(source: Source, model: _AgentFile, fleet: Fleet | None, body: str) -> Agent:
    ours = model.watchbill
    engine = {}
    if ours.engine is not None:
        engine = {"use": ours.engine.use, **values.plain(ours.engine.model_extra or {})}
    if ours.engine is not None and ours.engine.fallback:
        engine["fallback"] = ours.engine.fallback
    known = fleet.repos if fleet else ()
    text, slots = _schedule(source, ours, model.name)
    return Agent(
        name=model.name,
        description=model.description,
        role=ours.role,
        schedule=text,
        slots=slots,
        engine=engine,
        uses=uses(engine, model.model, fleet),
        model=None if model.model == "inherit" else model.model,
        tools=tuple(model.tools),
        timeout_s=ours.timeout,
        caps=tuple(_divided(cap, fleet.hosts if fleet else 1) for cap in _caps(ours.caps)),
        isolation=ours.isolation,
        takes=ours.labels.takes or (fleet.labels if fleet else Labels()).implement,
        repos=tuple(known if ours.repos is None else ours.repos),
        prompt=body if re.search(r"\{\{\s*brief\s*\}\}", body) else f"{body.rstrip()}\n\n{{{{ brief }}}}\n",
        extra={},
    )


def _schedule(source: Source, ours: _WatchbillMap, agent: str) -> tuple[str, tuple[tuple[int, ...], ...]]:
    """The schedule in the words of its grammar, `manual` when there is none; and when that is, for this agent."""
    given = {key: text for key in ("every", "at", "schedule") if (text := getattr(ours, key)) is not None}
    if len(given) > 1:
        source.add(("watchbill", list(given)[1]), f"{' and '.join(given)} are given; one of them says when")
    for key, text in given.items():
        whole = f"every {text}" if key == "every" else f"daily {text}" if key == "at" and text[:1].isdigit() else text
        try:
            return " ".join(whole.split()), spread.slots(schedule.check(whole), agent)
        except ValueError as bad:
            source.add(("watchbill", key), str(bad))
    return "manual", ()


# YAML


def _front_matter(source: Source, text: str) -> tuple[dict[str, Any], str, int] | None:
    """The keys between the `---` lines, the text below, and the line it begins on."""
    lines = text.split("\n")
    if lines[0].rstrip() != "---":
        source.add_at(1, "has no front matter; it begins with a line ---, then keys, then a line ---, then the prompt")
        return None
    end = next((n for n, line in enumerate(lines) if n and line.rstrip() == "---"), None)
    if end is None:
        source.add_at(1, "the front matter that begins here has no second line ---")
        return None
    try:
        node = yaml.compose("\n".join(lines[1:end]), Loader=yaml.SafeLoader)
        raw = values.of_node(source, node, (), [values.MOST_NODES]) if node else {}
    except yaml.MarkedYAMLError as bad:
        mark = bad.problem_mark or bad.context_mark
        source.add_at(mark.line + 2 if mark else 1, f"is not YAML: {bad.problem or bad}; text with ': ' or '#' in it"
                      " wants quotes")  # fmt: skip
        return None
    except (yaml.YAMLError, ValueError, RecursionError) as bad:
        source.add_at(1, f"is not YAML: {str(bad) or type(bad).__name__}")
        return None
    if not isinstance(raw, dict):
        source.add_at(2, "the front matter must be keys with values, such as name: bosun")
        return None
    return raw, "\n".join(lines[end + 1 :]), end + 2


def _validated(model: type[Any], source: Source, raw: object) -> Any:
    """An instance, or None with every finding of pydantic's among the source's problems."""
    try:
        return model.model_validate(raw)
    except ValidationError as bad:
        for error in bad.errors(include_url=False):
            explain(source, typing.cast(Mapping[str, Any], error), _keys_beside(model, error["loc"]))
        return None


def _keys_beside(model: type[BaseModel], path: Path) -> Iterable[str]:
    """The keys that are known where the last key of this path stands."""
    here: Any = model
    for part in path[:-1]:
        if isinstance(here, type) and issubclass(here, BaseModel):
            found = here.model_fields.get(str(part))
            here = found.annotation if found else None
        elif typing.get_origin(here) is dict:
            here = typing.get_args(here)[1]
        else:
            return ()
    return tuple(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else ()
