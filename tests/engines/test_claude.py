"""What the adapter of Claude Code tells the program, and what it makes of what the program says.

The lines are what the real program prints (2.1.329), shortened; tests/real_engines drives it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from watchbill.engines import claude
from watchbill.engines.base import Event, Filled, Launch, Limits, Session, Task, Tokens, Usage
from watchbill.errors import Fixable

SONNET = "claude-sonnet-5-5"
ID = "fd9679fb-2cd3-4383-afa3-270c92e71359"


def a_task(tmp_path: Path, **more: Any) -> Task:
    program = tmp_path / "bin" / "claude"
    program.parent.mkdir(exist_ok=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    task = Task(
        firing="f",
        workdir=str(tmp_path),
        brief="Do it.",
        home=str(tmp_path / "home"),
        tmp=str(tmp_path / "t"),
        log="",
        model=None,
        options={"program": str(program)},
        env={},
        limits=Limits(60),
        key="sk-ant-api03-k",
    )
    return task._replace(options={**task.options, **more.pop("options", {})}, **more)


def launched(tmp_path: Path, **more: Any) -> Launch:
    return claude.launch(a_task(tmp_path, **more))


def value(argv: tuple[str, ...], option: str) -> str:
    return argv[argv.index(option) + 1]


# --- what it is told ------------------------------------------------------------------------------------------------


def test_its_whole_command_line(tmp_path: Path) -> None:
    argv = launched(tmp_path).argv
    assert argv == (
        str(tmp_path / "bin" / "claude"), "-p", "--output-format", "stream-json", "--verbose", "--setting-sources", "",
        "--strict-mcp-config", "--disable-slash-commands", "--tools", "Read,Edit,Write,Bash,Glob,Grep",
        "--allowedTools", "Read", "Edit", "Write", "Bash", "Glob", "Grep", "--permission-mode", "dontAsk")  # fmt: skip


def test_everything_that_can_be_asked_of_it(tmp_path: Path) -> None:
    """Words of the operator come last, and behind an option that takes exactly one."""
    argv = launched(
        tmp_path, model="sonnet", limits=Limits(60, turns=30, cost_micro=1_500_000), session=Session(ID, Usage()),
        guidance="- Be kind.", tools=("Read", "Bash(git *)"), options={"args": ["--effort", "high"]})[0]  # fmt: skip
    assert argv[argv.index("--tools") :] == (
        "--tools", "Read,Bash", "--allowedTools", "Read", "Bash(git *)", "--model", "sonnet", "--max-turns", "30",
        "--max-budget-usd", "1.500000", "--resume", ID, "--append-system-prompt", "- Be kind.",
        "--permission-mode", "dontAsk", "--effort", "high")  # fmt: skip


def test_alone_it_confines_its_tools_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for tool in ("bwrap", "socat"):
        (tmp_path / tool).symlink_to("/bin/true")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    argv = launched(tmp_path, sandbox=True).argv
    allowed = argv[argv.index("--allowedTools") + 1 : argv.index("--permission-mode")]
    assert allowed == ("Read(./**)", "Edit(./**)", "Bash")
    assert json.loads(value(argv, "--settings")) == {
        "sandbox": {"enabled": True, "failIfUnavailable": True, "allowUnsandboxedCommands": False}
    }


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has what it needs")
def test_alone_where_it_cannot_confine_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is claimed: the program itself would say it afterwards, as a crash."""
    (tmp_path / "bwrap").symlink_to("/bin/true")
    monkeypatch.setattr("watchbill.engines.claude.program_path", lambda _: str(tmp_path))
    with pytest.raises(Fixable) as caught:
        launched(tmp_path, sandbox=True)
    assert caught.value.id == "WB-ENGINE-10"
    assert caught.value.why.endswith("it lacks socat")


def test_the_brief_is_on_stdin_and_no_command_to_the_program(tmp_path: Path) -> None:
    """`/cost` as a prompt is answered by the program itself, as a success, and nothing reaches the model."""
    launch = launched(tmp_path, brief="Résumé \udc80\n")
    assert launch.stdin == b"R\xc3\xa9sum\xc3\xa9 \x80\n"
    assert not any("sum" in word for word in launch.argv)
    assert launched(tmp_path, brief="\n /cost").stdin == b"Task:\n\n\n /cost"


def test_its_environment(tmp_path: Path) -> None:
    """What bounds a request may be set otherwise; what keeps it quiet and apart may not."""
    env = launched(tmp_path, env={"BASH_MAX_TIMEOUT_MS": "1", "CLAUDE_CONFIG_DIR": "/x", "DISABLE_TELEMETRY": "0"}).env
    assert env["CLAUDE_CONFIG_DIR"] == str(tmp_path / "home" / ".claude")
    assert env["CLAUDE_CODE_TMPDIR"] == str(tmp_path / "t")
    assert {env[name] for name in env if "DISABLE" in name} == {"1"}
    assert "BASH_MAX_TIMEOUT_MS" not in env  # the operator's own reaches it
    assert (env["CLAUDE_CODE_MAX_RETRIES"], env["CLAUDE_CODE_AUTO_COMPACT_WINDOW"]) == ("2", "200000")


def test_guidance_is_cut_to_what_an_argument_holds(tmp_path: Path) -> None:
    word = value(launched(tmp_path, guidance="\0é" * 100_000).argv, "--append-system-prompt")
    assert set(word) == {"é"}
    assert 90_000 < len(word.encode()) < 128 << 10


@pytest.mark.parametrize(
    ("key", "variable", "token", "plan"),
    [
        ("sk-ant-api03-abc\n", "CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR", b"sk-ant-api03-abc", False),
        ("of-a-gateway", "CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR", b"of-a-gateway", False),
        ("sk-ant-oat01-abc", "CLAUDE_CODE_OAUTH_TOKEN_FILE_DESCRIPTOR", b"sk-ant-oat01-abc", True),
        ('{"claudeAiOauth": {"accessToken": "sk-ant-oat01-in", "refreshToken": "sk-ant-ort01-no", "expiresAt": LATER}}',
         "CLAUDE_CODE_OAUTH_TOKEN_FILE_DESCRIPTOR", b"sk-ant-oat01-in", True),
        ('{"claudeAiOauth": {"accessToken": "sk-ant-oat01-in", "expiresAt": "soon"}}',
         "CLAUDE_CODE_OAUTH_TOKEN_FILE_DESCRIPTOR", b"sk-ant-oat01-in", True),
    ],
)  # fmt: skip
def test_its_credential_goes_through_a_pipe_and_nowhere_else(
    tmp_path: Path, key: str, variable: str, token: bytes, plan: bool
) -> None:
    """Broken once: with the whole login handed over, the token by which it is renewed was in the pipe."""
    launch = launched(tmp_path, key=key.replace("LATER", str(int(time.time() + 3600) * 1000)))
    assert (launch.pipes, launch.plan) == ({variable: token}, plan)
    assert token.decode() not in f"{launch.argv} {launch.env} {launch.files}"


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (None, "nothing names a key"),
        ("  ", "nothing names a key"),
        ('{"claudeAiOauth": {"accessToken": "sk-ant-oat01-in", "expiresAt": PAST}}', "has expired"),
        ('{"claudeAiOauth": {"accessToken": ""}}', "holds no access token"),
        ('{"claudeAiOauth": []}', "holds no access token"),
        ('{"mcpOAuth": {}}', "holds no access token"),
        ("{not JSON", "holds no access token"),
    ],
)
def test_without_a_credential_that_could_work(tmp_path: Path, key: str | None, why: str) -> None:
    with pytest.raises(Fixable) as caught:
        launched(tmp_path, key=key and key.replace("PAST", str(int(time.time() - 60) * 1000)))
    assert (caught.value.id, caught.value.outcome) == ("WB-ENGINE-07", "unauthorized")
    assert why in caught.value.why
    assert "claude setup-token" in caught.value.fix
    assert "oat01" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "plan"),
    [("ANTHROPIC_AUTH_TOKEN", False), ("CLAUDE_CODE_USE_BEDROCK", False), ("CLAUDE_CODE_OAUTH_TOKEN", True)],
)
def test_a_credential_in_what_the_operator_lets_through(tmp_path: Path, variable: str, plan: bool) -> None:
    launch = launched(tmp_path, key=None, env={variable: "1"})
    assert (launch.pipes, launch.plan) == ({}, plan)


@pytest.mark.parametrize(
    ("more", "id"),
    [
        ({"options": {"program": "/nowhere/claude"}}, "WB-ENGINE-01"),
        ({"tools": ("--dangerously-skip-permissions",)}, "WB-ENGINE-09"),
        ({"tools": ("Read,Bash",)}, "WB-ENGINE-09"),
        ({"options": {"args": "--effort high"}}, "WB-ENGINE-09"),
        ({"options": {"args": ["--effort", 3]}}, "WB-ENGINE-09"),
        ({"options": {"args": ["a\0b"]}}, "WB-ENGINE-09"),
    ],
)
def test_what_it_cannot_be_told(tmp_path: Path, more: dict[str, Any], id: str) -> None:
    with pytest.raises(Fixable) as caught:
        launched(tmp_path, **more)
    assert (caught.value.id, caught.value.outcome) == (id, "invalid")
    assert caught.value.fix


def test_its_program(tmp_path: Path) -> None:
    program = claude.program(a_task(tmp_path, key=None))
    assert program is not None
    assert program.path == str(tmp_path / "bin" / "claude")
    assert program.least <= (2, 1, 329) < program.below


# --- what it says ---------------------------------------------------------------------------------------------------


def line(type: str, **more: Any) -> bytes:
    return json.dumps({"type": type, **more}).encode()


def retry(status: int | None, error: str) -> bytes:
    return line("system", subtype="api_retry", attempt=1, max_retries=2, retry_delay_ms=500, error_status=status,
                error=error)  # fmt: skip


def spent(usd: object, input: object = 1000, output: object = 100, **more: Any) -> dict[str, Any]:
    return {"inputTokens": input, "outputTokens": output, "cacheReadInputTokens": 0, "cacheCreationInputTokens": 0,
            "costUSD": usd, "contextWindow": 1000000, "costBasis": "list", **more}  # fmt: skip


def result(used: dict[str, Any] | None, **more: Any) -> bytes:
    """`used`: model_usage_since_last_result."""
    told = {"subtype": "success", "is_error": False, "num_turns": 3, "total_cost_usd": 9.9, "result": "Done.",
            "terminal_reason": "completed", "api_error_status": None}  # fmt: skip
    return line("result", **{**told, **({} if used is None else {"model_usage_since_last_result": used}), **more})


def of_a_failure(status: int | None, **more: Any) -> bytes:
    return result({}, **{"is_error": True, "terminal_reason": "api_error", "api_error_status": status, **more})


WINDOWS = {"five_hour": {"utilization": 0.93, "resetsAt": 1795247361, "status": "allowed_warning"},
           "seven_day": {"utilization": 0.4, "resetsAt": 1795326561, "status": "allowed"}}  # fmt: skip
FILLED = (Filled("five_hour", 930_000, 1795247361), Filled("seven_day", 400_000, 1795326561))

EVENTS: dict[str, tuple[bytes, Event | None]] = {
    "it begins": (line("system", subtype="init", tools=["Bash"], model=SONNET), Event("message")),
    "words": (
        line("assistant", message={"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"},
                                               {"type": "text", "text": "b"}], "usage": {"output_tokens": 1}}),
        Event("message", text="a\nb")),
    "a tool": (line("assistant", message={"content": [{"type": "tool_use", "name": "Bash"}]}), Event("message")),
    "words of a subagent": (
        line("assistant", message={"content": [{"type": "text", "text": "a"}]}, parent_tool_use_id="toolu_1"),
        Event("message")),
    "a tool's result": (line("user", message={"content": [{"type": "tool_result", "content": "401"}]}), None),
    "a refused key": (retry(401, "authentication_failed"), Event("auth")),
    "a key that may not": (retry(403, "unknown"), Event("auth")),
    "a limit": (retry(429, "rate_limit"), Event("rate_limited")),
    "overloaded": (retry(529, "overloaded"), Event("overloaded")),
    "a server's error": (retry(500, "server_error"), Event("overloaded")),
    "another server's error": (retry(503, "unknown"), Event("overloaded")),
    "no connection just now": (retry(None, "unknown"), None),
    "not logged in": (
        line("assistant", error="authentication_failed",
             message={"content": [{"type": "text", "text": "Not logged in"}]}),
        Event("auth", text="Not logged in")),
    "out of credit": (line("assistant", error="billing_error", api_error_status=400, message={}), Event("billing")),
    "payment required": (line("assistant", error="unknown", api_error_status=402, message={}), Event("billing")),
    "no such model": (line("assistant", error="model_not_found", api_error_status=404, message={}), Event("message")),
    "a window is shut": (
        line("rate_limit_event", rate_limit_info={
            "status": "rejected", "resetsAt": 1795247361, "rateLimitType": "five_hour", "isUsingOverage": False,
            "unifiedWindows": {"five_hour": {"status": "rejected", "resetsAt": 1795247361}}}),
        Event("rate_limited", until=1795247361, windows=(Filled("five_hour", 1_000_000, 1795247361),))),
    "a window is shut, and what is beyond is paid for": (
        line("rate_limit_event", rate_limit_info={"status": "rejected", "resetsAt": 1795247361, "isUsingOverage": True,
                                                  "unifiedWindows": WINDOWS}),
        Event("window", windows=FILLED)),
    "a window fills": (
        line("rate_limit_event", rate_limit_info={"status": "allowed_warning", "unifiedWindows": WINDOWS}),
        Event("window", windows=FILLED)),
    "a window fills, as older versions say it": (
        line("rate_limit_event", rate_limit_info={"status": "allowed_warning", "resetsAt": 1795247361,
                                                  "rateLimitType": "five_hour", "utilization": 0.93}),
        Event("window", windows=FILLED[:1])),
    "nothing of a window": (line("rate_limit_event", rate_limit_info={"status": "allowed"}), None),
    "an unknown event": (line("prompt_suggestion", text="x"), None),
    "an unknown system event": (line("system", subtype="task_started"), None),
    "no JSON": (b"[claude-code:unrecognized_model]", None),
    "no object": (b"[1]", None),
    "nothing": (b"", None),
}  # fmt: skip


@pytest.mark.parametrize("case", EVENTS)
def test_events(case: str) -> None:
    said, event = EVENTS[case]
    assert claude.read(said, Usage()) == event


ENDS: dict[str, tuple[bytes, bool, str | None]] = {
    "done": (result({}), True, None),
    "success, it says": (of_a_failure(400), False, None),
    "limited": (of_a_failure(429), False, "rate_limited"),
    "refused key": (of_a_failure(401), False, "auth"),
    "may not": (of_a_failure(403), False, "auth"),
    "payment": (of_a_failure(402), False, "billing"),
    "overloaded": (of_a_failure(529), False, "overloaded"),
    "server": (of_a_failure(500), False, "overloaded"),
    "too large": (of_a_failure(413, terminal_reason="image_error"), False, "context"),
    "too long": (of_a_failure(400, terminal_reason="prompt_too_long"), False, "context"),
    "refusal": (of_a_failure(None, stop_reason="refusal"), False, "refused"),
    "turns": (result({}, subtype="error_max_turns", is_error=True), False, "max_turns"),
    "budget": (result({}, subtype="error_max_budget_usd", is_error=True), False, "budget"),
    "interrupted": (
        result({}, subtype="error_during_execution", is_error=True, terminal_reason="aborted_tools"), False, None),
    "not a word of success": (result({}, is_error=None), False, None),
}  # fmt: skip


@pytest.mark.parametrize("case", ENDS)
def test_ends(case: str) -> None:
    said, ok, trouble = ENDS[case]
    event = claude.read(said, Usage())
    assert event is not None
    assert (event.kind, event.ok, event.trouble) == ("final", ok, trouble)
    assert claude.succeeded(0, event) is ok
    assert not claude.succeeded(1, event)


def test_without_a_final_event_it_is_no_success() -> None:
    assert not claude.succeeded(0, None)


def test_the_words_of_a_result_decide_nothing() -> None:
    event = claude.read(result({}, result="API Error: 429, please run /login", errors=["401"]), Usage())
    assert event is not None
    assert (event.ok, event.trouble, event.text) == (True, None, "API Error: 429, please run /login")


def used(said: bytes, so_far: Usage | None = None) -> Usage:
    event = claude.read(said, so_far or Usage())
    assert event is not None
    assert event.usage is not None
    return event.usage


def test_several_results_are_added_up_and_the_conversation_before_is_not() -> None:
    """`total_cost_usd` is the conversation's. Broken once: with it taken, this run cost $9.90, and then $19.80."""
    first = used(result({SONNET: spent(0.01790, 500, 300, cacheReadInputTokens=4000, cacheCreationInputTokens=500)}))
    assert first == Usage(input_tokens=5000, output_tokens=300, turns=3, cost_micro=17_900)
    both = used(result({SONNET: spent(0.0050100000000000006), "claude-haiku-5-5": spent(0.0001, 10, 1)}), first)
    assert both == Usage(input_tokens=6010, output_tokens=401, turns=6, cost_micro=17_900 + 5_010 + 100)


def test_a_price_that_it_made_up_is_none() -> None:
    """Of a model that it does not know, it says `costBasis: unknown`, and $5 a million tokens."""
    both = used(result({"new-9": spent(0.006, cacheReadInputTokens=50, costBasis="unknown"), SONNET: spent(0.003)}))
    assert (both.cost_micro, both.unpriced) == (3_000, (("new-9", Tokens(1050, 100, 50, 0)),))
    alone = used(result({"new-9": spent(0.006, costBasis="unknown")}))
    assert (alone.cost_micro, alone.tokens) == (None, 1100)


def test_what_was_turned_away_cost_nothing_and_took_no_turn() -> None:
    assert used(of_a_failure(429, num_turns=1)) == Usage(cost_micro=0)


def test_the_turn_that_its_limit_kept_it_from_does_not_count() -> None:
    assert used(result({SONNET: spent(0.09)}, subtype="error_max_turns", num_turns=4)).turns == 3


def test_older_versions_tell_of_the_whole_conversation() -> None:
    """2.1.200 and 2.1.285 have no model_usage_since_last_result."""
    older = {"usage": {"input_tokens": 3000, "output_tokens": 300, "cache_read_input_tokens": 7},
             "modelUsage": {SONNET: spent(0.5)}}  # fmt: skip
    first = used(result(None, total_cost_usd=0.0135, **older))
    assert first == Usage(input_tokens=3007, output_tokens=300, turns=3, cost_micro=13_500)
    assert used(result(None, total_cost_usd=0.0205, **older), first).cost_micro == 20_500
    resumed = used(result(None, total_cost_usd=0.5, **older), Usage(before=Tokens(1, 1)))
    assert (resumed.cost_micro, resumed.unpriced) == (None, ((SONNET, Tokens(3007, 300, 7, 0)),))


BAD_NUMBERS = [-1, -0.5, float("nan"), float("inf"), 1e300, 10**4000, True, "0.1", None, [1], {"a": 1}]


@pytest.mark.parametrize("number", BAD_NUMBERS, ids=lambda number: str(number)[:12])
def test_a_number_that_is_none_is_passed_over(number: Any) -> None:
    """And where it stood for dollars, the tokens are priced: what cannot be read was not free.

    Broken once: with int(cost * 10**6) in `_micro`, NaN raised ValueError and -1 paid money back.
    """
    usage = used(result({SONNET: spent(number)}))
    assert (usage.cost_micro, usage.unpriced) == (None, ((SONNET, Tokens(1000, 100)),))
    usage = used(result({SONNET: spent(0.003, number, number)}, num_turns=number))
    assert (usage.cost_micro, usage.tokens, usage.turns) == (3_000, 0, 0)
    assert used(result(None, total_cost_usd=number, usage={"input_tokens": number})).tokens == 0
    windows = {"five_hour": {"utilization": number, "resetsAt": number}}
    info = {"status": "rejected", "resetsAt": number, "unifiedWindows": windows}
    assert claude.read(line("rate_limit_event", rate_limit_info=info), Usage()) == Event("rate_limited")


FIELDS = ["type", "subtype", "message", "error", "rate_limit_info", "modelUsage", "usage", "api_error_status", "result",
          "model_usage_since_last_result", "errors", "stop_reason", "terminal_reason", "num_turns"]  # fmt: skip


@pytest.mark.parametrize("value", [None, 3, "x", [], [3], {"a": []}], ids=str)
@pytest.mark.parametrize("field", FIELDS)
def test_nothing_that_it_says_raises(field: str, value: Any) -> None:
    for said in (line("system", subtype="api_retry"), line("assistant"), line("rate_limit_event"), result(None)):
        claude.read(json.dumps({**json.loads(said), field: value}).encode(), Usage())
    claude.read(line("assistant", message={"content": value}), Usage())
    claude.read(line("rate_limit_event", rate_limit_info={"unifiedWindows": value, "status": value}), Usage())


# --- what it writes -------------------------------------------------------------------------------------------------


def message(id: str, model: str = SONNET, **usage: int) -> bytes:
    told = {"id": id, "role": "assistant", "model": model, "usage": {"service_tier": "standard", **usage}}
    return line("assistant", isSidechain=False, message=told) + b"\n"


def write(home: Path, name: str, *lines: bytes, how: str = "ab") -> None:
    file = home / ".claude" / "projects" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open(how) as opened:
        opened.write(b"".join(lines))


def test_a_message_counts_once_wherever_and_however_often_it_is_written(tmp_path: Path) -> None:
    """Broken once: with each line counted as a message of its own, there were two of them, and 1,023 tokens in."""
    seen = claude.transcript(str(tmp_path))
    assert seen.look() == ()
    write(tmp_path, f"-work/{ID}.jsonl", line("user", message={"content": "hi"}) + b"\n",
          message("msg_1", input_tokens=500, output_tokens=1),
          message("msg_1", input_tokens=500, output_tokens=100, cache_read_input_tokens=20,
                  cache_creation_input_tokens=3))  # fmt: skip
    (event,) = seen.look()
    assert event.usage == Usage(523, 100, 1, None, ((SONNET, Tokens(523, 100, 20, 3, 200_000)),))
    write(tmp_path, f"-work/{ID}/subagents/agent-a1.jsonl", message("msg_2", "claude-haiku-5-5", input_tokens=7))
    write(tmp_path, "-work/11111111-2222-4333-8444-555555555555.jsonl", message("msg_1", input_tokens=500),
          message("msg_3", input_tokens=250_000, output_tokens=9),
          message("e3b0", "<synthetic>", input_tokens=5))  # fmt: skip
    (event,) = seen.look()
    assert event.usage is not None
    assert event.usage[:4] == (250_530, 109, 3, None)
    assert set(event.usage.unpriced) == {
        (SONNET, Tokens(523, 100, 20, 3, 200_000)), (SONNET, Tokens(250_000, 9, 0, 0, 10_000_000)),
        ("claude-haiku-5-5", Tokens(7, 0, 0, 0, 200_000))}  # fmt: skip
    assert seen.look() == ()


def test_of_too_many_messages_none_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchbill.engines.claude_events._MOST_MESSAGES", 10)
    seen = claude.transcript(str(tmp_path))
    for start in (0, 25):
        write(tmp_path, f"-work/{ID}.jsonl", *(message(f"msg_{start + n}", f"model-{n}") for n in range(25)),
              *(message(f"more_{start + n}", f"model-{n}", input_tokens=1) for n in range(25)))  # fmt: skip
        (event,) = seen.look()
    assert event.usage is not None
    assert (event.usage.input_tokens, event.usage.turns) == (50, 100)


@pytest.mark.parametrize("bad", BAD_NUMBERS, ids=lambda number: str(number)[:12])
def test_what_somebody_else_wrote_there(tmp_path: Path, bad: Any) -> None:
    seen = claude.transcript(str(tmp_path))
    write(tmp_path, f"-work/{ID}.jsonl", b'{"type": "assistant", "message": []}\n{"type": "assistant"\n',
          message("m", input_tokens=bad, output_tokens=5),
          line("assistant", message={"id": bad, "usage": {"input_tokens": 5}}) + b"\n",
          line("assistant", message={"id": "n", "model": bad, "usage": {"input_tokens": 2}}) + b"\n")  # fmt: skip
    (event,) = seen.look()
    assert event.usage is not None
    assert event.usage.output_tokens == 5
    assert event.usage.input_tokens in (2, 7)  # an id may be any text


def test_links_and_pipes_are_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(message("msg_1", input_tokens=1000))
    folder = tmp_path / "home" / ".claude" / "projects" / "-work"
    folder.mkdir(parents=True)
    (folder / f"{ID}.jsonl").symlink_to(secret)
    os.mkfifo(folder / "11111111-2222-4333-8444-555555555555.jsonl")
    assert claude.transcript(str(tmp_path / "home")).look() == ()
    assert claude.session(str(tmp_path / "home")) is None


def test_the_conversation_to_go_on_with_is_the_newest_and_its_own(tmp_path: Path) -> None:
    """Broken once: with the pattern taken for a name there was none; with `*.jsonl` it was the subagent's."""
    assert claude.session(str(tmp_path)) is None
    older = "11111111-2222-4333-8444-555555555555"
    for name, at in ((f"-a/{older}", 10), (f"-b/{ID}", 20), (f"-b/{ID}/subagents/agent-a1", 30), ("-b/agent-a2", 40)):
        write(tmp_path, f"{name}.jsonl", b"{}\n")
        os.utime(tmp_path / ".claude" / "projects" / f"{name}.jsonl", (at, at))
    assert claude.session(str(tmp_path)) == (ID, f".claude/projects/-b/{ID}.jsonl")
