"""Fleets of several hosts, which share no ledger: caps are divided, and a host that nobody counted is said."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from support.fleet import LABEL, Fleet, agent, crew, fleet, forged, other_host, swept, write_agent
from support.forge import REPO
from support.ledgers import new_ledger
from watchbill import foreign
from watchbill.compiled import Cap
from watchbill.ledger import polls
from watchbill.roster import read_roster

FLEET_01 = "WB-FLEET-01: fleet.toml says hosts = 1, and claims of 1 other were seen: "


def said(it: Fleet) -> list[str]:
    """The problems that `status` tells."""
    done = it.run("status", "--json")
    assert done.returncode == 0, done.stderr
    return [f"{one['id']}: {one['what']}" for one in json.loads(done.stdout)["problems"]]


def counted(it: Fleet, hosts: int) -> None:
    text = (it.home / "fleet.toml").read_text()
    (it.home / "fleet.toml").write_text(text.replace("[fleet]\n", f"[fleet]\nhosts = {hosts}\n", 1))


def test_a_host_that_nobody_counted_is_said_once_and_in_status_until_it_is_counted(tmp_path: Path) -> None:
    """Broken on purpose: without `set(new) - before` every sweep said it again after each of the other's claims."""
    with fleet(tmp_path, crew()) as it:
        other = other_host(it, "other")
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        assert "WB-FLEET-01" not in swept(it).stderr
        assert other.fire("bosun").outcome == "pull_request"
        first = swept(it)
        assert first.stderr.count(FLEET_01) == 1
        assert f"(bosun, {REPO}#{number})" in first.stderr
        assert "each allows the caps of fleet.toml to itself, so together they may spend 2 / 1 of them" in first.stderr
        assert "fix: say `hosts = 2` below [fleet]" in first.stderr
        assert "WB-FLEET-01" in (it.home / "logs" / "steward.log").read_text()
        assert "WB-FLEET-01" not in swept(it).stderr
        it.world.issue("octocat", "Again", labels=[LABEL])
        assert other.fire("bosun").outcome == "pull_request"
        assert "WB-FLEET-01" not in swept(it).stderr
        (problem,) = said(it)
        assert problem in it.run("status").stderr  # for people
        assert "WB-FLEET-01" not in swept(other).stderr  # nobody else has claimed anything
        counted(it, 2)
        assert said(it) == []
        assert "WB-FLEET-01" not in swept(it).stderr


def test_a_firing_that_meets_its_claim_says_it_too(tmp_path: Path) -> None:
    """No steward is needed. The claim of the other host is released, so that this one looks at the issue."""
    with fleet(tmp_path) as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        forged(it, number, state="released", outcome="retry", host="feedc0ffee12", agent="mate")
        ended = it.fire("bosun")
        assert f"{FLEET_01}feedc0ffee12 (mate, {REPO}#{number})" in ended.stderr
        assert ended.outcome == "pull_request"  # it is said, and stops nothing


def test_it_is_forgotten_a_week_after_its_last_claim(tmp_path: Path) -> None:
    ledger, now = new_ledger(tmp_path), 1_000_000
    fleet = read_roster(str(_smallest(tmp_path / "smallest"))).fleet
    others = [("h2", "mate", "acme/api#1", 5, now), ("h3", "mate", "acme/api#2", 5, now - 6 * 86_400)]
    with ledger.transaction():
        polls.take(ledger, "other hosts", "f", now, now)
        polls.put(ledger, "other hosts", "f", None, now * 1000, others)
    for later, hosts in ((0, 3), (86_399, 3), (86_400, 2), (7 * 86_400 - 1, 2), (7 * 86_400, 1)):
        assert 1 + len(foreign.there(ledger, now + later)) == hosts
        for said in range(1, 5):
            problem = foreign.too_many(ledger, fleet._replace(hosts=said), now + later)
            assert (problem is not None) is (hosts > said)
            assert problem is None or f"hosts = {hosts}" in problem.fix
    ledger.close()


def _smallest(home: Path) -> Path:
    shutil.copytree(Path(__file__).parent.parent / "examples" / "smallest", home)
    return home


def test_a_host_that_has_become_another_is_not_its_own_stranger(tmp_path: Path) -> None:
    """Its ledger knows whose firings those were."""
    with fleet(tmp_path, crew()) as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        assert it.fire("bosun").outcome == "pull_request"
        (it.home / "host.json").unlink()
        assert "WB-FLEET-01" not in swept(it).stderr


def test_two_hosts_together_keep_the_cap(tmp_path: Path) -> None:
    """Each fires what half of the cap allows, and the rest are capped. Broken on purpose: undivided, all
    four were made, for $3.60."""
    with fleet(tmp_path, {"bosun": agent(caps={"firing_usd": 1})}, toml="[caps]\nfleet_day_usd = 2\n") as it:
        counted(it, 2)
        assert read_roster(str(it.home)).fleet.caps == (Cap("fleet_day", "usd", 1_000_000),)
        other = other_host(it, "other")
        spends = agent({"use": "scripted", "steps": [
            {"write": {"path": "done.txt", "content": "done"}},
            {"usage": {"input_tokens": 10, "output_tokens": 5, "cost_usd": 0.9}},
        ]}, caps={"firing_usd": 1})  # fmt: skip
        ends = []
        for host in (it, other):
            write_agent(host.home, "bosun", spends)
        for n in range(2):
            for host in (it, other):
                it.world.issue("octocat", f"Do {n}", labels=[LABEL])
                ends.append(host.fire("bosun").outcome)
        assert ends == ["pull_request"] * 2 + ["capped"] * 2
        spent = [host.rows("SELECT sum(cost_micro) FROM firings")[0][0] for host in (it, other)]
        assert sum(spent) == 1_800_000
        assert len(it.pulls()) == 2


if os.environ.get("WATCHBILL_CRASH_THOROUGH"):

    def test_an_old_claim_is_no_news(tmp_path: Path) -> None:
        with fleet(tmp_path, crew()) as it:
            number = it.world.issue("octocat", "Do it")
            forged(it, number, state="done", host="feedc0ffee12", issued=1000)
            assert FLEET_01 in swept(it).stderr
            ((body,),) = it.rows("SELECT body FROM polls WHERE query = 'other hosts'")
            (other,) = json.loads(body)
            other[4] -= 7 * 86_400
            it.change("UPDATE polls SET body = ? WHERE query = 'other hosts'", json.dumps([other]))
            assert said(it) == []
            assert "WB-FLEET-01" not in swept(it).stderr  # the same old claim is no news
            forged(it, number, state="done", host="feedc0ffee12", issued=1001)
            assert FLEET_01 in swept(it).stderr

    def test_an_unreadable_claim_is_nobodys(tmp_path: Path) -> None:
        with fleet(tmp_path, crew()) as it:
            number = it.world.issue("octocat", "Do it")
            forged(it, number, state="nonsense", host="feedc0ffee12")
            assert "WB-FLEET-01" not in swept(it).stderr
