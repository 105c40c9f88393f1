"""`watchbill spend`: sums that agree with what was settled, figures that say how they came about, and what is left."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from support.fleet import agent, write_agent
from watchbill import money
from watchbill.cli import main
from watchbill.ledger import bills, db, firings, meters, reservations
from watchbill.ledger.db import Ledger
from watchbill.ledger.firings import Firing, Used
from watchbill.ledger.reservations import Subjects
from watchbill.outcomes import Ending

Capsys = pytest.CaptureFixture[str]
DAY = 86_400
CAPS = {"firing_usd": 1, "day_usd": 10, "firing_tokens": 1000, "day_tokens": 5000}
TOML = (
    '[fleet]\nrepos = ["acme/api", "acme/web"]\ntimezone = "{zone}"\n[caps]\nfleet_day_usd = 40\nissue_usd = 5\n{more}'
)
PAGE = (Path(__file__).parents[2] / "docs" / "programs.md").read_text(encoding="utf-8")


class Books:
    """A fleet's home and ledger, without a forge; firings are written into it as they end."""

    def __init__(self, tmp_path: Path, zone: str = "UTC", more: str = "") -> None:
        self.home = tmp_path / "home"
        (self.home / "agents").mkdir(parents=True)
        (self.home / "fleet.toml").write_text(TOML.format(zone=zone, more=more))
        for name in ("bosun", "mate"):
            write_agent(self.home, name, agent(caps=CAPS))
        self.ledger: Ledger = db.open_ledger(str(self.home / "ledger.db"))
        self.zone = zone
        self._count = 0

    def firing(
        self,
        who: str = "bosun",
        issue: int = 1,
        usd: int | None = None,
        basis: str = "engine",
        tokens: int = 0,
        ago_s: float = 0,
        pull: int | None = None,
        engine: str | None = "claude",
        host: str = "h",
    ) -> str:
        """Its id. `usd`: micro-dollars; None: it still runs."""
        self._count += 1
        id, at = f"f{self._count:04d}", int(time.time() - ago_s)
        row = Firing(id, who, "implement", host, "boot", 1, 1, None, at, config="digest")
        whose = Subjects(id, f"7#{issue}", who, money.period("day", at, self.zone), money.period("fleet_month", at,
                                                                                                self.zone))  # fmt: skip
        with self.ledger.transaction():
            firings.begin(self.ledger, row)
            firings.target(self.ledger, id, 7, "acme/api", issue, f"watchbill/issue-{issue}", 1)
            reservations.reserve(self.ledger, whose, {"usd": 1_000_000, "tokens": 1000, "firings": 1}, {}, at)
            if engine is not None:
                firings.starts_engine(self.ledger, id, engine, "ours", None)
            if pull is not None:
                firings.opened(self.ledger, id, pull)
            if usd is not None:
                used = {"usd": usd, "tokens": tokens, "turns": 2, "firings": 1}
                reservations.settle(self.ledger, id, used, basis, at)
                ending = Ending("pull_request" if pull else "no_change", "it ended", "x")
                firings.end(self.ledger, id, ending, at, Used(usd, basis, tokens, 2))
        return id

    def spend(self, capsys: Capsys, *argv: str) -> Any:
        capsys.readouterr()
        assert main.run(["--home", str(self.home), "spend", *argv, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    def text(self, capsys: Capsys, *argv: str) -> tuple[list[list[str]], list[str]]:
        capsys.readouterr()
        assert main.run(["--home", str(self.home), "spend", *argv]) == 0
        printed = capsys.readouterr()
        return [line.split("\t") for line in printed.out.splitlines()], printed.err.splitlines()


@pytest.fixture
def books(tmp_path: Path) -> Books:
    return Books(tmp_path)


def by_name(whole: Any) -> dict[str, Any]:
    return {group["name"]: group for group in whole["groups"]}


def test_who_spent_what(books: Books, capsys: Capsys) -> None:
    """Broken on purpose: with `assumed_micro=measured` the parts were not those of the sum."""
    books.firing(usd=300_000, tokens=70, pull=11)
    books.firing(usd=100_000, basis="ceiling", issue=2, pull=12)
    books.firing("mate", usd=1_000_000, basis="reservation", issue=3)
    books.firing("mate", usd=50_000, basis="stream", issue=3, engine="codex")
    whole = books.spend(capsys)
    bosun, mate = by_name(whole)["bosun"], by_name(whole)["mate"]
    assert [group["name"] for group in whole["groups"]] == ["mate", "bosun"]  # the dearest first
    assert (bosun["cost_micro"], bosun["measured_micro"], bosun["assumed_micro"]) == (400_000, 300_000, 100_000)
    assert (bosun["pull_requests"], bosun["each_micro"], bosun["starts"], bosun["tokens"]) == (2, 200_000, 2, 70)
    assert (mate["measured_micro"], mate["assumed_micro"], mate["each_micro"]) == (50_000, 1_000_000, None)
    assert whole["total"]["cost_micro"] == 1_450_000
    settled = sum(row[0] for row in books.ledger._connection.execute(
        "SELECT settled FROM spend WHERE scope = 'fleet_day' AND unit = 'usd'"))  # fmt: skip
    assert whole["total"]["cost_micro"] == settled == sum(one["cost_micro"] for one in whole["bases"])
    assert {one["basis"]: one["kind"] for one in whole["bases"]} == {
        "engine": "measured", "ceiling": "assumed", "reservation": "assumed", "stream": "measured",
    }  # fmt: skip
    assert set(by_name(books.spend(capsys, "--by", "engine"))) == {"claude", "codex"}
    assert set(by_name(books.spend(capsys, "--by", "issue"))) == {"acme/api#1", "acme/api#2", "acme/api#3"}
    assert set(by_name(books.spend(capsys, "--by", "repo"))) == {"acme/api"}
    assert set(by_name(books.spend(capsys, "--by", "account"))) == {"ours"}
    rows, words = books.text(capsys)
    assert rows[0] == ["mate", "$1.05", "$1.00", "-", "4", "2", "-", "-", "-"]
    assert rows[1] == ["bosun", "$0.40", "$0.10", "70", "4", "2", "2", "$0.20", "-"]
    assert rows[2][:2] == ["total", "$1.45"]
    assert "24 % of it was measured, 76 % is what was set aside or a ceiling" in words


def test_what_nobody_measured_is_not_free(books: Books, capsys: Capsys) -> None:
    """A subscription without figures in dollars: its tokens are said, and no $0.00.

    Broken on purpose: with `known = True` in `group` this row said $0.00.
    """
    books.firing(usd=0, basis="unmeasured", tokens=1200)
    books.firing("mate", usd=0, basis="unmeasured", tokens=0)
    books.firing("mate", usd=200_000, issue=2, pull=11)
    rows, words = books.text(capsys)
    assert rows[0][:4] == ["mate", "$0.20 + 1 unmeasured", "-", "-"]
    assert rows[0][7] == "$0.20 or more"
    assert rows[1][:4] == ["bosun", "1 unmeasured", "-", "1200"]
    assert "2 starts cost what nobody knows, and are not in the sum" in words
    assert not any("$0.00" in cell for row in rows for cell in row)
    whole = books.spend(capsys)
    assert by_name(whole)["bosun"]["cost_micro"] is None
    assert (whole["total"]["cost_micro"], whole["total"]["unmeasured"]) == (200_000, 2)


def test_running_firings_with_their_meters(books: Books, capsys: Capsys) -> None:
    running = books.firing(usd=None)
    with books.ledger.transaction():
        meters.put(books.ledger, meters.Meter(running, 120_000, 900, 3, "engine", 5))
    rows, words = books.text(capsys)
    assert rows[0] == ["bosun", "-", "-", "900", "3", "1", "-", "-", "$1.00 ($0.12 used)"]
    assert words[0].endswith("nothing has ended yet")
    whole = books.spend(capsys)
    assert [one["firing"] for one in whole["running"]] == [running]
    assert (whole["running"][0]["reserved_micro"], whole["running"][0]["so_far_micro"]) == (1_000_000, 120_000)
    caps = {(cap["scope"], cap["subject"], cap["unit"]): cap for cap in whole["caps"]}
    assert caps["day", "bosun", "usd"]["left"] == 9_000_000
    assert caps["day", "bosun", "tokens"]["left"] == 4000
    assert caps["issue", "acme/api#1", "usd"]["left"] == 4_000_000


def test_every_cap_with_its_end(tmp_path: Path, capsys: Capsys) -> None:
    books = Books(tmp_path, zone="Asia/Tokyo", more="fleet_month_usd = 100\n")
    books.firing(usd=12_000_000, issue=4)  # more than all it had: what was spent is spent
    whole = books.spend(capsys)
    caps = {(cap["scope"], cap["subject"], cap["unit"]): cap for cap in whole["caps"]}
    assert set(caps) == {
        ("fleet_day", "fleet", "usd"), ("fleet_month", "fleet", "usd"), ("issue", "acme/api#4", "usd"),
        *((("day", who, unit)) for who in ("bosun", "mate") for unit in ("usd", "tokens")),
    }  # fmt: skip
    bosun = caps["day", "bosun", "usd"]
    assert (bosun["limit"], bosun["settled"], bosun["reserved"], bosun["left"]) == (
        10_000_000,
        12_000_000,
        0,
        -2_000_000,
    )
    assert (bosun["timezone"], bosun["period"]) == ("Asia/Tokyo", money.period("day", time.time(), "Asia/Tokyo"))
    assert (bosun["ends"] + 9 * 3600) % DAY == 0
    assert 0 < bosun["ends"] - time.time() <= DAY
    assert caps["issue", "acme/api#4", "usd"]["ends"] is None
    rows, _ = books.text(capsys)
    assert any(row[:2] == ["day", "bosun"] and row[5] == "over by $2.00" and "Asia/Tokyo" in row[6] for row in rows)


def test_an_issue_that_is_done_has_no_cap_any_more(books: Books, capsys: Capsys) -> None:
    for issue, record in ((1, "pr"), (2, "done")):
        id = books.firing(usd=10_000, issue=issue)
        with books.ledger.transaction():
            books.ledger._connection.execute(
                "INSERT INTO claims (repo_id, repo, number, generation, firing, host, intended, tip, record, state,"
                " won_at) VALUES (7, 'acme/api', ?, 1, ?, 'h', 'c', 'c', ?, 'ended', 5)", (issue, id, record),
            )  # fmt: skip
    found = [cap["subject"] for cap in books.spend(capsys)["caps"] if cap["scope"] == "issue"]
    assert found == ["acme/api#1"]


@pytest.mark.parametrize(
    ("since", "seen"),
    [("1d", 1), ("2d", 2), ("1w", 3), ("7d", 3), ("30d", 4), ("1h", 1), ("{yesterday}", 2), ("{yesterday}T00:00", 2)],
)
def test_since_when(books: Books, capsys: Capsys, since: str, seen: int) -> None:
    """Days are whole ones of the fleet's time zone: `1d` is today, whatever the hour."""
    for days in (1, 5, 20):
        books.firing(usd=1, ago_s=days * DAY)
    books.firing(usd=1)
    yesterday = money.period("day", time.time() - DAY, "UTC")
    whole = books.spend(capsys, "--since", since.format(yesterday=yesterday))
    assert whole["total"]["starts"] == seen
    assert whole["since"] % DAY == 0 or since == "1h"


@pytest.mark.parametrize("since", ["", "x", "0d", "7y", "-1d", "9999d", "2026-13-01", "1e9"])
def test_a_time_that_is_none(books: Books, capsys: Capsys, since: str) -> None:
    assert main.run(["--home", str(books.home), "spend", f"--since={since}"]) == 78
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"WB-SPEND-01: --since {since!r} is no time")


def test_days_are_those_of_the_fleet(tmp_path: Path, capsys: Capsys) -> None:
    """In the zone that is 14 hours ahead it is tomorrow for most of a day."""
    books = Books(tmp_path, zone="Pacific/Kiritimati")
    books.firing(usd=5)
    books.firing(usd=5, ago_s=3 * DAY)
    named = [group["name"] for group in books.spend(capsys, "--by", "day")["groups"]]
    assert named == [money.period("day", time.time() - ago * DAY, "Pacific/Kiritimati") for ago in (3, 0)]


def test_an_engine_that_never_ran_is_no_start(books: Books, capsys: Capsys) -> None:
    books.firing(usd=0, basis="not started", engine=None)
    books.firing("mate", usd=0, basis="not started")  # it was about to
    whole = books.spend(capsys)
    assert (whole["groups"], whole["total"]["starts"], whole["total"]["cost_micro"]) == ([], 0, None)
    assert books.text(capsys)[1][0].endswith("no engine was started")


def test_without_a_roster(books: Books, capsys: Capsys) -> None:
    """What was spent is said all the same; of caps nothing is known."""
    books.firing(usd=10_000)
    (books.home / "fleet.toml").write_text("nonsense")
    whole = books.spend(capsys)
    assert (whole["total"]["cost_micro"], whole["caps"]) == (10_000, [])


def test_only_the_firings_of_the_time_are_read(books: Books) -> None:
    """However long the history: by index, and in it only what spent since then.

    Broken on purpose: without `engine IS NOT NULL` in the query this scanned all firings.
    """
    for name in ("firings_that_spent", "firings_running"):
        plan = [row[-1] for row in books.ledger._connection.execute(
            f"EXPLAIN QUERY PLAN {books.ledger._queries[name]}", {"since": 5})]  # fmt: skip
        assert any("USING INDEX" in step for step in plan), (name, plan)
        assert not any("TEMP" in step or re.fullmatch("SCAN firings", step) for step in plan), (name, plan)
    for n in range(3):
        books.firing(usd=1, ago_s=n * DAY)
    assert len(bills.since(books.ledger, int(time.time() - 1.5 * DAY))) == 2


def documented(section: str) -> dict[str, str]:
    found = re.search(rf"^### {section}\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, section
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", found[1], re.MULTILINE))


def test_the_object_is_the_documented_one(books: Books, capsys: Capsys) -> None:
    """Also that what is never null by the page never is."""
    books.firing(usd=None)
    books.firing("mate", usd=0, basis="unmeasured")
    whole = books.spend(capsys)
    assert set(whole) == set(documented("spend"))
    inner = {"group": [*whole["groups"], whole["total"]], "basis": whole["bases"], "running": whole["running"],
             "left": whole["caps"]}  # fmt: skip
    for section, objects in inner.items():
        assert objects, section
        keys = documented(section)
        assert all(set(one) == set(keys) for one in objects), section
        for one in objects:
            wrong = [key for key, value in one.items() if value is None and not keys[key].endswith("or null")]
            assert not wrong, (section, wrong)


def test_the_share_of_one_host(tmp_path: Path, capsys: Capsys) -> None:
    """With two hosts each has half of what the fleet may spend, and is told so."""
    books = Books(tmp_path)
    (books.home / "fleet.toml").write_text(
        (books.home / "fleet.toml").read_text().replace("[caps]", "hosts = 2\n[caps]")
    )
    whole = books.spend(capsys)
    fleet = next(cap for cap in whole["caps"] if cap["scope"] == "fleet_day")
    assert fleet["limit"] == 20_000_000
    assert "the caps are this host's share; the fleet has 2 hosts" in books.text(capsys)[1]
