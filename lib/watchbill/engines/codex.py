"""Codex as an engine: `engine: {use: codex}`.

What it can be told, what it says and what it leaves behind was measured with version 0.169.0, and again with 0.160.1
and 0.144.0, against a scripted model server. Options: `program` (its path, when it is not on PATH), `args` (words at
the end of its command line: `-c key=value` overrides a setting of ours).

The worktree is not trusted: no configuration, hooks, MCP servers, rules, skills or AGENTS.md are read from it. Its
credential comes through a pipe, which Codex empties by `sh` before its first request: it is in no environment, no file
and no argument, and no tool inherits the pipe.

Its own sandbox confines its tools to the worktree, their HOME without Codex's own files, and TMPDIR, in a process-id
namespace without a network; `args = ["-c", "sandbox_workspace_write.network_access=true"]` gives them one. Under
Landlock that sandbox cannot be set up (bubblewrap may not mount there): there the tools may do what Codex may, change
the rollout that it is metered by, and, where the kernel lets a process trace one of its own user's that is not its
child (kernel.yama.ptrace_scope 0), find the credential in Codex's memory.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from watchbill.engines import command
from watchbill.engines.base import Conversation, Event, Launch, Program, Task, Transcript
from watchbill.engines.codex_events import HOME, ROLLOUTS, Rollouts, main_thread, read
from watchbill.engines.installed import find, own_words
from watchbill.engines.transcripts import newest
from watchbill.errors import Fixable
from watchbill.isolation import bwrap
from watchbill.isolation.base import Jail, try_once

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

name = "codex"
has_budget = False
#: One request of GPT-5.5 (November 2026) with all of its context and a long answer: 272,000 tokens in at $5 a million,
#: 32,000 out at $30. What it takes when it is told none (GPT-6.1 Sol) is a third of that, GPT-6 Astra twice:
#: `request_usd` says otherwise.
headroom_micro = 2_320_000
unmetered_basis = "ceiling"
#: It prints nothing while its model thinks, nor while it waits for a command, which is five minutes at most at a time
#: (its own default); when nothing at all arrives from the server for five minutes, it says so and asks again.
silence_s: float | None = 1500.0
guides: tuple[str, ...] = ("AGENTS.md", "CLAUDE.md")
logins: tuple[str, ...] = ("file:~/.codex/auth.json",)
variables: tuple[str, ...] = ("CODEX_API_KEY", "OPENAI_API_KEY")
endpoint: str | None = "OPENAI_BASE_URL"

_LEAST, _BELOW = (0, 144), (1,)
_KEY = "WATCHBILL_KEY_FD"
#: Once it is empty: refused by the server as the key itself was, so that it is the server's answer that is reported.
_TELL_KEY = f'key=$(cat "/dev/fd/${_KEY}") && printf %s "${{key:-refused}}"'
_PROVIDER = "watchbill"
#: Where it goes by itself with a key, and with a login.
_OPENAI, _CHATGPT = "https://api.openai.com/v1", "https://chatgpt.com/backend-api/codex"
#: Parts that have nothing to do in a worktree, or reach further than it; a setting that it does not know it passes by.
_OFF = (
    "api_key_model_discovery", "apps", "browser_use", "browser_use_external", "computer_use", "daemon_auto_start",
    "enable_request_compression", "goals", "hooks", "image_generation", "in_app_browser", "in_app_updates",
    "multi_agent", "plugin_sharing", "plugins", "remote_plugin", "shell_snapshot", "skill_mcp_dependency_install",
    "tool_suggest", "unbounded_connection_retries")  # fmt: skip
_SETTINGS: Mapping[str, Any] = {
    "allow_login_shell": False,  # /etc/profile would set another PATH
    "agents": {"enabled": False},  # each would ask its model beside the others, and be metered by nobody in time
    "analytics": {"enabled": False},
    "approval_policy": "never",
    "check_for_update_on_startup": False,
    "feedback": {"enabled": False},
    "features": dict.fromkeys(_OFF, False),
    "history": {"persistence": "none"},
    "model_provider": _PROVIDER,
    "project_doc_max_bytes": 0,  # the AGENTS.md of the worktree; that of CODEX_HOME is read all the same
    "shell_environment_policy": {
        "inherit": "all",  # what we gave it is a list of ours already
        "ignore_default_excludes": False,
        "exclude": ["CODEX_API_KEY", "OPENAI_*", "*KEY*", "*SECRET*", "*TOKEN*", "*PASSWORD*"],
    },
}
#: How a skill is named in a prompt; its name has 64 letters at most (agentskills.io).
_MENTION, _LINK = re.compile(r"\$([A-Za-z0-9_:-]+)"), re.compile(r"\[(?=\$[^\]]*\]\s*\()")
_LONGEST_NAME = 64
_MOST_NAMES = 1000  # as many as an argument holds
_WRITING = frozenset({"Bash", "Edit", "MultiEdit", "NotebookEdit", "Write"})


class _Credential(NamedTuple):
    token: str
    account: str | None = None  # of a login: whose subscription
    plan: bool = False


def launch(task: Task) -> Launch:
    """Fixable WB-ENGINE-01 when the program is missing, WB-ENGINE-07 (unauthorized) without a credential that could
    work, WB-ENGINE-09 for `args` that cannot be words of its command line."""
    credential = _credential(task)
    brief, names = _unmentioned(task.brief)
    skills = {"include_instructions": False, "bundled": {"enabled": False},
              "config": [{"name": name, "enabled": False} for name in names]}  # fmt: skip
    settings = {**_SETTINGS, **_sandbox(task), "skills": skills, "web_search": _web_search(task),
                f"model_providers.{_PROVIDER}": _provider(task, credential)}  # fmt: skip
    words = [find(name, task), "exec", *(["resume"] if task.session else []), "--json"]
    words += ["--ignore-user-config", "--ignore-rules", "--skip-git-repo-check"]
    words += ["-m", task.model] if task.model else []
    for key, value in settings.items():
        words += ["-c", f"{key}={_toml(value)}"]
    words += own_words(name, task, '["-c", "model_reasoning_effort=high"]')
    words += [*([task.session.id] if task.session else []), "-"]
    # What an operator set in one of these went into the pipe.
    env = {"CODEX_HOME": os.path.join(task.home, HOME), **{one: "" for one in variables if one in task.env}}
    return Launch(
        tuple(words),
        env,
        command.as_bytes(brief),
        pipes={_KEY: credential.token.encode("utf-8", "replace")},
        files={f"{HOME}/AGENTS.md": task.guidance.encode("utf-8", "replace")},  # also empty: its home has to be there
        sealed=True,
        plan=credential.plan,
    )


def program(task: Task) -> Program | None:
    return Program(find(name, task), ("--version",), _LEAST, _BELOW)


def transcript(home: str) -> Transcript:
    return Rollouts(home)


def session(home: str) -> Conversation | None:
    path = newest(home, ROLLOUTS)
    thread = main_thread(home, path) if path else None
    return Conversation(thread, path) if path and thread else None


def succeeded(exit_status: int, final: Event | None) -> bool:
    return exit_status == 0 and final is not None and final.ok is True


def _sandbox(task: Task) -> dict[str, Any]:
    """How its tools are confined. Where its sandbox cannot be set up, every command would fail, and the run not."""
    tools = {word.partition("(")[0] for word in task.tools}
    writes = not tools or bool(tools & _WRITING)
    if not task.sandbox and not (task.layer == "bwrap" and _nests()):
        return {"sandbox_mode": "danger-full-access"}
    # In bubblewrap /tmp is nobody else's.
    ours = task.layer == "bwrap"
    within = {"writable_roots": [task.home, *task.rw], "network_access": False, "exclude_slash_tmp": not ours}
    return {"sandbox_mode": "workspace-write" if writes else "read-only", "sandbox_workspace_write": within}


@functools.cache
def _nests() -> bool:
    """Whether bubblewrap works within ours on this host; some (AppArmor on Ubuntu) forbid just that."""
    inner = ("bwrap", "--unshare-user", "--unshare-net", "--unshare-pid", "--ro-bind", "/", "/", "--", "true")
    return try_once(bwrap.wrap(Jail("/", ()), inner)) is None


def _web_search(task: Task) -> str:
    return "live" if "WebSearch" in {word.partition("(")[0] for word in task.tools} else "disabled"


def _provider(task: Task, credential: _Credential) -> dict[str, Any]:
    """The same requests as its own provider makes, over HTTP alone: where there are no WebSockets that loses 6 s."""
    own = task.env.get("OPENAI_BASE_URL")
    provider: dict[str, Any] = {
        "name": "gateway" if own else "OpenAI",  # by that name it takes more of a server for granted
        "base_url": own or (_CHATGPT if credential.plan else _OPENAI),
        "wire_api": "responses",
        "supports_websockets": False,
        "request_max_retries": 2,
        "stream_max_retries": 3,
        "stream_idle_timeout_ms": 300_000,
        "env_http_headers": {"OpenAI-Organization": "OPENAI_ORGANIZATION", "OpenAI-Project": "OPENAI_PROJECT"},
        "auth": {"command": "/bin/sh", "args": ["-c", _TELL_KEY], "timeout_ms": 10_000, "refresh_interval_ms": 0},
    }
    if credential.account:
        provider["http_headers"] = {"chatgpt-account-id": credential.account}
    return provider


def _unmentioned(brief: str) -> tuple[str, list[str]]:
    """The brief so that it names no skill of the repository, and the names in it that could be one's.

    `$name` would put the text of that skill before the model (measured), and `[$name](path)` that of the one at this
    path. A name is switched off; the link is broken up, and so is every `$` of a brief that has too many.
    """
    brief = _LINK.sub("[ ", brief)
    names = {part for name in _MENTION.findall(brief) for part in (name, name.rstrip(":-"), name.partition(":")[0])}
    names = {name for name in names if 0 < len(name) <= _LONGEST_NAME}
    return (brief, sorted(names)) if len(names) <= _MOST_NAMES else (brief.replace("$", "$ "), [])


def _credential(task: Task) -> _Credential:
    key = (task.key or next((task.env[one] for one in variables if task.env.get(one)), "")).strip()
    if not key:
        raise _unauthorized("nothing names a key, and it has not logged in on this host")
    return _of_login(key, task.limits.wall_s) if key.startswith("{") else _Credential(key)


def _of_login(text: str, wall_s: float) -> _Credential:
    """What ~/.codex/auth.json holds. Never the token by which it is renewed: to use that up would end the login."""
    login = command.as_object(text.encode("utf-8", "replace"))
    key, tokens = login.get("OPENAI_API_KEY"), login.get("tokens")
    if isinstance(key, str) and key.strip() and login.get("auth_mode") in (None, "apikey"):
        return _Credential(key.strip())
    token = tokens.get("access_token") if isinstance(tokens, dict) else None
    if not isinstance(tokens, dict) or not isinstance(token, str) or not token.strip():
        raise _unauthorized("its login on this host holds no access token")
    ends = command.number(_claims(token).get("exp"), 10**11)
    if ends is not None and ends <= time.time() + wall_s:
        why = "its login on this host has expired, or would before the run is over; only the program can renew it"
        raise _unauthorized(why)
    about = _claims(tokens.get("id_token")).get("https://api.openai.com/auth")
    account = tokens.get("account_id") or (about.get("chatgpt_account_id") if isinstance(about, dict) else None)
    return _Credential(token.strip(), account if isinstance(account, str) else None, plan=True)


def _claims(token: object) -> dict[str, Any]:
    """What a JSON Web Token says of itself (RFC 7519), believed as it stands; nothing for what is none."""
    parts = token.split(".") if isinstance(token, str) else []
    if len(parts) != 3:
        return {}
    try:
        return command.as_object(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return {}


def _unauthorized(why: str) -> Fixable:
    return Fixable(
        "WB-ENGINE-07", "engine codex: there is no credential for it", why=why, outcome="unauthorized",
        fix="run `codex login`; or put an API key into a file that only you can read, and name that:"
        " [engines.codex] key = \"file:/path\"")  # fmt: skip


def _toml(value: object) -> str:
    """A value as TOML writes it, on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml(str(key))} = {_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):  # a JSON string is one, but for DEL and what UTF-8 cannot write
        text = value.encode("utf-8", "replace").decode()
        return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
    return json.dumps(value)
