"""Migrations: by `migrate` or by hand, once, in order, forward only."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from perdure.db import Connection, connect
from perdure.embedded.programs import program_directory
from perdure.errors import MigrationError, UnavailableError
from perdure.migrate import (
    default_directory,
    load_migrations,
    migrate,
    pending_sql,
    read_status,
    status,
)
from perdure.runs.dbos_schema import dbos_sql, migrate_dbos
from tests.conftest import database_of

ONE = """
CREATE SCHEMA perdure;
CREATE TABLE perdure.first (id int PRIMARY KEY, note text DEFAULT '100%');
INSERT INTO perdure.first VALUES (1);
"""
TWO = "CREATE TABLE perdure.second (id int REFERENCES perdure.first);\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write(tmp_path, "0001_first.sql", ONE)
    write(tmp_path, "0002_second.sql", TWO)
    return tmp_path


def write(directory: Path, name: str, text: str) -> None:
    (directory / name).write_text(text)


def run(program: str, *args: str | Path) -> str:
    """Run one of the Postgres programs of the embedded server's package."""
    done = subprocess.run(
        [program_directory(None) / program, *args], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def psql(url: str, file: Path, *options: str) -> None:
    run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", *options, "-f", file, url)


def schema(url: str, name: str = "perdure") -> str:
    """Everything pg_dump knows about a schema, without what differs from dump to dump."""
    dump = run("pg_dump", "--schema-only", "--schema", name, url)
    return re.sub(r"^\\(un)?restrict .*$", "", dump, flags=re.MULTILINE)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    async with await connect(url) as conn:
        yield conn


class TestMigrate:
    async def test_in_order_and_once(self, empty_database_url: str, directory: Path) -> None:
        before = await status(empty_database_url, directory=directory)
        assert [str(m) for m in before.pending] == ["0001_first", "0002_second"]
        assert not before.up_to_date

        applied = await migrate(empty_database_url, directory=directory)
        assert applied == list(before.pending)
        assert await migrate(empty_database_url, directory=directory) == []

        async with connected(empty_database_url) as conn:
            after = await read_status(conn, directory=directory)
            cursor = await conn.execute("SELECT note FROM perdure.first")
            assert await cursor.fetchall() == [{"note": "100%"}]
        assert after.up_to_date
        after.require_current()
        assert [(row.version, row.name, row.checksum) for row in after.applied] == [
            (m.version, m.name, m.checksum) for m in applied
        ]

    async def test_a_new_file_is_all_that_is_applied(
        self, empty_database_url: str, directory: Path
    ) -> None:
        await migrate(empty_database_url, directory=directory)
        write(directory, "0003_third.sql", "CREATE TABLE perdure.third ();")
        with pytest.raises(MigrationError, match=r"lacks 1 migration.*0003_third.*perdure migrate"):
            (await status(empty_database_url, directory=directory)).require_current()
        applied = await migrate(empty_database_url, directory=directory)
        assert [str(m) for m in applied] == ["0003_third"]

    async def test_what_fails_leaves_nothing_behind(
        self, empty_database_url: str, directory: Path
    ) -> None:
        write(directory, "0002_second.sql", "CREATE TABLE perdure.half ();\n\nSELECT nonsense;\n")
        with pytest.raises(MigrationError, match='failed at line 3: column "nonsense"'):
            await migrate(empty_database_url, directory=directory)
        current = await status(empty_database_url, directory=directory)
        assert [str(row) for row in current.applied] == ["0001_first"]
        assert "half" not in schema(empty_database_url)

        write(directory, "0002_second.sql", TWO)
        assert len(await migrate(empty_database_url, directory=directory)) == 1

    async def test_an_applied_file_that_changed_is_refused(
        self, empty_database_url: str, directory: Path
    ) -> None:
        await migrate(empty_database_url, directory=directory)
        write(directory, "0001_first.sql", ONE + "-- harmless?\n")
        with pytest.raises(MigrationError, match="0001_first was changed after it was applied"):
            await migrate(empty_database_url, directory=directory)

    async def test_a_newer_database_is_left_alone(
        self, empty_database_url: str, directory: Path
    ) -> None:
        await migrate(empty_database_url, directory=directory)
        (directory / "0002_second.sql").unlink()
        called: list[str] = []
        with pytest.raises(MigrationError, match="at migration 0002_second, newer than this build"):
            await migrate(empty_database_url, directory=directory, system=called.append)
        assert called == []

    async def test_one_left_out_is_refused(self, empty_database_url: str, directory: Path) -> None:
        await migrate(empty_database_url, directory=directory)
        async with connected(empty_database_url) as conn:
            await conn.execute("DELETE FROM perdure.schema_migrations WHERE version = 1")
        with pytest.raises(MigrationError, match="0001_first was left out: 0002_second is applied"):
            await migrate(empty_database_url, directory=directory)

    async def test_nobody_waits_forever(self, empty_database_url: str, directory: Path) -> None:
        holding, leave = asyncio.Event(), asyncio.Event()

        def hold_up(_url: str) -> None:
            asyncio.run_coroutine_threadsafe(held(), loop).result()

        async def held() -> None:
            holding.set()
            await leave.wait()

        loop = asyncio.get_running_loop()
        first = asyncio.create_task(
            migrate(empty_database_url, directory=directory, system=hold_up)
        )
        await holding.wait()
        with pytest.raises(MigrationError, match=r"Another process .* pg_stat_activity"):
            await migrate(empty_database_url, directory=directory, lock_seconds=0)
        leave.set()
        assert len(await first) == 2

    async def test_no_server(self, unused_tcp_port: int) -> None:
        with pytest.raises(UnavailableError, match="did not answer"):
            await migrate(f"postgresql://nobody@127.0.0.1:{unused_tcp_port}/x")

    @pytest.mark.parametrize(
        ("files", "message"),
        [
            ([], "There are no migrations"),
            (["1_one.sql"], r"1_one\.sql is no name"),
            (["0002_two.sql"], "0002_two stands where 0001 should"),
            (["0001_one.sql", "0001_two.sql"], "0001_two stands where 0002 should"),
            (["0001_one.sql", "0003_three.sql"], "0003_three stands where 0002 should"),
        ],
    )
    def test_files_that_make_no_sequence(
        self, tmp_path: Path, files: list[str], message: str
    ) -> None:
        for name in files:
            write(tmp_path, name, "SELECT 1")
        with pytest.raises(MigrationError, match=message):
            load_migrations(tmp_path)

    def test_line_ends_do_not_count(self, tmp_path: Path) -> None:
        sums = set()
        for text in (b"SELECT 1;\nSELECT 2;\n", b"SELECT 1;\r\nSELECT 2;\r\n"):
            (tmp_path / "0001_one.sql").write_bytes(text)
            sums.add(load_migrations(tmp_path)[0].checksum)
        assert len(sums) == 1


class TestByHand:
    """The files of this build, run with psql."""

    async def test_the_same_schema_and_nothing_left_to_do(
        self, empty_database_url: str, database_url: str
    ) -> None:
        await asyncio.to_thread(migrate_dbos, empty_database_url)
        for file in sorted(default_directory().glob("*.sql")):
            psql(empty_database_url, file, "-1")
        assert schema(empty_database_url) == schema(database_url)

        by_hand = await status(empty_database_url)
        assert by_hand.up_to_date
        assert {row.checksum for row in by_hand.applied} == {None}
        assert await migrate(empty_database_url, system=migrate_dbos) == []
        known = {m.version: m.checksum for m in load_migrations()}
        after = await status(empty_database_url)
        assert {row.version: row.checksum for row in after.applied} == known
        assert schema(empty_database_url) == schema(database_url)

    async def test_the_printed_script_does_the_same(
        self, empty_database_url: str, database_url: str, tmp_path: Path
    ) -> None:
        write(tmp_path, "all.sql", dbos_sql() + pending_sql(load_migrations()))
        psql(empty_database_url, tmp_path / "all.sql")
        for name in ("perdure", "dbos"):
            assert schema(empty_database_url, name) == schema(database_url, name)
        assert (await status(empty_database_url)).up_to_date
        assert await migrate(empty_database_url, system=migrate_dbos) == []

    async def test_a_script_for_files_that_do_not_record_themselves(
        self, empty_database_url: str, directory: Path
    ) -> None:
        write(directory, "script", pending_sql(load_migrations(directory)))
        psql(empty_database_url, directory / "script")
        current = await status(empty_database_url, directory=directory)
        assert current.up_to_date
        assert None not in {row.checksum for row in current.applied}


MIGRATE_IN_CHILDREN = """
import asyncio, os, sys
from perdure.migrate import migrate
from perdure.runs.dbos_schema import migrate_dbos

url, children = sys.argv[1], int(sys.argv[2])
gate, opener = os.pipe()
pids = []
for _ in range(children):
    pid = os.fork()
    if pid == 0:
        os.close(opener)
        os.read(gate, 1)
        applied = asyncio.run(migrate(url, system=migrate_dbos))
        print(len(applied), flush=True)
        os._exit(0)
    pids.append(pid)
os.close(opener)
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids))
"""


def test_ten_processes_at_once(empty_database_url: str, database_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MIGRATE_IN_CHILDREN, empty_database_url, "10"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    applied = sorted(map(int, done.stdout.split()))
    assert applied == [0] * 9 + [len(load_migrations())]
    for name in ("perdure", "dbos"):
        assert schema(empty_database_url, name) == schema(database_url, name)


def test_dbos_says_what_went_wrong(server_url: str, empty_database_url: str) -> None:
    role = database_of(empty_database_url)
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'hidden'")
        try:
            url = re.sub(r"//[^@]*@", f"//{role}:hidden@", empty_database_url)
            with pytest.raises(MigrationError, match="permission denied") as caught:
                migrate_dbos(url)
            assert "hidden" not in str(caught.value)
        finally:
            conn.execute(f"DROP ROLE {role}")
