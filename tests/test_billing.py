"""What is settled when a firing ends, also one that nobody saw end: on a real ledger, with firings made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.fleet import agent, python, write_agent
from support.ledgers import firing as a_row
from support.ledgers import new_ledger
from watchbill import billing, bury, claim
from watchbill.claims.record import VERSION, ClaimRecord
from watchbill.clock import SystemClock
from watchbill.engines import command
from watchbill.engines.base import Result, Tokens, Usage
from watchbill.engines.bill import MOST_MICRO, Bill, Priced, Tariff, final, so_far
from watchbill.home import Home
from watchbill.ledger import firings, meters, reservations, steps
from watchbill.ledger.db import Ledger
from watchbill.ledger.meters import Meter
from watchbill.ledger.reservations import NOTHING, Subjects
from watchbill.live import Firing
from watchbill.ports import Ports
from watchbill.roster import read_roster
from watchbill.woken import Options

DOLLAR = 1_000_000
HELD = {"usd": DOLLAR, "firings": 1}


class Books:
    """A home with bosun in it, and a ledger."""

    def __init__(self, root: Path, **more: object) -> None:
        self.home = Home(str(root / "home"))
        (root / "home" / "agents").mkdir(parents=True)
        (root / "home" / "fleet.toml").write_text('[fleet]\nrepos = ["acme/api"]\n')
        write_agent(root / "home", "bosun", agent(python("pass"), **more))
        self.roster = read_roster(str(root / "home"))
        self.ledger: Ledger = new_ledger(root)

    def begun(self, host: str = "h1", held: dict[str, int] | None = None, *, marked: bool = True) -> firings.Firing:
        """A row of bosun's in the middle of its engine; its process is gone."""
        row = a_row("bosun", "f1", host)
        with self.ledger.transaction():
            firings.begin(self.ledger, row)
            steps.begin(self.ledger, row.id, 1, "engine", 100_000)
            self.reserved("7#1", HELD if held is None else held)
            if marked:
                firings.starts_engine(self.ledger, row.id, "command", "team", None)
        found = firings.get(self.ledger, row.id)
        assert found is not None
        return found

    def reserved(self, issue: str, worst: dict[str, int]) -> None:
        reservations.reserve(self.ledger, Subjects("f1", issue, "bosun", "d1", "m1"), worst, {}, 100)

    def session(self, row: firings.Firing) -> Firing:
        ours = self.roster.agents["bosun"]
        ports = Ports(self.home, self.roster.fleet, ours, SystemClock(), self.ledger)
        return Firing(row, ours, self.roster, ports, Options("bosun"), 100_000)


def test_a_firing_of_an_older_program_that_dies_after_the_upgrade_is_charged(tmp_path: Path) -> None:
    """An upgrade under a running engine made its dollar free, and the day's cap had it to give once more.

    The older program wrote no mark, only its step. Broken once: `row.engine is None` alone meant `not started`; $0.00.
    """
    books = Books(tmp_path)
    books.begun(marked=False)
    bury.the_dead(books.ledger, books.home, "h1", books.roster, 200)
    row = firings.get(books.ledger, "f1")
    assert row is not None
    assert (row.cost_micro, row.cost_basis, row.engine) == (DOLLAR, "reservation", firings.UNKNOWN)
    assert reservations.spent(books.ledger, "fleet_day", "fleet", "d1", "usd") == (DOLLAR, 0)
    assert reservations.spent(books.ledger, "day", "bosun", "d1", "firings") == (1, 0)


def test_the_issues_spend_loses_what_this_claim_reserved_and_no_more(tmp_path: Path) -> None:
    """Each lost race took a firing's worst case off what all hosts know was spent on the issue.

    Broken once: the reservations of every try summed up; the record said $2.20 of $3.20.
    """
    books = Books(tmp_path)
    row = books.begun()
    f = books.session(row)
    with books.ledger.transaction():
        reservations.settle(books.ledger, f.id, NOTHING, "lost", 110)
        books.reserved("7#2", HELD)
    f.settled = (200_000, "engine")
    record = ClaimRecord(
        VERSION, 7, 2, 1, 0, "active", "implement", f.id, "bosun", "h1", "b", 1, "n", 60, 100, 1, "c", None, 0, None, 1,
        3 * DOLLAR + DOLLAR, None, None, None,
    )  # fmt: skip
    assert claim.spent(f, record) == 3_200_000
    assert claim.spent(f, record._replace(state="published")) == 4 * DOLLAR  # it has been put right already


MUTE = Result("ok", None, 0, Usage(), 0, "", None, None, 0, "", "", "", "none", 1.0)


@pytest.mark.parametrize(
    ("policy", "held", "basis", "used"),
    [
        ("charge-reservation", {"tokens": 1000, "turns": 10, "firings": 1}, "reservation", (0, 1000, 10)),
        ("deny", {"tokens": 1000, "firings": 1}, "reservation", (0, 1000, 0)),
        ("allow-and-alert", {"tokens": 1000, "usd": 5, "firings": 1}, "unmeasured", (0, 0, 0)),
        ("charge-reservation", {"firings": 1}, "unmeasured", (0, 0, 0)),  # nothing is capped, nothing was reserved
    ],
)
def test_caps_in_tokens_or_turns_alone_are_charged_when_an_engine_says_nothing(
    tmp_path: Path, policy: str, held: dict[str, int], basis: str, used: tuple[int, int, int]
) -> None:
    """A subscription's daily tokens were never used up by an engine that tells none: it fired for ever.

    Broken once: without dollars reserved a mute run was `unmeasured`, in every unit; 0 tokens of 1000.
    """
    books = Books(tmp_path)
    f = books.session(books.begun(held=held))
    tariff = Tariff(lambda *_: pytest.fail("no tokens"), None, 0, held.get("usd", 0), len(held) > 1, policy)
    bill = final(command, None, tariff, cut_short=False)
    f.result = MUTE._replace(cost_micro=bill.micro, basis=bill.basis)
    charge = billing.of(f)
    assert charge.basis == basis
    assert tuple(charge.used[unit] for unit in ("usd", "tokens", "turns")) == used
    assert charge.used["firings"] == 1


@pytest.mark.parametrize(
    ("held", "basis"), [({"firings": 1}, "unmeasured"), ({"turns": 5, "firings": 1}, "reservation")]
)
def test_one_that_died_without_any_cap_is_said_to_be_unmeasured(
    tmp_path: Path, held: dict[str, int], basis: str
) -> None:
    """`spend` showed $0.00 as if that had been reserved for it. Broken once: always `reservation`."""
    books = Books(tmp_path)
    charge = billing.of_the_dead(books.ledger, books.home, books.begun(held=held), books.roster)
    assert (charge.basis, charge.used["usd"], charge.used["turns"]) == (basis, 0, held.get("turns", 0))


def test_one_of_another_host_id_may_live_and_is_charged_all_that_it_may_still_spend(tmp_path: Path) -> None:
    """A container on the same home made a new host id; who lived was buried at 5 cents and spent 85.

    Broken once: charged by its stream so far; $0.05 on record.
    """
    books = Books(tmp_path)
    books.begun(host="h-before")
    with books.ledger.transaction():
        meters.put(books.ledger, Meter("f1", 50_000, 2, 1, "engine", 150))
    bury.the_dead(books.ledger, books.home, "h1", books.roster, 200)
    assert reservations.spent(books.ledger, "fleet_day", "fleet", "d1", "usd") == (DOLLAR, 0)


def test_one_of_this_host_is_charged_by_its_stream(tmp_path: Path) -> None:
    """The other side of the test before: here it is known that it is gone."""
    books = Books(tmp_path)
    books.begun()
    with books.ledger.transaction():
        meters.put(books.ledger, Meter("f1", 50_000, 2, 1, "engine", 150))
    bury.the_dead(books.ledger, books.home, "h1", books.roster, 200)
    assert reservations.spent(books.ledger, "fleet_day", "fleet", "d1", "usd") == (50_000, 0)


def test_what_an_engine_claims_to_have_used_is_bounded(tmp_path: Path) -> None:
    """Lying lines made sums that no column holds: the firing could not be settled, nor any after it buried.

    Broken once: no bound; OverflowError in `meters` and `settle`, and `spend` refused the second such sum.
    """
    usage = Usage()
    for n in range(200):
        said = {"type": "usage", "input_tokens": 10**10, "output_tokens": 10**10, "cost_usd": 10**6, "model": f"m{n}"}
        usage = command._added(usage, said)
    usage = usage._replace(unpriced=command.with_tokens((), "m", Tokens(10**18)))
    tariff = Tariff(lambda *_: Priced(10**30, False), None, 0, DOLLAR, True, "")
    bill = so_far(usage, tariff)
    assert bill == Bill(MOST_MICRO, "ceiling")
    books = Books(tmp_path)
    for n in range(50):
        id = f"f{n}"
        with books.ledger.transaction():
            reservations.reserve(books.ledger, Subjects(id, "7#1", "bosun", "d1", "m1"), HELD, {}, 100)
            used = {"usd": bill.micro, "tokens": usage.tokens, "turns": usage.turns, "firings": 1}
            meters.put(books.ledger, Meter(id, bill.micro, usage.tokens, usage.turns, bill.basis, 100))
            assert reservations.settle(books.ledger, id, used, bill.basis, 110)
    assert reservations.spent(books.ledger, "fleet_day", "fleet", "d1", "usd").settled == 50 * MOST_MICRO


TURNED_AWAY = MUTE._replace(verdict="rate_limited", basis="engine")


@pytest.mark.parametrize(
    ("result", "used"),
    [
        (TURNED_AWAY, (0, 0, 0)),
        (TURNED_AWAY._replace(verdict="auth", basis="priced"), (0, 0, 0)),
        (TURNED_AWAY._replace(verdict="context", usage=Usage(900, 0, 2, 40), cost_micro=40), (40, 900, 2)),
        (TURNED_AWAY._replace(cost_micro=DOLLAR, basis="reservation"), (DOLLAR, 1000, 10)),  # its files were not read
        (MUTE._replace(verdict="crash", usage=Usage(cost_micro=0), basis="engine"), (0, 0, 0)),  # a 400, a 404
        (MUTE._replace(verdict="crash", cost_micro=DOLLAR, basis="reservation"), (DOLLAR, 1000, 10)),
    ],
    ids=["limited", "refused", "answered before", "nobody knows", "said nothing", "crashed"],
)
def test_who_was_turned_away_at_once_is_charged_nothing_in_any_unit(
    tmp_path: Path, result: Result, used: tuple[int, int, int]
) -> None:
    """Four canaries of a limited account, of no cost, used up a day of 200,000 tokens, and an issue's lifetime.

    Broken once: no tokens told were taken for tokens that nobody measured; (0, 1000, 10) of the first.
    """
    books = Books(tmp_path)
    f = books.session(books.begun(held={"usd": DOLLAR, "tokens": 1000, "turns": 10, "firings": 1}))
    f.result = result
    charge = billing.of(f)
    assert tuple(charge.used[unit] for unit in ("usd", "tokens", "turns")) == used
    assert charge.used["firings"] == 1
