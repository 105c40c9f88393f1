"""`watchbill doctor` in two columns: what is wrong is found, where it is wrong, and with what mends it.

The real command as a process. The second column runs in a real user manager, in launchd's double, and where there is
neither in an environment that imitates a unit's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.ward import FAULTS, SECRET, Fault, Ward, applied, broken, named, ward
from watchbill.doctor import second
from watchbill.doctor.finding import roster_of
from watchbill.home import Home


def told(it: Ward, fault: Fault, wrong: list[dict[str, Any]]) -> bool:
    """Whether it is found, where it is, with its fix."""
    return any(
        (one["subject"], one["where"], one["id"]) == (named(it, fault.subject), fault.where, fault.id)
        and named(it, fault.fix) in one["fix"]
        for one in wrong
    )


SYSTEMD = pytest.param(
    "systemd", marks=[pytest.mark.needs("systemctl", "unshare", "nsenter", "setsid"), pytest.mark.thorough]
)


@pytest.mark.parametrize("use", ["launchd", SYSTEMD])
def test_nothing_is_wrong_and_then_every_seeded_fault_is_found_where_it_is(tmp_path: Path, use: str) -> None:
    """All at once; one by one is below.

    Broken once, each alone, and it failed: a unit's PATH taken from the shell, and its whole environment (the two
    columns were one); the comparison of launchers, the look for interpreters, for gate files without a hold, for silent
    agents, for who may write, at the survey's states taken out (each missed by its name); a clock that is behind, a
    floor of [host], git 2.8 let pass; an agent for keys believed without asking; the fix of an engine left as it was in
    the shell; the file of answers not removed.
    """
    with ward(tmp_path, use) as it:
        applied(it)
        whole = it.asked()
        assert whole["scheduler"] == {"name": use, "how": "unit", "why": None}
        assert [one for one in whole["findings"] if one["state"] == "wrong"] == []
        both = {one["subject"] for one in whole["findings"] if one["where"] == "both"}
        assert {
            "claude (bosun)",
            "codex (gunner)",
            "command (cook, mate)",
            "GitHub",
            "HOME",
            "git",
            str(it.home),
        } <= both
        armed = {one["subject"] for one in whole["findings"] if one["what"] == "armed"}
        assert armed == {"bosun", "cook", "gunner", "mate"} | ({"catch.up"} if use == "launchd" else set())
        paths = {one["where"]: one["what"] for one in whole["findings"] if one["subject"] == "PATH"}
        assert str(it.own) in paths["shell"]
        assert paths["scheduler"] == f"{it.bin}:/usr/bin:/bin"

        broken(it, *FAULTS.values())
        wrong = it.wrong()
        missed = [name for name, fault in FAULTS.items() if not told(it, fault, wrong)]
        assert missed == [], json.dumps(wrong, indent=1)
        assert sorted(path.name for path in (it.home / "units").glob("doctor*")) == []


@pytest.mark.thorough
@pytest.mark.needs("systemctl", "unshare", "nsenter", "setsid")
@pytest.mark.parametrize("name", FAULTS)
def test_each_seeded_fault_alone_is_all_that_is_found(tmp_path: Path, name: str) -> None:
    with ward(tmp_path, "systemd") as it:
        applied(it)
        broken(it, FAULTS[name])
        wrong = it.wrong()
        assert told(it, FAULTS[name], wrong), wrong
    assert {one["subject"] for one in wrong} == {named(it, FAULTS[name].subject)}, wrong


@pytest.mark.thorough
@pytest.mark.needs("systemctl", "unshare", "nsenter", "setsid")
def test_a_shell_with_another_home_and_a_user_who_does_not_linger(tmp_path: Path) -> None:
    """The manager's HOME is the user's; /run/systemd/users is there where logind is.

    Broken once: HOME compared with itself, and linger not asked for: each was not among what was found.
    """
    (tmp_path / "elsewhere").mkdir()
    with ward(tmp_path, "systemd") as it:
        it.write()
        it.start(["mkdir", "-p", "/run/systemd/users"], {})
        it.shell["HOME"] = f"{tmp_path}/elsewhere"
        wrong = {(one["subject"], one["where"], one["id"], one["fix"]) for one in it.wrong()}
    assert ("linger", "scheduler", "WB-DOCTOR-15", "loginctl enable-linger") in wrong
    assert [one[1:3] for one in wrong if one[0] == "HOME"] == [("scheduler", "WB-DOCTOR-06")]


@pytest.mark.thorough
def test_a_login_of_gh_that_only_the_shell_is_pointed_to(tmp_path: Path) -> None:
    """And without a scheduler the second column is imitated, and says so.

    Broken once: imitated with the shell's environment, nothing was wrong.
    """
    with ward(tmp_path, "systemd-of-nobody") as it:
        it.tables["schedule"][0] = 'use = "auto"'
        it.tables["github"][1] = 'auth = "gh"'
        it.shell["GH_CONFIG_DIR"] = "/my/gh"
        it.program(it.bin, "gh", f'[ "$GH_CONFIG_DIR" = /my/gh ] && exec echo {SECRET}\necho no login >&2\nexit 1')
        it.write()
        whole = it.asked()
    assert (whole["scheduler"]["name"], whole["scheduler"]["how"]) == ("systemd", "imitated")
    assert whole["scheduler"]["why"]
    (wrong,) = (one for one in whole["findings"] if one["state"] == "wrong")
    assert (wrong["subject"], wrong["where"], wrong["id"]) == ("GitHub", "scheduler", "WB-SECRET-04")
    assert wrong["fix"].startswith('[schedule] env = {GH_CONFIG_DIR = "/my/gh"} in fleet.toml')
    assert ("GitHub", "shell", "ok") in {(one["subject"], one["where"], one["state"]) for one in whole["findings"]}


@pytest.mark.thorough
def test_what_hangs_in_the_second_column_is_named_and_nothing_of_it_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken once: with only the started process killed, the helper lived on in a session of its own; with answers
    that are not written at once, nothing of git was told; with helpers ended first, it went on meanwhile and was found
    looking at the engine, in one of six runs.
    """
    monkeypatch.setattr(second, "COLUMN_S", 5)
    with ward(tmp_path, "auto") as it:
        it.program(it.bin, "helper", f"echo $$ > {tmp_path}/pid\nexec sleep 100")
        it.tables["github"][1] = f'auth = "token:cmd:{it.bin}/helper"'
        it.write()
        home = Home(str(it.home))
        seen = second.by_scheduler(home, roster_of(home))
    assert seen.column is not None
    assert "git" in {one.subject for one in seen.column.findings}
    last = seen.column.findings[-1]
    assert (last.state, last.id) == ("wrong", "WB-DOCTOR-14")
    assert "did not end within 5 s, looking at GitHub" in last.what
    stat = Path("/proc", (tmp_path / "pid").read_text().strip(), "stat")
    assert not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] == "Z"
    assert not (it.home / "units").exists()
