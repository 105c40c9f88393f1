"""Whether credentials can be had: for GitHub, and for remotes over ssh. Nobody is asked whether they are any good."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from urllib.parse import urlsplit

from watchbill import secrets
from watchbill.doctor.finding import Finding, Look, of_problem, with_folder_of, with_variable
from watchbill.errors import Fixable
from watchbill.isolation.base import program_path

TIMEOUT_S = 10.0
#: What gh takes for its login without looking where it keeps one (gh help environment).
_OF_GH = ("GH_TOKEN", "GITHUB_TOKEN", "GH_CONFIG_DIR", "XDG_CONFIG_HOME")


def github(it: Look) -> Iterator[Finding]:
    """`[github] auth`."""
    if it.roster is None:
        return
    auth = it.roster.fleet.auth
    reference = auth.partition(":")[2]
    try:
        secrets.of_forge(auth, os.environ)
    except Fixable as problem:
        found = of_problem("fleet", "GitHub", "wrong", problem)
        yield _of_gh(it, found) if auth == "gh" else as_seen(it, found, reference, "[github] auth = ", "token:")
    else:
        yield Finding("fleet", "GitHub", "ok", f"its credential is there: {reference or 'of gh'}")


def as_seen(it: Look, found: Finding, reference: str, key: str, prefix: str = "") -> Finding:
    """The fix of a reference that leads nowhere here, and leads somewhere in the shell that asked."""
    scheme, _, rest = reference.partition(":")
    if scheme == "systemd":  # nobody but the agent's own unit has it
        return found._replace(
            state="note", what=f"{found.what}; what a drop-in gives to an agent's unit, doctor's lacks"
        )
    file = f'{key}"{prefix}file:/path/of/a/file", with the secret in it, and chmod 600'
    if scheme == "env" and it.only_in_shell(rest):
        return found._replace(what=f"{found.what}; your shell has {rest}", fix=file)
    word = rest.split()[0] if scheme == "cmd" and rest.split() else {"op": "op"}.get(scheme, "")
    if word and shutil.which(word, path=program_path(os.environ)) is None and (theirs := it.in_shell(word)):
        return found._replace(what=f"{found.what}; your shell finds {theirs}", fix=with_folder_of(theirs))
    if scheme == "keychain" and it.place == "scheduler":
        why = "the login keychain is open to a session with a screen, and to no other"
        return found._replace(what=f"{found.what}; {why}", fix=f"log in at the screen; or {file}")
    return found


def _of_gh(it: Look, found: Finding) -> Finding:
    if it.place == "shell":
        return found
    if shutil.which("gh", path=program_path(os.environ)) is None:
        theirs = it.in_shell("gh")
        return found._replace(what=f"{found.what}; your shell finds {theirs}", fix=with_folder_of(theirs)) if theirs \
            else found  # fmt: skip
    for name in (name for name in _OF_GH if it.only_in_shell(name)):
        what = f"{found.what}; only your shell has {name}"
        if name.endswith("TOKEN"):
            return found._replace(what=what, fix=f'env -u {name} gh auth login; or [github] auth = "token:file:..."')
        return found._replace(what=what, fix=with_variable(it, name))
    if (theirs := it.shell.get("HOME")) and theirs != os.environ.get("HOME"):
        return found._replace(what=f"{found.what}; HOME is {os.environ.get('HOME')}, in your shell {theirs}")
    return found


def ssh(it: Look) -> Iterator[Finding]:
    """A key that opens without an agent, or an agent that answers, for each host that a remote names."""
    hosts: dict[str, str] = {}
    for repo in it.roster.fleet.repos.values() if it.roster else ():
        if host := _ssh_host(repo.remote):
            hosts.setdefault(host, repo.full_name)
    for host, full_name in hosts.items():
        yield _ssh(it, host, full_name)


def _ssh_host(remote: str) -> str | None:
    """As git reads it (git-fetch(1), GIT URLS): `ssh://user@host/...`, or `user@host:path`."""
    if remote.startswith("ssh://"):
        parts = urlsplit(remote)
        return f"{parts.username}@{parts.hostname}" if parts.username else parts.hostname
    scp = re.match(r"([^/:]+):(?!//)", remote)
    return scp[1] if scp else None


def _ssh(it: Look, host: str, repo: str) -> Finding:
    place = f"ssh to {host}"
    program = shutil.which("ssh", path=program_path(os.environ))
    if program is None:
        what = f"ssh is not on PATH, and {repo} is reached by it"
        return Finding("fleet", place, "wrong", what, "WB-DOCTOR-05", "install the OpenSSH client")
    if _agent():
        return Finding("fleet", place, "ok", f"an agent for keys answers at {os.environ['SSH_AUTH_SOCK']}")
    keys = _keys(program, host)
    open_ = [key for key in keys if _opens(key)]
    if open_:
        return Finding("fleet", place, "ok", f"{open_[0]} opens without a passphrase")
    what = f"no agent for keys answers, and {'no key opens' if keys else 'there is no key that would open'} without one"
    if it.only_in_shell("SSH_AUTH_SOCK"):
        what = f"{what}; only your shell has SSH_AUTH_SOCK"
    fix = f'leave `remote` of [repo."{repo}"] out, and git uses the credential for GitHub; or a deploy key without'
    fix += " a passphrase: ssh-keygen -N '' -f ~/.ssh/watchbill, and IdentityFile ~/.ssh/watchbill in ~/.ssh/config"
    return Finding("fleet", place, "wrong", what, "WB-DOCTOR-07", fix)


def _agent() -> bool:
    """Whether somebody listens where SSH_AUTH_SOCK points."""
    path = os.environ.get("SSH_AUTH_SOCK")
    if not path:
        return False
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(TIMEOUT_S)
        try:
            line.connect(path)
        except OSError:
            return False
    return True


def _keys(program: str, host: str) -> list[str]:
    """Which private keys ssh would try and are there; it tells without connecting (ssh(1), -G)."""
    try:
        done = subprocess.run([program, "-G", host], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              errors="replace", timeout=TIMEOUT_S, check=False)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return []
    named = [line.split(" ", 1)[1] for line in done.stdout.splitlines() if line.startswith("identityfile ")]
    return [path for path in map(os.path.expanduser, named) if os.path.isfile(path)]


def _opens(key: str) -> bool:
    """Whether it has no passphrase (ssh-keygen(1), -y and -P)."""
    try:
        argv = ["ssh-keygen", "-y", "-P", "", "-f", key]
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S,
                              check=False).returncode == 0  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
