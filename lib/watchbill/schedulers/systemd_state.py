"""What systemd's user manager says of an agent's unit, and what that means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from watchbill.schedulers import systemd_ask as ask
from watchbill.schedulers.base import Loaded

_TIMER = ("LoadState", "LoadError", "ActiveState", "SubState", "UnitFileState", "NeedDaemonReload", "FragmentPath",
          "DropInPaths", "NextElapseUSecRealtime", "NextElapseUSecMonotonic", "LastTriggerUSec", "TimersCalendar",
          "Result")  # fmt: skip
_SERVICE = ("LoadState", "LoadError", "ActiveState", "UnitFileState", "NeedDaemonReload", "FragmentPath", "DropInPaths",
            "Result", "ExecMainStatus")  # fmt: skip
#: systemd.exec(5), PROCESS EXIT CODES: ends that are its own and no firing's.
_OWN_STATUS = {200: "CHDIR", 203: "EXEC", 209: "STDOUT", 216: "GROUP", 217: "USER", 218: "CAPABILITIES",
               226: "NAMESPACE", 228: "SECCOMP", 243: "CREDENTIALS"}  # fmt: skip


class Asked(NamedTuple):
    """What the manager says of one agent's unit, by property."""

    timer: Mapping[str, list[str]]
    service: Mapping[str, list[str]]


def asked_of(names: Sequence[str]) -> dict[str, Asked]:
    timers = ask.show([f"{name}.timer" for name in names], _TIMER)
    services = ask.show([f"{name}.service" for name in names], _SERVICE)
    return {name: Asked(timers[f"{name}.timer"], services[f"{name}.service"]) for name in names}


def timers_of(names: Sequence[str]) -> dict[str, Loaded]:
    """What their timers alone tell: for all properties of a service the manager takes twice as long, or more."""
    timers = ask.show([f"{name}.timer" for name in names], _TIMER)
    return {name: loaded_of(Asked(timers[f"{name}.timer"], {})) for name in names}


def after_reload(names: Sequence[str]) -> dict[str, Asked]:
    """As `asked_of`, for units that were just read anew: of a service that could be read, no more than that."""
    timers = ask.show([f"{name}.timer" for name in names], _TIMER)
    loads = ask.loads()
    bad = [f"{name}.service" for name in names if loads.get(f"{name}.service") != "loaded"]
    services = ask.show(bad, _SERVICE)
    return {name: Asked(timers[f"{name}.timer"], services.get(f"{name}.service", {})) for name in names}


def loaded_of(asked: Asked) -> Loaded:
    timer, service = asked
    return Loaded(
        known=ask.one(timer, "LoadState") == "loaded",
        path=ask.one(timer, "FragmentPath") or ask.one(service, "FragmentPath") or None,
        armed=ask.one(timer, "ActiveState") == "active" and ask.one(timer, "SubState") in ("waiting", "running"),
        running=ask.one(service, "ActiveState") in ("active", "activating", "deactivating", "reloading"),
        stale="yes" in (ask.one(timer, "NeedDaemonReload"), ask.one(service, "NeedDaemonReload")),
        paused=_paused(asked),
        next=ask.epoch(ask.one(timer, "NextElapseUSecRealtime"))
        or ask.epoch_of_span(ask.one(timer, "NextElapseUSecMonotonic")),
        last=ask.epoch(ask.one(timer, "LastTriggerUSec")),
        why=broken(asked) or _ended_badly(service),
    )


def _paused(asked: Asked) -> str | None:
    """How somebody told systemd not to fire it."""
    timer, service = asked
    if "masked" in (ask.one(timer, "LoadState"), ask.one(service, "LoadState")):
        return "masked"
    if ask.one(timer, "LoadState") != "loaded":
        return None
    if ask.one(timer, "UnitFileState") == "disabled":
        active = ask.one(timer, "ActiveState") == "active"
        return "timer disabled: it fires until the next logout" if active else "timer disabled"
    return "timer stopped" if ask.one(timer, "ActiveState") == "inactive" else None


def broken(asked: Asked) -> str | None:
    """What of the unit itself systemd cannot use."""
    for values in asked:
        if ask.one(values, "LoadState") in ("bad-setting", "error"):
            return ask.one(values, "LoadError").partition(" ")[2].strip('"') or "systemd cannot read it"
    if ask.one(asked.timer, "ActiveState") == "failed":
        return f"the timer failed: {ask.one(asked.timer, 'Result')}"
    if ask.one(asked.timer, "SubState") == "elapsed":
        return "its schedule has no next time"
    return None


def _ended_badly(service: Mapping[str, list[str]]) -> str | None:
    """How its last firing ended, where that was systemd's doing: what a firing does itself is in the ledger."""
    result, status = ask.one(service, "Result"), ask.one(service, "ExecMainStatus")
    if result == "exit-code" and status.isdigit() and int(status) in _OWN_STATUS:
        return f"systemd could not start its last firing: {status}/{_OWN_STATUS[int(status)]}"
    if result == "resources":
        return "systemd could not start its last firing: resources"
    return "systemd ended its last firing at its deadline" if result == "timeout" else None


def drop_ins(names: Sequence[str]) -> dict[str, list[str]]:
    """What people put beside these units to change them; it is theirs, and stays. Fixable: no answer."""
    found = {
        name: [*paths_beside(asked.timer), *paths_beside(asked.service)] for name, asked in asked_of(names).items()
    }
    return {name: paths for name, paths in found.items() if paths}


def paths_beside(values: Mapping[str, list[str]]) -> list[str]:
    return ask.one(values, "DropInPaths").split()
