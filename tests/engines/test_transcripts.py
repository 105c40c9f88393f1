"""Reading what an engine writes below its HOME, while it writes, and while its tools write there too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from watchbill.engines import transcripts
from watchbill.engines.stream import MAX_LINE
from watchbill.engines.transcripts import Files, newest

PATTERN = "projects/*/*.jsonl"


def put(root: Path, path: str, content: bytes, *, how: str = "wb") -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open(how) as opened:
        opened.write(content)
    return file


def all_lines(files: Files) -> list[bytes]:
    """What there is by now, over as many looks as it takes."""
    found: list[bytes] = []
    while more := files.lines():
        found += [line for _, line in more]
    return found


def test_only_whole_lines_and_each_once(tmp_path: Path) -> None:
    files = Files(str(tmp_path), PATTERN)
    assert files.lines() == []
    put(tmp_path, "projects/a/1.jsonl", b"one\n\ntw")
    assert files.lines() == [("projects/a/1.jsonl", b"one")]
    assert files.lines() == []
    put(tmp_path, "projects/a/1.jsonl", b"o\nthree\n", how="ab")
    put(tmp_path, "projects/b/2.jsonl", b"four\n")
    put(tmp_path, "projects/b/other.json", b"five\n")
    put(tmp_path, "projects/c/d/6.jsonl", b"six\n")
    assert sorted(files.lines()) == [
        ("projects/a/1.jsonl", b"three"),
        ("projects/a/1.jsonl", b"two"),
        ("projects/b/2.jsonl", b"four"),
    ]


def test_several_patterns_and_components_without_a_star(tmp_path: Path) -> None:
    put(tmp_path, ".claude/projects/a/1.jsonl", b"main\n")
    put(tmp_path, ".claude/projects/a/1/agents/x.jsonl", b"sub\n")
    files = Files(str(tmp_path), ".claude/projects/*/*.jsonl", ".claude/projects/*/*/agents/*.jsonl")
    assert [line for _, line in files.lines()] == [b"main", b"sub"]


def test_a_file_that_shrank_or_was_replaced_is_read_anew(tmp_path: Path) -> None:
    """Broken once: without the comparison of inodes the last assertion got [b'r, longer'], without that of sizes the
    one before got nothing."""
    files = Files(str(tmp_path), PATTERN)
    file = put(tmp_path, "projects/a/1.jsonl", b"a first line\nand a second\n")
    files.lines()
    put(tmp_path, "projects/a/1.jsonl", b"short\n")
    assert all_lines(files) == [b"short"]
    os.replace(put(tmp_path, "new", b"another, longer\n"), file)
    assert all_lines(files) == [b"another, longer"]


def test_what_is_no_file_is_not_opened_and_no_link_is_followed(tmp_path: Path) -> None:
    """Broken once: with os.open() without O_NOFOLLOW and entries asked with follow_symlinks=True, `secret` came out;
    without the look at what was opened and O_NONBLOCK, the pipe held the test for ever."""
    outside = put(tmp_path, "outside/dir/secret.jsonl", b"secret\n")
    home = tmp_path / "home"
    put(home, "projects/a/good.jsonl", b"good\n")
    (home / "projects/a/link.jsonl").symlink_to(outside)
    (home / "projects/linked").symlink_to(outside.parent)
    (home / "projects/a/dir.jsonl").mkdir()
    os.mkfifo(home / "projects/a/pipe.jsonl")
    files = Files(str(home), PATTERN, "projects/a/pipe.jsonl", "projects/a/link.jsonl", "projects/linked/*.jsonl",
                  "projects/linked/secret.jsonl")  # fmt: skip
    assert all_lines(files) == [b"good"]
    assert newest(str(home), PATTERN, "projects/a/pipe.jsonl", "projects/a/link.jsonl") == "projects/a/good.jsonl"
    good = home / "projects/a/good.jsonl"
    good.unlink()
    os.mkfifo(good)  # known as a file until now
    assert all_lines(files) == []
    assert newest(str(home), PATTERN) is None


def test_a_root_that_is_missing_or_a_link_has_nothing(tmp_path: Path) -> None:
    put(tmp_path, "real/projects/a/1.jsonl", b"one\n")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert Files(str(tmp_path / "link"), PATTERN).lines() == []
    assert Files(str(tmp_path / "none"), PATTERN).lines() == []
    assert newest(str(tmp_path / "none"), PATTERN) is None


def test_a_look_reads_no_more_than_its_bound_and_nobody_waits_for_ever(tmp_path: Path) -> None:
    """A file without line ends grows faster than it is read. Broken once: without the turn going round, `later` was
    never read."""
    files = Files(str(tmp_path), PATTERN, most=MAX_LINE + 100)
    endless = put(tmp_path, "projects/a/endless.jsonl", b"")
    files.lines()  # it is known first
    os.truncate(endless, 1 << 40)
    put(tmp_path, "projects/a/later.jsonl", b"later\n")
    found = [line for _ in range(3) for _, line in files.lines()]
    assert found == [b"later"]


def test_a_line_too_long_is_dropped_and_the_next_is_not(tmp_path: Path) -> None:
    files = Files(str(tmp_path), PATTERN)
    put(tmp_path, "projects/a/1.jsonl", b"before\n" + b"x" * (MAX_LINE + 1))
    assert all_lines(files) == [b"before"]
    put(tmp_path, "projects/a/1.jsonl", b"x" * 100 + b"\nafter\n", how="ab")
    assert all_lines(files) == [b"after"]


def test_the_longest_line_taken_is_had_beside_others(tmp_path: Path) -> None:
    files = Files(str(tmp_path), PATTERN, most=MAX_LINE + 100)
    long = b"x" * MAX_LINE
    put(tmp_path, "projects/a/1.jsonl", b"short\n" * 100)
    put(tmp_path, "projects/a/2.jsonl", long + b"\n")
    found = [line for _ in range(3) for _, line in files.lines()]
    assert sorted(found) == [b"short"] * 100 + [long]


def test_of_too_many_files_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcripts, "MAX_FILES", 3)
    files = Files(str(tmp_path), PATTERN)
    for number in range(10):
        put(tmp_path, f"projects/a/{number}.jsonl", b"line\n")
    assert len(files.lines()) == 3
    monkeypatch.setattr(transcripts, "MAX_ENTRIES", 5)
    assert len(transcripts._found(str(tmp_path), (PATTERN,))) == 4  # one entry was the folder


def test_the_newest_file(tmp_path: Path) -> None:
    for name, at in (("b", 30), ("c", 20), ("a", 10)):
        os.utime(put(tmp_path, f"projects/{name}/1.jsonl", b""), (at, at))
    assert newest(str(tmp_path), PATTERN) == "projects/b/1.jsonl"
