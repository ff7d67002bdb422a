"""Ids, named SQL and pools."""

from __future__ import annotations

import ast
import asyncio
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from uuid import RFC_4122, UUID

import psycopg
import pytest
from psycopg import errors
from psycopg_pool import PoolTimeout

from perdure.db import (
    Pool,
    Statements,
    connection_options,
    first_id,
    is_infrastructure,
    load_sql,
    open_pool,
    uuid7,
)
from perdure.errors import (
    ConfigurationError,
    LedgerRejected,
    LedgerUnavailable,
    UnavailableError,
)
from tests.loopback.pg_proxy import pg_proxy

SOURCES = Path(__file__).parents[2] / "src"


def timestamp(value: UUID) -> datetime:
    return datetime.fromtimestamp((value.int >> 80) / 1000, UTC)


class TestUuid7:
    def test_is_of_version_7_and_carries_the_time(self) -> None:
        before = datetime.now(UTC) - timedelta(milliseconds=1)
        value = uuid7()
        assert value.version == 7
        assert value.variant == RFC_4122
        assert before <= timestamp(value) <= datetime.now(UTC) + timedelta(milliseconds=1)

    def test_the_first_of_a_moment_is_none_after_it(self) -> None:
        before = datetime.now(UTC)
        one = uuid7()
        assert first_id(before) <= one < first_id(datetime.now(UTC), later=timedelta(seconds=1))
        far = timezone(timedelta(hours=-14))
        last = first_id(datetime.max.replace(tzinfo=far), later=timedelta(days=1))
        assert first_id(datetime.min.replace(tzinfo=UTC), later=-timedelta(days=1)) < one < last
        assert (last.version, last.variant) == (7, "specified in RFC 4122")

    def test_rises_within_one_millisecond(self) -> None:
        values = [uuid7() for _ in range(20_000)]
        assert values == sorted(set(values))
        assert len({timestamp(value) for value in values}) < len(values)

    def test_rises_when_the_clock_steps_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        first = uuid7()
        monkeypatch.setattr("time.time_ns", lambda: 1_000_000_000)
        assert uuid7() > first

    def test_threads_never_get_the_same(self) -> None:
        with ThreadPoolExecutor(4) as threads:
            values = list(threads.map(lambda _: uuid7(), range(4000)))
        assert len(set(values)) == 4000

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
    def test_a_forked_child_counts_on_its_own(self) -> None:
        parent_counter = (uuid7().int >> 32) & ((1 << 30) - 1)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writer, uuid7().bytes)
            os._exit(0)
        os.waitpid(child, 0)
        counter = (UUID(bytes=os.read(reader, 16)).int >> 32) & ((1 << 30) - 1)
        os.close(reader)
        os.close(writer)
        assert counter != parent_counter + 1


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "sql_for_test"
    directory.mkdir()
    (directory / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, directory.name, raising=False)
    return directory


class TestNamedSql:
    def test_blocks_by_name_without_comments(self, package: Path) -> None:
        (package / "q.sql").write_text(
            "-- What follows is 100% read.\n\n"
            "-- name: one\n-- a percent sign: %\nSELECT 1\n WHERE %(x)s;\n"
            "-- name: two\nSELECT '--', 2\n"
        )
        statements = load_sql("sql_for_test", "q.sql")
        assert dict(statements) == {"one": "SELECT 1\n WHERE %(x)s", "two": "SELECT '--', 2"}

    def test_a_missing_name_says_what_there_is(self) -> None:
        statements = Statements("a/b.sql", {"one": "SELECT 1", "two": "SELECT 2"})
        with pytest.raises(KeyError, match=r"a/b\.sql has no statement named 'three'; .*one, two"):
            statements["three"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("SELECT 1\n-- name: one\nSELECT 2", r"q\.sql:1: SQL before"),
            ("-- name: one\nSELECT 1\n-- name: one\nSELECT 2", r"q\.sql:3: 'one' is there twice"),
            ("-- name: one\n-- nothing\n-- name: two\nSELECT 2", "nothing stands under one"),
        ],
    )
    def test_a_wrong_file_is_refused_whole(self, package: Path, text: str, message: str) -> None:
        (package / "q.sql").write_text(text)
        with pytest.raises(ValueError, match=message):
            load_sql("sql_for_test", "q.sql")

    def test_a_missing_file(self) -> None:
        with pytest.raises(LookupError, match=r"There is no perdure/nothing\.sql"):
            load_sql("perdure", "nothing.sql")


def sql_in_use(source: Path) -> Iterator[tuple[str, str, set[str], set[str]]]:
    """Each ``NAME = load_sql(package, file)`` of a module.

    With it go the names that are looked up in ``NAME`` and, wider, all strings of the module.
    """
    tree = ast.parse(source.read_text())
    strings = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Assign(
                targets=[ast.Name(id=variable)],
                value=ast.Call(
                    func=ast.Name(id="load_sql"),
                    args=[ast.Constant(value=str(package)), ast.Constant(value=str(file))],
                ),
            ):
                looked_up = {
                    inner.slice.value
                    for inner in ast.walk(tree)
                    if isinstance(inner, ast.Subscript)
                    and isinstance(inner.value, ast.Name)
                    and inner.value.id == variable
                    and isinstance(inner.slice, ast.Constant)
                    and isinstance(inner.slice.value, str)
                }
                yield package, file, looked_up, strings


def test_every_statement_the_sources_name_is_there_and_none_is_dead() -> None:
    mentioned: dict[tuple[str, str], set[str]] = {}
    for source in SOURCES.rglob("*.py"):
        for package, file, looked_up, strings in sql_in_use(source):
            missing = looked_up - set(load_sql(package, file))
            assert not missing, f"{source.name} looks for {missing} in {package}/{file}"
            mentioned.setdefault((package, file), set()).update(strings)
    assert ("perdure", "migrate.sql") in mentioned
    for (package, file), strings in mentioned.items():
        dead = set(load_sql(package, file)) - strings
        assert not dead, f"nobody uses {dead} of {package}/{file}"


async def _one(pool: Pool) -> None:
    async with pool.connection(60) as conn:
        await conn.execute("SELECT 1")


async def _write(pool: Pool, before: str) -> None:
    async with pool.connection() as conn:
        await conn.execute(before.encode())
        await conn.execute("CREATE TABLE never (x int)")


@pytest.mark.parametrize(
    ("error", "waited_out"),
    [
        (errors.ConnectionFailure(), True),
        (errors.AdminShutdown(), True),
        (errors.CrashShutdown(), True),
        (errors.CannotConnectNow(), True),
        (errors.QueryCanceled(), True),
        (errors.IdleSessionTimeout(), True),
        (errors.TooManyConnections(), True),
        (errors.DiskFull(), True),
        (errors.OutOfMemory(), True),
        (errors.IoError(), True),
        (errors.LockNotAvailable(), True),
        (errors.DeadlockDetected(), True),
        (errors.SerializationFailure(), True),
        (errors.ReadOnlySqlTransaction(), True),
        (errors.IdleInTransactionSessionTimeout(), True),
        (errors.TransactionTimeout(), True),
        (errors.InvalidSqlStatementName(), True),
        (psycopg.OperationalError("the connection is lost"), True),
        (PoolTimeout(), True),
        (UnavailableError("away"), True),
        (LedgerUnavailable("r", doing="this"), True),
        # A row that is too large for its index will be so tomorrow.
        (errors.ProgramLimitExceeded(), False),
        (errors.ObjectNotInPrerequisiteState(), False),
        (errors.InFailedSqlTransaction(), False),
        (errors.CheckViolation(), False),
        (errors.UndefinedTable(), False),
        (errors.InsufficientPrivilege(), False),
        (errors.UntranslatableCharacter(), False),
        (psycopg.InterfaceError("the cursor is closed"), False),
        (OSError("no route to host"), False),
        (LedgerRejected("r", doing="this", reason="no"), False),
        (None, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_what_is_waited_out(error: BaseException | None, waited_out: bool) -> None:
    assert is_infrastructure(error) is waited_out


class TestConnections:
    def test_what_the_url_sets_is_left_to_it(self) -> None:
        options = connection_options(
            "postgresql://h/db?connect_timeout=3&options=-c%20statement_timeout%3D5", "me"
        )
        assert "connect_timeout" not in options
        assert options["application_name"] == "me"
        assert options["options"] == "-c statement_timeout=5 -c timezone=UTC"
        assert options["keepalives"] == 1

    def test_a_url_that_is_none_does_not_show_its_password(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            connection_options("postgresql://u:hidden@h:port:x/db?nonsense=1")
        assert "hidden" not in str(caught.value)

    async def test_a_pool_gives_dictionaries_in_utc_and_commits_by_itself(
        self, server_url: str
    ) -> None:
        async with await open_pool(server_url) as pool, pool.connection() as conn:
            cursor = await conn.execute(
                "SELECT current_setting('timezone') AS zone,"
                " current_setting('application_name') AS name"
            )
            assert await cursor.fetchone() == {"zone": "UTC", "name": "perdure"}
            assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE

    async def test_a_pool_survives_its_connections(self, server_url: str) -> None:
        async with await open_pool(server_url, max_size=1) as pool:
            async with pool.connection() as conn:
                victim = conn.info.backend_pid
            async with await psycopg.AsyncConnection.connect(server_url, autocommit=True) as other:
                await other.execute("SELECT pg_terminate_backend(%s, 5000)", (victim,))
            async with pool.connection() as conn:
                assert conn.info.backend_pid != victim

    async def test_all_that_died_together_are_replaced_at_once(self, server_url: str) -> None:
        async with await open_pool(server_url, 5, 5) as pool:
            async with await psycopg.AsyncConnection.connect(server_url, autocommit=True) as other:
                await other.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                    " WHERE application_name = 'perdure' AND pid <> pg_backend_pid()"
                )
            # One found dead after the other would cost 0, 1, 2 and 4 seconds.
            async with asyncio.timeout(3), pool.connection() as conn:
                assert not conn.closed

    async def test_who_need_not_wait_learns_at_once_that_it_is_refused(
        self, server_url: str
    ) -> None:
        with pg_proxy(server_url) as proxy:
            async with await open_pool(proxy.url, 2, 2) as pool:
                proxy.refuse()
                for _ in range(2):
                    # That a connection is lost may be seen only when it is used.
                    with pytest.raises(UnavailableError):
                        async with asyncio.timeout(3), pool.prompt(60) as conn:
                            await conn.execute("SELECT 1")
                patient = asyncio.create_task(_one(pool))
                for _ in range(3):
                    with pytest.raises(UnavailableError, match="nothing was done"):
                        async with asyncio.timeout(3), pool.prompt(60):
                            pass
                assert not patient.done()
                proxy.accept()
                # The pauses psycopg's own pool makes have no end in sight by now.
                async with asyncio.timeout(3):
                    await patient
                    async with pool.prompt(0.5) as conn:
                        assert not conn.closed

    async def test_who_need_not_wait_is_not_held_up_by_silence(self, server_url: str) -> None:
        with pg_proxy(server_url) as proxy:
            async with await open_pool(proxy.url, 1, 1) as pool:
                proxy.freeze()
                with pytest.raises(UnavailableError, match="is not known"):
                    async with asyncio.timeout(3), pool.prompt(1, answer_within=0.1) as conn:
                        await conn.execute("SELECT 1")
                with pytest.raises(UnavailableError, match="nothing was done"):
                    async with asyncio.timeout(3), pool.prompt(0.1):
                        pass
                proxy.thaw()
                async with pool.connection() as conn:
                    await conn.execute("SELECT 1")

    async def test_a_session_that_met_trouble_is_not_used_again(self, server_url: str) -> None:
        async with await open_pool(server_url, 1, 1) as pool:
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                await _write(pool, "SET default_transaction_read_only = on")
            async with pool.connection() as conn:
                cursor = await conn.execute("SHOW default_transaction_read_only")
                assert await cursor.fetchone() == {"default_transaction_read_only": "off"}

    async def test_a_server_that_is_not_there(self, unused_tcp_port: int) -> None:
        url = f"postgresql://perdure:hidden@127.0.0.1:{unused_tcp_port}/x"
        with pytest.raises(UnavailableError, match=r"did not answer: .*refused") as caught:
            await open_pool(url, timeout=0.2)
        assert "hidden" not in str(caught.value)
