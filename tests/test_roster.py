"""The roster: what is read, and every mistake with its file, line, key and nearest right word."""

# ruff: noqa: E501 - a table of messages reads best with one on a line
from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchbill import compiled
from watchbill.compiled import Cap
from watchbill.roster import compile_roster, read_roster
from watchbill.roster_errors import RosterErrors, toml_lines

FLEET = '[fleet]\nrepos = ["acme/api"]\n'
AGENT = """---
name: bosun
description: Implements.
watchbill:
  role: implement
  every: 20m
  engine: {use: command, argv: [/bin/true]}
---
Solve it.

{{ brief }}
"""
EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return made(tmp_path / "home")


def made(home: Path) -> Path:
    (home / "agents").mkdir(parents=True)
    (home / "fleet.toml").write_text(FLEET)
    (home / "agents" / "bosun.md").write_text(AGENT)
    return home


def agent(home: Path, old: str = "", new: str = "", name: str = "bosun") -> None:
    assert old in AGENT
    (home / "agents" / f"{name}.md").write_text(AGENT.replace(old, new, 1) if old else AGENT + new)


def problems(home: Path) -> tuple[str, ...]:
    with pytest.raises(RosterErrors) as found:
        read_roster(str(home))
    error = found.value
    assert (error.id, error.outcome) == ("WB-ROSTER-01", "invalid")
    assert all("\n" not in line for line in error.problems)
    return error.problems


def test_the_least_there_is(home: Path) -> None:
    roster = read_roster(str(home))
    fleet, bosun = roster.fleet, roster.agents["bosun"]
    assert fleet.repos["acme/api"] == compiled.Repo("acme/api", "https://github.com/acme/api.git", (), 1200, ())
    assert (fleet.trust, fleet.caps, fleet.timezone, fleet.poll_s, fleet.auth) == ((), (), "", 60, "gh")
    assert (fleet.labels, fleet.claims, fleet.api_url) == (
        compiled.Labels(),
        compiled.Claims(),
        "https://api.github.com",
    )
    assert bosun.engine == {"use": "command", "argv": ["/bin/true"]}
    assert (bosun.schedule, bosun.timeout_s, bosun.isolation) == ("every 20m", 1500, "auto")
    assert (bosun.takes, bosun.repos, bosun.caps) == ("agent:implement", ("acme/api",), ())
    assert bosun.prompt == "Solve it.\n\n{{ brief }}\n"


@pytest.mark.parametrize("example", ["smallest", "crew"])
def test_the_examples_are_right(example: str, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / example, tmp_path / "home")
    roster = compile_roster(str(tmp_path / "home"))
    assert compiled.load(str(tmp_path / "home" / "roster.json")) == roster
    assert Cap("firing", "usd", 1_500_000) in roster.agents["bosun"].caps
    assert Cap("day", "usd", 10_000_000) in roster.agents["bosun"].caps


def test_everything_in_fleet_toml(home: Path) -> None:
    (home / "fleet.toml").write_text("""
[fleet]
repos = ["acme/api", "acme/web"]
trust = ["association:MEMBER", "user:octocat", "user:#583231"]
timezone = "Europe/Berlin"
poll = 5
[caps]
fleet_day_usd = 0.1
fleet_month_tokens = 5000000
issue_firings = 3
[labels]
implement = "go"
[claims]
ttl = "3s"
grace = "0s"
renew = 1
[github]
auth = "token:env:TOKEN"
api_url = "http://127.0.0.1:8080/"
[engines.claude]
program = "claude"
key = "keychain:watchbill/anthropic"
env = {ANTHROPIC_BASE_URL = "http://127.0.0.1:1"}
[engines."acme.engine"]
whatever = 1.5
[slack]
channel = "C0123456"
token = "env:SLACK"
[repo."acme/api"]
checks = "make test"
remote = "remotes/api.git"
check_timeout = "2m"
protected = ["deploy/"]
[repo."acme/web"]
remote = "git@github.com:acme/web.git"
claims = "refs/heads"
pushes_per_minute = 30
[isolation]
rw = ["/var/cache/pip", "~/.cache"]
""")
    agent(home, "  every: 20m\n", "  at: 9:00,17:30\n  caps: {firing_usd: 0.05, firing_tokens: 1000}\n  timeout: 90\n")
    roster = read_roster(str(home))
    fleet = roster.fleet
    assert fleet.caps == (
        Cap("fleet_day", "usd", 100_000), Cap("fleet_month", "tokens", 5_000_000), Cap("issue", "firings", 3))  # fmt: skip
    assert (fleet.timezone, fleet.poll_s, fleet.labels.implement) == ("Europe/Berlin", 5, "go")
    assert fleet.claims == compiled.Claims(3, 0, 1)
    assert (fleet.auth, fleet.api_url) == ("token:env:TOKEN", "http://127.0.0.1:8080")
    assert fleet.engines["acme.engine"] == {"whatever": 1.5}
    assert fleet.repos["acme/api"] == compiled.Repo(
        "acme/api", str(home / "remotes/api.git"), ("make test",), 120, ("deploy/",))  # fmt: skip
    web = fleet.repos["acme/web"]
    assert (web.remote, web.claims, web.pushes_per_minute) == ("git@github.com:acme/web.git", "refs/heads", 30)
    api = fleet.repos["acme/api"]
    assert (api.claims, api.pushes_per_minute) == ("refs/watchbill", 6)
    assert fleet.isolation_rw == ("/var/cache/pip", os.path.expanduser("~/.cache"))
    bosun = roster.agents["bosun"]
    assert (bosun.schedule, bosun.takes, bosun.timeout_s) == ("daily 9:00,17:30", "go", 90)
    assert bosun.caps == (Cap("firing", "usd", 50_000), Cap("firing", "tokens", 1000))
    assert compiled.from_json(compiled.to_json(roster)) == roster


def test_times_and_durations_that_yaml_takes_for_numbers(home: Path) -> None:
    agent(home, "  every: 20m\n", "  at: 9:00\n  timeout: 010\n")
    bosun = read_roster(str(home)).agents["bosun"]
    assert (bosun.schedule, bosun.timeout_s) == ("daily 9:00", 10)


def test_foreign_keys_pass_through(home: Path) -> None:
    agent(
        home,
        "name: bosun\n",
        "name: bosun\ntools: [Read, Edit]\ncolor: 0.5\nhooks: {on: x, since: 2026-01-01}\nmodel: inherit\n",
    )
    bosun = read_roster(str(home)).agents["bosun"]
    assert bosun.tools == ("Read", "Edit")
    assert bosun.extra == {"color": 0.5, "hooks": {"on": "x", "since": "2026-01-01"}}
    assert bosun.model is None


@given(st.decimals(min_value="0.000001", max_value="999999", places=6))
@settings(max_examples=60, deadline=None)
def test_dollars_are_exact(amount: object) -> None:
    from watchbill.roster_values import micro_dollars

    assert micro_dollars(amount) == int(str(amount).replace(".", ""))


def test_floats_of_neither_format_drift(home: Path) -> None:
    """Broken on purpose: by way of a float, in TOML or YAML, 1.005001 became finer than a micro-dollar and was refused."""
    (home / "fleet.toml").write_text(FLEET + "[caps]\nissue_usd = 4503599.627371\n")
    agent(home, "  every: 20m\n", "  caps: {firing_usd: 1.005001, day_usd: 2}\n")
    roster = read_roster(str(home))
    assert roster.fleet.caps == (Cap("issue", "usd", 4_503_599_627_371),)
    assert roster.agents["bosun"].caps[0].limit == 1_005_001


FLEET_MISTAKES = [
    ('[fleet]\nrepo = ["a/b"]\n', 'fleet.toml:2: fleet.repo: unknown key (did you mean \'repos\'?)'),
    ('[fleet]\nrepo = ["a/b"]\n', "fleet.toml:1: fleet.repos: is missing ('repo' is there; is that it?)"),
    ("[fleet]\nrepos = []\n", 'fleet.toml:2: fleet.repos: is empty; right would be: repos = ["owner/name"]'),
    ('[fleet]\nrepos = ["api"]\n', "fleet.toml:2: fleet.repos[0]: 'api' is no repository; right would be: owner/name"),
    ('[fleet]\nrepos = "acme/api"\n', "fleet.toml:2: fleet.repos: must be a list, not 'acme/api'"),
    (FLEET + "poll = true\n", "fleet.toml:3: fleet.poll: True is no duration"),
    (FLEET + 'timezone = "Europe/Berlni"\n', "fleet.toml:3: fleet.timezone: 'Europe/Berlni' is no time zone (did you mean"
     " 'Europe/Berlin'?)"),
    (FLEET + 'trust = ["association:NONE"]\n', "fleet.toml:3: fleet.trust[0]: 'association:NONE': associations that can"),
    (FLEET + "\n# x\n[capz]\n", "fleet.toml:5: capz: unknown key (did you mean 'caps'?)"),
    (FLEET + "[caps]\n\nfleet_day_usdd = 4\n", "fleet.toml:5: caps.fleet_day_usdd: unknown key (did you mean 'fleet_day_usd'?)"),
    (FLEET + '[caps]\nissue_usd = "4"\n', "fleet.toml:4: caps.issue_usd: must be dollars as a bare number, not '4'"),
    (FLEET + "[caps]\nissue_usd = 0\n", "fleet.toml:4: caps.issue_usd: 0 dollars is no amount"),
    (FLEET + "[caps]\nissue_usd = nan\n", "fleet.toml:4: caps.issue_usd: NaN dollars is no amount"),
    (FLEET + "[caps]\nissue_turns = 1.5\n", "fleet.toml:4: caps.issue_turns: must be a whole number above 0, not '1.5'"),
    (FLEET + '[claims]\nttl = "7h"\n', "fleet.toml:4: claims.ttl: 25200 s is longer than 6h"),
    (FLEET + '[claims]\nttl = "5m"\n', "fleet.toml:3: claims.renew: 600 s is not before the claim ends (ttl 300 s)"),
    (FLEET + '[labels]\ndone = "Agent:Implement"\n', "fleet.toml:4: labels.done: 'Agent:Implement' is the label of implement"),
    (FLEET + '[github]\nauth = "ghp_abcdefghijklmnop"\n', "fleet.toml:4: github.auth: must be gh, or token:<secret"),
    (FLEET + '[github]\nauth = "token:ghp_abc"\n', "fleet.toml:4: github.auth: this is no secret reference (env:, file:"),
    (FLEET + '[slack]\ntoken = "xoxb-1"\n', "fleet.toml:4: slack.token: this is no secret reference"),
    (FLEET + '[engines.claud]\nprogram = "x"\n', "fleet.toml:3: engines.claud: is no engine, nor the dotted path of a"
     " module (did you mean 'claude'?)"),
    (FLEET + '[engines.claude]\nprogam = "x"\n', "fleet.toml:4: engines.claude.progam: unknown key of the engine claude (did"
     " you mean 'program'?)"),
    (FLEET + '[engines.claude]\nkey = "sk-ant-1"\n', "fleet.toml:4: engines.claude.key: this is no secret reference"),
    (FLEET + '[repo."acme/apy"]\nchecks = []\n', "fleet.toml:3: repo.\"acme/apy\": is not among fleet.repos (did you mean"
     " 'acme/api'?)"),
    (FLEET + '[repo."acme/api"]\ncheck = "x"\n', 'fleet.toml:4: repo."acme/api".check: unknown key (did you mean \'checks\'?)'),
    (FLEET + '[repo."acme/api"]\nchecks = [1]\n', 'fleet.toml:4: repo."acme/api".checks[0]: must be text, not \'1\''),
    (FLEET + '[repo."acme/api"]\nremote = "https://u:p@h/x"\n', 'fleet.toml:4: repo."acme/api".remote: a remote carries no'),
    (FLEET + '[repo."acme/api"]\nremote = "ext::sh -c x"\n', "is no remote; right would be"),
    (FLEET + '[repo."acme/api"]\nclaims = "ref/heads"\n', "fleet.toml:4: repo.\"acme/api\".claims: 'ref/heads' is no place for"
     " claim refs (did you mean 'refs/heads'?)"),
    (FLEET + '[repo."acme/api"]\npushes_per_minute = 0\n', 'fleet.toml:4: repo."acme/api".pushes_per_minute: must be a whole number'),
    (FLEET + '[repo."acme/api"]\npushes_per_minute = 6000\n', "must be at most 600, not 6000; GitHub recommends 6"),
    (FLEET + '[isolation]\nrw = ["cache"]\n', "fleet.toml:4: isolation.rw[0]: 'cache' must be an absolute path"),
    (FLEET + "[fleet\n", "fleet.toml:3: is not TOML: "),
    (FLEET + 'x = "\n', "fleet.toml:3: is not TOML: "),
    (FLEET + 'repos = ["a/b"]\n', "fleet.toml:3: is not TOML: "),
]  # fmt: skip


def test_mistakes_in_fleet_toml(home: Path) -> None:
    for text, says in FLEET_MISTAKES:
        (home / "fleet.toml").write_text(text)
        found = problems(home)
        assert any(says in line for line in found), (text, found)
        assert not any("ghp_" in line or "sk-ant-" in line or "xoxb-" in line for line in found)


ENGINE = "  engine: {use: command, argv: [/bin/true]}\n"
AGENT_MISTAKES = [
    ("  every: 20m", "  evry: 20m", "agents/bosun.md:6: watchbill.evry: unknown key (did you mean 'every'?)"),
    ("  every: 20m", "  every: 20 potatoes", "agents/bosun.md:6: watchbill.every: schedule 'every 20 potatoes': at"
     " 'potatoes', character 10: is not a unit (m, h or d); right would be: every 20m"),
    ("  every: 20m", "  every: 20", "watchbill.every: schedule 'every 20': at '20', character 7: after 'every' comes a"
     " number and a unit"),
    ("  every: 20m", "  every: 20m\n  at: 09:00", "agents/bosun.md:7: watchbill.at: every and at are given; one of them says"),
    ("  every: 20m", "  schedule: on", "agents/bosun.md:6: watchbill.schedule: must be text, not true (in YAML on is true; for"
     " the text write 'on' in quotes)"),
    ("role: implement", "role: implment", "agents/bosun.md:5: watchbill.role: 'implment' is no role of this version (did you"
     " mean 'implement'?)"),
    ("  role: implement\n", "", "agents/bosun.md:4: watchbill.role: is missing"),
    ("name: bosun", "name: no", "agents/bosun.md:2: name: must be text, not false (in YAML no is false; for the text write"
     " 'no' in quotes)"),
    ("name: bosun", "name: 12", "agents/bosun.md:2: name: must be text, not '12'"),
    ("name: bosun", "name: Bosun!", "agents/bosun.md:2: name: 'Bosun!' is no codename"),
    ("name: bosun", "name: bosun\nname: mate", "agents/bosun.md:3: name: is written twice; the first is on line 2"),
    ("watchbill:", "watchbil:", "agents/bosun.md:4: watchbil: unknown key (did you mean 'watchbill'?)"),
    (ENGINE, "", "agents/bosun.md:4: watchbill.engine: is missing"),
    (ENGINE, "  engine: claud\n", "agents/bosun.md:7: watchbill.engine.use: 'claud' is no engine, nor the dotted path of a"
     " module (did you mean 'claude'?)"),
    (ENGINE, "  engine:\n    use: claude\n    fallback: x\n", "agents/bosun.md:9: watchbill.engine.fallback: 'x' is no"),
    (ENGINE, "  engine: {use: command}\n", "agents/bosun.md:7: watchbill.engine: the engine command needs argv"),
    (ENGINE, "  engine: {use: command, argv: x}\n", "agents/bosun.md:7: watchbill.engine.argv: must be a list of words"),
    (ENGINE, "  engine: {use: scripted}\n", "agents/bosun.md:7: watchbill.engine: the engine scripted needs script"),
    (ENGINE, "  engine: {use: claude, progam: x}\n", "watchbill.engine.progam: unknown key of the engine claude (did you mean"
     " 'program'?)"),
    (ENGINE, ENGINE + "  timeout: 25 minutes\n", "agents/bosun.md:8: watchbill.timeout: '25 minutes' is no duration"),
    (ENGINE, ENGINE + "  timeout: 0\n", "agents/bosun.md:8: watchbill.timeout: must be more than nothing"),
    (ENGINE, ENGINE + "  isolation: requierd\n", "agents/bosun.md:8: watchbill.isolation: 'requierd' is not one of its words"
     " (did you mean 'required'?)"),
    (ENGINE, ENGINE + "  isolation: off\n", "agents/bosun.md:8: watchbill.isolation: false"),
    (ENGINE, ENGINE + "  repos: [acme/apy]\n", "agents/bosun.md:8: watchbill.repos[0]: 'acme/apy' is not among fleet.repos"
     " (did you mean 'acme/api'?)"),
    (ENGINE, ENGINE + "  labels: {takes: 'needs:human'}\n", "agents/bosun.md:8: watchbill.labels.takes: 'needs:human' is what"),
    (ENGINE, ENGINE + "  caps: {day_usd: 10}\n", "agents/bosun.md:8: watchbill.caps: firing_usd is missing: day_usd can only be"
     " kept when the most that one firing can use is known; right would be: firing_usd: 1.50"),
    (ENGINE, ENGINE + "  caps:\n    firing_turns: 60\n    day_turns: 50\n", "agents/bosun.md:9: watchbill.caps.firing_turns: 60"
     " turns a firing is more than day_turns allows (50 turns): it could never fire"),
    (ENGINE, ENGINE + "  caps: {firing_usd: '1'}\n", "watchbill.caps.firing_usd: must be dollars as a bare number, not '1'"),
    (ENGINE, ENGINE + "  caps: {firing_firings: 1}\n", "watchbill.caps.firing_firings: unknown key (did you mean"),
    (ENGINE, ENGINE + "  caps: 5\n", "agents/bosun.md:8: watchbill.caps: must be a map of keys, not '5'"),
    ("description: Implements.", "description: a: b", "agents/bosun.md:3: is not YAML: mapping values are not allowed here"),
    ("description: Implements.", "\tx: 1", "agents/bosun.md:3: is not YAML: "),
    ("description: Implements.", "x: &a [*a]", "is not YAML"),
    ("description: Implements.", "x: !!python/name:os.system", "agents/bosun.md:3: x: the YAML tag"),
    ("---\nname", "name", "agents/bosun.md:1: has no front matter"),
    ("---\nSolve", "Solve", "agents/bosun.md:1: the front matter that begins here has no second line ---"),
    ("Solve it.", "Solve {{ issue.title }}.", "agents/bosun.md:9: prompt: {{ issue.title }} is not filled in"),
    ("{{ brief }}", "{{ breif }}", "agents/bosun.md:11: prompt: {{ breif }} is not filled in (did you mean 'brief'?)"),
    ("{{ brief }}", "{% if x %}", "agents/bosun.md:11: prompt: '{%' begins something that a prompt cannot have"),
    ("{{ brief }}", "{{ brief", "agents/bosun.md:11: prompt: '{{' begins something"),
    ("Solve it.\n\n{{ brief }}\n", "", "agents/bosun.md:9: the prompt below the front matter is empty"),
]  # fmt: skip


def test_mistakes_in_an_agent(home: Path) -> None:
    for old, new, says in AGENT_MISTAKES:
        agent(home, old, new)
        found = problems(home)
        assert any(says in line for line in found), (new, found)


def test_all_problems_in_one_go(home: Path) -> None:
    (home / "fleet.toml").write_text(FLEET + "pol = 1\n[caps]\nissue_usd = -1\n")
    agent(home, "  every: 20m", "  evry: 20m\n  timeout: soon")
    agent(home, "role: implement", "role: review", name="mate")
    found = problems(home)
    assert [line.split(": ")[0] for line in found] == [
        "fleet.toml:3", "fleet.toml:5", "agents/bosun.md:6", "agents/bosun.md:7", "agents/mate.md:5"]  # fmt: skip
    with pytest.raises(RosterErrors) as error:
        read_roster(str(home))
    assert error.value.what.splitlines()[0] == f"{found[0]} (and 4 more)"
    assert all(line in str(error.value) for line in found[1:])


def test_a_cap_of_the_fleet_asks_every_agent_for_its_worst_case(home: Path) -> None:
    (home / "fleet.toml").write_text(FLEET + "[caps]\nfleet_day_usd = 40\nissue_usd = 1\nfleet_day_firings = 9\n")
    (line,) = problems(home)
    assert "firing_usd is missing: issue_usd of fleet.toml and fleet_day_usd of fleet.toml can only" in line.replace(
        "fleet_day_usd of fleet.toml and issue_usd of fleet.toml", "issue_usd of fleet.toml and fleet_day_usd of fleet.toml")  # fmt: skip
    agent(home, ENGINE, ENGINE + "  caps: {firing_usd: 1.50}\n")
    (line,) = problems(home)
    assert line.endswith("$1.50 a firing is more than issue_usd of fleet.toml allows ($1.00): it could never fire")


def test_files_that_are_missing_or_unreadable(home: Path) -> None:
    agent(home, name="mate")
    (line,) = problems(home)
    assert line == "agents/mate.md:2: name: 'bosun' is the name of the agent in agents/bosun.md as well"
    (home / "agents" / "mate.md").write_bytes(b"---\nname: m\xffte\n---\n")
    (line,) = problems(home)
    assert line == "agents/mate.md:2: is not UTF-8: byte 11 is 0xff; save the file as UTF-8"
    (home / "agents" / "mate.md").unlink()
    (home / "agents" / "mate.md").symlink_to(home / "gone.md")
    assert problems(home)[0].startswith("agents/mate.md:1: cannot be read in ")
    (home / "agents" / "mate.md").unlink()
    (home / "agents" / ".#bosun.md").symlink_to("editor.lock")
    read_roster(str(home))
    (home / "agents" / "bosun.md").unlink()
    assert problems(home) == (
        "agents/:1: there is no *.md file in it; an agent is one file there, for example agents/bosun.md",
    )
    shutil.rmtree(home / "agents")
    (home / "fleet.toml").unlink()
    first, second = problems(home)
    assert first.startswith("fleet.toml:1: cannot be read in ")
    assert "it begins with [fleet] and repos" in first
    assert "agents/:1: there is no such folder" in second


def test_an_agent_may_be_a_link_to_elsewhere_and_have_another_name_than_its_file(home: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.md"
    elsewhere.write_bytes(b"\xef\xbb\xbf" + AGENT.replace("\n", "\r\n").replace("{{ brief }}", "").encode())
    (home / "agents" / "bosun.md").unlink()
    (home / "agents" / "any.md").symlink_to(elsewhere)
    assert read_roster(str(home)).agents["bosun"].prompt == "Solve it.\n\n{{ brief }}\n"


def test_compiling_writes_only_what_changed(home: Path) -> None:
    """Broken on purpose: without the comparison the second compilation replaced the file (another inode)."""
    first = compile_roster(str(home))
    path = home / "roster.json"
    inode = path.stat().st_ino
    assert compile_roster(str(home)) == first
    assert path.stat().st_ino == inode
    assert compiled.load(str(path)) == first
    assert first.sources == compiled.source_facts(str(home))
    agent(home, "20m", "30m")
    second = compile_roster(str(home))
    assert second.digest != first.digest
    assert path.stat().st_ino != inode
    assert sorted(p.name for p in home.iterdir()) == ["agents", "fleet.toml", "roster.json"]
    (home / "fleet.toml").write_text("broken")
    with pytest.raises(RosterErrors):
        compile_roster(str(home))
    assert compiled.load(str(path)) == second  # what was right stays, for the gates


def test_the_digest_is_of_names_and_bytes(home: Path) -> None:
    digest = read_roster(str(home)).digest
    (home / "agents" / "bosun.md").rename(home / "agents" / "renamed.md")
    assert read_roster(str(home)).digest != digest


def test_lines_of_toml() -> None:
    text = '# c\na = """\n[x]\nb = 1\n"""\nlist = [\n  "]",\n  [1],\n]\n[t."q.r"]\nk.l = {m = 1}\n"n o" = \'\'\'\n\'\'\'\np = 1 # ["\n[[u]]\nv = 1'
    assert toml_lines(text) == {
        ("a",): 2, ("list",): 6, ("t",): 10, ("t", "q.r"): 10, ("t", "q.r", "k"): 11, ("t", "q.r", "k", "l"): 11,
        ("t", "q.r", "n o"): 12, ("t", "q.r", "p"): 14, ("u",): 15, ("u", "v"): 16}  # fmt: skip


@given(
    st.text(max_size=60), st.sampled_from(["name: bosun", "  every: 20m", "Solve it.", "  role: implement", "---\n"])
)
@settings(max_examples=120, deadline=None)
def test_any_text_is_read_or_refused_in_words(tmp_path_factory: pytest.TempPathFactory, text: str, place: str) -> None:
    home = made(tmp_path_factory.mktemp("any") / "home")
    (home / "agents" / "bosun.md").write_bytes(AGENT.replace(place, text, 1).encode("utf-8", "surrogatepass"))
    refused: tuple[str, ...] = ()
    try:
        json.loads(compiled.to_json(read_roster(str(home))))
    except RosterErrors as error:
        refused = error.problems
    assert all(line.startswith("agents/bosun.md:") for line in refused)


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ('ANTHROPIC_API_KEY = "sk-ant-api03-x"', ["ANTHROPIC_API_KEY", "looks like a secret", 'key = "file:/path"']),
        ('GITHUB_TOKEN = "ghp_x"', ["GITHUB_TOKEN", "looks like a secret"]),
        ('db_password = "x"', ["db_password", "looks like a secret"]),
        ('"A=B" = "x"', ["A=B", "is no name and text of an environment"]),
        ('"" = "x"', ["is no name and text of an environment"]),
        ('A = "x\\u0000y"', ["env.A", "is no name and text of an environment"]),
        ("A = 1", ["env", "must be a map of names to text"]),
        ('HOME = "/root"', ["env.HOME", "for Watchbill to say"]),
        ('TMPDIR = "/tmp"', ["env.TMPDIR", "for Watchbill to say"]),
        ('CODEX_HOME = "/x"', ["env.CODEX_HOME", "for Watchbill to say"]),
        ('HTTPS_PROXY = "http://ann:pw@proxy:3128"', ["env.HTTPS_PROXY", "holds a password"]),
        ('ANTHROPIC_CUSTOM_HEADERS = "Authorization: Bearer x"', ["HEADERS", "holds a password"]),
    ],
)
def test_an_engines_environment_holds_no_secret_and_nothing_that_a_process_cannot_have(
    home: Path, env: str, words: list[str]
) -> None:
    """A key there was in the environment of every tool, and in roster.json; `A=B` or a NUL ended each firing as a bug,
    after it had claimed an issue. Broken once: any map of text passed; each of these was a roster without a problem."""
    (home / "fleet.toml").write_text(FLEET + f"[engines.claude]\nenv = {{{env}}}\n")
    (problem,) = problems(home)
    assert problem.startswith("fleet.toml:4: engines.claude.env"), problem
    assert [word for word in words if word not in problem] == []


def test_an_engines_environment_may_hold_what_is_no_secret(home: Path) -> None:
    """Numbers about tokens, and names emptied so that nothing of theirs is inherited."""
    env = '{HTTPS_PROXY = "http://proxy:3128", MAX_THINKING_TOKENS = "8000", ANTHROPIC_AUTH_TOKEN = "", ANTHROPIC_BASE_URL = "https://llm.example.com"}'
    (home / "fleet.toml").write_text(FLEET + f"[engines.claude]\nenv = {env}\n")
    assert read_roster(str(home)).fleet.engines["claude"]["env"]["MAX_THINKING_TOKENS"] == "8000"


@pytest.mark.parametrize(
    ("tools", "meant"), [("read, edit", "Read"), ("Read, Raed", "Read"), ("[Bash, webfetch]", "WebFetch")]
)
def test_a_tool_that_is_nearly_one_is_said(home: Path, tools: str, meant: str) -> None:
    """Claude Code takes `read` for no tool at all: the model had none, and each firing was paid for and did nothing.

    Broken once: any word passed.
    """
    agent(home, "description: Implements.\n", f"description: Implements.\ntools: {tools}\n")
    (problem,) = problems(home)
    assert problem.startswith("agents/bosun.md:4: tools")
    assert f"did you mean {meant!r}?" in problem


def test_tools_that_are_known_or_of_somebody_else_pass(home: Path) -> None:
    agent(
        home,
        "description: Implements.\n",
        "description: Implements.\ntools: Read, NotebookEdit, KillShell, mcp__db__query\n",
    )
    assert read_roster(str(home)).agents["bosun"].tools == ("Read", "NotebookEdit", "KillShell", "mcp__db__query")


def test_the_compiled_roster_is_for_its_owner_alone(home: Path) -> None:
    """It repeats all of fleet.toml, which may be 0600 for a reason. Broken once: 0644 by the umask."""
    compile_roster(str(home))
    assert (home / "roster.json").stat().st_mode & 0o777 == 0o600
