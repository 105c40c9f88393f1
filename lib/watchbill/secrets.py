"""Secrets by reference: configuration names where a secret lies, and this module fetches it when it is needed.

A value lives in this process' memory only. No message here contains one, nor a text that was given in place of a
reference, because that is how people put secrets into files by mistake. Standard library only.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable, Mapping, Sequence

from watchbill.errors import Fixable

#: A helper program (a password manager may ask the agent of its desktop) gets so long.
TIMEOUT_S = 30.0
#: No token, key or certificate is larger.
MOST_BYTES = 65_536
#: Shorter texts in a login's file are names and dates.
_SHORTEST = 20

Environ = Mapping[str, str]


class Missing(Fixable):
    """Nothing lies where a reference points."""


def within(value: str) -> tuple[str, ...]:
    """A credential, and every one in it when it is a file of several (a login in JSON): what must never be shown."""
    try:
        parts = [json.loads(value)] if value.lstrip().startswith("{") else []
    except ValueError:
        parts = []
    found = [value]
    while parts:
        part = parts.pop()
        parts += part.values() if isinstance(part, dict) else part if isinstance(part, list) else []
        if isinstance(part, str) and len(part) >= _SHORTEST:
            found.append(part)
    return tuple(found)


def resolve(reference: str, environ: Environ) -> str:
    """The secret that a reference names, without surrounding white space.

    `env:NAME`, `file:PATH`, `cmd:PROGRAM ARGS` (no shell), `systemd:NAME` (a credential of the unit),
    `keychain:SERVICE` or `keychain:SERVICE/ACCOUNT` (macOS), `op://VAULT/ITEM/FIELD` (1Password).
    Raises Fixable (unauthorized).
    """
    problem = problem_of(reference)
    if problem:
        raise _fixable("01", problem, fix=f"write one of {_known()} there")
    scheme, _, rest = reference.partition(":")
    return _value(reference, _SCHEMES[scheme](rest, environ))


def of_forge(auth: str, environ: Environ) -> str:
    """What `[github] auth` names: `token:<reference>`, else gh's own. Raises Fixable (unauthorized)."""
    kind, _, reference = auth.partition(":")
    return resolve(reference, environ) if kind == "token" else gh_token(environ)


def gh_token(environ: Environ) -> str:
    """The token of the GitHub command line's login. Raises Fixable (unauthorized)."""
    fix = 'gh auth login; or set [github] auth = "token:env:NAME" in fleet.toml'
    return _value("gh auth token", _run("gh auth token", ["gh", "auth", "token"], environ, fix))


def problem_of(reference: str) -> str | None:
    """What is wrong with the form of a reference, or None. The text is not repeated: it may be a secret."""
    scheme, colon, rest = reference.partition(":")
    if scheme in _SCHEMES and colon:
        return None if rest.strip() else f"the secret reference '{scheme}:' names nothing"
    return f"this is no secret reference ({_known()}), and a secret itself does not belong here"


def _known() -> str:
    return ", ".join(f"{scheme}:" for scheme in _SCHEMES)


def _value(reference: str, raw: bytes) -> str:
    try:
        value = raw.decode("utf-8").strip()
    except UnicodeDecodeError as bad:
        raise _fixable(
            "05",
            f"{reference}: what lies there is not UTF-8 (byte {bad.start})",
            fix="write the secret there as plain text",
        ) from None
    if not value:
        raise _fixable("05", f"{reference}: what lies there is empty", fix="write the secret there")
    return value


def _fixable(number: str, what: str, *, why: str = "", fix: str = "") -> Fixable:
    return Fixable(f"WB-SECRET-{number}", what, why=why, fix=fix, outcome="unauthorized")


def _env(name: str, environ: Environ) -> bytes:
    if name not in environ:
        raise _fixable(
            "02",
            f"env:{name}: the environment has no {name}",
            why="a timer starts with its own short environment, not with that of your shell",
            fix=f"use file: or the system's keychain, or set {name} where the firing is started",
        )
    return environ[name].encode("utf-8", "surrogateescape")


def _file(path: str, environ: Environ) -> bytes:
    home = environ.get("HOME", "")
    full = os.path.join(home, path[2:]) if path.startswith("~/") and home else path
    if not os.path.isabs(full):
        raise _fixable("02", f"file:{path}: the path is not absolute", fix=f"file:{os.path.join('~', path)}, or from /")
    try:
        # non-blocking: a named pipe in this place must not stop the firing
        file = open(full, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Missing(
            "WB-SECRET-02",
            f"file:{path}: {error.strerror}",
            fix=f"install -m 600 /dev/null {full}, then write the secret into it",
            outcome="unauthorized",
        ) from None
    except OSError as error:
        raise _fixable("02", f"file:{path}: {error.strerror}", fix=f"chmod 600 {full}") from None
    with file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise _fixable("02", f"file:{path}: that is not a regular file", fix="name a file that holds the secret")
        if facts.st_mode & 0o077:
            raise _fixable(
                "03",
                f"file:{path}: others on this host may read or write it (mode {stat.S_IMODE(facts.st_mode):04o})",
                why="ssh refuses such a key, and so do we",
                fix=f"chmod 600 {full}; and replace the secret if others use this host",
            )
        if facts.st_uid not in (0, os.geteuid()):
            raise _fixable(
                "03",
                f"file:{path}: it belongs to user {facts.st_uid}, we are {os.geteuid()}",
                fix=f"chown {os.geteuid()} {full}",
            )
        return _bounded(f"file:{path}", file.read(MOST_BYTES + 1))


def _bounded(reference: str, data: bytes) -> bytes:
    if len(data) > MOST_BYTES:
        raise _fixable("05", f"{reference}: it gives more than {MOST_BYTES} bytes", fix="name the secret alone")
    return data


def _systemd(name: str, environ: Environ) -> bytes:
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise _fixable(
            "02",
            f"systemd:{name}: there is no $CREDENTIALS_DIRECTORY",
            why="only a firing that systemd started with LoadCredential= has one; a shell has not",
            fix=f"add LoadCredential={name}:PATH to the unit, or use file:",
        )
    if "/" in name or name in (".", ".."):
        raise _fixable("01", f"systemd:{name}: a credential's name has no '/'", fix="systemd:NAME")
    try:
        with open(os.path.join(folder, name), "rb") as file:
            return _bounded(f"systemd:{name}", file.read(MOST_BYTES + 1))
    except OSError as error:
        raise _fixable(
            "02",
            f"systemd:{name}: {error.strerror}",
            why=f"looked in {folder}",
            fix=f"add LoadCredential={name}:PATH to the unit",
        ) from None


def _cmd(line: str, environ: Environ) -> bytes:
    import shlex

    try:
        argv = shlex.split(line)
    except ValueError as error:
        raise _fixable("01", f"cmd:{line}: {error}", fix="cmd:pass show watchbill/github") from None
    if not argv:
        raise _fixable("01", f"cmd:{line}: no program is named", fix="cmd:pass show watchbill/github")
    return _run(f"cmd:{line}", argv, environ, f"try it in a shell: {line}")


def _keychain(name: str, environ: Environ) -> bytes:
    platform: str = sys.platform
    if platform != "darwin":
        raise _fixable(
            "06",
            f"keychain:{name}: only macOS has this keychain, this is {platform}",
            fix="use file:, systemd: or cmd: on this host",
        )
    service, slash, account = name.partition("/")
    argv = ["/usr/bin/security", "find-generic-password", "-w", "-s", service, *(["-a", account] if slash else [])]
    add = " ".join(["security add-generic-password", "-s", service, *(["-a", account] if slash else []), "-w"])
    return _run(f"keychain:{name}", argv, environ, add)


def _op(path: str, environ: Environ) -> bytes:
    reference = f"op://{path.removeprefix('//')}"
    return _run(reference, ["op", "read", "--no-newline", reference], environ, f"op signin; op read {reference}")


def _aws(name: str, _environ: Environ) -> bytes:
    raise _fixable(
        "06",
        f"aws-sm:{name}: AWS Secrets Manager is not in this version",
        fix=f"cmd:aws secretsmanager get-secret-value --secret-id {name} --query SecretString --output text",
    )


_SCHEMES: dict[str, Callable[[str, Environ], bytes]] = {
    "env": _env,
    "file": _file,
    "keychain": _keychain,
    "systemd": _systemd,
    "cmd": _cmd,
    "op": _op,
    "aws-sm": _aws,
}


def _run(reference: str, argv: Sequence[str], environ: Environ, fix: str) -> bytes:
    """What a helper program prints. Its own words about a failure are kept short and without secrets."""
    import signal
    import subprocess

    from watchbill import scan

    try:
        # its own session: what it leaves running is ended with it
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environ),
            start_new_session=True,
        )
    except OSError as error:
        raise _fixable(
            "04", f"{reference}: cannot start {argv[0]}: {error.strerror}", fix=f"install {argv[0]}, then: {fix}"
        ) from None
    with child:
        try:
            out, err = child.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            raise _fixable(
                "04",
                f"{reference}: {argv[0]} gave no answer within {TIMEOUT_S:.0f} s",
                why="it may be waiting for a person to unlock something",
                fix=fix,
            ) from None
    if child.returncode != 0:
        lines = scan.redact(err.decode("utf-8", "backslashreplace"), [out.decode("utf-8", "replace").strip()]).split(
            "\n"
        )
        said = next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")
        raise _fixable("04", f"{reference}: {argv[0]} ended with status {child.returncode}", why=said, fix=fix)
    return _bounded(reference, out)
