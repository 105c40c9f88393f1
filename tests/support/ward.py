"""A host and a fleet for `watchbill doctor`, in order, and what can be broken of them: tests/doctor.

`ward(tmp_path, "launchd")`: with launchd's double; `"systemd"`: with a real user manager of its own.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any, NamedTuple

from support import launchctl, manager
from support.fleet import WATCHBILL, agent, python, write_agent
from watchbill.ledger import db
from watchbill.schedulers import units

SECRET = "sk-ant-api03-" + "Qx7" * 12


class Forge:
    """Answers, and has a clock of its own."""

    ahead_s = 0

    def __init__(self) -> None:
        forge = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.send_response(404)
                self.end_headers()

            def date_time_string(self, timestamp: float | None = None) -> str:
                return formatdate((timestamp or time.time()) + forge.ahead_s, usegmt=True)

            def log_message(self, *_: Any) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Ward:
    """A fleet in order, on a host in order: `bin` is on both PATHs, `own` only on the shell's."""

    def __init__(self, root: Path, use: str) -> None:
        self.root, self.use, self.home = root, use, root / "home"
        self.bin, self.own = root / "bin", root / "own"
        self.shell: dict[str, str] = {}  # further variables of the shell
        self.start: Callable[[list[str], dict[str, str]], subprocess.CompletedProcess[str]] = self._start
        self.path: list[str] = []  # further folders of the shell's PATH
        self.undo = contextlib.ExitStack()
        self.forge = Forge()
        self.undo.callback(self.forge.close)
        self.tables: dict[str, list[str]] = {
            "fleet": ['repos = ["acme/api"]'],
            "github": [f'api_url = "{self.forge.url}"', f'auth = "token:file:{root}/github"'],
            "schedule": [f'use = "{use}"', f'path = "{self.bin}:/usr/bin:/bin"'],
            "engines.claude": [f'key = "file:{root}/key"'],
            "engines.codex": [f'key = "file:{root}/other-key"'],
        }
        for folder in (self.bin, self.own, self.home / "agents"):
            folder.mkdir(parents=True)
        self.home.chmod(0o700)
        (self.bin / "git").symlink_to(str(shutil.which("git")))
        self.program(self.bin, "claude", "echo 2.1.329")
        self.program(self.bin, "codex", "echo codex-cli 0.169.0")
        for name in ("github", "key", "other-key"):
            (root / name).write_text(SECRET)
            (root / name).chmod(0o600)
        for name, engine in (("bosun", {"use": "claude"}), ("gunner", {"use": "codex"}), ("mate", python("pass")),
                             ("cook", python("pass"))):  # fmt: skip
            write_agent(self.home, name, agent(engine, isolation="none", every="20m"))

    def program(self, folder: Path, name: str, text: str) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)

    def write(self) -> None:
        text = "".join(f"[{name}]\n" + "\n".join(lines) + "\n" for name, lines in self.tables.items())
        (self.home / "fleet.toml").write_text(text)

    def run(self, *argv: str, **more: str) -> subprocess.CompletedProcess[str]:
        path = ":".join([*self.path, str(self.own), str(self.bin), "/usr/bin", "/bin"])
        env = {"PATH": path, "WATCHBILL_HOME": str(self.home), **self.shell, **more}
        return self.start([sys.executable, WATCHBILL, *argv], env)

    def _start(self, argv: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(argv, env={"HOME": os.environ["HOME"], **env}, capture_output=True, text=True,
                              timeout=60, stdin=subprocess.DEVNULL, check=False)  # fmt: skip

    def asked(self) -> dict[str, Any]:
        """The object of --json; and no secret is in anything that was said."""
        done = self.run("doctor", "--json")
        assert done.returncode in (0, 78), done.stderr
        found = json.loads(done.stdout)
        assert found["ok"] is (done.returncode == 0)
        assert SECRET not in done.stdout + done.stderr
        assert isinstance(found, dict)
        return found

    def wrong(self) -> list[dict[str, Any]]:
        return [one for one in self.asked()["findings"] if one["state"] == "wrong"]

    def unit_of(self, name: str) -> Path:
        """The file that names what is started."""
        folder, ending = {"launchd": ("Library/LaunchAgents", "plist"), "systemd": (".config/systemd/user", "service")}[
            self.use
        ]
        (path,) = Path(os.environ["HOME"], folder).glob(f"watchbill-*-{name}.{ending}")
        return path


@contextlib.contextmanager
def ward(root: Path, use: str) -> Iterator[Ward]:
    it = Ward(root, use)
    with it.undo:
        if use == "launchd":
            it.path = [str(launchctl.install(root).bin)]
        if use == "systemd":
            machine = it.undo.enter_context(manager.private(root, shared_loopback=True))
            it.start = lambda argv, env: machine.run(*argv, env=env)
        yield it


class Fault(NamedTuple):
    """One thing to break, and what is to be said of it."""

    seed: Callable[[Ward], None]
    subject: str
    where: str
    id: str
    fix: str  # words of it


def engine_on_the_shells_path(it: Ward) -> None:
    (it.bin / "claude").rename(it.own / "claude")


def token_in_the_shells_environment(it: Ward) -> None:
    it.tables["github"][1] = 'auth = "token:env:TOKEN_OF_MINE"'
    it.shell["TOKEN_OF_MINE"] = SECRET


def agent_for_keys_of_the_shell(it: Ward) -> None:
    listener = it.undo.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(str(it.root / "keys"))
    listener.listen()
    it.shell["SSH_AUTH_SOCK"] = str(it.root / "keys")
    it.tables['repo."acme/api"'] = ['remote = "git@github.example:acme/api"']


def key_that_others_read(it: Ward) -> None:
    (it.root / "other-key").chmod(0o644)


def agent_that_others_write(it: Ward) -> None:
    (it.home / "agents" / "mate.md").chmod(0o666)


def gate_without_a_hold(it: Ward) -> None:
    (it.home / "held").mkdir(exist_ok=True)
    (it.home / "held" / "agent-mate").touch()


def clock_that_is_wrong(it: Ward) -> None:
    it.forge.ahead_s = 3600


def disk_without_room(it: Ward) -> None:
    it.tables["host"] = ['min_free = "900000GB"']


def git_of_old(it: Ward) -> None:
    it.program(it.bin, "git", "echo git version 2.20.1")


def timer_edited(it: Ward) -> None:
    path = it.unit_of("bosun")
    path.write_text(path.read_text() + ("<!-- mine -->\n" if it.use == "launchd" else "# mine\n"))


def timer_removed(it: Ward) -> None:
    it.unit_of("gunner").unlink()


def interpreter_that_is_gone(it: Ward) -> None:
    path = it.unit_of("mate")
    path.write_text(path.read_text().replace(units.interpreter(), "/gone/bin/python"))


def launcher_edited(it: Ward) -> None:
    (it.home / "units" / "bin" / "implement").write_text("# mine\n")


def agent_that_does_not_fire(it: Ward) -> None:
    """It was applied a day ago, and no gate file was there since."""
    path = it.home / "units" / "applied.json"
    known = json.loads(path.read_text())
    known["agents"]["cook"]["at"] -= 86_400
    path.write_text(json.dumps(known))
    os.utime(it.home / "held", (0, 0))
    db.open_ledger(str(it.home / "ledger.db")).close()


FAULTS = {
    "an engine that only the shell's PATH has": Fault(
        engine_on_the_shells_path, "claude (bosun)", "scheduler", "WB-ENGINE-01", '[schedule] path = "{own}:{bin}:'
    ),
    "a token that only the shell's environment has": Fault(
        token_in_the_shells_environment, "GitHub", "scheduler", "WB-SECRET-02", '[github] auth = "token:file:'
    ),
    "an agent for keys that only the shell knows": Fault(
        agent_for_keys_of_the_shell, "ssh to git@github.example", "scheduler", "WB-DOCTOR-07", "ssh-keygen -N ''"
    ),
    "a key that others may read": Fault(
        key_that_others_read, "codex (gunner)", "both", "WB-SECRET-03", "chmod 600 {root}/other-key"
    ),
    "an agent that others may write": Fault(
        agent_that_others_write, "{home}/agents/mate.md", "both", "WB-DOCTOR-10", "chmod go-w {home}/agents/mate.md"
    ),
    "a gate file without a hold": Fault(
        gate_without_a_hold, "{home}/held/agent-mate", "scheduler", "WB-DOCTOR-17", "watchbill resume mate"
    ),
    "a wrong clock": Fault(clock_that_is_wrong, "clock", "both", "WB-DOCTOR-11", "timedatectl set-ntp true"),
    "a full disk": Fault(disk_without_room, "disk", "both", "WB-DOCTOR-12", "[host] min_free"),
    "an old git": Fault(git_of_old, "git", "both", "WB-DOCTOR-08", "git 2.38"),
    "an edited timer": Fault(timer_edited, "bosun", "scheduler", "WB-DOCTOR-16", "watchbill apply"),
    "a timer that was taken away": Fault(
        timer_removed, "gunner", "scheduler", "WB-DOCTOR-16", "watchbill resume gunner"
    ),
    "an interpreter that is gone": Fault(
        interpreter_that_is_gone, "mate", "scheduler", "WB-DOCTOR-21", "watchbill apply"
    ),
    "an edited launcher": Fault(
        launcher_edited, "{home}/units/bin/implement", "scheduler", "WB-DOCTOR-21", "watchbill apply"
    ),
    "an agent that does not fire": Fault(
        agent_that_does_not_fire, "cook", "scheduler", "WB-DOCTOR-18", "watchbill why cook"
    ),
}


def applied(it: Ward) -> None:
    """Everything is as it should be."""
    it.write()
    done = it.run("apply")
    assert done.returncode == 0, done.stderr


def broken(it: Ward, *faults: Fault) -> None:
    for fault in faults:
        fault.seed(it)
    it.write()


def named(it: Ward, text: str) -> str:
    return text.format(root=it.root, home=it.home, own=it.own, bin=it.bin)
