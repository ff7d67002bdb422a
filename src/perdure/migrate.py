"""The database's schema: numbered SQL files, applied in order, forward only.

``migrations/NNNN_name.sql`` are plain SQL and can be run by hand instead, in order and each in one
transaction: ``psql -1 -v ON_ERROR_STOP=1 -f migrations/0001_runs.sql``. For that each file ends
by recording itself::

    INSERT INTO perdure.schema_migrations (version, name) VALUES (1, 'runs');

``migrate`` adds the checksum, whoever ran the file. One process migrates at a time; the others
wait for it and then find nothing left to do.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psycopg
from psycopg.rows import class_row

from perdure.db import Connection, connect, load_sql, unreachable
from perdure.errors import MigrationError
from perdure.roles import grant

__all__ = [
    "Applied",
    "Migration",
    "Status",
    "load_migrations",
    "migrate",
    "pending_sql",
    "read_status",
    "status",
]

_SQL = load_sql("perdure", "migrate.sql")
_TRY_LOCK = _SQL["try_lock"]
_UNLOCK = _SQL["unlock"]
_HAS_TABLE = _SQL["has_table"]
_CREATE_SCHEMA = _SQL["create_schema"]
_CREATE_TABLE = _SQL["create_table"]
_APPLIED = _SQL["applied"]
_RECORD = _SQL["record"]
_HAS_PARTITIONS = _SQL["has_partitions"]
_MAKE_PARTITIONS = _SQL["make_partitions"]
_LOG = logging.getLogger(__name__)

# "perdure" in ASCII.
_LOCK_KEY = 0x70657264757265
_LOCK_SECONDS = 300.0
_LOOK_SECONDS = 0.05
_FILE = re.compile(r"(?P<version>\d{4})_(?P<name>[a-z0-9_]+)\.sql")

SystemMigration = Callable[[str], None]
"""Brings DBOS's own tables in the database of a URL up to date; blocks."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file; ``checksum`` is ``sha256:<hex>`` over its text with Unix line ends."""

    version: int
    name: str
    sql: str
    checksum: str

    def __str__(self) -> str:
        return f"{self.version:04d}_{self.name}"


@dataclass(frozen=True, slots=True)
class Applied:
    """One row of ``perdure.schema_migrations``; no ``checksum`` where it was run by hand."""

    version: int
    name: str
    checksum: str | None
    applied_at: datetime

    def __str__(self) -> str:
        return f"{self.version:04d}_{self.name}"


@dataclass(frozen=True, slots=True)
class Status:
    """What a database has (``applied``), what it lacks (``pending``), and why they do not fit.

    ``problem`` is empty or a whole message.
    """

    applied: Sequence[Applied]
    pending: Sequence[Migration]
    problem: str = ""

    @property
    def up_to_date(self) -> bool:
        """Whether this build can work with the database as it is."""
        return not self.pending and not self.problem

    def require_current(self) -> None:
        """Raise ``MigrationError`` unless the database is up to date."""
        if self.problem:
            raise MigrationError(self.problem)
        if self.pending:
            names = ", ".join(map(str, self.pending))
            raise MigrationError(
                f"The database lacks {len(self.pending)} migration(s): {names}. "
                "Run `perdure migrate`."
            )


def default_directory() -> Path:
    """Return where the migrations are: inside the installed package, or the checkout's root."""
    package = Path(__file__).parent
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parents[1] / "migrations"


def load_migrations(directory: Path | None = None) -> list[Migration]:
    """Read the files of ``directory`` (this build's by default), in order.

    Raises:
        MigrationError: there are none, one has another kind of name, or a number is missing or
            there twice.
    """
    directory = default_directory() if directory is None else directory
    migrations = []
    for file in sorted(directory.glob("*.sql")):
        match = _FILE.fullmatch(file.name)
        if match is None:
            raise MigrationError(f"{file.name} is no name for a migration; call it NNNN_name.sql.")
        sql = file.read_text(encoding="utf-8")
        checksum = "sha256:" + hashlib.sha256(sql.encode()).hexdigest()
        migrations.append(Migration(int(match["version"]), match["name"], sql, checksum))
    if not migrations:
        raise MigrationError(f"There are no migrations in {directory}; reinstall perdure.")
    for expected, migration in enumerate(migrations, 1):
        if migration.version != expected:
            raise MigrationError(
                f"Migration {migration} stands where {expected:04d} should: each number once, "
                "none left out."
            )
    return migrations


async def migrate(
    url: str,
    *,
    directory: Path | None = None,
    system: SystemMigration | None = None,
    serving_role: str | None = None,
    lock_seconds: float = _LOCK_SECONDS,
) -> list[Migration]:
    """Bring the database of ``url`` up to date and return what was applied now, in order.

    ``system`` is called first, with ``url``, in a thread: DBOS's tables, which ours may lean on.
    Each file is applied in a transaction of its own; then the partitions of the coming months are
    made. ``serving_role``, where the tables are used by
    another role than that of ``url``, is granted what it needs. Others who migrate are waited for,
    up to ``lock_seconds``.

    Raises:
        MigrationError: the database is newer than this build, an applied file was changed, or
            a migration failed (those before it stay applied, nothing of it does).
        UnavailableError: the database cannot be reached.
    """
    migrations = load_migrations(directory)
    async with _connect(url) as conn, _lock(conn, lock_seconds):
        current = await _status(conn, migrations)
        if current.problem:
            raise MigrationError(current.problem)
        if system is not None:
            await asyncio.to_thread(system, url)
        by_hand = {row.version for row in current.applied if row.checksum is None}
        for migration in migrations:
            if migration.version in by_hand:
                await _record(conn, migration)
        for migration in current.pending:
            await _apply(conn, migration)
        await _make_partitions(conn)
        if serving_role is not None:
            await grant(conn, serving_role)
        return list(current.pending)


async def status(url: str, *, directory: Path | None = None) -> Status:
    """Compare the database of ``url`` with this build's migrations; changes nothing.

    Raises:
        UnavailableError: the database cannot be reached.
    """
    async with _connect(url) as conn:
        return await read_status(conn, directory=directory)


async def read_status(conn: Connection, *, directory: Path | None = None) -> Status:
    """Compare the database of an open connection with this build's migrations."""
    return await _status(conn, load_migrations(directory))


def pending_sql(migrations: Iterable[Migration]) -> str:
    """Return SQL for ``psql -v ON_ERROR_STOP=1 -f`` that applies and records ``migrations``."""
    parts = []
    for migration in migrations:
        values = f"{migration.version}, '{migration.name}', '{migration.checksum}'"
        parts.append(
            f"-- {migration}\nBEGIN;\n\n{migration.sql.strip()}\n\n"
            f"{_CREATE_SCHEMA};\n{_CREATE_TABLE};\n"
            # What the file recorded itself gets its checksum, as from `migrate`.
            "INSERT INTO perdure.schema_migrations (version, name, checksum)\n"
            f"VALUES ({values})\n"
            "ON CONFLICT (version) DO UPDATE SET checksum = excluded.checksum;\n\nCOMMIT;\n"
        )
    return "\n".join(parts)


@asynccontextmanager
async def _connect(url: str) -> AsyncIterator[Connection]:
    try:
        conn = await connect(url, application_name="perdure migrate")
    except psycopg.OperationalError as error:
        raise unreachable(error) from error
    async with conn:
        yield conn


@asynccontextmanager
async def _lock(conn: Connection, seconds: float) -> AsyncIterator[None]:
    # Tried, not waited for inside Postgres: a statement that waits holds a snapshot, and DBOS's
    # CREATE INDEX CONCURRENTLY waits for every snapshot to end. Each would wait for the other.
    deadline = time.monotonic() + seconds
    while not await _try_lock(conn):
        if time.monotonic() > deadline:
            raise MigrationError(
                f"Another process has been migrating this database for {seconds:g} s. "
                "Wait for it, or look for its session in pg_stat_activity "
                "(application_name 'perdure migrate')."
            )
        await asyncio.sleep(_LOOK_SECONDS)
    try:
        yield
    finally:
        if not conn.closed:
            await conn.execute(_UNLOCK, {"key": _LOCK_KEY})


async def _try_lock(conn: Connection) -> bool:
    row = await (await conn.execute(_TRY_LOCK, {"key": _LOCK_KEY})).fetchone()
    return row is not None and bool(row["locked"])


async def _status(conn: Connection, migrations: Sequence[Migration]) -> Status:
    row = await (await conn.execute(_HAS_TABLE)).fetchone()
    applied: list[Applied] = []
    if row is not None and row["present"]:
        async with conn.cursor(row_factory=class_row(Applied)) as cursor:
            applied = await (await cursor.execute(_APPLIED)).fetchall()
    return _compare(applied, migrations)


def _compare(applied: Sequence[Applied], migrations: Sequence[Migration]) -> Status:
    known = {migration.version: migration for migration in migrations}
    done = {row.version for row in applied}
    pending = [migration for migration in migrations if migration.version not in done]
    newest = migrations[-1]
    problem = ""
    for row in applied:
        migration = known.get(row.version)
        if migration is None:
            problem = (
                f"The database is at migration {applied[-1]}, newer than this build, which ends "
                f"with {newest}. Use a newer perdure; migrations go forward only."
            )
        elif row.checksum is not None and row.checksum != migration.checksum:
            problem = (
                f"Migration {migration} was changed after it was applied on "
                f"{row.applied_at:%Y-%m-%d}. Restore the file and put the change into a new one."
            )
        if problem:
            break
    else:
        if pending and applied and pending[0].version < applied[-1].version:
            problem = (
                f"Migration {pending[0]} was left out: {applied[-1]} is applied already. "
                "Run its file by hand, then `perdure migrate` again."
            )
    return Status(tuple(applied), tuple(pending), problem)


async def _apply(conn: Connection, migration: Migration) -> None:
    try:
        async with conn.transaction():
            # Without parameters it goes as one simple query: any number of statements.
            await conn.execute(migration.sql)
            await conn.execute(_CREATE_SCHEMA)
            await conn.execute(_CREATE_TABLE)
            await _record(conn, migration)
    except psycopg.Error as error:
        position = error.diag.statement_position
        line = migration.sql.count("\n", 0, int(position) - 1) + 1 if position else None
        where = f" at line {line}" if line is not None else ""
        raise MigrationError(
            f"Migration {migration} failed{where}: {error.diag.message_primary or error}. "
            "Nothing of it was applied, what came before it was."
        ) from error


async def _make_partitions(conn: Connection) -> None:
    row = await (await conn.execute(_HAS_PARTITIONS)).fetchone()
    if row is None or not row["present"]:
        return
    try:
        await conn.execute(_MAKE_PARTITIONS)
    except psycopg.errors.LockNotAvailable:
        _LOG.warning(
            "The partitions of the coming months were not made: their tables are in use. "
            "Workers try again every hour."
        )


async def _record(conn: Connection, migration: Migration) -> None:
    await conn.execute(
        _RECORD,
        {"version": migration.version, "name": migration.name, "checksum": migration.checksum},
    )
