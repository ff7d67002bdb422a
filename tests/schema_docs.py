"""The database's schema as ``docs/schema.md`` shows it: read from a migrated database.

``python -m tests.schema_docs`` writes it; a test holds the page to the migrations.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from perdure import embedded
from perdure.migrate import migrate
from tests.conftest import scratch_directory, wait_until_stopped
from tests.docs_support import DOCS

PAGE = DOCS / "schema.md"

_HEAD = """# The schema

Every table and view, as the migrations make them. Written from the database by
`python -m tests.schema_docs`; a test holds it to the migrations.
[Architecture](architecture.md#tables) says how they belong together,
[Questions people ask](questions.md) what to ask them.

`run_events` is partitioned by range of `run_id`. Times are `timestamptz`, ids UUIDv7.
"""
_SCHEMAS = {
    "perdure": "What Perdure writes. Read it as you like; change it by its API alone.",
    "perdure_read": "Views to ask questions of. Nothing is written here.",
}
_RELATIONS = """
SELECT c.oid, c.relname AS name, c.relkind IN ('r', 'p') AS is_table,
       obj_description(c.oid, 'pg_class') AS comment
  FROM pg_class c
 WHERE c.relnamespace = %s::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
 ORDER BY c.relname
"""
_COLUMNS = """
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS required,
       a.attgenerated <> '' AS generated, pg_get_expr(d.adbin, d.adrelid) AS value,
       col_description(a.attrelid, a.attnum) AS comment
  FROM pg_attribute a
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attnum
"""
_CONSTRAINTS = """
SELECT conname AS name, contype AS type, pg_get_constraintdef(oid) AS text
  FROM pg_constraint
 WHERE conrelid = %s AND contype IN ('p', 'u', 'f', 'c') AND conparentid = 0
 ORDER BY array_position('{p,u,f,c}'::"char"[], contype), conname
"""
_INDEXES = """
SELECT pg_get_indexdef(i.indexrelid) AS text
  FROM pg_index i
 WHERE i.indrelid = %s
   AND NOT EXISTS (SELECT FROM pg_constraint k
                    WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u'))
 ORDER BY (SELECT relname FROM pg_class WHERE oid = i.indexrelid)
"""
_FUNCTIONS = """
SELECT p.proname AS name, pg_get_function_identity_arguments(p.oid) AS arguments,
       obj_description(p.oid, 'pg_proc') AS comment
  FROM pg_proc p
 WHERE p.pronamespace = 'perdure_read'::regnamespace ORDER BY p.proname
"""
_KINDS = {"p": "Key", "u": "Unique", "f": "References", "c": "Checks"}


class Database:
    """A migrated database, to be read."""

    def __init__(self, url: str) -> None:
        self._conn: psycopg.Connection[dict[str, Any]] = psycopg.connect(
            url, autocommit=True, row_factory=dict_row
        )
        # Names are then written without their schema only where they are built in.
        self._conn.execute("SET search_path = ''")

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self._conn.close()

    def ask(self, statement: str, *params: Any) -> list[dict[str, Any]]:
        """The rows of a statement."""
        return self._conn.execute(statement.encode(), params or None).fetchall()

    def uncommented(self) -> list[str]:
        """The tables, views, columns and functions that do not say what they are."""
        found = []
        for schema in _SCHEMAS:
            for relation in self.ask(_RELATIONS, schema):
                name = f"{schema}.{relation['name']}"
                found += [] if relation["comment"] else [name]
                found += [
                    f"{name}.{column['name']}"
                    for column in self.ask(_COLUMNS, relation["oid"])
                    if not column["comment"]
                ]
        return found + [one["name"] for one in self.ask(_FUNCTIONS) if not one["comment"]]

    def page(self) -> str:
        """The whole page."""
        parts = [_HEAD]
        for schema, what in _SCHEMAS.items():
            parts.append(f"## Schema `{schema}`\n\n{what}\n")
            parts += [
                "\n".join(self._relation(schema, relation)) + "\n"
                for relation in self.ask(_RELATIONS, schema)
            ]
        parts.append("## Functions of `perdure_read`\n\n" + "\n".join(self._functions()) + "\n")
        return "\n".join(parts)

    def _relation(self, schema: str, relation: dict[str, Any]) -> Iterator[str]:
        # Both schemas have tables of a name: their headings differ.
        name = relation["name"]
        yield f"### `{name if schema == 'perdure' else f'{schema}.{name}'}`"
        yield f"\n{relation['comment']}\n"
        if relation["is_table"]:
            yield "| column | type | | |\n| --- | --- | --- | --- |"
        else:
            yield "| column | type | |\n| --- | --- | --- |"
        for column in self.ask(_COLUMNS, relation["oid"]):
            cells = [f"`{column['name']}`", _cell(column["type"])]
            if relation["is_table"]:
                cells.append(_cell(_written(column)))
            yield f"| {' | '.join([*cells, _cell(column['comment'] or '')])} |"
        constraints = self.ask(_CONSTRAINTS, relation["oid"])
        lines = []
        for kind, title in _KINDS.items():
            found = [one for one in constraints if one["type"] == kind]
            lines += [f"- {title}: `{_short(one['text'])}`" for one in found if kind != "c"]
            lines += [
                f"- Check `{one['name']}`: `{_short(one['text'])}`" for one in found if kind == "c"
            ]
        lines += [
            f"- Index: `{_short(one['text'])}`" for one in self.ask(_INDEXES, relation["oid"])
        ]
        if lines:
            yield "\n" + "\n".join(lines)

    def _functions(self) -> Iterator[str]:
        for one in self.ask(_FUNCTIONS):
            yield f"- `{one['name']}({one['arguments']})`: {one['comment']}"


def _written(column: dict[str, Any]) -> str:
    parts = ["not null"] if column["required"] else []
    if column["generated"]:
        parts.append(f"always `{column['value']}`")
    elif column["value"]:
        parts.append(f"default `{column['value']}`")
    return ", ".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def _short(text: str) -> str:
    for noise in ("PRIMARY KEY ", "FOREIGN KEY ", "CHECK ", "CREATE ", "perdure."):
        text = text.replace(noise, "")
    return text.replace("::text", "").removeprefix("INDEX ")


async def _write(home: Path) -> None:
    async with embedded.running(home, durable=False) as server:
        await migrate(server.url)
        with Database(server.url) as database:
            PAGE.write_text(database.page(), encoding="utf-8")


if __name__ == "__main__":
    scratch = scratch_directory()
    asyncio.run(_write(scratch))
    wait_until_stopped(scratch)
    shutil.rmtree(scratch)
