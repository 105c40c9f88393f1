"""What the adapter of Codex tells the program. That the program understands it is for tests/real_engines."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from watchbill.engines import codex
from watchbill.engines.base import Event, Launch, Limits, Session, Task, Usage
from watchbill.errors import Fixable

ID = "01a1fff4-2aef-7602-aea7-d8ab3a0237a7"
KEY = "sk-proj-k"


def a_task(tmp_path: Path, **more: Any) -> Task:
    program = tmp_path / "bin" / "codex"
    program.parent.mkdir(exist_ok=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    task = Task(firing="f", workdir=str(work), brief="Do it.", home=str(tmp_path / "home"), tmp=str(tmp_path / "tmp"),
                log="", model=None, options={"program": str(program)}, env={}, limits=Limits(60), key=KEY,
                sandbox=True)  # fmt: skip
    return task._replace(options={**task.options, **more.pop("options", {})}, **more)


def launched(tmp_path: Path, **more: Any) -> Launch:
    return codex.launch(a_task(tmp_path, **more))


def settings(launch: Launch) -> dict[str, Any]:
    """Its `-c` words, read as the program reads them: each value is TOML."""
    words = iter(launch.argv)
    given = [next(words) for word in words if word == "-c"]
    return {key: tomllib.loads(f"value = {value}")["value"] for key, value in (one.split("=", 1) for one in given)}


def provider(launch: Launch) -> dict[str, Any]:
    found: dict[str, Any] = settings(launch)["model_providers.watchbill"]
    return found


# --- its command line -----------------------------------------------------------------------------------------------


def test_its_command_line(tmp_path: Path) -> None:
    launch = launched(tmp_path, model="gpt-5.5", options={"args": ["-c", "model_reasoning_effort=high"]})
    words = [word for word in launch.argv if not word.startswith(tuple(settings_names(launch)))]
    assert words[:8] == [str(tmp_path / "bin/codex"), "exec", "--json", "--ignore-user-config", "--ignore-rules",
                         "--skip-git-repo-check", "-m", "gpt-5.5"]  # fmt: skip
    assert launch.argv[-3:] == ("-c", "model_reasoning_effort=high", "-")
    assert launch.stdin == b"Do it."
    assert launch.env == {"CODEX_HOME": f"{tmp_path}/home/.codex"}
    assert not launch.plan


def settings_names(launch: Launch) -> list[str]:
    words = iter(launch.argv)
    return [next(words).split("=", 1)[0] + "=" for word in words if word == "-c"]


def test_going_on_with_a_conversation(tmp_path: Path) -> None:
    argv = launched(tmp_path, session=Session(ID, Usage()), options={"args": ["--strict-config"]}).argv
    assert argv[1:4] == ("exec", "resume", "--json")
    assert argv[-3:] == ("--strict-config", ID, "-")
    assert "-s" not in argv  # `exec resume` knows no such option


def test_what_the_repository_says_is_shut_off(tmp_path: Path) -> None:
    """Hooks, MCP servers and settings of an untrusted project the program leaves alone by itself; it names skills."""
    given = settings(launched(tmp_path))
    assert given["project_doc_max_bytes"] == 0
    assert given["skills"] == {"include_instructions": False, "bundled": {"enabled": False}, "config": []}
    assert given["web_search"] == "disabled"
    assert not any(given["features"].values())
    assert {"hooks", "plugins", "apps", "daemon_auto_start", "unbounded_connection_retries"} <= set(given["features"])
    assert (given["analytics"], given["check_for_update_on_startup"]) == ({"enabled": False}, False)


def test_a_skill_of_the_repository_cannot_be_named(tmp_path: Path) -> None:
    """`$planted` in an issue would put that skill's text before the model, were it not switched off (measured)."""
    brief = (
        "Use $planted, a$b-c_1 `$one:two`: $HOME/bin ${no} $ 5 and [$linked] (/work/.agents/skills/x/SKILL.md) x[$i]"
    )
    launch = launched(tmp_path, brief=brief)
    off = settings(launch)["skills"]["config"]
    assert {one["name"] for one in off} == {"planted", "b-c_1", "one:two", "one", "HOME", "linked", "i"}
    assert not any(one["enabled"] for one in off)
    assert launch.stdin.decode() == brief.replace("[$linked]", "[ $linked]")


def test_a_brief_that_names_a_thousand(tmp_path: Path) -> None:
    """Broken once: without the bound its command line could not be executed."""
    few = " ".join(f"${number:064}" for number in range(1000))
    launch = launched(tmp_path, brief=few)
    assert len(settings(launch)["skills"]["config"]) == 1000
    assert max(map(len, launch.argv)) < 128 << 10
    launch = launched(tmp_path, brief=f"{few} $more")
    assert settings(launch)["skills"]["config"] == []
    assert launch.stdin.decode() == f"{few} $more".replace("$", "$ ")


def test_guidance_is_a_file_of_its_own_home(tmp_path: Path) -> None:
    """Also when there is none: the program ends at once where its home does not exist."""
    assert launched(tmp_path, guidance="Use ümläuts.").files == {".codex/AGENTS.md": "Use ümläuts.".encode()}
    assert launched(tmp_path).files == {".codex/AGENTS.md": b""}


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    odd = 'a"b\\c\x7f\n\ud83d]}'
    launch = launched(tmp_path, env={"OPENAI_BASE_URL": odd}, brief=odd, guidance=odd)
    assert provider(launch)["base_url"] == 'a"b\\c\x7f\n?]}'
    launch.stdin.decode()


def test_options_that_are_no_words(tmp_path: Path) -> None:
    for args in ("--fast", [1], ["a\0b"], {"a": 1}):
        with pytest.raises(Fixable) as caught:
            launched(tmp_path, options={"args": args})
        assert (caught.value.id, caught.value.outcome) == ("WB-ENGINE-09", "invalid")


def test_a_missing_program_says_how_to_get_it(tmp_path: Path) -> None:
    task = a_task(tmp_path, options={"program": "/no/such/codex"})
    for ask in (codex.launch, codex.program):
        with pytest.raises(Fixable) as caught:
            ask(task)
        assert caught.value.id == "WB-ENGINE-01"
        assert "npm install -g @openai/codex" in caught.value.fix


def test_success_needs_both() -> None:
    done = Event("final", ok=True)
    assert codex.succeeded(0, done)
    assert not codex.succeeded(1, done)
    assert not codex.succeeded(0, None)
    assert not codex.succeeded(0, Event("final", ok=False))


# --- its sandbox ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "sandbox", "nests", "mode"),
    [
        ("none", True, True, "workspace-write"),
        ("landlock", False, True, "danger-full-access"),
        ("bwrap", False, True, "workspace-write"),
        ("bwrap", False, False, "danger-full-access"),
        ("none", False, True, "danger-full-access"),
    ],
)
def test_which_sandbox_its_tools_get(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layer: str, sandbox: bool, nests: bool, mode: str
) -> None:
    """Where its sandbox cannot be set up every command fails, and the run is a success all the same."""
    monkeypatch.setattr(codex, "_nests", lambda: nests)
    given = settings(launched(tmp_path, layer=layer, sandbox=sandbox))
    assert given["sandbox_mode"] == mode
    if mode == "workspace-write":
        within = {"writable_roots": [f"{tmp_path}/home"], "network_access": False}
        assert given["sandbox_workspace_write"] == {**within, "exclude_slash_tmp": layer != "bwrap"}


@pytest.mark.needs("bwrap")
def test_whether_a_sandbox_nests_is_tried() -> None:
    assert codex._nests() in (True, False)


def test_tools_that_only_read(tmp_path: Path) -> None:
    assert settings(launched(tmp_path, tools=("Read", "Grep")))["sandbox_mode"] == "read-only"
    assert settings(launched(tmp_path, tools=("Read", "Bash(git *)")))["sandbox_mode"] == "workspace-write"
    assert settings(launched(tmp_path, tools=("Edit", "WebSearch")))["web_search"] == "live"


# --- its credential -------------------------------------------------------------------------------------------------


def token(**claims: Any) -> str:
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
                    for part in ({"alg": "RS256"}, claims, "signature"))  # fmt: skip


def login(access: object, **more: Any) -> str:
    tokens = {"id_token": token(email="a@b.c"), "access_token": access, "refresh_token": "rt-secret",
              "account_id": "acct-1", **more}  # fmt: skip
    return json.dumps({"auth_mode": "chatgpt", "OPENAI_API_KEY": None, "tokens": tokens})


def test_a_key_goes_through_the_pipe_and_nowhere_else(tmp_path: Path) -> None:
    launch = launched(tmp_path, key=f"{KEY}\n")
    assert launch.pipes == {"WATCHBILL_KEY_FD": KEY.encode()}
    assert provider(launch)["base_url"] == "https://api.openai.com/v1"
    assert KEY not in str((launch.argv, launch.env, launch.files, launch.stdin))


def test_how_it_is_told_the_key(tmp_path: Path) -> None:
    """The real shell: the key once; and then a word that the server refuses as it refused the key."""
    auth = provider(launched(tmp_path))["auth"]
    read, write = os.pipe()
    os.write(write, KEY.encode())
    os.close(write)
    told = [subprocess.run([auth["command"], *auth["args"]], env={"WATCHBILL_KEY_FD": str(read)}, pass_fds=(read,),
                           capture_output=True, check=True, timeout=10).stdout for _ in range(2)]  # fmt: skip
    os.close(read)
    assert told == [KEY.encode(), b"refused"]


def test_a_login_without_the_token_that_renews_it(tmp_path: Path) -> None:
    access = token(exp=time.time() + 3600)
    launch = launched(tmp_path, key=login(access))
    assert (launch.pipes, launch.plan) == ({"WATCHBILL_KEY_FD": access.encode()}, True)
    assert provider(launch)["base_url"] == "https://chatgpt.com/backend-api/codex"
    assert provider(launch)["http_headers"] == {"chatgpt-account-id": "acct-1"}
    assert "rt-secret" not in str(launch)
    about = token(**{"https://api.openai.com/auth": {"chatgpt_account_id": "acct-2"}})
    launch = launched(tmp_path, key=login(access, account_id=None, id_token=about))
    assert provider(launch)["http_headers"] == {"chatgpt-account-id": "acct-2"}


def test_a_login_by_key(tmp_path: Path) -> None:
    for more in ({}, {"auth_mode": "apikey", "tokens": None}):
        launch = launched(tmp_path, key=json.dumps({"OPENAI_API_KEY": KEY, **more}))
        assert (launch.pipes, launch.plan) == ({"WATCHBILL_KEY_FD": KEY.encode()}, False)


def test_an_opaque_token_is_believed(tmp_path: Path) -> None:
    for access in ("opaque", "a.b.c", "a.!!!.c", "a..c", token(exp="soon"), token(exp=-1)):
        assert launched(tmp_path, key=login(access)).pipes == {"WATCHBILL_KEY_FD": access.encode()}


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (None, "nothing names a key"),
        (" \n", "nothing names a key"),
        ("{}", "no access token"),
        ("{not json", "no access token"),
        (json.dumps({"tokens": []}), "no access token"),
        (json.dumps({"OPENAI_API_KEY": 7, "tokens": {"access_token": ""}}), "no access token"),
        (login(token(exp=1)), "has expired"),
    ],
)
def test_without_one_it_says_how_to_get_one(tmp_path: Path, key: str | None, why: str) -> None:
    with pytest.raises(Fixable) as caught:
        launched(tmp_path, key=key)
    problem = caught.value
    assert (problem.id, problem.outcome) == ("WB-ENGINE-07", "unauthorized")
    assert why in problem.why
    assert "codex login" in problem.fix
    assert "[engines.codex] key" in problem.fix


def test_a_key_in_what_the_operator_adds_to_the_environment(tmp_path: Path) -> None:
    launch = launched(tmp_path, key=None, env={"OPENAI_API_KEY": KEY})
    assert launch.pipes == {"WATCHBILL_KEY_FD": KEY.encode()}
    assert launch.env["OPENAI_API_KEY"] == ""


def test_another_server(tmp_path: Path) -> None:
    """Few attempts, and over HTTP: a refused key ends in less than two seconds, not in twelve (measured)."""
    own = {"OPENAI_BASE_URL": "http://127.0.0.1:8080/v1"}
    for key in (KEY, login("opaque")):
        given = provider(launched(tmp_path, env=own, key=key))
        assert (given["base_url"], given["name"]) == (own["OPENAI_BASE_URL"], "gateway")
        assert (given["wire_api"], given["supports_websockets"]) == ("responses", False)
        assert given["request_max_retries"] + given["stream_max_retries"] <= 5
