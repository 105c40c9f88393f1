"""systemd/hardening.md as it stands: its lines hold, what it says they break breaks, and what jails agents works."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from support import manager
from support.manager import Manager
from watchbill import roles

pytestmark = pytest.mark.needs("systemctl", "unshare", "nsenter", "setsid", "setpriv", "bwrap")

DOCUMENT = Path(roles.beside("systemd"), "hardening.md").read_text()
LINES, WEAKER = re.findall(r"```ini\n(.*?)```", DOCUMENT, re.DOTALL)
JAIL = "bwrap --ro-bind / / --dev /dev --proc /proc --unshare-pid --unshare-net true"


@pytest.mark.thorough
def test_the_documented_lines_hold_and_jails_work(tmp_path: Path) -> None:
    with manager.private(tmp_path, uid=1000, usual_home=True) as it:
        (it.home / ".watchbill").mkdir(parents=True)
        _give(it)
        tries = {
            "always": "NoNewPrivileges=yes",
            "lines": "NoNewPrivileges=yes\n" + LINES.replace("[Service]", ""),
            "namespaces": "RestrictNamespaces=yes",
            "families": "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
            "calls": "SystemCallFilter=@system-service",
            "weaker": "NoNewPrivileges=yes\n" + WEAKER.replace("[Service]", ""),
        }
        said = {name: _said(it, name, lines) for name, lines in tries.items()}
    always, lines = said["always"], said["lines"]
    assert {"NoNewPrivs 1", "jail 0", "namespace 0", "home 0", "tmp mark"} <= always
    assert {"NoNewPrivs 1", "jail 0", "namespace 0", "fleet 0"} <= lines
    assert "home 0" not in lines, "ProtectHome= is ignored"
    assert "tmp mark" not in lines, "PrivateTmp= is ignored"
    for breaks in ("namespaces", "families", "calls"):
        assert "jail 0" not in said[breaks], breaks
    assert "NoNewPrivs 0" in said["weaker"]


def _said(it: Manager, name: str, lines: str) -> set[str]:
    """What a firing with these lines in a drop-in finds."""
    probe = it.home / ".watchbill" / "probe"
    probe.write_text(
        f"""#!/bin/sh
echo "$(sed -n 's/^NoNewPrivs:.*\\(.\\)/NoNewPrivs \\1/p' /proc/self/status)"
{JAIL}; echo "jail $?"
unshare -Ur true; echo "namespace $?"
touch ~/x; echo "home $?"
touch ~/.watchbill/x; echo "fleet $?"
[ -e /tmp/mark ] && echo "tmp mark"
"""
    )
    out = it.home / ".watchbill" / f"out-{name}"
    unit = it.units / f"try-{name}.service"
    (it.units / f"{unit.name}.d").mkdir(parents=True)
    unit.write_text(
        "[Service]\nType=oneshot\nExecStart=/bin/sh %h/.watchbill/probe\n"
        f"StandardOutput=append:%h/.watchbill/{out.name}\n"
    )
    (it.units / f"{unit.name}.d" / "hardening.conf").write_text(f"[Service]\n{lines}\n")
    _give(it)
    it.run("touch", "/tmp/mark", check=True)
    it.systemctl("daemon-reload")
    it.systemctl("start", unit.name, check=False)
    it.systemctl("reset-failed", check=False)
    return set(out.read_text().splitlines()) if out.exists() else set()


def _give(it: Manager) -> None:
    """Everything below HOME is the ordinary user's."""
    for folder, names, files in os.walk(it.home):
        for name in (".", *names, *files):
            os.chown(os.path.join(folder, name), it.uid, it.uid)
