"""Every adapter, asked by itself: its members, what it starts a program with, and what cannot make it fail."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.dialects import Dialect
from watchbill.engines import bill
from watchbill.engines.base import TROUBLE, Conversation, Event, Filled, Launch, Program, Tokens, Usage
from watchbill.errors import Fixable

Within = Callable[[float], AbstractContextManager[None]]


def test_its_members(tmp_path: Path, adapter: Dialect) -> None:
    engine, task = adapter.engine, adapter.task(tmp_path, "")
    assert isinstance(engine.name, str)
    assert isinstance(engine.has_budget, bool)
    assert isinstance(engine.headroom_micro, int)
    assert engine.headroom_micro >= 0
    assert engine.unmetered_basis in ("free", "ceiling")
    assert engine.silence_s is None or (isinstance(engine.silence_s, float) and engine.silence_s > 0)
    assert engine.endpoint is None or isinstance(engine.endpoint, str)
    for names in (engine.logins, engine.guides, engine.variables):
        assert isinstance(names, tuple)
        assert all(isinstance(name, str) for name in names)
    assert all(login.partition(":")[0] in ("file", "env", "keychain") for login in engine.logins)
    assert not any(os.path.isabs(guide) or ".." in guide.split("/") for guide in engine.guides)
    program = engine.program(task)
    assert program is None or (isinstance(program, Program) and os.path.isabs(program.path))
    assert program is None or (program.asks and program.least < program.below)
    assert engine.session(task.home) is None
    assert engine.transcript(task.home).look() == ()


BRIEF = "Mend what is broken; the word is brief-9d1c."
KEY_IN = "of-the-test"


def test_what_it_starts_a_program_with(tmp_path: Path, adapter: Dialect) -> None:
    """The brief on stdin; its credential through a pipe, or nowhere. Argv and environment are seen by everybody who
    may look into /proc, a file below its HOME by its tools.

    Broken once: with claude's key in its environment, with codex's in a file, with the prompt in codex's argv; each was
    seen here.
    """
    task = adapter.task(tmp_path, "", brief=BRIEF)
    launch = adapter.engine.launch(task)
    assert isinstance(launch, Launch)
    assert os.path.isabs(launch.argv[0])
    assert all(isinstance(word, str) and "\0" not in word for word in launch.argv)
    assert all(isinstance(value, str) and "\0" not in name + value for name, value in launch.env.items())
    assert BRIEF.encode() in launch.stdin
    seen = " ".join((*launch.argv, *launch.env, *launch.env.values()))
    assert "brief-9d1c" not in seen
    assert b"brief-9d1c" not in b"".join((*launch.files.values(), *launch.pipes.values()))
    if adapter.key is not None:
        assert adapter.key not in seen
        assert adapter.key.encode() not in b"".join((launch.stdin, *launch.files.values()))
        assert [one for one in launch.pipes.values() if adapter.key.encode() in one]
    assert all(0 < len(content) <= 16 << 10 for content in launch.pipes.values())
    for path in launch.files:
        assert not os.path.isabs(path)
        assert ".." not in path.split("/")


def test_what_its_words_are_made_of_stays_in_its_place(tmp_path: Path, adapter: Dialect) -> None:
    """A brief that looks like an option, guidance that looks like one, bytes that are no UTF-8: no more words of its
    command line for that, and none that begins otherwise."""
    plain = adapter.engine.launch(adapter.task(tmp_path, ""))
    for brief in ("--help", "-", "/exit", "@/etc/passwd", "\x00\x07", "no UTF-8: \udcff", "\n" * 3):
        launch = adapter.engine.launch(adapter.task(tmp_path, "", brief=brief))
        assert len(launch.argv) == len(plain.argv)
        assert launch.stdin.strip() or not brief.strip()
    task = adapter.task(tmp_path, "")._replace(guidance='--help\n"; touch hacked #\x00')
    assert len(adapter.engine.launch(task).argv) - len(plain.argv) in (0, 1, 2)


def test_what_cannot_be_started(tmp_path: Path, adapter: Dialect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken once: with claude started without a key, and with codex's taken from this process's own environment."""
    task = adapter.task(tmp_path, "")
    nothing = task._replace(options=adapter.missing)
    with pytest.raises(Fixable) as caught:
        adapter.engine.launch(nothing)
    _fixable(caught.value, "invalid")
    if adapter.engine.program(task) is not None:
        with pytest.raises(Fixable) as caught:
            adapter.engine.program(nothing)
        _fixable(caught.value, "invalid")
    for variable in adapter.engine.variables:  # a person's own key is none of the fleet's
        monkeypatch.setenv(variable, "operators-key")
    for key in (None, "", " \n"):
        if adapter.key is None:
            assert not adapter.engine.launch(task._replace(key=key)).pipes
        else:
            with pytest.raises(Fixable) as caught:
                adapter.engine.launch(task._replace(key=key))
            _fixable(caught.value, "unauthorized")


def _fixable(problem: Fixable, outcome: str) -> None:
    assert problem.id.startswith("WB-")
    assert problem.outcome == outcome
    assert problem.what
    assert problem.why
    assert problem.fix


# --- what others wrote ------------------------------------------------------------------------------------------------


class Said(NamedTuple):
    """What a run of the adapter printed, and the HOME that it left."""

    lines: list[bytes]
    home: Path


@pytest.fixture(scope="module")
def said(adapter: Dialect, tmp_path_factory: pytest.TempPathFactory) -> Said:
    """Every word of the dialect; a refused key last, because that ends the run."""
    root = tmp_path_factory.mktemp("said")
    ends = "; ".join(f"gave_up({kind!r})" for kind in sorted(adapter.ends, key="auth".__eq__))
    tries = "; ".join(f"turned_away({kind!r})" for kind in ("rate_limited", "overloaded", "billing"))
    text = f'said("hello"); used(7, 1, usd=0.5); window(0.5, 1790000000); {tries}; limited(5); done(); {ends}'
    task = adapter.task(root, text)
    adapter.again(task)
    home = Path(task.home)
    return Said(Path(task.log).read_bytes().splitlines(), home)


WORSE = (None, True, -1, 7.5, 10**30, 10**400, 1e308, float("nan"), "", "x", "9", "\ud800", "x" * 9999, [], {}, [[[]]],
         [None], {"": {}}, {"a": "b"})  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield from places(one, (*path, key))


def put(value: Any, path: tuple[Any, ...], other: Any) -> Any:
    if not path:
        return other
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(copy[path[0]], path[1:], other)
    return copy


def spoiled(line: bytes) -> Iterator[bytes]:
    """A line of the program, each time with another value replaced."""
    known = json.loads(line)
    for path in places(known):
        yield from (json.dumps(put(known, path, worse)).encode() for worse in WORSE)


def sound(event: Event | None, so_far: Usage) -> None:
    """What the supervisor may rely on."""
    if event is None:
        return
    assert event.kind in ("usage", "message", "window", "final", *TROUBLE)
    assert isinstance(event.text, str)
    assert event.until is None or isinstance(event.until, int)
    assert event.ok in (None, True, False)
    assert event.trouble is None or event.trouble in TROUBLE
    for window in event.windows:
        assert isinstance(window, Filled)
        assert (type(window.name), type(window.used_ppm), type(window.resets_at)) == (str, int, int)
    if (usage := event.usage) is not None:
        counts = [usage.input_tokens, usage.output_tokens, usage.turns, usage.cost_micro or 0]
        counts += [count for _, tokens in usage.unpriced for count in tokens]
        assert all(type(count) is int and 0 <= count <= 10**16 for count in counts)
        assert all(name is None or isinstance(name, str) for name, _ in usage.unpriced)
        assert len(usage.unpriced) <= 99
        assert usage.before == so_far.before


def test_no_value_makes_it_fail(adapter: Dialect, said: Said) -> None:
    """Broken once: with `int(...)` around claude's `num_turns`, "x" raised; codex without `before` is not sound."""
    so_far = Usage(1, 2, 3, 4, before=Tokens(9) if adapter.resumes else Tokens())
    for line in set(said.lines):
        for worse in spoiled(line):
            sound(adapter.engine.read(worse, so_far), so_far)


@settings(max_examples=60, deadline=None, database=None)
@given(data=st.data())
def test_no_bytes_make_it_fail(adapter: Dialect, said: Said, data: st.DataObject) -> None:
    line = data.draw(st.sampled_from([*said.lines, b""]))
    start = line[: data.draw(st.integers(0, len(line)))]
    sound(adapter.engine.read(start + data.draw(st.binary(max_size=60)), Usage()), Usage())


def test_malformed_lines_are_nothing(adapter: Dialect) -> None:
    for line in (b"", b"{", b"[]", b"null", b'{"type": []}', b'{"type": "nonsense"}', b"\xff" * 9, b"{" * 100_000):
        assert adapter.engine.read(line, Usage(1, 2, 3, 4)) is None


def test_nothing_in_its_files_makes_it_fail(tmp_path: Path, adapter: Dialect, said: Said) -> None:
    """Its tools can write there."""
    home = tmp_path / "home"
    for path in files(said.home):
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        with (home / path).open("wb") as file:
            for line in set((said.home / path).read_bytes().splitlines()):
                file.writelines(worse + b"\n" for worse in spoiled(line))
    for event in adapter.engine.transcript(str(home)).look():
        sound(event, Usage())
    well_kept(adapter, home)


def files(home: Path) -> list[Path]:
    return sorted(path.relative_to(home) for path in home.rglob("*") if path.is_file() and not path.is_symlink())


def well_kept(adapter: Dialect, home: Path) -> None:
    """A conversation is a file that lies in its HOME."""
    talk = adapter.engine.session(str(home))
    if talk is not None:
        assert isinstance(talk, Conversation)
        assert (home / talk.path).is_file()
        assert Path(os.path.realpath(home / talk.path)) == Path(os.path.realpath(home)) / talk.path


def a_pipe(path: Path, _elsewhere: Path) -> None:
    os.mkfifo(path)


def a_link(path: Path, elsewhere: Path) -> None:
    path.symlink_to(elsewhere)


def a_folder(path: Path, _elsewhere: Path) -> None:
    path.mkdir()


def garbage(path: Path, _elsewhere: Path) -> None:
    path.write_bytes((b'{"type": ' + bytes(range(256)) * 16) * 256)


@pytest.mark.parametrize("other", [a_pipe, a_link, a_folder, garbage])
def test_a_home_where_nothing_is_what_it_was(
    tmp_path: Path, adapter: Dialect, said: Said, within: Within, other: Callable[[Path, Path], None]
) -> None:
    """Its files, and then the folders above them, one depth after the other: a named pipe, a link to what it had, a
    folder, a megabyte of garbage in their place. Nothing of that is read or waited for.

    Broken once: with files opened as they come, the look at a named pipe hung, and what a link led to was counted; with
    claude's conversation found by `glob`, a pipe, a folder and a link were one.
    """
    engine, home = adapter.engine, tmp_path / "home"
    paths = files(said.home)
    assert bool(paths) == adapter.resumes
    for depth in range(1, 1 + max((len(path.parts) for path in paths), default=0)):
        shutil.copytree(said.home, home)
        for turn, path in enumerate({Path(*path.parts[:depth]) for path in paths if len(path.parts) >= depth}):
            elsewhere = tmp_path / f"elsewhere-{depth}-{turn}"
            (home / path).rename(elsewhere)
            other(home / path, elsewhere)
        with within(5):
            try:
                assert bill.read_whole(engine.transcript(str(home))).tokens == 0
            except (OSError, ValueError):
                pass
            well_kept(adapter, home)
        shutil.rmtree(home)


def test_a_home_that_is_empty_or_none(tmp_path: Path, adapter: Dialect, within: Within) -> None:
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("")
    for name in ("empty", "missing", "pipe", "file"):
        with within(5):
            assert engine_says_nothing(adapter, str(tmp_path / name))


def engine_says_nothing(adapter: Dialect, home: str) -> bool:
    return adapter.engine.session(home) is None and adapter.engine.transcript(home).look() == ()
