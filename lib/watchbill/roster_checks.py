"""What no single value of a roster can tell: keys of engines, combinations that cannot work, caps without a worst case.

From values to problems of a `Source`; standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from watchbill import money, scan, secrets
from watchbill.compiled import Agent, Cap, Fleet
from watchbill.roster_errors import Path, Source, nearest
from watchbill.roster_values import ENGINE_MONEY, ENGINES, WITHOUT_ENGINE, dollars, share_ppm

LONGEST_TTL_S = 6 * 3600  # what a claim's record may say (DESIGN section 6)
SHORTEST_KEEP_S = 86_400  # a number without a unit is seconds, and who writes 90 means days
_MEASURED = ("usd", "tokens", "turns")  # a cap in one of these needs to know what one firing can use


def check_fleet(source: Source, fleet: Fleet, listed: Sequence[str], tables: Iterable[str]) -> None:
    """fleet.toml as a whole. `listed`: fleet.repos as written; `tables`: the names of [repo] tables."""
    repos = listed
    if not repos:
        source.add(("fleet", "repos"), 'is empty; right would be: repos = ["owner/name"]')
    for n, name in enumerate(repos):
        if name.lower() in [other.lower() for other in repos[:n]]:
            source.add(("fleet", "repos"), f"{name!r} is listed twice")
    for name in tables:
        if name not in repos:
            source.add(("repo", name), f"is not among fleet.repos{nearest(name, repos)}")
    claims = fleet.claims
    if claims.ttl_s > LONGEST_TTL_S:
        source.add(("claims", "ttl"), f"{claims.ttl_s} s is longer than 6h; a dead owner would block its issue as long")
    if claims.renew_s >= claims.ttl_s:
        source.add(("claims", "renew"), f"{claims.renew_s} s is not before the claim ends (ttl {claims.ttl_s} s)")
    if fleet.ledger_keep_s < SHORTEST_KEEP_S:
        source.add(("ledger", "keep"), f"{fleet.ledger_keep_s} s is shorter than a day; right would be: 90d")
    for cap in fleet.caps:
        _check_share(source, ("caps", f"{cap.scope}_{cap.unit}"), cap, fleet)
    owner: dict[str, str] = {}
    for key, label in fleet.labels._asdict().items():
        if label.lower() in owner:
            source.add(("labels", key), f"{label!r} is the label of {owner[label.lower()]} as well")
        owner.setdefault(label.lower(), key)
    for name, table in fleet.engines.items():
        if name not in ENGINES and "." not in name:
            source.add(("engines", name), f"is no engine, nor the dotted path of a module{nearest(name, ENGINES)}")
        check_engine(source, ("engines", name), name, table)


def _check_share(source: Source, here: Path, cap: Cap, fleet: Fleet | None) -> None:
    """Hosts share no ledger: a cap is divided among them, and one of fewer units than hosts leaves nothing for each."""
    if fleet is not None and cap.limit == 0:
        what = f"is less than one for each of {fleet.hosts} hosts (fleet.hosts): none of them could ever fire"
        source.add(here, what)


def check_engine(source: Source, path: Path, name: str, table: Mapping[str, Any]) -> None:
    """The keys of an engine's table or map; those of a dotted path are its own business."""
    known = ENGINES.get(name)
    for key, value in table.items():
        here = (*path, key)
        if known is not None and key not in known:
            source.add(here, f"unknown key of the engine {name}{nearest(key, known)}")
        elif key == "key" and (not isinstance(value, str) or secrets.problem_of(value)):
            source.add(
                here, secrets.problem_of(value) or "" if isinstance(value, str) else "must be a secret reference"
            )
        elif key == "env":
            check_env(source, here, value, "every tool of the engine would see")
        elif known is not None and key in ("argv", "args") and not _is_words(value, 1 if key == "argv" else 0):
            source.add(
                here, "must be a list of words, the program first" if key == "argv" else "must be a list of words"
            )
        elif known is not None and key in ("program", "model", "script") and not isinstance(value, str):
            source.add(here, "must be text")
        elif known is not None and key == "resume" and not isinstance(value, bool):
            source.add(here, "must be true or false: whether a stopped firing's conversation is gone on with")
        elif known is not None and key == "silence_s" and not _is_period(value):
            source.add(here, "must be seconds as a bare number, such as 900")
        elif key in ENGINE_MONEY:
            _check_money(source, here, key, value)


def _check_money(source: Source, here: Path, key: str, value: object) -> None:
    """What the keys of ENGINE_MONEY may hold."""
    try:
        if key == "request_usd":
            dollars(value)
        elif key == "max_utilisation":
            share_ppm(value)
        elif not isinstance(value, str) or not value:
            source.add(here, "must be text: a name for whose quota this is, the same wherever it is the same")
    except ValueError as bad:
        source.add(here, str(bad))


#: What no operator's `env` may say.
_OURS = r"HOME|TMPDIR|XDG_\w+|GIT_\w+|WATCHBILL_\w+|CLAUDE_CONFIG_DIR|CLAUDE_CODE_TMPDIR|CODEX_HOME"


def check_env(source: Source, here: Path, value: object, seen: str) -> None:
    """Names and texts that a process can be given, and no secret. `seen`: by whom it would be seen."""
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        source.add(here, "must be a map of names to text")
        return
    for name, text in value.items():
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is None or "\0" in text:
            source.add((*here, name), "is no name and text of an environment; right would be: ANTHROPIC_BASE_URL")
        elif re.fullmatch(_OURS, name):
            source.add((*here, name), "is for Watchbill to say: each run has its own")
        elif re.search(r"://[^/@\s]*:[^/@\s]+@|(?i:authorization *:)", text):
            source.add((*here, name), f"holds a password, which {seen}")
        elif (
            re.search(r"(?i)KEY|TOKEN|SECRET|PASSWORD", name)
            and text
            and not re.fullmatch(r"[0-9]{1,9}|true|false", text)
        ):
            source.add((*here, name), f'looks like a secret, which {seen}; right would be: key = "file:/path"')
        elif scan.redact(text, ()) != text:
            source.add((*here, name), f"holds what looks like a secret, which {seen}")


def _is_period(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 10**6


def _is_words(value: object, least: int) -> bool:
    return isinstance(value, list) and len(value) >= least and all(isinstance(word, str) for word in value)


def check_agent(source: Source, agent: Agent, fleet: Fleet | None) -> None:
    """An agent by itself, and, where fleet.toml can be read, with the fleet."""
    if agent.role in WITHOUT_ENGINE:
        _check_idle_hands(source, agent, fleet)
        return
    if not agent.engine:
        source.add(("watchbill", "engine"), "is missing; right would be: engine: {use: claude}")
        return
    use = str(agent.engine["use"])
    shared = fleet.engines.get(use, {}) if fleet else {}
    own = {key: value for key, value in agent.engine.items() if key not in ("use", "fallback")}
    check_engine(source, ("watchbill", "engine"), use, own)
    if use == "command" and fleet and "argv" not in own and "argv" not in shared:
        source.add(("watchbill", "engine"), "the engine command needs argv; right would be: argv: [program, argument]")
    if use == "scripted" and fleet and not {"script", "steps"} & {*own, *shared}:
        source.add(("watchbill", "engine"), "the engine scripted needs script (a path) or steps (a list)")
    _check_fallback(source, agent, fleet)
    _check_caps(source, agent, fleet)
    _check_repos(source, agent, fleet)
    for key, label in (fleet.labels._asdict() if fleet else {}).items():
        if key != "implement" and label.lower() == agent.takes.lower():
            source.add(("watchbill", "labels", "takes"), f"{label!r} is what Watchbill itself puts on ({key})")


def _check_fallback(source: Source, agent: Agent, fleet: Fleet | None) -> None:
    """It has what fleet.toml says of that engine, and nothing of the agent's own map."""
    name, here = agent.engine.get("fallback"), ("watchbill", "engine", "fallback")
    if name is None or fleet is None:
        return
    if name == agent.engine["use"]:
        source.add(here, f"{name!r} is the engine that it is to take the place of")
    needs = {"command": {"argv"}, "scripted": {"script", "steps"}}.get(name, set())
    if needs and not needs & set(fleet.engines.get(name, {})):
        keys = " or ".join(sorted(needs))
        source.add(here, f"{name!r} as a fallback needs {keys} below [engines.{name}] in fleet.toml")


def _check_idle_hands(source: Source, agent: Agent, fleet: Fleet | None) -> None:
    if agent.engine:
        source.add(("watchbill", "engine"), f"the role {agent.role} runs no engine; leave it out")
    if agent.caps:
        source.add(("watchbill", "caps"), f"the role {agent.role} spends nothing; leave them out")
    _check_repos(source, agent, fleet)


def _check_repos(source: Source, agent: Agent, fleet: Fleet | None) -> None:
    if fleet is None:
        return
    for n, name in enumerate(agent.repos):
        if name not in fleet.repos:
            source.add(("watchbill", "repos", n), f"{name!r} is not among fleet.repos{nearest(name, fleet.repos)}")


def _check_caps(source: Source, agent: Agent, fleet: Fleet | None) -> None:
    firing = money.worst_case(agent.caps, max((use.request_micro or 0 for use in agent.uses), default=0))
    missing: dict[str, list[str]] = {}
    for cap in (*agent.caps, *(fleet.caps if fleet else ())):
        name = f"{cap.scope}_{cap.unit}" + ("" if cap in agent.caps else " of fleet.toml")
        if cap in agent.caps:
            _check_share(source, ("watchbill", "caps", f"{cap.scope}_{cap.unit}"), cap, fleet)
        if cap.scope == "firing" or cap.unit not in _MEASURED or cap.limit == 0:
            continue
        if cap.unit not in firing:
            missing.setdefault(cap.unit, []).append(name)
        elif firing[cap.unit] > cap.limit:
            most, limit = money.amount(cap.unit, firing[cap.unit]), money.amount(cap.unit, cap.limit)
            each = f" to each of {fleet.hosts} hosts" if fleet and fleet.hosts > 1 and cap.scope != "issue" else ""
            request = max((use.request_micro or 0 for use in agent.uses), default=0) if cap.unit == "usd" else 0
            more = f" (with one request of {money.usd(request)} more, request_usd)" if request else ""
            what = f"{most} a firing{more} is more than {name} allows{each} ({limit}): it could never fire"
            source.add(("watchbill", "caps", f"firing_{cap.unit}"), what)
    for unit, names in missing.items():
        example = {"usd": "1.50", "tokens": "400000", "turns": "60"}[unit]
        reason = f"{' and '.join(names)} can only be kept when the most that one firing can use is known"
        source.add(
            ("watchbill", "caps"), f"firing_{unit} is missing: {reason}; right would be: firing_{unit}: {example}"
        )
