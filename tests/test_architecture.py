"""What keeps the layout as it is drawn (DESIGN section 3)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import watchbill

LIB = Path(watchbill.__file__).parent
MODULES = {
    ".".join(("watchbill", *p.relative_to(LIB).with_suffix("").parts)).removesuffix(".__init__"): p
    for p in LIB.rglob("*.py")
}
#: Each third-party package and the one module that may import it.
OWNERS = {
    "github": "forge.github",
    "genai_prices": "prices",
    "git": "git",
    "jinja2": "render",
    "filelock": "lock",
    "pydantic": "roster",
    "yaml": "roster",
}
PURE = (
    "money",
    "holds",
    "lifecycle",
    "admit",
    "claims.record",
    "claims.reconcile",
    "claims.rules",
    "gates.held",
    "gates.running",
    "gates.capped",
)
IMPURE = {"os", "io", "subprocess", "socket", "pathlib", "random", "sqlite3", "shutil", "tempfile", "urllib", "http"}


def imports(path: Path, everywhere: bool) -> Iterator[str]:
    """Dotted names a module imports; with `everywhere` also inside functions."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(name: str) -> str | None:
    return name if name in MODULES else next((up for up in [name.rpartition(".")[0]] if up in MODULES), None)


def test_imports_have_no_cycle() -> None:
    graph = {name: {o for i in imports(path, True) if (o := ours(i)) and o != name} for name, path in MODULES.items()}
    TopologicalSorter(graph).prepare()


def test_each_package_has_one_importer() -> None:
    outside: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        for top in (
            {i.partition(".")[0] for i in imports(path, True)} - set(sys.stdlib_module_names) - {"watchbill", "_sha2"}
        ):
            outside.setdefault(top, set()).add(name.removeprefix("watchbill."))
    assert outside == {package: {owner} for package, owner in OWNERS.items()}


def test_pure_modules_touch_nothing() -> None:
    for short in PURE:
        path = MODULES[f"watchbill.{short}"]
        found = {i.partition(".")[0] for i in imports(path, True)} & IMPURE
        assert not found, f"{short} imports {found}"


def test_records_on_the_way_to_a_refusal_have_real_annotations() -> None:
    """typing compiles every annotation that is text, field by field, whenever a NamedTuple is made: with text they took
    a seventh of a refused firing (callgrind: 164 million instructions, 142 without).
    """
    asked = "import sys; from watchbill.cli import fire; print(*(m for m in sys.modules if m.startswith('watchbill')))"
    loaded = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout.split()
    records = [name for name in loaded if "(NamedTuple)" in MODULES[name].read_text()]
    assert len(records) > 10
    assert [name for name in records if "from __future__ import annotations" in MODULES[name].read_text()] == []


def test_a_firing_reads_like_its_story() -> None:
    source = (LIB / "firing.py").read_text()
    story = [
        name
        for name in (
            "poll",
            "look",
            "examine",
            "reserve",
            "claim",
            "worktree",
            "base",
            "brief",
            "engine",
            "collect",
            "verify",
            "land",
            "settle",
            "report",
            "tidy",
        )
        if f'f.step("{name}"' in source
    ]
    assert len(story) == 15
    assert len(source.splitlines()) < 145


def test_every_effect_goes_through_the_one_door() -> None:
    """Writes of a forge and pushes are named only where `effects.perform` is what runs them."""
    writes = {"add_labels", "remove_label", "comment", "edit_comment", "create", "create_label", "swap"}
    doors = {"claim", "land", "mend", "projection", "settle", "effects"}
    for name, path in MODULES.items():
        short = name.removeprefix("watchbill.")
        if short in doors or short.startswith(("forge", "practice", "cli", "claims")):
            continue
        calls = {
            n.func.attr
            for n in ast.walk(ast.parse(path.read_text()))
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)
        }
        assert not calls & {"add_labels", "remove_label", "edit_comment", "create_label", "swap"}, short
    assert writes
