"""docs/programs.md, held to the program: the keys and types of every object, and the practice forge's seed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.fleet import LABEL, WATCHBILL, Fleet, fleet, wait_for
from support.forge import git, make_repository

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "programs.md").read_text(encoding="utf-8")
#: Sections that say "the firing, and:".
BASES = {"demo": "firing", "try": "firing", "told": "firing", "show": "firing", "record": "blob"}
BASIC = {"text": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "object": (dict,)}


def keys(name: str) -> dict[str, str]:
    """key -> type, as the section of this name has it."""
    found = re.search(rf"^### {name}\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/programs.md has no section {name}"
    own = dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", found[1], re.MULTILINE))
    return {**(keys(BASES[name]) if name in BASES else {}), **own}


def differences(kind: str, value: Any, place: str) -> list[str]:
    """Where a value is not of the documented type."""
    if kind.endswith(" or null"):
        return [] if value is None else differences(kind.removesuffix(" or null"), value, place)
    if kind.startswith("list of "):
        if not isinstance(value, list):
            return [f"{place} is no list: {value!r}"]
        inner = kind.removeprefix("list of ")
        return [line for n, one in enumerate(value) for line in differences(inner, one, f"{place}[{n}]")]
    if kind in BASIC:
        good = isinstance(value, BASIC[kind]) and (kind == "boolean" or not isinstance(value, bool))
        return [] if good else [f"{place} is no {kind}: {value!r}"]
    wanted = keys(kind)
    if not isinstance(value, dict) or set(wanted) != set(value):
        return [f"{place} has not the keys of {kind}: {sorted(set(wanted) ^ set(value))}"]
    return [line for key, of in wanted.items() for line in differences(of, value[key], f"{place}.{key}")]


def said(it: Fleet, *argv: str) -> Any:
    done = it.run(*argv)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def test_a_fleet_in_json(tmp_path: Path) -> None:
    """Broken on purpose: with `generation` taken out of `ending.as_object`, every object that has a firing differed;
    with `number or null` as the type of `cost_usd` made `number`, the held firing did."""
    with fleet(tmp_path, checks=["test -e done.txt || test -e README.md"]) as it:
        first = said(it, "plan", "--json")
        it.world.issue("octocat", "Do it", labels=[LABEL])
        firings = [said(it, "fire", "bosun", "--json"), said(it, "fire", "bosun", "--json")]
        it.run("pause", "bosun", "--for", "2h")
        firings += [said(it, "fire", "bosun", "--json"), said(it, "fire", "bosum", "--json")]
        firings.append(said(it, "--home", str(tmp_path / "nowhere"), "fire", "bosun", "--json"))
        assert [one["outcome"] for one in firings] == ["pull_request", "idle", "held", "invalid", "invalid"]
        landed = firings[0]["firing"]
        values = [(kind, said(it, *argv, "--json")) for kind, argv in {
            "status": ("status",), "plan": ("plan",), "show": ("show", landed),
        }.items()]  # fmt: skip
        values += [("show", said(it, "show", firings[2]["firing"], "--json"))]
        values += [("why", said(it, "why", subject, "--json")) for subject in ("bosun", "acme/api#1", landed)]
        values.append(("doctor", said(it, "doctor", "--json")))
        git("--git-dir", it.world.bare, "update-ref", "refs/watchbill/claims/9", "main")  # makes no sense as a claim
        values += [("claims", said(it, "claims", "--json")), ("labels", said(it, "labels", "--json"))]
        values += [("history", said(it, "claims", f"acme/api#{number}", "--json")) for number in (1, 9)]
    values += [(kind, said(it, *argv, "--json")) for kind, argv in {  # the forge has ended
        "claims": ("claims",), "history": ("claims", "acme/api#1"), "labels": ("labels",), "why": ("why", "acme/api#1"),
    }.items()]  # fmt: skip
    values += [("firing", one) for one in firings] + [("plan", first)]
    assert [line for kind, value in values for line in differences(kind, value, kind)] == []

    for key, kind in keys("firing").items():
        seen = [one[key] is None for one in firings]
        assert any(seen) == kind.endswith(" or null"), key
        assert not all(seen), key
    found = dict(values)  # the last of each kind
    assert found["status"]["holds"]
    assert found["status"]["agents"][0]["state"] == "held"
    assert all(found["show"][name] == [] for name in ("steps", "effects"))
    whole = next(value for kind, value in values if kind == "show")
    assert all(whole[name] for name in ("steps", "decisions", "effects", "evidence", "reservations"))


@contextmanager
def elsewhere(tmp_path: Path) -> Iterator[dict[str, str]]:
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    env.pop("WATCHBILL_HOME")
    yield env


def test_the_demo_in_json(tmp_path: Path) -> None:
    with elsewhere(tmp_path) as env:
        done = subprocess.run([sys.executable, WATCHBILL, "demo", "--json"], env=env, text=True, capture_output=True,
                              check=True)  # fmt: skip
    answer = json.loads(done.stdout)
    assert differences("demo", answer, "demo") == []
    assert set(answer["issue"]) == {"repo", "number", "title", "labels"}
    assert set(answer["checks"]) == {"before", "after"}
    assert all(set(one) == {"command", "exit", "tail"} for when in answer["checks"].values() for one in when)
    assert answer["checks"]["after"]


@pytest.mark.parametrize(("check", "outcome"), [("test -e hello.txt", "pull_request"), ("false", "checks_failed")])
def test_try_in_json(tmp_path: Path, check: str, outcome: str) -> None:
    project = tmp_path / "project"
    git("clone", "--quiet", make_repository(tmp_path / "project.git", {"README.md": "# project\n"}), project)
    with elsewhere(tmp_path) as env:
        argv = ["try", "--repo", str(project), "--issue", "Say hello", "--argv", "touch hello.txt", "--check", check]
        done = subprocess.run([sys.executable, WATCHBILL, *argv, "--json"], env=env, text=True, capture_output=True,
                              check=False)  # fmt: skip
    answer = json.loads(done.stdout)
    assert answer["outcome"] == outcome
    assert differences("try", answer, "try") == []
    assert set(answer["change"]) == {"files", "added", "removed", "tree", "base"}
    assert answer["kept"] is None or set(answer["kept"]) == {"ref", "commit", "mirror"}
    assert [(one["on"], one["exit"]) for one in answer["checks"]] == [
        ("base", 1),
        ("work", 0 if answer["branch"] else 1),
    ]


def seed() -> dict[str, Any]:
    (found,) = (json.loads(block) for block in re.findall(r"^```json\n(\{\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    assert isinstance(found, dict)
    return found


def test_the_seed_of_the_page_is_the_example() -> None:
    assert seed() == json.loads((ROOT / "examples" / "seed.json").read_text())


def test_the_practice_forge_as_a_program_starts_it(tmp_path: Path) -> None:
    """Broken on purpose: with `over.wait()` waiting for good (a handler that does nothing), SIGTERM did not end it."""
    make_repository(tmp_path / "api.git", {"README.md": "# api\n"})
    (tmp_path / "seed.json").write_text(json.dumps(seed()))
    started = subprocess.Popen([sys.executable, WATCHBILL, "practice", "--port-file", "port", "--seed", "seed.json"],
                               cwd=tmp_path, stdout=subprocess.DEVNULL)  # fmt: skip
    try:
        wait_for("the port", (tmp_path / "port").exists)
        site = f"http://127.0.0.1:{int((tmp_path / 'port').read_text())}"
        issue = ask(f"{site}/repos/acme/api/issues/1", "practice-bot")
        assert (issue["title"], issue["body"], issue["user"]["login"]) == ("Say hello", "In hello.txt.", "you")
        assert [label["name"] for label in issue["labels"]] == ["agent:implement"]
        assert ask(f"{site}/user", "practice-bot")["type"] == "Bot"
        assert ask(f"{site}/repos/acme/api", "practice-you")["permissions"]["push"]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(f"{site}/user", "somebody-else")

        clone = tmp_path / "clone"
        git("clone", "--quiet", f"{site}/acme/api.git", clone)
        git("commit", "--quiet", "--allow-empty", "-m", "more", cwd=clone)
        remote = site.replace("http://", "http://x-access-token:practice-you@") + "/acme/api.git"
        git("push", "--quiet", remote, "HEAD:refs/heads/more", cwd=clone)
        assert git("--git-dir", tmp_path / "api.git", "log", "-1", "--format=%s", "more") == "more"

        ask(f"{site}/_practice/faults", "", b'{"kind": "status", "status": 502}')
        with pytest.raises(urllib.error.HTTPError, match="502"):
            ask(f"{site}/user", "practice-bot")
        assert ask(f"{site}/_practice/log", "")[-1]["status"] == 502

        started.send_signal(signal.SIGTERM)
        assert started.wait(20) == 0
        with pytest.raises(urllib.error.URLError):
            ask(f"{site}/user", "practice-bot")
    finally:
        started.kill()
        started.wait()


def ask(url: str, token: str, body: bytes | None = None) -> Any:
    """One request as a program without any library of ours makes it."""
    headers = {"Authorization": f"token {token}"} if token else {}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=20) as reply:
        raw = reply.read()
        return json.loads(raw) if raw else None
