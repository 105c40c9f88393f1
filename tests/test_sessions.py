"""A conversation is kept when work is stopped, and gone on with by the firing that begins from that work, and no other.

With an adapter of somebody else's that keeps its conversations as `talks/NAME.jsonl`; the real programs go on with
theirs in tests/real_engines.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from support.fleet import LABEL, agent, at_work, finish, fleet, killed_at_work, python, rested, write_agent
from support.forge import git
from support.ledgers import firing as a_row
from support.ledgers import new_ledger
from watchbill import evidence, mend, sessions, worktree
from watchbill.claims.record import VERSION, ClaimRecord
from watchbill.clock import SystemClock
from watchbill.engines.base import Session, Tokens, Usage
from watchbill.home import Home
from watchbill.ledger import claims, firings
from watchbill.ledger import evidence as rows
from watchbill.ledger.evidence import Evidence
from watchbill.live import Claim, Firing, Target
from watchbill.outcomes import Ending
from watchbill.ports import Ports
from watchbill.roster import read_roster
from watchbill.woken import Options

DIARY = """
import json, os
from watchbill.engines import transcripts
from watchbill.engines.base import Conversation, Event, Launch, Tokens, Usage
from watchbill.engines.command import *
name = "acme_talks.diary"

def launch(task):
    return Launch((*task.options["argv"], task.session.id if task.session else "new"), {}, b"")

def session(home):
    if os.path.exists(os.path.join(home, "broken")):
        raise AttributeError("a mistake of the adapter's")
    if os.path.exists(os.path.join(home, "elsewhere")):
        with open(os.path.join(home, "elsewhere")) as file:
            return Conversation(*json.load(file))
    path = transcripts.newest(home, "talks/*.jsonl")
    return Conversation(os.path.basename(path)[:-6], path) if path else None

class transcript:
    def __init__(self, home):
        self.files, self.sum = transcripts.Files(home, "talks/*.jsonl"), Tokens()
    def look(self):
        lines = [json.loads(line) for _, line in self.files.lines()]
        for line in lines:
            self.sum = Tokens(self.sum.input + line.get("tokens", 0), self.sum.output)
        return (Event("usage", Usage(self.sum.input, 0, 1, None, (("m", self.sum),))),) if lines else ()
"""
#: Its program: half of the work and a sleep, or the rest of it.
TALKS = """
import json, os, sys, time
path = os.path.join(os.environ["HOME"], "talks", "talk-1.jsonl")
os.makedirs(os.path.dirname(path), exist_ok=True)
before = open(path).read() if os.path.exists(path) else ""
with open(path, "a") as file:
    file.write(json.dumps({"role": "model", "text": "half", "tokens": 50 if before else 700}) + "\\n")
if sys.argv[1] == "new":
    open("half", "w").write("half")
    time.sleep(60)
open("done.txt", "w").write(f"{sys.argv[1]} {len(before.splitlines())}")
"""
LINES = [{"role": "user", "text": "do it"}, {"role": "model", "text": "so be it", "tokens": 700}]
OF_THREE = "".join(json.dumps(line) + "\n" for line in [*LINES, {"role": "model", "text": "on", "tokens": 50}])
WIP = "c0ffee"


class World:
    """A home with bosun, who talks, and mate, who does not; and one issue, 7#41."""

    def __init__(self, root: Path) -> None:
        package = root / "packages" / "acme_talks"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "diary.py").write_text(DIARY)
        self.root = root
        self.home = Home(str(root / "home"))
        (root / "home" / "agents").mkdir(parents=True)
        (root / "home" / "fleet.toml").write_text('[fleet]\nrepos = ["acme/api"]\n')
        write_agent(root / "home", "bosun", agent({"use": "acme_talks.diary"}))
        write_agent(root / "home", "mate", agent(python("pass")))
        self.roster = read_roster(str(root / "home"))
        self.ledger = new_ledger(root)

    def firing(self, id: str, generation: int = 1, who: str = "bosun", host: str = "h1", **about: Any) -> Firing:
        """One that has won the issue, with a HOME for its engine."""
        row = a_row(who, id, host)
        with self.ledger.transaction():
            firings.begin(self.ledger, row)
            claims.intend(self.ledger, id, host, 7, "acme/api", 41, generation, f"i{id}")
            claims.win(self.ledger, id, 7, 41, f"t{id}", 100)
        f = self.session(row, who)
        f.claim = Claim(self.target(generation, **about), self.record(id, generation), f"t{id}")
        f.tree = worktree.places(f, "b")
        os.makedirs(f.tree.home)
        f.engine_started, f.kept_commit = True, WIP
        return f

    def session(self, row: firings.Firing, who: str = "bosun", ports_of: str | None = None) -> Firing:
        agents = self.roster.agents
        ports = Ports(self.home, self.roster.fleet, agents[ports_of or who], SystemClock(), self.ledger)
        return Firing(row, agents[who], self.roster, ports, Options(who), 100_000)

    def target(self, generation: int, wip: str | None = WIP, digest: str = "words", number: int = 41) -> Target:
        repo = self.roster.fleet.repos["acme/api"]
        return Target(repo, 7, "main", mend.gone(number), digest, (), (), None, None, generation, 1, "ann", 1, 0,
                      f"watchbill/issue-{number}", "b", None, wip, False)  # fmt: skip

    def record(self, id: str, generation: int) -> ClaimRecord:
        return ClaimRecord(VERSION, 7, 41, generation, 0, "active", "implement", id, "bosun", "h1", "b", 1, "n", 60,
                           100, 1, "c", None, 0, None, 1, 0, None, None, None)  # fmt: skip

    def talked(self, f: Firing, text: str = OF_THREE, name: str = "talk-1") -> Path:
        """What its engine has written."""
        path = home_of(f) / "talks" / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def over(self, f: Firing) -> None:
        """It was stopped: its claim is given back."""
        with self.ledger.transaction():
            claims.end(self.ledger, f.id, "ended", "released", f"e{f.id}", 110)
            firings.end(self.ledger, f.id, Ending("cancelled", "stopped"), 110, firings.Used(0, "engine"))

    def left(self, f: Firing) -> list[Evidence]:
        return [row for row in rows.of_firing(self.ledger, f.id) if row.kind == sessions.LEFT]

    def log(self) -> str:
        return (self.root / "home" / "logs" / "bosun.log").read_text()

    def stopped(self, **more: Any) -> Firing:
        """Generation 1, whose conversation was kept."""
        f = self.firing("f1", **more)
        self.talked(f)
        sessions.keep(f)
        assert len(self.left(f)) == 1
        self.over(f)
        return f

    def next(self, generation: int = 2, earlier: str | None = "applied", **more: Any) -> Firing:
        f = self.firing("f2", generation, **more)
        f.earlier = earlier
        return f


def home_of(f: Firing) -> Path:
    assert f.tree is not None
    return Path(f.tree.home)


def go_on(f: Firing, **options: Any) -> Session | None:
    assert f.tree is not None
    return sessions.go_on(f, f.tree, options)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.syspath_prepend(tmp_path / "packages")
    for name in ("acme_talks", "acme_talks.diary"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return World(tmp_path)


def test_the_firing_that_begins_from_the_work_goes_on_with_its_conversation(world: World) -> None:
    """Broken once: with `before` not measured the 750 tokens of the first were billed to the second as well."""
    (row,) = world.left(world.stopped())
    assert row.summary == {
        "engine": "acme_talks.diary", "id": "talk-1", "path": "talks/talk-1.jsonl", "issue": "words", "commit": WIP,
        "input_tokens": 750, "output_tokens": 0}  # fmt: skip
    second = world.next()
    before = Usage(750, 0, 1, None, (("m", Tokens(750)),))
    assert go_on(second) == Session("talk-1", before)
    restored = home_of(second) / "talks" / "talk-1.jsonl"
    assert restored.read_text() == OF_THREE
    assert stat.S_IMODE(restored.stat().st_mode) == 0o600
    assert sessions.before(world.ledger, "f2") == before  # for who bills it once it is dead
    assert sessions.before(world.ledger, "f1") == Usage()


def test_a_dead_firings_conversation_is_kept_by_whoever_repairs_it(world: World) -> None:
    """Mate runs another engine. Broken once: the repairer's own engine was asked, and nothing was kept."""
    dead = world.firing("f1")
    world.talked(dead)
    with world.ledger.transaction():
        firings.starts_engine(world.ledger, "f1", "acme_talks.diary", "team", None)
        rows.add(world.ledger, Evidence("f1", "brief", "d" * 64, 1, {"issue": "words"}, 100))
    world.over(dead)
    row = firings.get(world.ledger, "f1")
    assert row is not None
    ghost = world.session(row, "bosun", ports_of="mate")
    ghost.claim, ghost.tree, ghost.engine_started, ghost.kept_commit = dead.claim, dead.tree, True, WIP
    assert ghost.claim is not None
    ghost.claim = ghost.claim._replace(target=world.target(1, digest="edited after its death"))
    sessions.keep(ghost)
    (kept,) = world.left(ghost)
    assert (kept.summary["engine"], kept.summary["issue"]) == ("acme_talks.diary", "words")
    sessions.keep(ghost)  # a repair that could not be finished is made again
    assert len(world.left(ghost)) == 1
    assert go_on(world.next()) is not None


def test_a_dead_firing_that_was_told_nobody_knows_what_is_not_gone_on_with(world: World) -> None:
    """Its issue may have been edited since. Broken once: the digest of the issue as it is now was written down."""
    dead = world.firing("f1")
    world.talked(dead)
    with world.ledger.transaction():
        firings.starts_engine(world.ledger, "f1", "acme_talks.diary", "team", None)
    world.over(dead)
    row = firings.get(world.ledger, "f1")
    assert row is not None
    ghost = world.session(row, "bosun", ports_of="mate")
    ghost.claim, ghost.tree, ghost.engine_started, ghost.kept_commit = dead.claim, dead.tree, True, WIP
    sessions.keep(ghost)
    assert world.left(ghost)[0].summary["issue"] is None
    assert go_on(world.next()) is None


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ({"earlier": "conflicts"}, None),
        ({"earlier": None}, None),
        ({"generation": 3}, None),
        ({"host": "h2"}, None),
        ({"wip": "another"}, "the worktree begins from other work"),
        ({"digest": "edited"}, "the issue's words have changed since"),
    ],
)
def test_every_other_firing_begins_a_new_one(world: World, case: dict[str, Any], why: str | None) -> None:
    """Broken once for each: with that condition away, the conversation was restored."""
    world.stopped()
    f = world.next(**case)
    assert go_on(f) is None
    assert not list(home_of(f).iterdir())
    assert why is None or f'"why": "{why}"' in world.log()


def test_an_issue_of_the_same_number_in_another_repository_is_another(world: World) -> None:
    world.stopped()
    f = world.next()
    assert f.claim is not None
    assert sessions.earlier(f, f.claim.target) is not None
    assert sessions.earlier(f, f.claim.target._replace(repo_id=8)) is None


def test_another_engine_begins_a_new_one(world: World) -> None:
    world.stopped()
    f = world.next(who="mate")
    assert go_on(f) is None
    assert "it is of another engine" in (Path(world.home.logs) / "mate.log").read_text()


def test_the_operator_can_switch_it_off(world: World) -> None:
    world.stopped()
    f = world.next()
    assert go_on(f, resume=False) is None
    assert go_on(f, resume=True) is not None


def test_one_that_is_too_old_is_left(world: World) -> None:
    world.stopped()
    f = world.next()
    clock = f.ports.clock

    class Later:
        elapsed, sleep = clock.elapsed, clock.sleep

        def now(self) -> float:
            return clock.now() + sessions.FRESH_S + 60

    f.ports.clock = Later()
    assert go_on(f) is None
    assert "it is too old" in world.log()


@pytest.mark.parametrize("damage", ["gone", "changed", "cut short"])
def test_bytes_that_are_not_what_was_kept_are_not_restored(world: World, damage: str) -> None:
    """Broken once: with the digest not compared, the changed one was gone on with."""
    (row,) = world.left(world.stopped())
    blob = Path(evidence.blob_path(world.home, row.digest))
    if damage == "gone":
        blob.unlink()
    else:
        blob.write_text(OF_THREE.replace("so be it", "rm -rf /") if damage == "changed" else OF_THREE[:50])
    f = world.next()
    assert go_on(f) is None
    assert not [path for path in home_of(f).rglob("*") if path.is_file()]
    assert sessions.before(world.ledger, "f2") == Usage()


@pytest.mark.parametrize("what", ["its file", "its folder", "a file in place of its folder", "the file itself"])
def test_nothing_is_written_through_what_lies_in_the_way(world: World, what: str, tmp_path: Path) -> None:
    """Checks of the base ran in that HOME before. Broken once: with os.makedirs and open the target was overwritten."""
    world.stopped()
    f = world.next()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "talk-1.jsonl").write_text("theirs")
    talks = home_of(f) / "talks"
    if what == "its folder":
        talks.symlink_to(outside)
    elif what == "a file in place of its folder":
        talks.write_text("")
    else:
        talks.mkdir()
        if what == "its file":
            (talks / "talk-1.jsonl").symlink_to(outside / "talk-1.jsonl")
        else:
            (talks / "talk-1.jsonl").write_text("theirs")
    assert go_on(f) is None
    assert (outside / "talk-1.jsonl").read_text() == "theirs"
    assert "an earlier conversation cannot be gone on with" in world.log()


@pytest.mark.parametrize("what", ["link", "link to a folder", "named pipe", "folder", "too large", "no JSON",
                                  "no object", "not UTF-8", "deep", "empty", "broken adapter"])  # fmt: skip
def test_what_an_engine_may_have_put_there_is_not_kept(
    world: World, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never an error, never a wait. Broken once: without O_NOFOLLOW a talk in the operator's home was kept; without
    O_NONBLOCK the named pipe was waited for."""
    f = world.firing("f1")
    theirs = tmp_path / "person" / "talks"
    theirs.mkdir()
    (theirs / "talk-1.jsonl").write_text(OF_THREE)
    home, talk = home_of(f), world.talked(f)
    (home / "elsewhere").write_text(json.dumps(["talk-1", "talks/talk-1.jsonl"]))
    contents: dict[str, bytes] = {
        "no JSON": OF_THREE.encode() + b"{not json}\n" + OF_THREE.encode(), "no object": b"[1]\n", "empty": b"\n\n",
        "not UTF-8": b'{"a": "\xff"}\n', "deep": b"[" * 100_000 + b"\n"}  # fmt: skip
    if what in contents:
        talk.write_bytes(contents[what])
    elif what == "too large":
        monkeypatch.setattr(sessions, "MOST_BYTES", len(OF_THREE) - 1)
    elif what == "broken adapter":
        (home / "broken").touch()
    else:
        talk.unlink()
    if what == "link":
        talk.symlink_to(theirs / "talk-1.jsonl")
    elif what == "link to a folder":
        talk.parent.rmdir()
        talk.parent.symlink_to(theirs)
    elif what == "named pipe":
        os.mkfifo(talk)
    elif what == "folder":
        talk.mkdir()
    began = time.monotonic()
    sessions.keep(f)
    assert time.monotonic() - began < 5
    assert world.left(f) == []
    assert "the engine's conversation is not kept" in world.log()


def test_names_that_no_engines_file_has_are_refused(world: World, tmp_path: Path) -> None:
    """The name becomes a word of a command line. Broken once: with `match` for `fullmatch` a line end went through."""
    good = ("talk-1", "talks/talk-1.jsonl")
    paths = ("../f0/home/talks/talk-1.jsonl", "talks/../talks/talk-1.jsonl", "/etc/talks.jsonl", "talks//talk-1.jsonl",
             "talks/talk-1.json", "talks/a\0.jsonl")  # fmt: skip
    ids = ("--dangerously-skip-permissions", "a b", "talk-1\n", "")
    f = world.firing("f1")
    world.talked(f)
    for id, path in [*((good[0], path) for path in paths), *((id, good[1]) for id in ids)]:
        (home_of(f) / "elsewhere").write_text(json.dumps([id, path]))
        sessions.keep(f)
        assert world.left(f) == [], (id, path)
        with pytest.raises(ValueError, match="conversation"):
            sessions.restore(f.ports.engine, sessions.Kept("f0", id, path, "d", str(tmp_path / "x")), str(home_of(f)))
    (home_of(f) / "elsewhere").write_text(json.dumps(good))
    sessions.keep(f)
    assert len(world.left(f)) == 1


def test_secrets_are_taken_out_and_every_line_is_json_still(world: World) -> None:
    """Broken once: with the text as a whole redacted and cut at 1 MiB, as other evidence, it was no JSON."""
    token = "ghp_" + "a1B2" * 9
    long = json.dumps({"role": "tool", "text": "x" * 3_000_000 + token, "tokens": 1}) + "\n"
    f = world.firing("f1")
    world.talked(f, OF_THREE + long)
    sessions.keep(f)
    (row,) = world.left(f)
    text = Path(evidence.blob_path(world.home, row.digest)).read_text()
    assert token not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines[:2] == LINES
    assert lines[3]["text"].endswith("x[redacted github-token]")
    assert row.size == len(text)


def test_one_that_is_no_json_without_its_secrets_is_not_kept(world: World) -> None:
    f = world.firing("f1")
    f.ports.__dict__["token"] = 'of-the-forge", "and more'
    world.talked(f, '{"a": "of-the-forge", "and more": 1}\n')
    sessions.keep(f)
    assert world.left(f) == []
    assert "no JSON without its secrets" in world.log()


def test_half_a_last_line_is_left_out(world: World) -> None:
    """As an engine that is killed while it writes leaves it."""
    f = world.firing("f1")
    world.talked(f, OF_THREE + '{"role": "model", "te')
    sessions.keep(f)
    (row,) = world.left(f)
    assert Path(evidence.blob_path(world.home, row.digest)).read_text() == OF_THREE


@pytest.mark.parametrize("what", ["published", "not started", "no tree", "no talk"])
def test_what_landed_or_never_ran_leaves_no_conversation(world: World, what: str) -> None:
    f = world.firing("f1")
    if what != "no talk":
        world.talked(f)
    f.published, f.engine_started = what == "published", what != "not started"
    if what == "no tree":
        f.tree = None
    sessions.keep(f)
    assert world.left(f) == []
    assert not (Path(world.home.logs) / "bosun.log").exists()


def test_an_engine_that_cannot_go_on_begins_anew(world: World) -> None:
    """In an empty HOME, and what it uses from then on is its own. Broken once: with the first `before` read, $0."""
    world.stopped()
    f = world.next()
    assert go_on(f) is not None
    world.talked(f, OF_THREE, "copy-of-it")
    assert f.tree is not None
    sessions.begin_anew(f, f.tree)
    assert list(home_of(f).iterdir()) == []
    assert stat.S_IMODE(home_of(f).stat().st_mode) == 0o700
    assert sessions.before(world.ledger, "f2") == Usage()


def test_a_resumed_run_that_failed_is_not_resumed_for_ever(world: World) -> None:
    """Its work did not become work in progress, so the next begins from the first one's, with a talk of its own."""
    world.stopped()
    second = world.next()
    assert go_on(second) is not None
    second.kept_commit = "work of a run that failed"
    sessions.keep(second)
    world.over(second)
    third = world.firing("f3", 3)
    third.earlier = "applied"
    assert go_on(third) is None


def test_a_full_disk_keeps_nothing_and_fails_nothing(world: World) -> None:
    f = world.firing("f1")
    world.talked(f)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(world.home.blobs)
    Path(world.home.blobs).write_text("no folder")
    sessions.keep(f)
    assert world.left(f) == []


@pytest.mark.parametrize("end", [pytest.param("stopped", marks=pytest.mark.thorough), "killed"])
def test_a_whole_firing_goes_on_where_the_one_before_was_cut_short(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Issue to pull request, with processes as timers start them; the second pays for 50 tokens and not for 750.

    Broken once: with `before` not taken off, 750; with the brief's evidence without the issue's digest, the killed
    one's conversation was not gone on with.
    """
    monkeypatch.setenv("PYTHONPATH", str(world.root / "packages"))
    engine = {"use": "acme_talks.diary", "argv": [sys.executable, "-c", TALKS]}
    (tmp_path / "whole").mkdir()
    with fleet(tmp_path / "whole", {"bosun": agent(engine)}) as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        if end == "killed":
            killed_at_work(it)
            assert it.fire("bosun").outcome == "idle"  # it repairs; a try that died is not made again at once
            rested(it)
        else:
            firing = at_work(it)
            firing.terminate()
            assert finish(firing).outcome == "cancelled"
        ended = it.fire("bosun")
        assert ended.outcome == "pull_request", ended.reason
        assert it.rows("SELECT tokens FROM firings WHERE engine IS NOT NULL ORDER BY id") == [(700,), (50,)]
        assert it.rows("SELECT kind FROM evidence WHERE kind IN ('session', 'resumed') ORDER BY id") == [
            ("session",), ("resumed",)]  # fmt: skip
        branch = git("--git-dir", it.world.bare, "show", f"{ended.object['branch']}:done.txt")
        assert branch.strip() == "talk-1 1"
