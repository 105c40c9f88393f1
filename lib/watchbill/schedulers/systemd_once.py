"""Something started now as systemd starts firings, of which nothing stays, even when whoever asked for it is killed."""

from __future__ import annotations

import os
import subprocess
import sys

from watchbill.errors import Fixable
from watchbill.schedulers import manifest, systemd_text
from watchbill.schedulers import systemd_ask as ask
from watchbill.schedulers.base import File, Unit

#: Ends what `once` began when whoever began it is gone: it waits for its own input to end.
_CLEANER = """\
import os, subprocess, sys
sys.stdin.read()
path, unit = sys.argv[1:]
ask = ["systemctl", "--user", "--no-ask-password"]
quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
subprocess.run([*ask, "stop", unit], **quiet)
if os.path.lexists(path):
    os.unlink(path)
subprocess.run([*ask, "daemon-reload"], **quiet)
subprocess.run([*ask, "reset-failed", unit], **quiet)
"""


def once(unit: Unit, timeout_s: float) -> int | None:
    """By a service that only this session of the manager knows, as the agents' are, in $XDG_RUNTIME_DIR."""
    # No agent's name holds a dot.
    mine = unit._replace(name=f"{unit.name}.once-{os.getpid()}")
    service = f"{mine.name}.service"
    file = File(os.path.join(ask.runtime_directory(), "systemd", "user", service), systemd_text.service(mine))
    environment = {**os.environ, "XDG_RUNTIME_DIR": ask.runtime_directory()}
    cleaner = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _CLEANER, file.path, service],
        stdin=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    try:
        manifest.put(file)
        ask.must("daemon-reload", timeout_s=ask.RELOAD_S)
        return _started(service, timeout_s)
    finally:
        cleaner.communicate()


def _started(service: str, timeout_s: float) -> int | None:
    """`start` ends when a oneshot has: 0, or its status is still there to be asked for."""
    try:
        ended = ask.systemctl("start", service, timeout_s=timeout_s)
    except Fixable:
        return None
    if ended.returncode == 0:
        return 0
    said = ask.show([service], ("Result", "ExecMainStatus", "LoadState", "LoadError"))[service]
    if ask.one(said, "Result") == "success":  # it was not started at all
        raise ask.silent(f"`systemctl --user start {service}` failed", ended.stderr)
    status = ask.one(said, "ExecMainStatus")
    return int(status) if ask.one(said, "Result") == "exit-code" and status.isdigit() else None
