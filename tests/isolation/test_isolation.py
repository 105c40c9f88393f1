"""Each layer, tried from the inside: what must not work does not, and what has to work does."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support.engines import wait_for
from watchbill.isolation import bwrap, landlock, none
from watchbill.isolation.base import Isolation, Jail, places, program_path
from watchbill.isolation.landlock import abi, beside

BWRAP = pytest.param(bwrap, marks=pytest.mark.needs("bwrap"), id="bwrap")
NO_LANDLOCK = pytest.mark.skipif(abi() < 1, reason="missing: Landlock in this kernel")
LANDLOCK = pytest.param(landlock, marks=NO_LANDLOCK, id="landlock")


class World(NamedTuple):
    """An operator's home, with a fleet and one worktree below it, as they lie on a real host."""

    home: Path
    secret: Path
    jail: Jail

    @property
    def work(self) -> Path:
        return Path(self.jail.workdir)


@pytest.fixture
def world(tmp_path: Path) -> World:
    home = tmp_path / "person"
    fleet = home / ".watchbill"
    tree, mirror = fleet / "worktrees" / "f1", fleet / "mirrors" / "acme.git"
    for folder in (tree / "work", tree / "home", tree / "tmp", mirror):
        folder.mkdir(parents=True)
    secret = home / ".netrc"
    for file in (secret, fleet / "ledger.db", mirror / "HEAD"):
        file.write_text("SECRET\n")
    rw = tuple(str(tree / name) for name in ("work", "home", "tmp"))
    return World(home, secret, Jail(rw[0], rw, (str(mirror),), (str(home), str(fleet))))


def inside(layer: Isolation, world: World, *argv: str, jail: Jail | None = None) -> subprocess.CompletedProcess[str]:
    jail = jail or world.jail
    env = {"PATH": program_path(os.environ), "HOME": str(jail.rw[1]), "TMPDIR": str(jail.rw[2])}
    return subprocess.run(
        layer.wrap(jail, argv), cwd=jail.workdir, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=30, check=False)  # fmt: skip


def installed(home: Path, how: str) -> Path:
    """An engine as it is installed for one user; it needs a file of its own beside it."""
    link, file, needed = {
        "native": (".local/bin/engine", ".local/share/engine/versions/2.1", ".local/share/engine/versions/2.1"),
        "npm": ("x/node_modules/.bin/engine", "x/node_modules/@a/engine/run", "x/node_modules/@a/engine-linux/words"),
        "standalone": (".local/bin/engine", ".codex/packages/1/bin/engine", ".codex/packages/1/codex-path/words"),
    }[how]
    for name in (link, file, needed, ".codex/auth.json"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
    (home / ".codex" / "auth.json").write_text("SECRET")
    (home / needed).write_text("the engine\n")
    text = "echo the engine" if needed == file else f"cat {home / needed}"
    (home / file).write_text(f"#!/bin/sh\n{text}\n")
    (home / file).chmod(0o755)
    (home / link).symlink_to(os.path.relpath(home / file, (home / link).parent))
    return home / link


def shell(layer: Isolation, world: World, text: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return inside(layer, world, "sh", "-c", text, **more)


@pytest.mark.parametrize("layer", [BWRAP, LANDLOCK])
class TestOfEveryLayer:
    """Broken once: with nothing hidden nine of these failed, with "/" writable thirteen, by the escape they name."""

    def test_writes_its_own_places(self, layer: Isolation, world: World) -> None:
        done = shell(
            layer, world, 'pwd; mkdir d && echo x > d/a && mv d/a b && ln b c && rm c; touch "$HOME/h" "$TMPDIR/t"'
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{world.work}\n", "")
        assert (world.work / "b").read_text() == "x\n"
        assert Path(world.jail.rw[1], "h").exists()
        assert Path(world.jail.rw[2], "t").exists()

    @pytest.mark.parametrize("where", ["/watchbill-escape", "/etc/watchbill-escape", "/var/tmp/watchbill-escape"])
    def test_writes_nowhere_else(self, layer: Isolation, world: World, where: str) -> None:
        try:
            assert shell(layer, world, f"echo x > {where}").returncode != 0
            assert not os.path.exists(where)
        finally:
            Path(where).unlink(missing_ok=True)

    def test_writes_nothing_of_the_operator(self, layer: Isolation, world: World) -> None:
        """In /tmp or the empty home it may believe so; outside nothing changes."""
        before = sorted(str(path) for path in world.home.rglob("*"))
        mirror = world.jail.ro[0]
        for place in (world.home, world.home / ".watchbill", world.work.parent, world.home.parent, mirror):
            shell(layer, world, f"echo x > {place}/escape; rm -rf {world.secret} {mirror}/HEAD")
        assert sorted(str(path) for path in world.home.rglob("*")) == before
        assert not (world.home.parent / "escape").exists()

    def test_cannot_read_what_is_hidden(self, layer: Isolation, world: World) -> None:
        (world.work / "link").symlink_to(world.secret)
        ledger = world.home / ".watchbill" / "ledger.db"
        for name in (str(world.secret), "link", str(ledger), f"/proc/self/root{world.secret}"):
            done = shell(layer, world, f"cat {name}; cat /proc/[0-9]*/root{world.secret}")
            assert "SECRET" not in done.stdout
            assert done.returncode != 0

    def test_reads_the_mirror_and_does_not_write_it(self, layer: Isolation, world: World) -> None:
        mirror = world.jail.ro[0]
        assert shell(layer, world, f"cat {mirror}/HEAD").stdout == "SECRET\n"
        assert shell(layer, world, f"echo x >> {mirror}/HEAD").returncode != 0
        whole = world.jail._replace(rw=(*world.jail.rw, str(Path(mirror).parent)))
        assert shell(layer, world, f"echo x >> {mirror}/HEAD", jail=whole).returncode != 0
        assert Path(mirror, "HEAD").read_text() == "SECRET\n"

    def test_does_not_meet_others_in_tmp(self, layer: Isolation, world: World, tmp_path: Path) -> None:
        other = tmp_path / "of-another-firing"
        other.write_text("SECRET")
        assert "SECRET" not in shell(layer, world, f"cat {other}").stdout

    def test_cannot_end_a_process_outside(self, layer: Isolation, world: World) -> None:
        if layer is landlock and abi() < 6:
            pytest.skip("missing: Landlock ABI 6")
        other = subprocess.Popen(["sleep", "60"])
        try:
            done = shell(layer, world, f"kill -9 {other.pid}")
            assert done.returncode != 0
            assert other.poll() is None
        finally:
            other.kill()
            assert other.wait() == -9

    def test_cannot_read_the_environment_of_the_runner(self, layer: Isolation, world: World) -> None:
        """As root too. Broken once: with its capabilities kept, root read it past Landlock."""
        other = subprocess.Popen(["sleep", "60"], env={"TOKEN": "SECRET"})
        try:
            wait_for(lambda: b"SECRET" in Path(f"/proc/{other.pid}/environ").read_bytes())
            assert "SECRET" not in shell(layer, world, "cat /proc/[0-9]*/environ").stdout
        finally:
            other.kill()
            other.wait()

    def test_gains_no_rights(self, layer: Isolation, world: World) -> None:
        done = shell(layer, world, "grep NoNewPrivs /proc/self/status; mount -t tmpfs none /mnt; umount /proc")
        assert done.stdout.split() == ["NoNewPrivs:", "1"]
        assert done.returncode != 0

    def test_python_git_and_make_work(self, layer: Isolation, world: World) -> None:
        """With the home of whoever runs this hidden too, and with it, here, the directory of the interpreter."""
        (world.work / "Makefile").write_text("test:\n\t@echo made\n")
        real_home = pwd.getpwuid(os.getuid()).pw_dir
        jail = world.jail._replace(hidden=(*world.jail.hidden, real_home))
        text = """set -e
            make test; git init -q . ; git -c user.name=a -c user.email=b commit -q --allow-empty -m x
            git log --format=%s; python3 -c 'import json, ssl, sqlite3, tempfile; tempfile.TemporaryFile(); print(2)'"""
        done = shell(layer, world, text, jail=jail)
        assert (done.stdout, done.returncode) == ("made\nx\n2\n", 0), done.stderr
        done = inside(layer, world, sys.executable, "-c", "import pytest, watchbill; print(3)", jail=jail)
        assert done.stdout == "3\n", done.stderr

    def test_programs_below_the_hidden_home_work(
        self, layer: Isolation, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        node = world.home / ".nvm" / "versions" / "node" / "v20"
        for folder in ("bin", "lib", "etc"):
            (node / folder).mkdir(parents=True)
        (node / "lib" / "tool.sh").write_text("echo from lib\n")
        (node / "etc" / "token").write_text("SECRET")
        tool = node / "bin" / "tool"
        tool.write_text(f"#!/bin/sh\n. {node}/lib/tool.sh\ncat {node}/etc/token\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
        assert shell(layer, world, "tool").stdout == "from lib\n"
        monkeypatch.setenv("PATH", os.environ["PATH"].partition(":")[2])
        assert inside(layer, world, str(tool)).stdout == "from lib\n"

    @pytest.mark.parametrize("how", ["native", "npm", "standalone"])
    def test_an_engine_below_the_hidden_home_works(self, layer: Isolation, world: World, how: str) -> None:
        """As their installers lay claude and codex out there; nothing else of the home is opened with them.

        Broken once: without `_with_its_packages` npm's `.bin/engine` was not found, without codex-path in
        `_BESIDE_BIN` the standalone one not what it brings along."""
        program = installed(world.home, how)
        done = inside(layer, world, str(program))
        assert (done.stdout, done.returncode) == ("the engine\n", 0), done.stderr
        for secret in (world.secret, world.home / ".codex" / "auth.json"):
            assert "SECRET" not in inside(layer, world, "/bin/sh", "-c", f"cat {secret}; {program}").stdout

    def test_devices(self, layer: Isolation, world: World) -> None:
        done = shell(layer, world, "echo x > /dev/null && head -c 4 /dev/urandom | wc -c")
        assert (done.stdout.strip(), done.returncode) == ("4", 0)

    def test_exit_status_is_the_programs(self, layer: Isolation, world: World) -> None:
        assert shell(layer, world, "exit 3").returncode == 3
        assert inside(layer, world, "no-such-program").returncode != 0

    def test_is_available_where_it_is_tested(self, layer: Isolation) -> None:
        assert layer.unavailable() is None


@pytest.mark.needs("bwrap")
def test_bwrap_sees_no_process_outside(world: World) -> None:
    assert shell(bwrap, world, f"test -d /proc/{os.getpid()}").returncode != 0
    pids = [int(word) for word in shell(bwrap, world, "ls /proc").stdout.split() if word.isdigit()]
    assert pids
    assert max(pids) < 20


@pytest.mark.needs("bwrap")
def test_bwrap_has_a_tmp_of_its_own(world: World) -> None:
    done = shell(bwrap, world, "echo x > /tmp/of-watchbill-test && cat /tmp/of-watchbill-test")
    assert done.stdout == "x\n"
    assert not os.path.exists("/tmp/of-watchbill-test")


@pytest.mark.needs("bwrap")
def test_a_user_namespace_below_bwrap(world: World) -> None:
    """What codex's own sandbox needs of bubblewrap, as root too; Landlock forbids it its mounts, as codex's adapter has
    to know. Broken once: with root as 0 inside, "setting up uid map: Operation not permitted"."""
    nested = "bwrap --unshare-user --unshare-pid --ro-bind / / --bind $PWD $PWD"
    done = shell(bwrap, world, f"{nested} sh -c 'echo x > made; cat /proc/1/environ'")
    assert (world.work / "made").exists(), done.stderr
    assert "TMPDIR" not in done.stdout  # of bwrap itself, which was told what the engine is told


def test_none_is_none(world: World) -> None:
    assert none.wrap(world.jail, ("a", "b")) == ("a", "b")
    assert none.unavailable() is None


def test_the_nearest_place_has_the_last_word(world: World) -> None:
    found = places(world.jail, ("sh",), {"PATH": "/usr/bin:/bin"})
    depth = [place.path.count("/") for place in found]
    assert depth == sorted(depth)
    kinds = dict(found)
    assert kinds[str(world.home)] == kinds["/tmp"] == "hidden"
    assert kinds[world.jail.ro[0]] == "ro"
    assert kinds[world.jail.workdir] == "rw"


def test_a_home_at_the_root_hides_nothing_else(world: World) -> None:
    assert "/" not in dict(places(world.jail._replace(hidden=("/",)), ("sh",)))


def test_no_program_opens_what_it_lies_in(world: World) -> None:
    """A PATH that names the home itself, or a directory above it, does not make the home readable."""
    for folder in (world.home, world.home.parent, world.home / "bin"):
        folder.mkdir(exist_ok=True)
        kinds = dict(places(world.jail, (), {"PATH": f"{folder}:/usr/bin"}))
        assert kinds[str(world.home)] == "hidden"
        assert kinds.get(str(world.home.parent)) is None


def test_prose_on_an_engines_command_line_opens_nothing(world: World) -> None:
    """Broken once: with every argument split into words, the tool that the text names was readable."""
    tool = world.home / "private" / "tool"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)

    def opened(*argv: str) -> bool:
        return str(tool) in dict(places(world.jail, argv, {"PATH": "/usr/bin:/bin"}))

    assert not opened("engine", "--append-system-prompt", f"Run {tool} first.")
    assert opened("/bin/sh", "-c", f"{tool} -q")
    assert opened("env", str(tool))


def test_beside_is_everything_but(tmp_path: Path) -> None:
    for name in ("a/x/1", "a/x/2", "a/y", "b"):
        (tmp_path / "top" / name).mkdir(parents=True)
    top = f"{tmp_path}/top"
    assert sorted(beside(top, [f"{top}/a/x/2", "/elsewhere"])) == [f"{top}/a/x/1", f"{top}/a/y", f"{top}/b"]
    assert beside(f"{top}/a/x/2/deeper", [f"{top}/a/x/2"]) == [f"{top}/a/x/2/deeper"]
    assert beside(top, [top]) == []


def test_a_path_without_the_worktree_in_it() -> None:
    assert program_path({"PATH": ":.:bin:/usr/bin::/bin:/usr/bin"}) == "/usr/bin:/bin"
