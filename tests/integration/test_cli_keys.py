"""``perdure keys``, straight in the database."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure.access.keys import authenticate
from perdure.db import connect
from perdure.errors import UnauthorizedError
from tests.cli_support import perdure, perdure_json


def principal_of(url: str, key: str) -> Any:
    async def ask() -> Any:
        async with await connect(url) as conn:
            return await authenticate(conn, key)

    return asyncio.run(ask())


def test_a_key_is_printed_once_and_works_until_it_is_revoked(database_url: str) -> None:
    made = perdure_json(
        *("keys", "create", "--name", "ci", "--subject", "alice@example.com"),
        env={"DATABASE_URL": database_url},
    )

    assert made["object"] == "key"
    assert made["roles"] == ["runs:read", "runs:write", "decisions:write"]
    assert principal_of(database_url, made["key"]).subject == "alice@example.com"

    [listed] = perdure_json("keys", "list", env={"DATABASE_URL": database_url})["data"]
    shown = perdure("keys", "list", env={"DATABASE_URL": database_url}).stdout
    assert listed["id"] == made["id"]
    assert "key" not in listed
    assert made["key"] not in shown
    assert made["key"][:8] in shown
    assert "active" in shown

    revoked = perdure_json("keys", "revoke", made["id"], env={"DATABASE_URL": database_url})
    assert revoked["revoked_at"] is not None
    assert "revoked" in perdure("keys", "list", env={"DATABASE_URL": database_url}).stdout
    with pytest.raises(UnauthorizedError):
        principal_of(database_url, made["key"])


def test_for_people_it_says_to_keep_it(database_url: str) -> None:
    done = perdure("keys", "create", "--role", "runs:read", env={"DATABASE_URL": database_url})

    fields = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert principal_of(database_url, fields["key"]).roles == {"runs:read"}
    assert "not shown again" in done.stderr


def test_a_tenant_is_made_with_its_first_key_and_not_by_asking(database_url: str) -> None:
    unknown = perdure(
        "keys", "list", "--tenant", "acme", code=1, env={"DATABASE_URL": database_url}
    )
    assert unknown.stderr.startswith("Error: There is no tenant acme here.")

    made = perdure_json("keys", "create", "--tenant", "acme", env={"DATABASE_URL": database_url})
    listed = perdure_json("keys", "list", "--tenant", "acme", env={"DATABASE_URL": database_url})
    assert [key["id"] for key in listed["data"]] == [made["id"]]
    assert perdure_json("keys", "list", env={"DATABASE_URL": database_url})["data"] == []

    perdure("keys", "revoke", made["id"], code=1, env={"DATABASE_URL": database_url})
    perdure("keys", "revoke", made["id"], "--tenant", "acme", env={"DATABASE_URL": database_url})


def test_no_keys_yet(database_url: str) -> None:
    done = perdure("keys", "list", env={"DATABASE_URL": database_url})

    assert done.stdout == ""
    assert done.stderr == "No keys yet. Create one: perdure keys create --name NAME\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "--role", "king"], "'king' is no role; use runs:read, "),
        (["create", "--name", "x" * 300], "/name: has to have 0 to 255 characters."),
        (["revoke", "01a20131-4a27-77ae-b605-6e01616eb463"], "There is no key 01a20131"),
    ],
)
def test_refusals(database_url: str, arguments: list[str], said: str) -> None:
    done = perdure("keys", *arguments, code=1, env={"DATABASE_URL": database_url})

    assert done.stderr.startswith(f"Error: {said}")


def test_a_database_that_is_not_migrated(empty_database_url: str) -> None:
    done = perdure("keys", "list", code=1, env={"DATABASE_URL": empty_database_url})

    assert done.stderr.startswith("Error: The database lacks ")
    assert "perdure migrate" in done.stderr


def test_no_database_is_named() -> None:
    assert perdure("keys", "list", code=1).stderr.startswith("Error: DATABASE_URL is not set.")
