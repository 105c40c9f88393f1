"""A fleet to be cut: agents that play stories, firings that are stopped or killed at a boundary, and the running on."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from crash.probe import HOOK
from crash.right import wrong
from crash.zygote import Forked, Zygote, zygote
from support.fleet import LABEL, QUICK, Fleet, agent, fleet, other_host, scripted, write_agent
from support.repos import hook

PUBLISHED = "land (claim ref to published): after receipt"
AT_WORK = "engine: running"
#: `make crash` cuts everywhere, the tests of every day a part of it.
THOROUGH = bool(os.environ.get("WATCHBILL_CRASH_THOROUGH"))
#: Boundaries where something has just changed outside; with DELETE, an edit of labels is half done.
CHANGED = ("after act", "push: executed", "DELETE")


class Story(NamedTuple):
    """A way a firing can go."""

    path: str  # what its engine writes
    steps: tuple[dict[str, object], ...] = ()  # what it does after that
    dead: str = ""  # before it, another firing is killed at this boundary
    term: str = ""  # it is sent SIGTERM at this boundary
    anew: str = "-"  # boundaries that begin so are cut here too, though another story crosses them


LANDS = Story("done.txt")


class Room(NamedTuple):
    """A fleet to cut."""

    it: Fleet
    zygote: Zygote
    ran: Path  # the ids of firings whose engine had written its work: all of them have something to lose

    def other_host(self, name: str) -> Room:
        return self._replace(it=other_host(self.it, name))

    def enlist(self, agents: dict[str, tuple[Story, str]]) -> None:
        """Agents by name: the story each plays, and where it will be cut. All at once: a roster is compiled once."""
        for name, (story, at) in agents.items():
            for who, plays, cut in ((f"{name}-before", LANDS, story.dead), (name, story, at)):
                write_agent(self.it.home, who, self._engine(plays, *([{"sleep": 20}] if cut == AT_WORK else ())))

    def _engine(self, story: Story, *more: dict[str, object]) -> dict[str, object]:
        work = {"write": {"path": story.path, "content": "x\n"}}
        said = {"run": f"echo $WATCHBILL_FIRING >> {self.ran}"}
        return agent(scripted(work, said, *story.steps, *more), isolation="none")

    def begin(self, name: str, story: Story, **probe: str) -> Forked:
        """Start one firing of a story with an issue for it, after what comes before it."""
        self.it.world.branch("main", {f"of-{name}.txt": name})  # a new base: its checks are not known yet
        if (self.it.home / "ledger.db").exists():
            self.it.change("UPDATE polls SET fetched_ms = 0")  # what is asked once an hour is asked again
        if story.dead:
            self.it.world.issue("octocat", "Before", labels=[LABEL])
            dead = self.start(f"{name}-before", LANDS, at=story.dead, how="kill")
            assert self.zygote.wait(dead) == -signal.SIGKILL, dead.out.read_text()
        self.it.world.issue("octocat", "Do it", labels=[LABEL])
        return self.start(name, story, **probe)

    def start(self, name: str, story: Story = LANDS, role: str = "implement", **probe: str) -> Forked:
        return self.zygote.start(
            self.it.home, name, role, victim=str(self.it.world.bare / "hooks" / "victim"), term=story.term,
            worked=str(self.ran), **probe,
        )  # fmt: skip

    def kill(self, *firings: Forked) -> None:
        """All that are stopped, as a power cut would."""
        for firing in firings:
            if self.zygote.state(firing) == "stopped":
                os.kill(firing.pid, signal.SIGKILL)
        assert {self.zygote.wait(firing) for firing in firings} <= {-signal.SIGKILL}

    def run_on(self, firings: int) -> None:
        """Fire until there is nothing to do, at most so often."""
        for _ in range(firings):
            ended = self._past_limits()
            owned = self.it.rows("SELECT count(*) FROM claims WHERE state IN ('intended', 'won')")
            if ended["outcome"] == "idle" and owned == [(0,)]:
                return
            if ended["outcome"] == "idle":
                time.sleep(1.05)  # what a list did not show is asked for again, a grace later
        raise AssertionError(f"not at rest after {firings} firings: {ended}; {wrong([self.it], self.ran)}")

    def _past_limits(self) -> dict[str, Any]:
        """A firing, once GitHub lets the host ask again: a limit holds it for the second it is given, and for two
        minutes when it was hit twice. Those are made to pass; what happens at their end is not."""
        for n in range(40):
            ended = self.zygote.fire(self.it.home, "relief")
            if ended["outcome"] != "held":
                break
            time.sleep(0.2)
            if n >= 10:
                self.it.change("UPDATE holds SET until = unixepoch() WHERE scope = 'github' AND lifted_at IS NULL")
        return ended

    def sweep(self) -> str:
        return str(self.zygote.fire(self.it.home, "steward", "sweep")["outcome"])


@contextlib.contextmanager
def room(tmp_path: Path, remote: str = "file", toml: str = QUICK) -> Iterator[Room]:
    with fleet(tmp_path, {}, checks=["test ! -e red.txt"], remote=remote, toml=toml) as it:
        hook(it.world.bare, "post-receive", HOOK)
        with zygote(tmp_path / "zygote", it.environment()) as server:
            here = Room(it, server, tmp_path / "ran")
            here.enlist({"relief": (LANDS, "")})
            write_agent(it.home, "steward", {"role": "sweep", "every": "30m"})
            yield here


def crossings(log: Path) -> list[tuple[int, str]]:
    """What a probe saw, in order: the epoch and the boundary's name."""
    lines = [line.split("\t") for line in log.read_text().splitlines()]
    return [(int(epoch), name) for epoch, name in lines]


def epochs(log: Path) -> list[list[str]]:
    """The boundaries that were crossed, each where it was first, by epochs."""
    found: dict[int, list[str]] = {}
    for epoch, name in crossings(log):
        if not any(name in names for names in found.values()):
            found.setdefault(epoch, []).append(name)
    return [names for _, names in sorted(found.items())]


def last_epoch(log: Path) -> set[str]:
    """Every boundary since the last time that something durable happened: where a firing was cut."""
    seen = crossings(log)
    return {name for epoch, name in seen if epoch == seen[-1][0]}
