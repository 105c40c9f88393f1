"""The poison pill, on a real ledger with an injected clock: who is held, who goes first, who follows."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.fleet import write_agent
from support.gates import NOW, a_hold
from support.ledgers import firing as a_row
from support.ledgers import new_ledger
from watchbill import breaker, gates, holds, pill
from watchbill.cli import main
from watchbill.compiled import Breaker, Compiled
from watchbill.gates import capped, snapshot
from watchbill.home import Home
from watchbill.ledger import db, windows
from watchbill.ledger import holds as rows
from watchbill.ledger.db import Ledger
from watchbill.ledger.windows import Window
from watchbill.live import Firing
from watchbill.outcomes import Ended, Ending
from watchbill.pill import Limit
from watchbill.ports import Ports
from watchbill.roster import read_roster
from watchbill.woken import Options

HOST = "h1"


class Clock:
    """Moved by hand."""

    def __init__(self) -> None:
        self.at = float(NOW)

    def now(self) -> float:
        return self.at

    def elapsed(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds


def limit(until: int | None = None, **more: Any) -> Limit:
    return Limit("account", "team", "rate_limit", "it said so", until)._replace(**more)


def the_one(ledger: Ledger) -> rows.Hold:
    found = rows.healing(ledger, "account", "team", "rate_limit")
    assert found is not None
    return found


# A fleet of twenty on two accounts


class Crew:
    """Twenty agents: 12 on the account `team` alone, 3 on it with a fallback to `other`, 5 on `other`."""

    ALONE = tuple(f"alone-{n}" for n in range(12))
    BOTH = tuple(f"both-{n}" for n in range(3))
    OTHER = tuple(f"other-{n}" for n in range(5))

    def __init__(self, root: Path) -> None:
        self.home, self.clock, self.ledger = Home(str(root / "home")), Clock(), new_ledger(root)
        (root / "home" / "agents").mkdir(parents=True)
        (root / "home" / "fleet.toml").write_text(
            '[fleet]\nrepos = ["acme/api"]\n[engines.claude]\naccount = "team"\n[engines.codex]\naccount = "other"\n'
        )
        for name in (*self.ALONE, *self.BOTH, *self.OTHER):
            engine = {"use": "codex" if name in self.OTHER else "claude"}
            if name in self.BOTH:
                engine["fallback"] = "codex"
            write_agent(root / "home", name, {"role": "implement", "engine": engine})
        self.roster: Compiled = read_roster(str(root / "home"))
        self._fired = 0

    @property
    def now(self) -> int:
        return int(self.clock.now())

    def seen(self, name: str) -> snapshot.Snapshot:
        agent = self.roster.agents[name]
        return snapshot.take(self.ledger, self.home, agent, self.roster.fleet, HOST, self.clock)

    def past_the_gates(self) -> set[str]:
        return {name for name, agent in self.roster.agents.items() if gates.check(agent, self.seen(name))[0] is None}

    def passes(self, name: str) -> Firing | None:
        """Through the gates, as `firing.main` goes on from them; None: refused."""
        agent, seen = self.roster.agents[name], self.seen(name)
        if gates.check(agent, seen)[0] is not None:
            return None
        self._fired += 1
        ports = Ports(self.home, self.roster.fleet, agent, self.clock, self.ledger)
        ports.use = capped.usable(agent, seen) or ports.use
        row = a_row(name, f"f{self._fired}", HOST, started=self.now)
        return Firing(row, agent, self.roster, ports, Options(name), self.now * 1000)

    def fires(self, name: str) -> Firing | None:
        """Past the gates, and past a canary who was faster."""
        f = self.passes(name)
        return f if f is not None and went_on(f) else None


def went_on(f: Firing) -> bool:
    try:
        pill.go_first(f)
    except Ended as end:
        return end.ending.outcome != "held"
    return True


@pytest.fixture
def crew(tmp_path: Path) -> Crew:
    return Crew(tmp_path)


def test_one_of_twenty_hits_a_limit(crew: Crew) -> None:
    """Held within one gate read, others go on, exactly one canary at the reset, the rest with jitter.

    Broken on purpose: go_first without `canary IS NULL` made twelve canaries; `EASE_S = 0` let the rest in at once.
    """
    everybody = {*Crew.ALONE, *Crew.BOTH, *Crew.OTHER}
    assert crew.past_the_gates() == everybody
    first = crew.fires("alone-0")
    assert first is not None
    reset = NOW + 1800
    pill.swallow(crew.ledger, limit(reset), "firing f1", crew.now)
    # At once, and until the last second before the reset.
    for at in (NOW, NOW + 900, reset - 1):
        crew.clock.at = at
        assert crew.past_the_gates() == {*Crew.BOTH, *Crew.OTHER}
        refusal, _ = gates.check(crew.roster.agents["alone-5"], crew.seen("alone-5"))
        assert refusal is not None
        assert (refusal.reason_id, refusal.until) == ("held-rate-limit", reset)
    falls_back = crew.fires("both-0")
    assert falls_back is not None
    assert falls_back.use is not None
    assert (falls_back.use.engine, falls_back.canary_of) == ("codex", ())

    crew.clock.at = reset
    past = {name: f for name in sorted(everybody) if (f := crew.passes(name))}
    assert set(past) == everybody  # all in the same second, before any of them has gone first
    gone = {name: f for name, f in past.items() if went_on(f)}
    assert [name for name, f in gone.items() if f.canary_of] == ["alone-0"]
    assert {*gone} - {*Crew.BOTH} == {"alone-0", *Crew.OTHER}
    assert crew.past_the_gates() == {*Crew.BOTH, *Crew.OTHER}
    fallen_back = [crew.fires(name) for name in Crew.BOTH]
    assert all(f and f.use and f.use.engine == "codex" for f in fallen_back)

    crew.clock.at = reset + 3
    pill.answered(gone["alone-0"], frozenset({"account"}))
    let_in: dict[str, int] = {}
    for second in range(holds.EASE_S + 1):
        crew.clock.at = reset + 3 + second
        for name in crew.past_the_gates() & set(Crew.ALONE):
            let_in.setdefault(name, second)
    assert set(let_in) == set(Crew.ALONE)
    assert len(set(let_in.values())) >= 8  # of twelve
    assert max(Counter(let_in.values()).values()) <= 3


def test_a_canary_that_is_limited_again(crew: Crew) -> None:
    pill.swallow(crew.ledger, limit(NOW + 60), "firing f1", crew.now)
    crew.clock.at = NOW + 60
    canary = crew.fires("alone-3")
    assert canary is not None
    assert canary.canary_of
    pill.swallow(crew.ledger, limit(crew.now + 30), f"firing {canary.id}", crew.now)
    hold = the_one(crew.ledger)
    assert (hold.strikes, hold.canary) == (2, None)
    assert hold.until == crew.now + 2 * pill.FIRST_WAIT_S["rate_limit"]  # longer than was said
    pill.answered(canary, frozenset({"account"}))  # what it heard before: too late
    assert the_one(crew.ledger).until == hold.until
    assert crew.past_the_gates() == {*Crew.BOTH, *Crew.OTHER}


def test_a_canary_that_says_nothing_is_replaced(crew: Crew) -> None:
    pill.swallow(crew.ledger, limit(NOW + 60), "firing f1", crew.now)
    crew.clock.at = NOW + 60
    silent = crew.fires("alone-0")
    assert silent is not None
    crew.clock.at += pill.CANARY_S - 1
    assert crew.fires("alone-1") is None
    crew.clock.at += 1
    second = crew.fires("alone-1")
    assert second is not None
    assert second.canary_of
    pill.answered(silent, frozenset({"account"}))  # it wakes up late
    assert the_one(crew.ledger).canary == second.id
    assert crew.fires("alone-2") is None


def test_an_idle_canary_gives_its_place_back(crew: Crew) -> None:
    pill.swallow(crew.ledger, limit(NOW + 60), "firing f1", crew.now)
    crew.clock.at = NOW + 60
    idle = crew.fires("alone-0")
    assert idle is not None
    with crew.ledger.transaction(durable=True):
        rows.give_back(crew.ledger, idle.id)
    assert crew.fires("alone-1") is not None


def test_a_person_lifts_what_the_fleet_set(crew: Crew) -> None:
    pill.swallow(crew.ledger, limit(NOW + 60), "firing f1", crew.now)
    with crew.ledger.transaction(durable=True):
        assert rows.lift(crew.ledger, the_one(crew.ledger).id, "octocat", crew.now)
    assert len(crew.past_the_gates()) == 20  # at once, all of them


def test_no_canary_lifts_what_a_person_set(crew: Crew) -> None:
    """Nor goes first where a person's hold has come to its end: that is simply over."""
    with crew.ledger.transaction(durable=True):
        rows.add(crew.ledger, a_hold("account", "team", "pause", until=NOW + 60, since=NOW))
        rows.add(crew.ledger, a_hold("agent", "alone-0", "rate_limit", since=NOW))  # though it looks like the fleet's
    pill.swallow(crew.ledger, limit(NOW + 30), "firing f1", crew.now)
    crew.clock.at = NOW + 30
    assert crew.past_the_gates() == {*Crew.BOTH, *Crew.OTHER}
    everything = rows.standing(crew.ledger, crew.now)
    assert len(everything) == 3
    with crew.ledger.transaction(durable=True):
        for hold in everything:
            mine = rows.go_first(crew.ledger, hold.id, "f9", crew.now, crew.now + 300)
            assert mine is (hold.heals == 1)
            assert rows.heal(crew.ledger, hold.id, "f9", crew.now, crew.now) is (hold.heals == 1)
    assert {hold.heals for hold in rows.standing(crew.ledger, crew.now)} == {0}
    assert crew.past_the_gates() == {*Crew.BOTH, *Crew.OTHER}
    crew.clock.at = NOW + 60
    passing = crew.past_the_gates()
    assert passing == {*Crew.ALONE, *Crew.BOTH, *Crew.OTHER} - {"alone-0"}
    other = crew.fires("alone-1")
    assert other is not None
    assert other.canary_of == ()


# The ends of limits


@given(
    st.none() | st.integers(-(10**12), 10**13) | st.integers(NOW - 100, NOW + pill.LONGEST_S + 100),
    st.integers(1, 60),
    st.sampled_from(sorted(pill.FIRST_WAIT_S)),
)
def test_an_end_is_believed_or_made(until: int | None, strikes: int, kind: str) -> None:
    """Always in the future and never beyond the longest window; one that makes no sense is as if none was told."""
    end = pill.end_of(limit(until, kind=kind), strikes, NOW)
    made = pill.end_of(limit(None, kind=kind), strikes, NOW)
    assert NOW < end <= NOW + pill.LONGEST_S
    believable = until is not None and NOW < until <= NOW + pill.LONGEST_S
    if not believable:
        assert end == made
    elif strikes == 1:
        assert end == until
    else:
        assert end >= made
    assert made <= pill.end_of(limit(None, kind=kind), strikes + 1, NOW)


@pytest.mark.parametrize("told", [None, 0, NOW, NOW - 5, 10**13, NOW + 9 * 86400])
def test_waits_grow_when_no_end_can_be_believed(tmp_path: Path, told: int | None) -> None:
    ledger, now, waits = new_ledger(tmp_path), NOW, []
    for _ in range(8):
        end = pill.swallow(ledger, limit(told), "f", now)
        waits.append(end - now)
        now = end  # the canary, at once, and limited again
    assert waits[:4] == [900, 1800, 3600, 7200]
    assert waits == sorted(waits)
    assert waits[-1] == waits[-2] == 5 * 3600


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 400), st.none() | st.integers(-100, 2000)), min_size=1, max_size=12))
def test_the_later_end_wins(tmp_path_factory: pytest.TempPathFactory, hits: list[tuple[int, int | None]]) -> None:
    """In whatever order limits are told. While it stands a second one is the same one: a strike is a new try."""
    ledger, now, latest = new_ledger(tmp_path_factory.mktemp("end")), NOW, 0
    for later, until in hits:
        now += later
        before = rows.healing(ledger, "account", "team", "rate_limit")
        end = pill.swallow(ledger, limit(None if until is None else now + until), "f", now)
        hold = the_one(ledger)
        latest = max(latest, end)
        assert hold.until == end == latest
        grew = before is None or (before.until or 0) <= now
        assert hold.strikes == (before.strikes if before else 0) + grew
    ledger.close()


def test_two_that_hit_a_limit_at_once_keep_the_later_end(tmp_path: Path) -> None:
    """Broken on purpose: `until = excluded.until` kept whichever came last; a later, shorter one let everybody in."""
    path = new_ledger(tmp_path).path
    ends = [NOW + 100 * n for n in (7, 3, 9, 1, 5, 8, 2, 6)]
    start = threading.Barrier(len(ends))

    def hit(until: int) -> None:
        ledger = db.open_ledger(path)
        start.wait()
        pill.swallow(ledger, limit(until), "f", NOW)
        ledger.close()

    racers = [threading.Thread(target=hit, args=(until,)) for until in ends]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    ledger = db.open_ledger(path)
    assert len(rows.standing(ledger, NOW)) == 1
    assert (the_one(ledger).until, the_one(ledger).strikes) == (NOW + 900, 1)


# Who goes first

_RACER = """
import sys
from watchbill.ledger import db, holds
path, name, now, ids = sys.argv[1], sys.argv[2], int(sys.argv[3]), [int(id) for id in sys.argv[4].split(",")]
ledger = db.open_ledger(path)
sys.stdin.readline()
for id in ids:
    with ledger.transaction(durable=True):
        if holds.go_first(ledger, id, name, now, now + 300):
            print(id)
"""


def test_exactly_one_of_many_processes_goes_first(tmp_path: Path) -> None:
    """Real processes, each hold a race. Broken on purpose: without `canary IS NULL` every one won every hold."""
    ledger = new_ledger(tmp_path)
    for n in range(25):
        pill.swallow(ledger, limit(NOW + 5, subject=f"account-{n}"), "f", NOW)
    ids = [hold.id for hold in rows.standing(ledger, NOW)]
    given_ids = ",".join(map(str, ids))
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACER, ledger.path, f"f{n}", str(NOW + 5), given_ids],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(6)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = [int(line) for racer in racers for line in racer.communicate(timeout=60)[0].split()]
    assert sorted(won) == sorted(ids)
    with ledger.transaction(durable=True):
        for id in ids:
            assert not rows.go_first(ledger, id, "f99", NOW + 5, NOW + 300)
            assert rows.go_first(ledger, id, "f99", NOW + 305, NOW + 600)  # dead, it is replaced


# What was found, each by the way it was found


def test_one_past_its_gates_goes_first_or_waits_like_everybody(crew: Crew) -> None:
    """A limit is hit, and its reset passes, while two prepare their worktrees: both began at once, beside the canary,
    and healed nothing.

    Broken once: `still_first` looked at what had been waiting at the beginning only; both went on, canary NULL.
    """
    one, other = crew.fires("alone-0"), crew.fires("alone-1")
    assert one is not None
    assert other is not None
    pill.swallow(crew.ledger, limit(NOW + 60), "firing f9", crew.now)
    crew.clock.at = NOW + 60
    pill.still_first(one)
    assert one.canary_of == (the_one(crew.ledger).id,)
    with pytest.raises(Ended, match="another firing tries it first"):
        pill.still_first(other)
    pill.still_first(one)  # as often as it likes
    pill.answered(one, frozenset({"account"}))
    assert crew.past_the_gates() >= {*Crew.BOTH, *Crew.OTHER}
    assert rows.healing(crew.ledger, "account", "team", "rate_limit") is None


def test_whoever_loses_the_canarys_place_asks_its_fallbacks_window_too(crew: Crew) -> None:
    """It ran on a subscription that the operator had said to leave alone at 90 %.

    Broken once: holds were asked of the fallback, and its windows only in the gate; it went on at 95 %.
    """
    for name in Crew.BOTH:
        ours = crew.roster.agents[name]
        crew.roster.agents[name] = ours._replace(uses=(ours.uses[0], ours.uses[1]._replace(most_used_ppm=900_000)))
    pill.swallow(crew.ledger, limit(NOW + 60), "firing f1", crew.now)
    crew.clock.at = NOW + 60
    late, free = crew.passes("both-0"), crew.passes("both-1")
    assert late is not None
    assert free is not None
    assert crew.fires("alone-0") is not None  # faster
    assert went_on(free)  # room is left
    with crew.ledger.transaction():
        windows.put(crew.ledger, Window("other", "five_hour", 950_000, NOW + 3600, NOW))
    assert not went_on(late)


def test_an_agent_waits_for_no_turn_after_its_own_breaker(crew: Crew) -> None:
    """It had shown that it is sound, and stood still for up to a minute more. Broken once: eased like an account."""
    pill.swallow(crew.ledger, Limit("agent", "alone-0", "breaker", "it failed", first_wait_s=60), "firing f1", crew.now)
    crew.clock.at = NOW + 60
    canary = crew.fires("alone-0")
    assert canary is not None
    assert canary.canary_of
    pill.answered(canary, frozenset({"agent"}))
    assert "alone-0" in crew.past_the_gates()


def test_a_persons_resume_begins_a_breakers_count_anew(crew: Crew, capsys: pytest.CaptureFixture[str]) -> None:
    """The first failure after it opened the breaker again. Broken once: the streak stayed; the hold stood again."""
    row, end = a_row("alone-0", "f1", HOST), Ending("engine_failed", "crash", "engine-crash")
    for _ in range(3):
        breaker.failed(crew.ledger, row, Breaker(3, 60), end, crew.now)
    assert "alone-0" not in crew.past_the_gates()
    assert main.run(["--home", crew.home.root, "resume", "alone-0"]) == 0
    assert "everybody" not in capsys.readouterr().out
    breaker.failed(crew.ledger, row, Breaker(3, 60), end, crew.now)
    assert "alone-0" in crew.past_the_gates()


def test_an_answer_right_before_the_next_limit_does_not_begin_the_waits_anew(crew: Crew) -> None:
    """Healed and hit again within the easing: the wait stayed a quarter of an hour for ever.

    Broken once: a new hold with its first strike; 900 s each time.
    """
    waits = []
    pill.swallow(crew.ledger, limit(), "firing f1", crew.now)
    for _ in range(3):
        hold = the_one(crew.ledger)
        waits.append((hold.until or 0) - crew.now)
        crew.clock.at = float(hold.until or 0)
        canary = crew.fires("alone-0")
        assert canary is not None
        pill.answered(canary, frozenset({"account"}))
        crew.clock.at += 2
        pill.swallow(crew.ledger, limit(), f"firing {canary.id}", crew.now)
    assert waits == [900, 1800, 3600]
    crew.clock.at = float(the_one(crew.ledger).until or 0)
    canary = crew.fires("alone-0")
    assert canary is not None
    pill.answered(canary, frozenset({"account"}))
    crew.clock.at += holds.EASE_S  # all are in again: what is hit now is news
    pill.swallow(crew.ledger, limit(), "firing f9", crew.now)
    assert the_one(crew.ledger).strikes == 1
