"""The claim record: what is written is read back, and nothing else is believed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.repos import SHA, claim_record
from watchbill.claims.record import MAX_BODY_BYTES, STATES, VERSION, ClaimRecord, Unreadable, parse, render

WHOLE = claim_record()

_count = st.integers(0, 2**63 - 1)
_one_up = st.integers(1, 2**63 - 1)
_million = 10**6
_word = st.text(max_size=200)
_sha = st.text("0123456789abcdef", min_size=40, max_size=40)


@st.composite
def records(draw: st.DrawFn) -> ClaimRecord:
    state = draw(st.sampled_from(STATES))
    landed = state in ("published", "pr")
    return ClaimRecord(
        version=VERSION, repo_id=draw(_count), number=draw(_one_up), generation=draw(st.integers(1, _million)),
        sequence=draw(st.integers(0, _million)),
        state=state, role=draw(_word), firing=draw(_word), agent=draw(_word), host=draw(_word), boot=draw(_word),
        pid=draw(_count), nonce=draw(st.text("0123456789abcdef", min_size=8, max_size=64)),
        ttl=draw(st.integers(1, 6 * 3600)), issued=draw(_count), label_event=draw(_count), base=draw(_sha),
        head=draw(_sha if landed else st.none() | _sha), pr_floor=draw(_count),
        pr=draw(_one_up if state == "pr" else st.none() | _one_up), attempt=draw(st.integers(0, 1000)),
        spent=draw(st.integers(0, _million * _million)),
        outcome=draw(st.sampled_from(["retry", "human"]) if state == "released" else st.none() | _word),
        title=draw(st.text(max_size=300) if state == "published" else st.none() | st.text(max_size=300)),
        body=draw(st.text() if state == "published" else st.none() | st.text()),
    )  # fmt: skip


@given(records())
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read_back(record: ClaimRecord) -> None:
    """Broken on purpose: `ensure_ascii=False` and a `splitlines()` in the parser; U+2028 in a body failed here."""
    assert parse(render(record)) == record
    assert parse(render(record), record.number) == record


@given(st.binary(max_size=400) | st.text(st.characters(), max_size=200))
@settings(max_examples=300, deadline=None)
def test_anything_else_is_unreadable_and_never_an_error(message: bytes | str) -> None:
    assert isinstance(parse(message), Unreadable)


_values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just([]) | st.just({})


@given(st.sampled_from(ClaimRecord._fields), _values)
@settings(max_examples=300, deadline=None)
def test_one_wrong_field_never_raises_and_is_never_taken_for_another_value(field: str, value: object) -> None:
    got = parse(_message({field: value}))
    if isinstance(got, ClaimRecord) and field != "ttl":
        found = getattr(got, field)
        assert type(found) is type(value)
        assert found == value


def _message(changes: dict[str, object] | None = None, drop: str | None = None, subject: str | None = None) -> str:
    said = {**WHOLE._asdict(), **(changes or {})}
    said.pop(drop or "", None)
    return f"{subject or 'claim #41 g7.3 active h1 [skip ci]'}\n\n{json.dumps(said)}\n"


def test_the_shape_people_and_other_programs_see() -> None:
    lines = render(WHOLE).decode().split("\n")
    assert lines[0] == "claim #41 g7.3 active h1 [skip ci]"
    assert lines[1] == lines[3] == ""
    assert list(json.loads(lines[2])) == list(ClaimRecord._fields)
    assert isinstance(parse(_message()), ClaimRecord)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (_message({"version": 2}), "version 2"),
        (_message({"version": True}), "version is"),
        (_message({"state": "asleep"}, subject="claim #41 g7.3 asleep h1 [skip ci]"), "state is 'asleep'"),
        (_message({"number": 42}), "names another claim"),
        (_message({"generation": 8}), "names another claim"),
        (_message({"generation": 7.0}), "generation is"),
        (_message({"pid": "4711"}), "pid is"),
        (_message({"ttl": 0}), "ttl is"),
        (_message({"base": "HEAD"}), "base is"),
        (_message({"spent": -1}), "spent is"),
        (_message({"repo_id": 2**63}), "repo_id is"),
        (_message({"attempt": 1001}), "attempt is"),
        (_message({"spent": 10**12 + 1}), "spent is"),
        (_message({"body": "é" * (MAX_BODY_BYTES // 2 + 1)}), "body is"),
        (_message({"host": "h" * 201}), "host is"),
        (_message(drop="nonce"), "missing or unknown: nonce"),
        (_message({"lease": 1}), "missing or unknown: lease"),
        (_message({"state": "released"}, subject="claim #41 g7.3 released h1 [skip ci]"), "released to None"),
        (_message({"state": "published"}, subject="claim #41 g7.3 published h1 [skip ci]"), "without a head"),
        (_message({"state": "pr", "head": SHA}, subject="claim #41 g7.3 pr h1 [skip ci]"), "pr without a number"),
        (_message().replace('"pid": 4711', '"pid": 4711, "pid": 1'), "a key twice"),
        (_message().replace("4711", "NaN"), "NaN"),
        (_message().replace("4711", "1" * 5000), ""),
        (_message() + "more", "one line of JSON"),
        ("[" * 100_000, ""),
        ("claim #41 g7.3 active h1 [skip ci]\n\n" + "[" * 100_000 + "\n", ""),
        (b"\xff\xfe", ""),
        (b"x" * (2 << 20), "bytes"),
    ],
)
def test_nonsense_is_unreadable_and_says_why(message: bytes | str, says: str) -> None:
    got = parse(message)
    assert isinstance(got, Unreadable)
    assert says in got.reason


def test_a_record_at_the_ref_of_another_number_is_unreadable() -> None:
    assert isinstance(parse(render(WHOLE), 42), Unreadable)


def test_a_long_ttl_is_clamped_to_six_hours_so_that_nobody_owns_an_issue_for_a_week() -> None:
    got = parse(_message({"ttl": 7 * 86400}))
    assert isinstance(got, ClaimRecord)
    assert got.ttl == 6 * 3600


@pytest.mark.parametrize("changes", [{"ttl": 7 * 86400}, {"issued": 1.5}, {"body": "x" * 65537}, {"outcome": 3}])
def test_a_record_that_would_not_come_back_is_not_written(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        render(WHOLE._replace(**changes))
