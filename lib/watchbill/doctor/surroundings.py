"""The environment that a firing finds: PATH, HOME, and variables that say where something lies."""

from __future__ import annotations

import os
from collections.abc import Iterator

from watchbill.doctor.finding import Finding, Look, with_variable

#: Variables that only a shell has -> what goes wrong without them.
_MATTER = {
    "HTTPS_PROXY": "git, GitHub and engines reach the network by it",
    "https_proxy": "git, GitHub and engines reach the network by it",
    "ALL_PROXY": "git, GitHub and engines reach the network by it",
    "SSL_CERT_FILE": "certificates are looked for in it",
    "SSL_CERT_DIR": "certificates are looked for in it",
    "NODE_EXTRA_CA_CERTS": "engines that run on node look for certificates in it",
    "GH_CONFIG_DIR": "gh keeps its login there",
    "XDG_CONFIG_HOME": "gh keeps its login there",
}


def look(it: Look) -> Iterator[Finding]:
    yield _path()
    yield _home(it)
    yield from _fleet_of(it)
    for name, why in _MATTER.items():
        if it.only_in_shell(name):
            what = f"only your shell has {name}: {why}"
            yield Finding("environment", name, "note", what, "WB-DOCTOR-07", with_variable(it, name))


def _path() -> Finding:
    value = os.environ.get("PATH")
    if not value:
        what = f"PATH is not set: only {os.defpath} is looked through"
        fix = '[schedule] path = "/usr/local/bin:/usr/bin:/bin" in fleet.toml, then `watchbill apply`'
        return Finding("environment", "PATH", "wrong", what, "WB-DOCTOR-05", fix)
    return Finding("environment", "PATH", "ok", value)


def _home(it: Look) -> Finding:
    """Logins of gh and of engines lie below it."""
    value = os.environ.get("HOME", "")
    wrong = ""
    if not value:
        wrong = "HOME is not set: logins of gh and of engines lie below it"
    elif not os.path.isabs(value) or not os.path.isdir(value):
        wrong = f"HOME is {value}, and that is no directory"
    elif it.place == "scheduler" and (theirs := it.shell.get("HOME")) and not _same(theirs, value):
        wrong = f"HOME is {value}, in your shell {theirs}: logins that lie there are not found"
    if not wrong:
        return Finding("environment", "HOME", "ok", value)
    fix = "set HOME to the directory of the user whose timers these are; no `sudo` and no `su` without a login"
    return Finding("environment", "HOME", "wrong", wrong, "WB-DOCTOR-06", fix)


def _fleet_of(it: Look) -> Iterator[Finding]:
    value = os.environ.get("WATCHBILL_HOME")
    usual = os.path.join(os.path.expanduser("~"), ".watchbill")
    here = value or usual
    if _same(here, it.home.root):
        yield Finding("environment", "WATCHBILL_HOME", "ok", value or f"not set: {usual}")
    elif it.place == "scheduler":
        what = f"WATCHBILL_HOME is {here}, the fleet is in {it.home.root}"
        fix = "take WATCHBILL_HOME out of `[schedule] env`, and drop-ins of the unit; then `watchbill apply`"
        yield Finding("environment", "WATCHBILL_HOME", "wrong", what, "WB-DOCTOR-06", fix)
    else:
        what = f"another command without --home would look in {here}"
        fix = f"export WATCHBILL_HOME={it.home.root}, when that is the one you mean"
        yield Finding("environment", "WATCHBILL_HOME", "note", what, "WB-DOCTOR-06", fix)


def _same(one: str, other: str) -> bool:
    return os.path.realpath(os.path.expanduser(one)) == os.path.realpath(other)
