"""Defects about money and holds that were found by trying, each as a whole firing where only that shows it.

Those that show in a part alone stand beside it: tests/test_billing.py, test_prices.py, gates/, engines/.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from support.fleet import FAILS, LABEL, agent, ask, fleet, forged, python, write_agent
from support.ledgers import firing as a_row
from watchbill import money
from watchbill.host import host_id
from watchbill.ledger import firings, holds, reservations
from watchbill.ledger.holds import Hold
from watchbill.ledger.reservations import Subjects
from watchbill.roster import read_roster
from watchbill.roster_errors import RosterErrors

SAY = "import json, time\ndef say(**words): print(json.dumps(words), flush=True)\n"
#: Sixty cents, and no work.
SPENDS_AND_FAILS = python(SAY + "say(type='usage', cost_usd=0.6)\nraise SystemExit(1)")


def test_issues_whose_cap_is_used_up_keep_nobody_from_the_others(tmp_path: Path) -> None:
    """Three of them, first in line each time, and no other issue of any repository was ever looked at again.

    Broken once: each was one of a firing's three tries; and nobody was told: they stayed labelled for ever.
    """
    with fleet(tmp_path, {"bosun": agent(SPENDS_AND_FAILS)}, toml="[caps]\nissue_usd = 1.5\n") as it:
        for _ in range(3):
            forged(it, it.world.issue("octocat", "Costly", labels=[LABEL]), state="released", outcome="retry",
                   spent=5_000_000)  # fmt: skip
        fresh = it.world.issue("octocat", "Fresh", labels=[LABEL])
        ended = it.fire("bosun")
        assert (ended.outcome, ended.object["number"]) == ("engine_failed", fresh)
        assert it.record(fresh).outcome == "human"  # $0.60 of $1.50 are left no firing of a dollar
        assert it.labels(fresh) == {"needs:human"}


def test_a_dry_run_is_refused_by_the_caps_that_would_refuse_the_firing(tmp_path: Path) -> None:
    """It said "would claim" where the next firing was capped. Broken once: it ended before any cap was asked."""
    with fleet(tmp_path, toml="[caps]\nissue_usd = 1.5\n") as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        repo_id = ask(it, "GET", "").body["id"]
        ledger, now = it.ledger(), int(time.time())
        whose = Subjects("fx", f"{repo_id}#{number}", "mate", "d", "m")
        with ledger.transaction():
            reservations.reserve(ledger, whose, {"usd": 1_000_000, "firings": 1}, {}, now)
        ended = it.fire("bosun", "--dry-run")
        assert (ended.outcome, ended.status) == ("capped", 75), ended
        assert "$1.00 reserved for this issue of $1.50" in ended.reason
        assert reservations.spent(ledger, "issue", whose.issue, "", "usd") == (0, 1_000_000)
        with ledger.transaction():
            reservations.settle(ledger, "fx", reservations.NOTHING, "lost", now)
        ledger.close()
        assert "would claim" in it.fire("bosun", "--dry-run").reason
        assert it.rows("SELECT count(*) FROM reservations WHERE firing <> 'fx'") == [(0,)]


def test_what_the_dead_reserved_keeps_nobody_capped(tmp_path: Path) -> None:
    """A power cut, and the whole fleet was capped until the month ended: who is capped repaired nothing.

    Broken once: `capped` came before the burying; $0.00 spent and $1.00 reserved of $1.50, each time.
    """
    with fleet(tmp_path, toml="[caps]\nfleet_month_usd = 1.5\n") as it:
        assert it.fire("bosun").outcome == "idle"
        ledger, now, zone = it.ledger(), int(time.time()), read_roster(str(it.home)).fleet.timezone
        day, month = (money.period(scope, now, zone) for scope in ("day", "fleet_month"))
        dead = a_row("mate", "f-dead", host_id(str(it.home / "host.json")))
        with ledger.transaction():
            firings.begin(ledger, dead)
            reservations.reserve(ledger, Subjects(dead.id, "7#1", "mate", day, month), {"usd": 1_000_000}, {}, now)
        assert it.fire("bosun").outcome == "idle"
        assert reservations.spent(ledger, "fleet_month", "fleet", month, "usd") == (0, 0)
        assert it.rows("SELECT outcome FROM firings WHERE id = ?", dead.id) == [("died",)]
        ledger.close()


def test_a_roster_that_was_edited_is_asked_for_its_caps_and_an_old_one_for_its_pauses(tmp_path: Path) -> None:
    """A cap that a person raised was not seen until midnight: the old one refused before the edit was ever read.

    Broken once: every gate asked with the roster as it was compiled last; unfit (capped, too) for good. And the pause
    that is rightly found that way wrote `role: ""` into the ledger and the JSON object.
    """
    with fleet(tmp_path, {"bosun": agent(FAILS)}, toml='[host]\nmin_free = "900TB"\n') as it:
        assert it.fire("bosun").reason.startswith("this host is unfit")
        toml = it.home / "fleet.toml"
        toml.write_text(toml.read_text().replace("900TB", "1MB"))
        assert it.fire("bosun").outcome == "idle"
        ledger = it.ledger()
        with ledger.transaction(durable=True):
            holds.add(ledger, Hold(0, "agent", "bosun", "pause", "a test", "octocat", int(time.time()), None))
        ledger.close()
        compiled_at = (it.home / "roster.json").stat().st_mtime_ns
        write_agent(it.home, "bosun", agent())
        held = it.fire("bosun")
        assert (held.outcome, held.object["role"]) == ("held", "implement")
        assert it.rows("SELECT role FROM firings WHERE id = ?", held.object["firing"]) == [("implement",)]
        assert (it.home / "roster.json").stat().st_mtime_ns == compiled_at  # nothing was parsed for it


def test_deny_parks_no_engine_that_was_turned_away_before_its_first_word(tmp_path: Path) -> None:
    """An ordinary rate limit that heals by itself, and every agent of the engine stood still until a person came.

    Broken once: a limited run says no usage, and all that nobody measured was parked; a hold without an end.
    """
    limited = {**python(SAY + "say(type='rate_limited', until=time.time() + 600)\nraise SystemExit(1)"), "account": "t"}
    with fleet(tmp_path, {"bosun": agent(limited)}, toml='[caps]\nunmeasured = "deny"\n') as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        assert it.fire("bosun").outcome == "held"
        ((scope, kind, until),) = it.rows("SELECT scope, kind, until FROM holds")
        assert (scope, kind) == ("account", "rate_limit")
        assert until is not None


def test_allow_and_alert_alerts(tmp_path: Path) -> None:
    """Runs that nobody can measure went on without a word. Broken once: nothing on stderr, nothing in the log."""
    mute = agent(python("open('done.txt', 'w').write('done')"))
    with fleet(tmp_path, {"bosun": mute}, toml='[caps]\nunmeasured = "allow-and-alert"\n') as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        ended = it.fire("bosun")
        assert (ended.outcome, ended.object["cost_basis"]) == ("pull_request", "unmeasured")
        assert "nobody can say what this run cost" in ended.stderr
        assert "nobody can say what this run cost" in (it.home / "logs" / "bosun.log").read_text()


def test_a_back_off_that_a_clock_ahead_of_its_time_set_is_not_believed(tmp_path: Path) -> None:
    """The clock was put right, and an issue rested for a year, whatever a person labelled.

    Broken once: any `next_at` to come was waited for; "tried once; again at 2027-...".
    """
    with fleet(tmp_path, {"bosun": agent(FAILS)}) as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        assert it.fire("bosun").outcome == "engine_failed"
        assert "tried once; again at" in it.fire("bosun", "--scheduled").reason
        it.change("UPDATE attempts SET next_at = next_at + 365 * 86400")
        assert it.fire("bosun").outcome == "engine_failed"


# Of the roster alone


def home(root: Path, toml: str = "", **agents: dict[str, object]) -> str:
    (root / "agents").mkdir(parents=True)
    (root / "fleet.toml").write_text(f'[fleet]\nrepos = ["acme/api"]\n{toml}')
    for name, ours in agents.items():
        write_agent(root, name, ours)
    return str(root)


@pytest.mark.parametrize("fallback", [False, True])
def test_a_firing_and_its_request_that_fit_no_cap_are_a_mistake_of_the_roster(tmp_path: Path, fallback: bool) -> None:
    """It was valid, and every firing ever after capped, with words about room that there never was.

    Broken once: the cap compared with the firing's own, without the request that each firing reserves beside it; and
    its words then named a firing cap of $1.50 where the person had written 1.
    """
    caps = {"firing_usd": 1, "day_usd": 1.2}
    dear = {"request_usd": 0.5} if not fallback else {"fallback": "scripted"}
    toml = "[engines.scripted]\nsteps = []\nrequest_usd = 0.5\n" if fallback else ""
    with pytest.raises(RosterErrors) as found:
        read_roster(home(tmp_path, toml, bosun=agent({**python("pass"), **dear}, caps=caps)))
    (problem,) = found.value.problems
    assert "$1.50 a firing (with one request of $0.50 more, request_usd) is more than day_usd allows ($1.20)" in problem


def test_an_agents_own_key_is_its_account_whatever_the_fleet_shares(tmp_path: Path) -> None:
    """It was held by a limit of a key that it does not use, and held others by limits of its own.

    Broken once: the fleet's `account` before the agent's `key`; and all that `python3` runs was one account.
    """
    own = {"use": "command", "argv": ["python3", "c.py"], "key": "env:K2"}
    plain = {"use": "command", "argv": ["/usr/bin/python3", "a.py"]}
    shared = read_roster(home(tmp_path / "1", '[engines.command]\naccount = "team"\n', a=agent(plain), c=agent(own)))
    assert {name: one.uses[0].account for name, one in shared.agents.items()} == {"a": "team", "c": "env:K2"}
    other = agent({"use": "command", "argv": ["/usr/bin/python3", "b.py"]})
    apart = read_roster(home(tmp_path / "2", "", a=agent(plain), b=other))
    assert len({one.uses[0].account for one in apart.agents.values()}) == 2
