"""Plans of statements, and what in them reads a table that grows from end to end."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import psycopg
from psycopg import sql

import perdure
from perdure.db import Statements

_PLANNED = re.compile(r"\s*(?:SELECT|WITH|INSERT|UPDATE|DELETE)\b")
_FOR_ANY_TABLE = re.compile(r"\{[a-z]\w*\}")
_PLACEHOLDER = re.compile(r"%\((\w+)\)[sbt]|%[sbt]|%%")
_MANY = 0.1
"""A share of a table's rows: what reads more of it reads it whole."""
_SMALL = (
    "_open",
    "_due",
    "_active",
    "_expiring",
    "_reminding",
    "_uncertain",
    "_quarantined",
    "_pending",
)
"""Indexes of what is open hold few rows, however many there are."""


def statements() -> dict[str, str]:
    """Return each statement of the product by where it stands.

    Those of its files, and those put together of them where a module is read; not what is only a
    part of one of the latter, nor what is filled in with the name of one table or another.
    """
    found: dict[str, str] = {}
    for module in _modules():
        for name, value in vars(module).items():
            if isinstance(value, Statements):
                found |= {f"{module.__name__}.{key}": text for key, text in value.items()}
            found |= {f"{module.__name__}.{key}": text for key, text in _texts(name, value)}
    texts = {
        text: where
        for where, text in found.items()
        if _PLANNED.match(text) and not _FOR_ANY_TABLE.search(text)
    }
    heads = {text: text.split("(/*data*/)")[0] for text in texts}
    return {
        where: text
        for text, where in texts.items()
        if not any(heads[text] in other and other != text for other in texts)
    }


def _texts(name: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, str) and "\n" in value:
        yield name, value
    elif isinstance(value, tuple):
        for place, one in enumerate(value):
            yield from _texts(f"{name}[{place}]", one)


def _modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(perdure.__path__, "perdure."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def prepare(conn: psycopg.Connection[Any], statement: str, types: Mapping[str, str]) -> list[str]:
    """Prepare ``statement`` under the name ``asked``, as psycopg sends it; return its parameters.

    ``types`` are those of parameters the statement does not say it of.
    """
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%"
        name = match[1] or f"{len(names)}"
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    text = _PLACEHOLDER.sub(number, statement)
    given = f"({','.join(types.get(name, 'unknown') for name in names)})" if names else ""
    conn.execute("DEALLOCATE ALL")
    conn.execute(f"PREPARE asked {given} AS {text}")
    return names


def plan(
    conn: psycopg.Connection[Any], parameters: list[str], values: Mapping[str, Any]
) -> dict[str, Any]:
    """Return how Postgres would do what was prepared, with ``values`` (none: null)."""
    given = [sql.Literal(values.get(name)) for name in parameters]
    call = sql.SQL("({})").format(sql.SQL(", ").join(given)) if given else sql.SQL("")
    found = conn.execute(sql.SQL("EXPLAIN (FORMAT JSON) EXECUTE asked {}").format(call)).fetchone()
    assert found is not None
    [explained] = found[0]
    top: dict[str, Any] = explained["Plan"]
    return top


def reads_whole(top: dict[str, Any], sizes: Mapping[str, float]) -> list[str]:
    """Return what in a plan reads one of the tables of ``sizes`` (its rows) from end to end.

    That is a sequential scan, and whatever is guessed to read a large share of a table's rows
    before it has what it looks for: behind a limit it stops then.
    """
    return [
        f"{node['Node Type']} of {node['Relation Name']}"
        f" by {node.get('Index Name', 'nothing')}, {node['Plan Rows']} rows,"
        f" filter {node.get('Filter')}"
        for node, limit in _nodes(top)
        if node.get("Relation Name") in sizes and _is_whole(node, limit, sizes)
    ]


def _is_whole(node: Mapping[str, Any], limit: float | None, sizes: Mapping[str, float]) -> bool:
    if node["Node Type"] in ("ModifyTable", "Seq Scan"):
        return bool(node["Node Type"] == "Seq Scan")
    size, found = sizes[node["Relation Name"]], max(node["Plan Rows"], 1)
    if "Index Cond" in node or "Recheck Cond" in node:
        return bool(limit is None and found > _MANY * size)
    # Walked along: of what it passes, as many as are wanted have to fit.
    share = 1 if limit is None else min(1, limit / found)
    read = size if "Filter" in node and not _is_small(node) else found
    return bool(share * read > _MANY * size)


def _is_small(node: Mapping[str, Any]) -> bool:
    """Whether a scan has an index that holds little beside what it finds."""
    return any(word in node.get("Index Name", "") for word in _SMALL)


def _nodes(
    node: dict[str, Any], limit: float | None = None
) -> Iterator[tuple[dict[str, Any], float | None]]:
    """Each node of a plan, and what the nearest limit above lets through."""
    yield node, limit
    below = node["Plan Rows"] if node["Node Type"] == "Limit" else limit
    for child in node.get("Plans", ()):
        yield from _nodes(child, below)
