"""``perdure migrate`` against real databases."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from perdure.embedded.programs import program_directory, server_user
from perdure.migrate import load_migrations
from tests.cli_support import perdure, perdure_json

NAMES = [str(migration) for migration in load_migrations()]


def test_a_new_database_is_migrated_once(empty_database_url: str) -> None:
    first = perdure("migrate", env={"DATABASE_URL": empty_database_url})
    again = perdure("migrate", env={"DATABASE_URL": empty_database_url})

    assert first.stdout.splitlines() == [f"Applied {name}" for name in NAMES]
    assert again.stdout == "The database is up to date.\n"


def test_json_names_what_was_applied(empty_database_url: str) -> None:
    first = perdure_json("migrate", env={"DATABASE_URL": empty_database_url})
    again = perdure_json("migrate", env={"DATABASE_URL": empty_database_url})

    assert first == {"object": "migration", "applied": NAMES}
    assert again == {"object": "migration", "applied": []}


def test_the_migration_role_is_another(empty_database_url: str) -> None:
    env = {
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:9/x",
    }
    perdure("migrate", env=env | {"PERDURE_MIGRATE_URL": empty_database_url})

    assert perdure_json("migrate", env={"DATABASE_URL": empty_database_url})["applied"] == []


@pytest.mark.parametrize("connected", [True, False])
def test_the_printed_sql_does_the_same(
    empty_database_url: str, tmp_path: Path, connected: bool
) -> None:
    env = {"DATABASE_URL": empty_database_url} if connected else {}
    file = tmp_path / "all.sql"
    file.write_text(perdure("migrate", "--sql", env=env).stdout)

    _psql(empty_database_url, file)

    assert perdure_json("migrate", env={"DATABASE_URL": empty_database_url})["applied"] == []
    left = perdure("migrate", "--sql", env={"DATABASE_URL": empty_database_url})
    assert left.stdout == "-- The database is up to date.\n"


def _psql(url: str, file: Path) -> None:
    program = program_directory(server_user(Path("/"))) / "psql"
    subprocess.run(
        [program, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", file, url],
        check=True,
        capture_output=True,
        cwd="/",
    )


def test_no_database_is_named() -> None:
    done = perdure("migrate", code=1)

    assert done.stdout == ""
    assert done.stderr.startswith("Error: DATABASE_URL is not set")


@pytest.mark.parametrize("options", [[], ["--sql"]], ids=str)
def test_a_database_that_is_not_there(options: list[str]) -> None:
    done = perdure(
        "migrate", *options, code=1, env={"DATABASE_URL": "postgresql://a@127.0.0.1:9/x"}
    )

    assert done.stderr.startswith("Error: The database did not answer: ")
    assert "Check DATABASE_URL" in done.stderr
