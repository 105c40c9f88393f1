"""The probes: each layer as it is, and layers with something of them undone, which must be found out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from watchbill.isolation import bwrap, landlock, none, probe
from watchbill.isolation.base import Isolation, Jail
from watchbill.isolation.probe import Tried

BWRAP = pytest.param(bwrap, marks=pytest.mark.needs("bwrap"), id="bwrap")
NO_LANDLOCK = pytest.mark.skipif(landlock.abi() < 1, reason="missing: Landlock in this kernel")
LANDLOCK = pytest.param(landlock, marks=NO_LANDLOCK, id="landlock")
WRITES = {f"write-{where}" for where in ("beside", "mirror", "tmp", "etc", "home", "link")}
READS = {f"read-{how}" for how in ("secret", "home", "link", "hard-link", "own-root", "first-root", "other-root",
                                   "other-file", "environment")} | {"uncover"}  # fmt: skip
OTHERS = {"see-process", "trace-process", "read-memory", "end-process", "mount", "gain-rights", "socket-path",
          "socket-abstract"}  # fmt: skip
#: What a host may refuse to anybody: to whoever is not root, in a container, in another user's namespace.
HOSTS_OWN = {"read-first-root", "read-memory", "trace-process", "write-etc", "mount", "uncover"}


class Changed:
    """A layer with something of it undone."""

    monitored = True

    def __init__(
        self,
        layer: Isolation = none,
        jail: Callable[[Jail], Jail] = lambda jail: jail,
        argv: Callable[[tuple[str, ...]], tuple[str, ...]] = lambda argv: argv,
    ) -> None:
        self.name = f"changed {layer.name}"
        self._layer, self._jail, self._argv = layer, jail, argv

    def unavailable(self) -> str | None:
        return None

    def wrap(self, jail: Jail, argv: tuple[str, ...]) -> tuple[str, ...]:
        return self._argv(self._layer.wrap(self._jail(jail), argv))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A fleet's home."""
    base = tmp_path / "fleet"
    base.mkdir()
    return base


def tried(layer: Isolation, base: Path) -> dict[str, Tried]:
    found = probe.probe(layer, str(base))
    assert {one.name for one in found} == WRITES | READS | OTHERS
    return {one.name: one for one in found}


def out(layer: Isolation, base: Path) -> set[str]:
    return {name for name, one in tried(layer, base).items() if one.held is False}


@pytest.mark.parametrize("layer", [BWRAP, LANDLOCK])
def test_a_layer_holds_but_for_the_gaps_that_it_names(layer: Isolation, base: Path) -> None:
    found = tried(layer, base)
    assert {name for name, one in found.items() if one.held is not True} == set(probe.known_gaps(layer.name))
    assert all((one.known is not None) == (one.held is not True) for one in found.values())


def test_without_a_layer_every_way_is_one(base: Path) -> None:
    """What the host refuses to anybody is told with its refusal; as root of a whole machine nothing is."""
    found = tried(Changed(), base)
    refused = {name: one for name, one in found.items() if one.held is not False}
    assert set(refused) <= HOSTS_OWN
    assert all("PermissionError" in one.detail for one in refused.values())
    assert all(one.known is None for one in found.values())


@pytest.mark.needs("bwrap")
def test_a_layer_that_binds_everything_writable_is_found_out(base: Path) -> None:
    open_ = Changed(argv=lambda argv: ("bwrap", "--bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--", *argv))
    found = out(open_, base)
    assert (WRITES | READS | {"see-process", "end-process", "socket-path", "socket-abstract"}) - HOSTS_OWN <= found
    assert "gain-rights" not in found  # bwrap itself sees to that


@pytest.mark.thorough
@pytest.mark.parametrize("layer", [BWRAP, LANDLOCK])
@pytest.mark.parametrize(
    ("jail", "expected"),
    [
        (lambda jail: jail._replace(ro=(jail.hidden[1],)), {"read-secret", "read-link", "read-own-root", "uncover"}),
        # Landlock lets nobody make files beside what has another rule; so no mirror here.
        (
            lambda jail: jail._replace(ro=(), rw=(*jail.rw, jail.hidden[1])),
            {"write-beside", "write-link", "read-secret"},
        ),
        (lambda jail: jail._replace(ro=(), rw=(*jail.rw, *jail.ro)), {"write-mirror"}),
        (lambda jail: jail._replace(rw=(*jail.rw, os.path.expanduser("~"))), {"write-home", "read-home"}),
        (lambda jail: jail._replace(ro=(*jail.ro, "/tmp")), {"socket-path"}),
    ],
    ids=["read", "write", "mirror", "home", "socket"],
)
def test_a_jail_that_leaves_one_thing_open_is_found_out(
    layer: Isolation, base: Path, jail: Callable[[Jail], Jail], expected: set[str]
) -> None:
    """And nothing that is shut is said to be open."""
    found = out(Changed(layer, jail), base)
    if layer is landlock:
        expected = expected - {"uncover"}  # it allows nobody mounts, and so none to be taken away
    assert expected <= found
    assert found & OTHERS <= expected | set(probe.known_gaps(layer.name))


@pytest.mark.needs("bwrap")
def test_the_hosts_own_tmp_is_found_out(base: Path) -> None:
    assert {"write-tmp", "socket-path"} <= out(Changed(bwrap, lambda jail: jail._replace(rw=(*jail.rw, "/tmp"))), base)


@pytest.mark.needs("bwrap")
def test_processes_that_are_not_hidden_are_found_out(base: Path) -> None:
    def shared(argv: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(word for word in argv if word != "--unshare-pid")

    assert {"see-process", "end-process"} <= out(Changed(bwrap, argv=shared), base)


@NO_LANDLOCK
def test_an_older_landlock_is_known_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a kernel before 6.12."""
    scoped = landlock.abi() >= 6
    assert ("end-process" in probe.known_gaps("landlock")) != scoped
    monkeypatch.setattr(landlock, "abi", lambda: 5)
    assert {"end-process", "socket-abstract"} <= set(probe.known_gaps("landlock"))


@pytest.mark.parametrize(
    ("argv", "detail"),
    [
        (("sh", "-c", "echo no namespaces here >&2; exit 1"), "no namespaces here"),
        (("true",), "the jail said nothing"),
        (("echo", "[]"), ""),
        (("/nowhere/bwrap",), "No such file"),
    ],
)
def test_a_layer_that_does_not_start_holds_nothing(base: Path, argv: tuple[str, ...], detail: str) -> None:
    """Broken once: with what was not said taken for `held`, a bwrap that always fails was the best of all."""
    found = tried(Changed(argv=lambda _: argv), base)
    assert {one.held for one in found.values()} == {None}
    assert all(detail in one.detail for one in found.values())


def test_one_that_hangs_is_given_up(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "TIMEOUT_S", 0.3)
    found = tried(Changed(argv=lambda _: ("sleep", "30")), base)
    assert {one.held for one in found.values()} == {None}


def test_nothing_of_it_stays(base: Path) -> None:
    """Also not where it got out. Broken once: the file in /etc stayed."""
    specs: list[str] = []

    def noted(argv: tuple[str, ...]) -> tuple[str, ...]:
        specs.append(argv[-1])
        return argv

    assert {"write-tmp", "write-home"} <= out(Changed(argv=noted), base)
    words = [word for way in json.loads(specs[0]) for word in way]
    paths = [word for word in words if str(word).startswith("/") and not str(word).startswith("/proc")]
    assert {os.path.dirname(path) for path in paths} >= {"/etc", "/tmp", os.path.expanduser("~")}
    assert [path for path in paths if os.path.lexists(path)] == []
    assert list(base.iterdir()) == []
    assert not any(os.path.exists(f"/proc/{word}") for word in words if isinstance(word, int))
    assert str(base) not in Path("/proc/self/mounts").read_text()


def test_a_room_that_cannot_be_made_is_an_error(base: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        probe.probe(none, str(base / "nowhere"))


def test_a_home_at_the_root_is_not_tried(base: Path) -> None:
    names = {one.name for one in probe.probe(Changed(), str(base), "/")}
    assert names == (WRITES | READS | OTHERS) - {"read-home", "write-home"}


def test_what_runs_inside_needs_the_standard_library_only() -> None:
    path = probe.attempts.__file__
    done = subprocess.run([sys.executable, "-I", "-S", path, '[["r", "read", "/dev/null"], ["x", "read", 1.5, 2]]'],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.startswith('{"r": ["", null, true], "x": [null, "TypeError: ')
