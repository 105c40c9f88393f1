"""Defects of how engines are run that reviewers found, each as it was found; those that need no firing to be seen."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path

import pytest

from support.engines import Outsider, a_task, lines, run
from watchbill.engines import bill, claude, codex, credential
from watchbill.engines.base import Engine, Launch, Limits, Task, Usage
from watchbill.engines.transcripts import Files
from watchbill.errors import Fixable
from watchbill.isolation import none

# --- its credential --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lies_there", "why"),
    [
        ("sk-" + "x" * 20_000, "longer than 16384 bytes"),  # ended each firing as a bug, after its claim
        ("sk-one\nsk-two", "more than one word"),  # claude crashed; codex sent no Authorization at all
        ("sk-one two", "more than one word"),
        ("sk-one\x00", "more than one word"),
    ],
)
def test_what_no_pipe_and_no_header_can_hold_is_no_key(tmp_path: Path, lies_there: str, why: str) -> None:
    """Before anything is claimed. Broken once: each was handed on, and an issue counted as tried."""
    key = tmp_path / "key"
    key.write_text(lies_there)
    key.chmod(0o600)
    for adapter in (claude, codex):
        with pytest.raises(Fixable) as caught:
            credential.of(adapter, {"key": f"file:{key}"}, os.environ)
        assert (caught.value.id, caught.value.outcome) == ("WB-SECRET-05", "unauthorized")
        assert why in caught.value.what
        assert lies_there[:6] not in str(caught.value)


def test_a_key_may_end_its_line(tmp_path: Path) -> None:
    """As every editor leaves a file."""
    key = tmp_path / "key"
    key.write_text("sk-one\n")
    key.chmod(0o600)
    assert credential.of(claude, {"key": f"file:{key}"}, os.environ) == "sk-one"


@pytest.mark.parametrize("damaged", ['["x"]', "nonsense", '{"claudeAiOauth": {"accessTo'])
@pytest.mark.parametrize(("adapter", "path"), [(claude, ".claude/.credentials.json"), (codex, ".codex/auth.json")])
def test_a_login_that_is_none_is_sent_to_nobody(own_world: Path, adapter: Engine, path: str, damaged: str) -> None:
    """It may hold what renews the login. Broken once: taken for an API key, and sent whole: `x-api-key: ["x"]`."""
    login = own_world / path
    login.parent.mkdir()
    login.write_text(damaged)
    login.chmod(0o600)
    with pytest.raises(Fixable) as caught:
        credential.of(adapter, {}, os.environ)
    assert (caught.value.id, caught.value.outcome) == ("WB-SECRET-05", "unauthorized")
    assert damaged not in str(caught.value)


@pytest.mark.parametrize("adapter", [claude, codex], ids=["claude", "codex"])
def test_a_login_that_ends_before_the_run_is_none(tmp_path: Path, adapter: Engine) -> None:
    """In the middle of one its server refuses it, and the engine is held until a person comes.

    Broken once: one that lasted five minutes more was good enough for a run of 25.
    """
    program = tmp_path / "engine"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    options = {"program": str(program)}
    for left_s, wall_s, good in ((1200, 1500.0, False), (2000, 1500.0, True)):
        task = Task("f", str(tmp_path), "b", str(tmp_path), str(tmp_path), "", None, options, {}, Limits(wall_s),
                    key=login_for(adapter, int(time.time()) + left_s))  # fmt: skip
        if good:
            assert adapter.launch(task).pipes
            continue
        with pytest.raises(Fixable) as caught:
            adapter.launch(task)
        assert (caught.value.id, caught.value.outcome) == ("WB-ENGINE-07", "unauthorized")
        assert "before the run is over" in caught.value.why


def login_for(adapter: Engine, ends_at: int) -> str:
    """What its own login holds; UTC epoch seconds."""
    if adapter.name == "claude":
        return json.dumps({"claudeAiOauth": {"accessToken": "sk-ant-oat01-x", "expiresAt": ends_at * 1000}})
    claims = base64.urlsafe_b64encode(json.dumps({"exp": ends_at}).encode()).decode().rstrip("=")
    return json.dumps({"tokens": {"access_token": f"e30.{claims}.x", "account_id": "a"}})


class Handed(Outsider):
    """It is given a key as claude and codex are."""

    def launch(self, task: Task) -> Launch:
        return super().launch(task)._replace(pipes={"KEY_FD": b"one", "OTHER_FD": b"two"})


def test_a_key_comes_through_a_descriptor_that_node_hands_on(tmp_path: Path) -> None:
    """npm's, pnpm's and yarn's scripts are run by node, which closes the first sixteen, and those next to them.

    Broken once: the lowest that was free; behind pnpm's script codex had no key (tests/real_engines).
    """
    text = """
for n in (int(os.environ[name]) for name in ('KEY_FD', 'OTHER_FD')):
    say('message', n=n, key=open(n).read())
say('final', ok=True)
"""
    task = a_task(tmp_path, "outsider", text)
    done = run(task, "outsider", engine=Handed())
    said = lines(done.log)
    assert [one["key"] for one in said[:2]] == ["one", "two"]
    assert all(one["n"] > 16 + 8 for one in said[:2]), said


# --- what its tools leave behind -------------------------------------------------------------------------------------


class Guided(Outsider):
    """It has a file of ours below its HOME."""

    def launch(self, task: Task) -> Launch:
        return super().launch(task)._replace(files={".conf/AGENTS.md": b"be kind", ".conf/deep/er": b"x"})


def test_a_link_laid_in_the_way_costs_nobody_else_a_file(tmp_path: Path) -> None:
    """From outside the jail, the runner removes what it put below HOME: by no way that a tool has laid.

    Broken once: unlinked by its path; the operator's own AGENTS.md was gone.
    """
    theirs = tmp_path / "theirs"
    (theirs / "deep").mkdir(parents=True)
    for path in (theirs / "AGENTS.md", theirs / "deep" / "er"):
        path.write_text("the operator's own")
    text = (
        "home = os.environ['HOME']\nassert open(home + '/.conf/AGENTS.md').read() == 'be kind'\n"
        f"os.rename(home + '/.conf', home + '/was')\nos.symlink({str(theirs)!r}, home + '/.conf')\n"
        "say('final', ok=True)"
    )
    task = a_task(tmp_path, "outsider", text)
    done = run(task, "outsider", engine=Guided(), isolation=none)
    assert done.verdict == "ok", done
    assert (theirs / "AGENTS.md").read_text() == (theirs / "deep" / "er").read_text() == "the operator's own"


def test_what_lies_where_it_was_put_is_gone(tmp_path: Path) -> None:
    """The other side of it: a credential is in no worktree that is kept."""
    done = run(a_task(tmp_path, "outsider", "say('final', ok=True)"), "outsider", engine=Guided())
    assert done.verdict == "ok", done
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []


# --- what they say ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", ["[]", "{}", "null", "7", "[[]]", '"x"'])
def test_odd_values_in_a_line_are_no_defect_of_ours(odd: str) -> None:
    """Of what a program prints, nothing raises. Broken once: a list where claude names a window, and the firing ended
    as `bug` (TypeError: unhashable)."""
    claudes = (
        '{"type":"rate_limit_event","rate_limit_info":{"rateLimitType":%s,"utilization":0.5,"resetsAt":1790000000}}',
        '{"type":"rate_limit_event","rate_limit_info":{"unifiedWindows":{"five_hour":%s}}}',
        '{"type":"rate_limit_event","rate_limit_info":%s}', '{"type":"assistant","message":%s}',
        '{"type":"assistant","message":{"id":%s,"usage":%s}}', '{"type":"result","model_usage_since_last_result":%s}',
        '{"type":"result","model_usage_since_last_result":{"m":%s},"total_cost_usd":%s}')  # fmt: skip
    codexes = ('{"type":%s}', '{"type":"item.completed","item":%s}', '{"type":"turn.completed","usage":%s}',
               '{"type":"turn.failed","error":%s}', '{"type":"error","message":%s}')  # fmt: skip
    adapters: tuple[tuple[Engine, tuple[str, ...]], ...] = ((claude, claudes), (codex, codexes))
    for adapter, known in adapters:
        for line in known:
            adapter.read(line.replace("%s", odd).encode(), Usage())


# --- what they write -------------------------------------------------------------------------------------------------

CLAUDES = ".claude/projects/x/00000000-0000-4000-8000-000000000001.jsonl"
CODEXES = ".codex/sessions/2026/11/21/rollout-2026-11-21T00-00-00-01a2003c-56ca-7362-8bc8-6ba3528a2b73.jsonl"


def written(home: Path, path: str, *content: str | bytes) -> None:
    file = home / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"".join(part if isinstance(part, bytes) else part.encode() + b"\n" for part in content))


def answered(id: str, used: int) -> str:
    """A line of claude's."""
    usage = {"input_tokens": used, "output_tokens": 100}
    return json.dumps({"type": "assistant", "message": {"id": id, "model": "claude-sonnet-5-5", "usage": usage}})


def counted(total: int) -> str:
    """A line of codex's."""
    usage = {"input_tokens": total, "output_tokens": 100}
    return json.dumps({"type": "event_msg", "payload": {"type": "token_count", "info": {"total_token_usage": usage}}})


def test_the_summary_of_a_long_conversation_is_paid_for(tmp_path: Path) -> None:
    """It is in no message of the transcript, which tells only how long that was which was summed up.

    Broken once: passed over; 1,020 tokens of 186,020 (and a killed run was charged $0.950 of $1.298).
    """
    summary = {"type": "system", "subtype": "compact_boundary", "uuid": "u1", "compactMetadata": {"preTokens": 185_000}}
    again, odd = json.dumps(summary), json.dumps({**summary, "uuid": "u2", "compactMetadata": [7]})
    written(tmp_path, CLAUDES, answered("m1", 1000), again, again, odd, answered("m2", 20))
    used = bill.read_whole(claude.transcript(str(tmp_path)))
    assert used.input_tokens == 1000 + 185_000 + 20
    assert used.output_tokens == 100 + 32_000 + 100  # as long as an answer may be
    assert {model for model, _ in used.unpriced} == {"claude-sonnet-5-5"}


@pytest.mark.parametrize(
    "between",
    [b'{"type": "user", "n": "' + b"x" * 1000 + b'"}\n', b"x" * (20 << 20) + b"\n", b"\n"],
    ids=["lines that tell nothing", "a line longer than any", "empty lines"],
)
@pytest.mark.parametrize(("adapter", "path"), [(claude, CLAUDES), (codex, CODEXES)], ids=["claude", "codex"])
def test_what_follows_megabytes_that_tell_nothing_is_billed(
    tmp_path: Path, adapter: Engine, path: str, between: bytes
) -> None:
    """A tool's output, or a tool. Broken once: the files were done with at the first look that told nothing new."""
    first, last = (answered("m1", 1000), answered("m2", 20)) if adapter.name == "claude" else (
        counted(1000), counted(1020))  # fmt: skip
    times = max(1, (5 << 20) // len(between)) if between.strip() else 3000
    written(tmp_path, path, first, between * times, last)
    used = bill.read_whole(adapter.transcript(str(tmp_path)))
    assert used.input_tokens == 1020
    assert used.turns == 2


def test_one_look_reads_no_more_than_it_can_in_a_moment(tmp_path: Path) -> None:
    """Meanwhile nothing else is done: no stop, no limit, no renewal of the claim.

    Broken once: 16 MB at a time, and eight times that in a row; 12 s passed between two beats.
    """
    line = b'{"type": "error"}\n'
    written(tmp_path, "x.jsonl", line * ((7 << 20) // len(line)))
    files, looks = Files(str(tmp_path), "*.jsonl"), []
    while found := files.lines():
        looks.append(sum(len(one) + 1 for _, one in found))
    assert max(looks) <= 2 << 20
    assert sum(looks) == (tmp_path / "x.jsonl").stat().st_size


@pytest.mark.parametrize(("adapter", "path"), [(claude, CLAUDES), (codex, CODEXES)], ids=["claude", "codex"])
def test_half_a_line_is_no_news(tmp_path: Path, adapter: Engine, path: str) -> None:
    """A full disk leaves one, and nothing after it: whoever takes that for growth takes a dead file for alive.

    Broken once: it was read, and so told of, at every look; a run that nobody could meter went on for 40 requests.
    """
    written(tmp_path, path, answered("m1", 1000) if adapter.name == "claude" else counted(1000), b'{"type": "half')
    transcript = adapter.transcript(str(tmp_path))
    assert transcript.look() != ()
    assert transcript.look() == ()
