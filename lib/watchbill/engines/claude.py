"""Claude Code as an engine: `engine: {use: claude}`.

What it can be told, what it says and what it leaves behind was measured with version 2.1.329, and the main of it again
with 2.1.200 and 2.1.285, against a scripted model server. Options: `program` (its path, when it is not on PATH), `args`
(words at the end of its command line).

The worktree is not trusted: no settings, hooks, MCP servers, agents or CLAUDE.md are read from it, and what looks like
the mention of a file (`@path`) in the brief stays text. Its credential comes through a pipe: it is in no environment,
no file and no argument, and the program hands it to none of its tools.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from decimal import Decimal

from watchbill.engines import command
from watchbill.engines.base import Conversation, Event, Launch, Program, Task, Transcript
from watchbill.engines.claude_events import MOST_ANSWER, Written, read
from watchbill.engines.installed import find, malformed, own_words
from watchbill.engines.transcripts import newest
from watchbill.errors import Fixable
from watchbill.isolation.base import program_path

__all__ = [
    "endpoint",
    "guides",
    "has_budget",
    "headroom_micro",
    "launch",
    "logins",
    "name",
    "program",
    "read",
    "session",
    "silence_s",
    "succeeded",
    "transcript",
    "unmetered_basis",
    "variables",
]

name = "claude"
has_budget = True
#: One request of the model that it takes when it is told none (Opus 5.5, in November 2026) with the whole of the
#: context and of the answer that `_BOUNDED` leaves it: 200,000 tokens into the cache at $5 a million, 32,000 out at
#: $20. Sonnet is half as dear, Fable twice: `request_usd` says otherwise.
headroom_micro = 1_640_000
unmetered_basis = "ceiling"
#: Its longest tool takes ten minutes (`_BOUNDED`), and so may one request; neither prints anything meanwhile.
silence_s: float | None = 720.0
guides: tuple[str, ...] = ("CLAUDE.md", "AGENTS.md")
logins: tuple[str, ...] = ("file:~/.claude/.credentials.json",)
if sys.platform == "darwin":
    logins += ("keychain:Claude Code-credentials",)
variables: tuple[str, ...] = ("ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN")
endpoint: str | None = "ANTHROPIC_BASE_URL"

_LEAST, _BELOW = (2, 1, 200), (3,)
_TOOLS = ("Read", "Edit", "Write", "Bash", "Glob", "Grep")
_TOOL = re.compile(r"([A-Za-z][\w-]*)(\(.*\))?", re.ASCII)
#: How a tool is allowed when only Claude Code itself confines it: bare, `Write` may write anywhere.
_WITHIN = {"Read": "Read(./**)", "Edit": "Edit(./**)", "Write": "Edit(./**)", "NotebookEdit": "Edit(./**)",
           "Glob": "Read(./**)", "Grep": "Read(./**)"}  # fmt: skip
_SANDBOX = {"sandbox": {"enabled": True, "failIfUnavailable": True, "allowUnsandboxedCommands": False}}
#: A word of a command line takes 128 KiB on Linux.
_MOST_GUIDANCE = 96 << 10
#: Nothing is sent but what the work needs, and nothing goes on behind the result.
_QUIET = {
    "CLAUDE_CODE_DISABLE_ATTACHMENTS": "1",  # else `@/home/you/.netrc` in an issue puts that file before the model
    "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
    "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",  # else it lives on after its result, and begins another turn
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_TELEMETRY": "1",
}
#: What an operator may set otherwise in `[engines.claude] env`, and then `request_usd` and `silence_s` with it.
_BOUNDED = {
    "BASH_DEFAULT_TIMEOUT_MS": "120000",
    "BASH_MAX_TIMEOUT_MS": "600000",
    "CLAUDE_CODE_AUTO_COMPACT_WINDOW": "200000",
    "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(MOST_ANSWER),
    "CLAUDE_CODE_MAX_RETRIES": "2",  # of ten, a refused key is tried for five minutes
}
#: With one of these among `env`, its credentials are the operator's own affair.
_OWN_WAY = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CODE_USE_BEDROCK",
            "CLAUDE_CODE_USE_FOUNDRY", "CLAUDE_CODE_USE_VERTEX")  # fmt: skip
_CONFIG = ".claude"  # below its HOME
_MAIN = f"{_CONFIG}/projects/*/{'-'.join('?' * count for count in (8, 4, 4, 4, 12))}.jsonl"
_SUBAGENTS = f"{_CONFIG}/projects/*/*/subagents/*.jsonl"
#: An access token that ends sooner than the program itself would renew it is no use.
_RENEWED_S = 300


def launch(task: Task) -> Launch:
    """Fixable WB-ENGINE-01 when the program is missing, WB-ENGINE-07 (unauthorized) without a credential that could
    work, WB-ENGINE-09 for tools or `args` that cannot be words of its command line, WB-ENGINE-10 when it is to confine
    its tools itself and cannot."""
    _can_confine(task)
    pipes, plan = _credential(task)
    env = {**_QUIET, **{name: value for name, value in _BOUNDED.items() if name not in task.env},
           "CLAUDE_CONFIG_DIR": os.path.join(task.home, _CONFIG), "CLAUDE_CODE_TMPDIR": task.tmp}  # fmt: skip
    # A first line that begins with a slash would be a command to the program, and nothing would reach the model.
    brief = f"Task:\n\n{task.brief}" if task.brief.lstrip().startswith("/") else task.brief
    return Launch((find(name, task), *_words(task)), env, command.as_bytes(brief),
                  pipes=pipes, sealed=True, plan=plan)  # fmt: skip


def program(task: Task) -> Program | None:
    return Program(find(name, task), ("--version",), _LEAST, _BELOW)


def transcript(home: str) -> Transcript:
    return Written(home, _MAIN, _SUBAGENTS)


def session(home: str) -> Conversation | None:
    path = newest(home, _MAIN)
    return None if path is None else Conversation(os.path.basename(path).removesuffix(".jsonl"), path)


def succeeded(exit_status: int, final: Event | None) -> bool:
    """An interrupted run ends with zero, and a refused one says `success`: only both together are one."""
    return exit_status == 0 and final is not None and final.ok is True


def _words(task: Task) -> list[str]:
    tools, limits = [_tool(word) for word in task.tools or _TOOLS], task.limits
    words = ["-p", "--output-format", "stream-json", "--verbose", "--setting-sources", "", "--strict-mcp-config",
             "--disable-slash-commands", "--tools", ",".join(dict.fromkeys(tool for tool, _ in tools))]  # fmt: skip
    if task.sandbox:
        words += ["--settings", json.dumps(_SANDBOX, separators=(",", ":"))]
    words += ["--allowedTools", *dict.fromkeys(_allowed(tool, of_it, task.sandbox) for tool, of_it in tools)]
    if task.model:
        words += ["--model", task.model]
    if limits.turns is not None:
        words += ["--max-turns", str(limits.turns)]
    if limits.cost_micro is not None:
        words += ["--max-budget-usd", f"{Decimal(limits.cost_micro).scaleb(-6):f}"]
    if task.session is not None:
        words += ["--resume", task.session.id]
    if guidance := _guidance(task.guidance):
        words += ["--append-system-prompt", guidance]
    return [*words, "--permission-mode", "dontAsk", *own_words(name, task, '["--effort", "high"]')]


def _tool(word: str) -> tuple[str, str]:
    """`Bash(git *)` is the tool Bash, allowed for no more than that."""
    found = _TOOL.fullmatch(word)
    if found is None:
        raise malformed(name, f"tools: {word!r} is no tool's name", "tools: Read, Edit, Write, Bash")
    return found[1], found[2] or ""


def _allowed(tool: str, of_it: str, alone: bool) -> str:
    return tool + of_it if of_it or not alone else _WITHIN.get(tool, tool)


def _guidance(text: str) -> str:
    """As much of it as an argument holds; an argument has no NUL."""
    return text.replace("\0", "").encode("utf-8", "replace")[:_MOST_GUIDANCE].decode("utf-8", "ignore")


def _can_confine(task: Task) -> None:
    """It would say so itself, but only when an issue has been claimed for it."""
    needed = ("bwrap", "socat") if task.sandbox and sys.platform == "linux" else ()
    missing = [tool for tool in needed if shutil.which(tool, path=program_path(os.environ)) is None]
    if missing:
        raise Fixable("WB-ENGINE-10", "engine claude: nothing on this host confines what its agent does",
                      why="neither bubblewrap nor Landlock works here, and for its own sandbox it lacks"
                      f" {', '.join(missing)}", fix="apt install bubblewrap socat; or accept it: `isolation: none` in"
                      " the agent's file")  # fmt: skip


def _credential(task: Task) -> tuple[dict[str, bytes], bool]:
    """What it reads from a pipe, by the variable that names the pipe; and whether that is a subscription's."""
    key = (task.key or "").strip()
    if not key:
        if any(task.env.get(variable) for variable in _OWN_WAY):
            return {}, bool(task.env.get("CLAUDE_CODE_OAUTH_TOKEN"))
        raise _unauthorized("nothing names a key, and it has not logged in on this host")
    if key.startswith("{"):
        key = _access_token(key, max(_RENEWED_S, task.limits.wall_s))
    elif not key.startswith("sk-ant-oat"):
        return {"CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR": key.encode("utf-8", "surrogateescape")}, False
    return {"CLAUDE_CODE_OAUTH_TOKEN_FILE_DESCRIPTOR": key.encode("utf-8", "surrogateescape")}, True


def _access_token(login: str, needed_s: float) -> str:
    """The token of a login that the program keeps; never the one by which it is renewed, that would end the login."""
    kept = command.as_object(login.encode("utf-8", "replace")).get("claudeAiOauth")
    token = kept.get("accessToken") if isinstance(kept, dict) else None
    if not isinstance(kept, dict) or not isinstance(token, str) or not token.strip():
        raise _unauthorized("its login on this host holds no access token")
    ends = command.number(kept.get("expiresAt"), 10**14)  # milliseconds
    if ends is not None and ends / 1000 <= time.time() + needed_s:
        why = "its login on this host has expired, or would before the run is over; only the program can renew it"
        raise _unauthorized(why)
    return token.strip()


def _unauthorized(why: str) -> Fixable:
    return Fixable(
        "WB-ENGINE-07",
        "engine claude: there is no credential for it",
        why=why,
        fix="run `claude setup-token`, keep what it prints in a file that only you can read, and name that file:"
        ' [engines.claude] key = "file:/path" (a file with an API key does as well); or run `claude` once and log in',
        outcome="unauthorized",
    )
