"""How GitHub tells of its limits and what the adapter makes of it: headers they come with, and headers they may not."""

from __future__ import annotations

from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from support.forge import REPO, World, practice_forge
from watchbill.forge import base
from watchbill.forge.base import Answer, RateLimited
from watchbill.forge.github import open_forge
from watchbill.practice.faults import Rule

NOW = 1_790_000_000


class At:
    """A clock that stands still."""

    def __init__(self, now: float = NOW) -> None:
        self.at = now

    def now(self) -> float:
        return self.at

    def elapsed(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        raise AssertionError(f"slept {seconds} s")


class Noted:
    """Limits as they were told."""

    def __init__(self) -> None:
        self.limits: list[RateLimited] = []
        self.answers: list[Answer] = []
        self.asked = 0
        self.stands: RateLimited | None = None

    def before(self) -> None:
        self.asked += 1
        if self.stands:
            raise self.stands

    def limited(self, error: RateLimited) -> None:
        self.limits.append(error)

    def answered(self, answer: Answer) -> None:
        self.answers.append(answer)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with practice_forge(tmp_path, clock=At()) as world:
        world.issue("octocat", "x")
        world.practice.log.clear()
        yield world


SPENT = {"x-ratelimit-remaining": "0", "x-ratelimit-limit": "5000"}
SECONDARY = '{"message": "You have exceeded a secondary rate limit and have been blocked"}'
FORBIDDEN = '{"message": "Resource not accessible"}'

#: status, body, headers -> secondary?, until (seconds from now; None: not told); "no" for what is no limit
ANSWERS = [
    (403, FORBIDDEN, {}, "no", None),
    (403, FORBIDDEN, {"x-ratelimit-remaining": "1"}, "no", None),
    (403, FORBIDDEN, {"x-ratelimit-remaining": "none"}, "no", None),
    (403, "{}", {**SPENT, "x-ratelimit-reset": str(NOW + 60)}, False, 60),
    (429, "{}", {**SPENT, "x-ratelimit-reset": str(NOW + 60)}, False, 60),
    (403, "{}", {"x-ratelimit-remaining": "0.0", "x-ratelimit-reset": f"{NOW + 60}.5"}, False, 61),
    (403, "{}", SPENT, False, None),
    (403, "{}", {**SPENT, "x-ratelimit-reset": "soon"}, False, None),
    (403, "{}", {**SPENT, "x-ratelimit-reset": "NaN"}, False, None),
    (403, "{}", {**SPENT, "x-ratelimit-reset": "inf"}, False, None),
    (403, "{}", {**SPENT, "x-ratelimit-reset": "1e300"}, False, None),
    (403, "{}", {**SPENT, "x-ratelimit-reset": "-5"}, False, -5 - NOW),  # told, and for `pill` not to believe
    (403, "{}", {**SPENT, "x-ratelimit-reset": str(NOW - 60)}, False, -60),
    (403, "{}", {**SPENT, "x-ratelimit-reset": str(NOW + 60), "Retry-After": "90"}, False, 90),
    (403, "{}", {**SPENT, "x-ratelimit-reset": str(NOW + 60), "Retry-After": "30"}, False, 60),
    (403, SECONDARY, {}, True, None),
    (429, SECONDARY, {}, True, None),
    (403, SECONDARY, {"Retry-After": "7"}, True, 7),
    (403, SECONDARY, {"x-ratelimit-remaining": "4999", "x-ratelimit-reset": str(NOW + 60)}, True, None),
    (403, SECONDARY, {**SPENT, "x-ratelimit-reset": str(NOW + 60)}, True, 60),
    (403, SECONDARY, {**SPENT, "x-ratelimit-reset": str(NOW + 60), "Retry-After": "90"}, True, 90),
    (403, "{}", {"Retry-After": "7"}, True, 7),
    (403, "{}", {"Retry-After": "7.2"}, True, 8),
    (403, "{}", {"Retry-After": "0"}, True, 0),
    (403, "{}", {"Retry-After": formatdate(NOW + 120, usegmt=True)}, True, 120),
    (403, "{}", {"Retry-After": "Thu, 99 Foo 2026 25:61:61 GMT"}, True, None),
    (403, "{}", {"Retry-After": "later"}, True, None),
    (403, "{}", {"Retry-After": "nan"}, True, None),
    (429, "{}", {}, True, None),
    (429, "garbage", {"Retry-After": "7"}, True, 7),
]


@pytest.mark.parametrize(("status", "body", "headers", "secondary", "seconds"), ANSWERS)
def test_what_an_answer_means(
    world: World, status: int, body: str, headers: dict[str, str], secondary: bool | str, seconds: int | None
) -> None:
    """Broken on purpose: with PyGithub reading the numbers itself "soon" was a ValueError out of its depth."""
    world.practice.faults.add(Rule("status", status=status, body=body, headers=headers))
    told = Noted()
    with open_forge(world.url, world.tokens["watchbill-bot"], At(), told) as forge:
        with pytest.raises(base.ForgeError) as raised:
            forge.issues.read(REPO, 1)
        forge.issues.read(REPO, 1)
    if secondary == "no":
        assert isinstance(raised.value, base.Unauthorized)
        assert told.limits == []
        return
    assert isinstance(raised.value, RateLimited)
    assert told.limits == [raised.value]
    assert (raised.value.status, raised.value.secondary) == (status, secondary)
    assert raised.value.until == (None if seconds is None else NOW + seconds)
    assert len(told.answers) == 1


@pytest.mark.parametrize("ahead", [-3600, -7, 0, 5, 86_400])
def test_the_servers_clock_is_not_ours(tmp_path: Path, ahead: int) -> None:
    """X-RateLimit-Reset is a moment of the server's clock, whose Date says how far it is from ours."""
    with practice_forge(tmp_path, clock=At(NOW + ahead)) as world:
        told = Noted()
        with open_forge(world.url, world.tokens["watchbill-bot"], At(), told) as forge:
            for kind in ("rate_primary", "rate_secondary"):
                world.practice.faults.add(Rule(kind, seconds=600, nth=1))
                with pytest.raises(RateLimited) as raised:
                    forge.repository.whoami()
                assert raised.value.until == NOW + 600
                world.practice.faults.clear()
            date = formatdate(NOW + ahead + 60, usegmt=True)
            world.practice.faults.add(Rule("status", status=429, headers={"Retry-After": date}))
            with pytest.raises(RateLimited) as raised:
                forge.repository.whoami()
            assert raised.value.until == NOW + 60


def test_nothing_is_asked_while_a_limit_is_known_to_stand(world: World) -> None:
    told = Noted()
    told.stands = RateLimited("it stands", 0, until=NOW + 60, secondary=False)
    with open_forge(world.url, world.tokens["watchbill-bot"], At(), told) as forge:
        for ask in (
            lambda: forge.issues.read(REPO, 1),
            lambda: forge.issues.add_labels(REPO, 1, ("agent:done",)),
            lambda: forge.issues.comment(REPO, 1, "hi"),
            lambda: forge.pulls.create(REPO, head="x", base="main", title="t", body="", draft=False),
            lambda: forge.repository.create_label(REPO, "x", "ffffff", ""),
        ):
            with pytest.raises(RateLimited) as raised:
                ask()
            assert raised.value is told.stands
        assert (forge.calls, len(world.practice.log), told.asked) == (0, 0, 5)
        assert told.limits == []  # it was not told again


def test_every_request_is_asked_for_also_the_second_try(world: World) -> None:
    """A limit that another firing hits between two tries, or two pages, is heeded at once."""
    told, clock = Noted(), Patient()
    world.practice.faults.add(Rule("lost_before", "GET", times=1))
    with open_forge(world.url, world.tokens["watchbill-bot"], clock, told) as forge:
        clock.meanwhile = lambda: setattr(told, "stands", RateLimited("it stands", 0, until=None, secondary=True))
        with pytest.raises(RateLimited):
            forge.issues.read(REPO, 1)
    assert len(world.practice.log) == 1
    assert told.asked == 2


class Patient(At):
    def sleep(self, seconds: float) -> None:
        assert seconds < 1
        self.meanwhile()

    def meanwhile(self) -> None: ...


def test_what_is_told_of_every_other_answer(world: World) -> None:
    told = Noted()
    with open_forge(world.url, world.tokens["watchbill-bot"], At(), told) as forge:
        listing = forge.issues.listed(REPO, "x", None)
        forge.issues.listed(REPO, "x", listing.validator)
        forge.issues.add_labels(REPO, 1, ("agent:done",))
        with pytest.raises(base.NotFound):
            forge.issues.read(REPO, 99)
        world.practice.faults.add(Rule("status", status=500, times=None))
        with pytest.raises(base.Unknown):
            forge.issues.comment(REPO, 1, "x")
    hour = (NOW // 3600 + 1) * 3600
    assert told.answers == [
        Answer(False, True, 4999, 5000, hour),
        Answer(False, False, 4999, 5000, hour),
        Answer(True, True, 4998, 5000, hour),
        Answer(False, True, 4997, 5000, hour),
    ]  # a 404 answers; a 500 does not


def test_a_limit_of_the_practice_forge_that_lasts(world: World) -> None:
    """As GitHub's do: whatever this account asks, until the reset; of the secondary one whatever it writes."""
    clock = world.practice.store.clock
    assert isinstance(clock, At)
    world.practice.faults.add(
        Rule("rate_primary", "POST", "/labels$", login="octocat", seconds=60, lasting=True),
        Rule("rate_secondary", "POST", "/comments$", login="watchbill-bot", seconds=60, lasting=True, status=429),
    )
    issue = f"/repos/{REPO}/issues/1"

    def status(login: str, method: str, path: str, body: object = None) -> int:
        return world.ask(login, method, path, body).status

    assert status("octocat", "GET", issue) == 200
    assert status("octocat", "POST", f"{issue}/labels", ["x"]) == 403
    assert status("octocat", "GET", issue) == 403
    reply = world.ask("octocat", "GET", "/user")
    assert reply.headers["x-ratelimit-reset"] == str(NOW + 60)
    assert status("watchbill-bot", "GET", issue) == 200
    assert status("watchbill-bot", "POST", f"{issue}/comments", {"body": "x"}) == 429
    assert status("watchbill-bot", "GET", issue) == 200
    clock.at += 45
    reply = world.ask("watchbill-bot", "PATCH", issue, {"title": "y"})
    assert (reply.status, reply.headers["retry-after"]) == (429, "15")
    assert world.ask("octocat", "GET", "/user").headers["x-ratelimit-reset"] == str(NOW + 60)
    clock.at += 15
    assert status("octocat", "GET", issue) == 200
    assert status("watchbill-bot", "PATCH", issue, {"title": "y"}) == 200
