"""The gate `unfit`: from real causes where a test can make them, else from what was read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.fleet import LABEL, agent, fleet
from support.gates import an_agent, seen
from watchbill import fitness
from watchbill.compiled import Host
from watchbill.fitness import Condition
from watchbill.gates import unfit

NO_LIMITS = Host(0, 0, 0, 0)

#: limits, what was read -> reason id, or None: fit
TABLE = [
    (Host(), Condition(), None),
    (Host(500, 0, 0, 0), Condition(free_bytes=499), "unfit-disk"),
    (Host(500, 0, 0, 0), Condition(free_bytes=500), None),
    (Host(500, 0, 0, 0), Condition(free_bytes=0), "unfit-disk"),
    (Host(0, 10, 0, 0), Condition(free_inodes=9), "unfit-inodes"),
    (Host(0, 10, 0, 0), Condition(free_inodes=10), None),
    (Host(0, 10, 0, 0), Condition(free_inodes=None), None),  # a file system without such a limit
    (Host(0, 0, 1_500_000, 0), Condition(load_ppm=1_500_001), "unfit-load"),
    (Host(0, 0, 1_500_000, 0), Condition(load_ppm=1_500_000), None),
    (Host(0, 0, 0, 20), Condition(battery_pct=19), "unfit-battery"),
    (Host(0, 0, 0, 20), Condition(battery_pct=20), None),
    (Host(0, 0, 0, 20), Condition(battery_pct=None), None),  # on mains, or without one
    (NO_LIMITS, Condition(0, 0, 10**9, 0), None),
    (Host(1, 1, 1, 1), Condition(0, 0, 10**9, 0), "unfit-disk"),  # the first counts
]


@pytest.mark.parametrize(("limits", "condition", "reason_id"), TABLE)
def test_the_table(limits: Host, condition: Condition, reason_id: str | None) -> None:
    refusal = unfit.refuse(an_agent(), seen(limits=limits, condition=condition))
    assert (refusal and refusal.reason_id) == reason_id
    if refusal:
        assert refusal.outcome == "held"
        assert "[host] " in refusal.reason
        assert all(value is not None for value in refusal.numbers.values())
    assert unfit.refuse(an_agent(role="sweep"), seen(limits=limits, condition=condition)) is None


def test_the_numbers_in_its_words() -> None:
    refusal = unfit.problem(Host(500_000_000, 0, 0, 0), Condition(free_bytes=120_999_999))
    assert refusal is not None
    assert refusal.reason == (
        "this host is unfit: 120 MB are free where the home lies, fewer than 500 MB ([host] min_free)"
    )


def test_only_what_has_a_limit_is_read(tmp_path: Path) -> None:
    assert fitness.read(str(tmp_path), NO_LIMITS, str(tmp_path / "nowhere")) == Condition()
    everything = fitness.read(str(tmp_path), Host(1, 1, 1, 1), str(tmp_path / "nowhere"))
    assert everything.free_bytes
    assert everything.load_ppm is not None
    assert everything.battery_pct is None
    assert fitness.read(str(tmp_path / "nowhere"), Host(1, 1, 0, 0)) == Condition()
    assert 1 <= fitness.processors() <= (os.cpu_count() or 1)


def power(root: Path, **supplies: dict[str, str]) -> str:
    for name, words in supplies.items():
        (root / name).mkdir(parents=True)
        for word, value in words.items():
            (root / name / word).write_text(value + "\n")
    return str(root)


def battery(capacity: str, status: str = "Discharging", **more: str) -> dict[str, str]:
    return {"type": "Battery", "capacity": capacity, "status": status, **more}


@pytest.mark.parametrize(
    ("supplies", "left"),
    [
        ({}, None),
        ({"BAT0": battery("12")}, 12),
        ({"BAT0": battery("12"), "AC": {"type": "Mains", "online": "0"}}, 12),
        ({"BAT0": battery("12"), "AC": {"type": "Mains", "online": "1"}}, None),
        ({"BAT0": battery("12"), "ucsi": {"type": "USB", "online": "1"}}, None),
        ({"BAT0": battery("12", "Charging")}, None),
        ({"BAT0": battery("99", "Full")}, None),
        ({"BAT0": battery("10"), "BAT1": battery("31")}, 20),
        ({"BAT0": battery("garbage")}, None),
        ({"BAT0": {"type": "Battery", "status": "Discharging"}}, None),
        ({"mouse": battery("3", scope="Device")}, None),
        ({"BAT0": battery("50"), "mouse": battery("3", scope="Device")}, 50),
    ],
)
def test_batteries(tmp_path: Path, supplies: dict[str, dict[str, str]], left: int | None) -> None:
    """Broken on purpose: without the scope a mouse's battery held the host."""
    root = power(tmp_path / "power", **supplies)
    assert fitness.read("/", NO_LIMITS._replace(min_battery_pct=20), root).battery_pct == left


_SMALL = """
import json, os, subprocess, sys
place = sys.argv[1]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=40", "none", place], check=True)
from watchbill import fitness
from watchbill.compiled import Host
from watchbill.gates import unfit
limits = Host(400_000, 20, 0, 0)
def now():
    found = unfit.problem(limits, fitness.read(place, limits))
    print(json.dumps(found and [found.reason_id, dict(found.numbers)]))
now()
with open(place + "/large", "wb") as file:
    file.write(bytes(700_000))
now()
os.remove(place + "/large")
for n in range(30):
    open(f"{place}/{n}", "w").close()
now()
"""


@pytest.mark.needs("unshare")
def test_a_small_disk_that_fills_up(tmp_path: Path) -> None:
    """Real: a tmpfs of a megabyte and forty inodes, in a mount namespace of its own.

    Broken on purpose: with f_blocks and f_files, what the disk has at all, nothing was ever unfit.
    """
    argv = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", _SMALL, str(tmp_path)]
    if subprocess.run([*argv[:4], "true"], capture_output=True, check=False).returncode:
        argv = ["unshare", "--mount", *argv[4:]]  # as root, where there are no user namespaces
        if os.geteuid() or subprocess.run([*argv[:2], "true"], capture_output=True, check=False).returncode:
            pytest.skip("missing: mount namespaces")
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode and "mount" in done.stderr:
        pytest.skip(f"missing: a tmpfs in a mount namespace: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    first, full, crowded = done.stdout.splitlines()
    assert first == "null"
    assert '"unfit-disk"' in full
    assert '"unfit-inodes"' in crowded


def test_a_firing_on_an_unfit_host_is_held_and_a_sweep_is_not(tmp_path: Path) -> None:
    crew = {"bosun": agent(), "steward": {"role": "sweep"}}
    with fleet(tmp_path, crew, toml='[host]\nmin_free = "900TB"\n') as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        ended = it.fire("bosun")
        assert (ended.outcome, ended.status) == ("held", 75)
        assert "fewer than 900 TB" in ended.reason
        assert it.rows("SELECT reason_id FROM firings") == [("unfit-disk",)]
        assert it.fire("steward", role="sweep").outcome == "idle"
