"""A second backend finds one seam: only the ledger's own modules name SQLite, and the statements are everybody's."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pglast
import pytest
from pglast import ast as pg
from pglast.visitors import Visitor

import watchbill
from support.ledgers import new_ledger
from watchbill.ledger import db

LIB = Path(watchbill.__file__).parent
#: The modules that another backend would have its own of: connection, schema, files.
OF_SQLITE = {"db", "chain", "migrate", "verify", "export", "repair"}
QUERIES = db._read_queries()
#: What both have, with the same meaning; COALESCE is grammar in PostgreSQL.
FUNCTIONS = {"count", "sum", "max", "min"}
#: Run by a person, over all of history: `ledger prune`, `claims`, `why`, `spend`.
BY_HAND = re.compile(
    r"prune_|anchor_|hold_prune$|event_|claims_ever_won$|firings_live_elsewhere$|claims_live_elsewhere$"
)
#: Ordered by a column that is no index's; of few rows, which an index found.
SORTED = {"claims_live", "reservations_of_firing", "reservations_open", "firings_of_issue", "firings_live"}


def for_postgresql(text: str) -> str:
    """`:name` as `$n`."""
    names: list[str] = []

    def place(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    return re.sub(r"(?<!:):(\w+)", place, text)


class Foreign(Visitor):  # type: ignore[misc]
    """What PostgreSQL would refuse, or read in another way, although it parses."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def visit_FuncCall(self, _: Any, node: Any) -> None:
        name, arguments = node.funcname[-1].sval, node.args or ()
        if name not in FUNCTIONS:
            self.found.append(f"{name}()")
        elif name in ("max", "min") and len(arguments) != 1:
            self.found.append(f"{name}() of several values")

    def visit_OnConflictClause(self, _: Any, node: Any) -> None:
        for target in node.targetList or ():
            for column in columns(target.val):
                if len(column.fields) < 2:
                    self.found.append(f"{column.fields[0].sval}: of the row that is there, or of the new one?")


def columns(node: Any) -> Iterator[Any]:
    if isinstance(node, pg.ColumnRef):
        yield node
    elif isinstance(node, pg.Node):
        for name in node:
            yield from columns(getattr(node, name))
    elif isinstance(node, tuple):
        for one in node:
            yield from columns(one)


@pytest.mark.parametrize("name", QUERIES)
def test_a_statement_is_one_that_postgresql_reads_alike(name: str) -> None:
    """By its own parser. Broken on purpose: `a IS b`, `INSERT OR IGNORE`, `max(a, b)` and `SET n = n + excluded.n`."""
    (statement,) = pglast.parse_sql(for_postgresql(QUERIES[name]))
    foreign = Foreign()
    foreign(statement.stmt)
    assert foreign.found == []
    assert not re.search(
        r"\b(rowid|ifnull|glob|json_\w+|unixepoch|strftime|autoincrement|pragma)\b", QUERIES[name], re.I
    )


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1 FROM holds WHERE until IS since",
        "INSERT OR IGNORE INTO paces VALUES ('a', 1)",
        "SELECT MAX(since, until) FROM holds",
        "INSERT INTO paces VALUES ('a', 1) ON CONFLICT (repo) DO UPDATE SET tat_ms = tat_ms + 1",
        "SELECT json_object('a', 1)",
    ],
)
def test_what_only_sqlite_reads_is_seen(text: str) -> None:
    foreign = Foreign()
    try:
        foreign(pglast.parse_sql(text)[0].stmt)
    except pglast.parser.ParseError:
        return
    assert foreign.found


@functools.cache
def parsed() -> dict[Path, list[ast.AST]]:
    """Of every module, what is an import or a text."""
    wanted = (ast.Import, ast.ImportFrom, ast.Constant)
    return {
        path: [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, wanted)]
        for path in LIB.rglob("*.py")
    }


def test_sqlite_is_named_in_the_ledgers_own_modules_only() -> None:
    """Broken on purpose: reserve.py that caught sqlite3.IntegrityError, as it did."""
    named = set()
    for path, nodes in parsed().items():
        for node in nodes:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.partition(".")[0] == "sqlite3" for name in names):
                named.add(str(path.relative_to(LIB).with_suffix("")))
    assert named == {f"ledger/{name}" for name in OF_SQLITE}


def test_statements_stand_in_one_place() -> None:
    """No SQL in a module that is not SQLite's own."""
    for path, nodes in parsed().items():
        if path.parent.name == "ledger" and path.stem in OF_SQLITE:
            continue
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.match(r"\s*(SELECT .* FROM|INSERT INTO|UPDATE \w+ SET|DELETE FROM)\b", node.value), path


def test_whatever_writes_holds_is_named_so_and_is_sealed() -> None:
    """`Ledger.write` goes by the name. Broken on purpose: `holds_lift_all`."""
    for name, text in QUERIES.items():
        if re.match(r"(INSERT INTO|UPDATE|DELETE FROM) holds\b", text):
            assert name.startswith("hold_"), name


def test_every_query_is_used_and_what_a_firing_runs_is_planned_by_an_index(tmp_path: Path) -> None:
    """A query on the way to a refusal must not slow down with history: no SCAN of a table, no temporary B-tree."""
    ledger = new_ledger(tmp_path)
    used = "".join(p.read_text() for p in Path(db.__file__).parent.glob("*.py"))
    for name, text in QUERIES.items():
        assert re.search(rf'"{name}"', used) or name.startswith("prune_"), f"{name} is used nowhere"
        values = dict.fromkeys(re.findall(r":(\w+)", text), 1)
        plan = [row[3] for row in ledger._connection.execute("EXPLAIN QUERY PLAN " + text, values)]
        if BY_HAND.match(name):
            continue
        scans = [s for s in plan if s.startswith("SCAN") and "USING" not in s and "CONSTANT ROW" not in s]
        assert not scans, f"{name}: {plan}"
        assert name in SORTED or not any("TEMP B-TREE" in step for step in plan), f"{name}: {plan}"
