"""kill -9 at the boundaries of a sweep: over what another host left that never comes back, and what people answered."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from crash.right import issues, wrong
from crash.room import AT_WORK, CHANGED, PUBLISHED, THOROUGH, Room, Story, epochs, last_epoch, room
from crash.zygote import Forked
from support.fleet import LABEL
from support.forge import REPO

TORN = "land (label pr): DELETE /repos/acme/api/issues/N/labels/agent%NAin-flight: before"


#: Does it on the other host, by an agent of this name; a firing that was stopped.
Happens = Callable[[Room, str], list[Forked]]


def dies(at: str) -> Happens:
    """The other host's firing is cut for good, and nobody of that host is there to repair it."""

    def happens(there: Room, name: str) -> list[Forked]:
        there.it.world.issue("octocat", "Do it", labels=[LABEL])
        firing = there.start(name, Story(f"{name}.txt"), at=at, how="stop")
        assert there.zygote.wait(firing) == "stopped", firing.out.read_text()
        return [firing]

    return happens


def answered(verb: str, path: str, body: object) -> Happens:
    """Its pull request is answered by a person."""

    def happens(there: Room, name: str) -> list[Forked]:
        there.it.world.issue("octocat", "Do it", labels=[LABEL])
        pull = there.zygote.fire(there.it.home, name)["pull_request"]
        reply = there.it.world.ask("octocat", verb, f"/repos/{REPO}/pulls/{pull}{path}", body)
        assert reply.status == 200, reply
        return []

    return happens


#: What happened -> how, and where its claim rests in the end.
HAPPENED = {
    "active": (dies(AT_WORK), {"released(retry)", "pr"}),
    "published": (dies(PUBLISHED), {"pr"}),
    "torn": (dies(TORN), {"pr"}),
    "merged": (answered("PUT", "/merge", {}), {"done"}),
    "closed": (answered("PATCH", "", {"state": "closed"}), {"released(human)"}),
}


#: The others go through the same doors; .ci/run and `make crash` open each.
DAILY = ("published",)


@pytest.mark.parametrize(
    "what", [what if what in DAILY else pytest.param(what, marks=pytest.mark.thorough) for what in HAPPENED]
)
def test_a_sweep_killed_at_every_boundary(tmp_path: Path, what: str) -> None:
    """Each killed sweep leaves one issue half put right, the next goes on; then the fleet and one more sweep do.

    Found when it was new: killed between `merge` and the labels, a merged issue stayed labelled pr-open for ever, for
    the sweep's lists showed open issues only. And a host that came back threw the work of its dead firings away when
    another host's sweep had released their claims meanwhile.
    """
    happens, rests = HAPPENED[what]
    with room(tmp_path) as here:
        at = AT_WORK if what == "active" else ""
        names = [f"a{number}" for number in range(80 if THOROUGH else 20)]
        here.enlist({name: (Story(f"{name}.txt"), at) for name in names})
        there = here.other_host("there")
        left = happens(there, "a0")
        seen(here)
        watched = [names for names in swept(here) if chosen(names)]
        watched.sort(key=lambda names: not names[-1].startswith("sweep"))  # last those that leave nothing to put right
        assert watched
        for number in range(1, len(watched) + 1):
            left += happens(there, f"a{number}")
        there.kill(*left)
        seen(here)
        for names in watched:
            cut(here, names[-1])
        here.run_on(2 * len(watched) + 2)
        for _ in range(2):
            here.sweep()
            time.sleep(1.1)  # what a list did not show is believed at the second look
        assert {issue.phase for issue in issues(here.it.world)} <= rests
        assert wrong([here.it]) == []
        there.run_on(2 * len(left) + 1)  # the host that was given up is back
        assert wrong([here.it, there.it], here.ran) == []


def chosen(names: list[str]) -> bool:
    return THOROUGH or any(mark in name for name in names for mark in (*CHANGED, "before sweep", "after sweep"))


def seen(here: Room) -> None:
    """The other host's claims stand still before our eyes for as long as it takes."""
    here.zygote.fire(here.it.home, "relief")
    time.sleep(3.2)


def swept(here: Room) -> list[list[str]]:
    """The boundaries of sweeps that put everything right."""
    found: list[list[str]] = []
    for _ in range(3):
        sweep = here.start("steward", role="sweep", how="kill")
        assert here.zygote.wait(sweep) == 0, sweep.out.read_text()
        known = {name for names in found for name in names}
        found += [names for names in epochs(sweep.log) if not known.issuperset(names)]
        time.sleep(1.1)  # what a list did not show is believed at the second look
    return found


def cut(here: Room, at: str) -> None:
    for _ in range(3):
        sweep = here.start("steward", role="sweep", at=at, how="kill")
        if here.zygote.wait(sweep) == -signal.SIGKILL:
            assert at in last_epoch(sweep.log)
            return
        time.sleep(1.1)
    raise AssertionError(f"never crossed: {at}: {sweep.out.read_text()}")
