"""``perdure keys``: service keys, straight in the database of ``DATABASE_URL``."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import typer

from perdure.access import keys
from perdure.access.principals import DEFAULT_ROLES, DEFAULT_TENANT, Role
from perdure.cli.client import checked_id
from perdure.cli.database import tenant_named, whoever_this_is, with_database
from perdure.cli.help import examples
from perdure.cli.output import ago, print_fields, print_json, print_note, print_table
from perdure.cli.pages import Json
from perdure.db import Connection
from perdure.times import rfc3339

app = typer.Typer(
    help="Make, list and revoke keys for `perdure serve`, in the database of DATABASE_URL.",
    no_args_is_help=True,
    epilog=examples(
        "perdure keys create --name ci --subject alice@example.com",
        "perdure keys list",
        "perdure keys revoke 01a20131-4a27-77ae-b605-6e01616eb463",
    ),
)

Tenant = Annotated[
    str | None, typer.Option(metavar="NAME", help="The tenant; by default the one there always is.")
]


def register(parent: typer.Typer) -> None:
    """Add the commands to those of ``perdure``."""
    parent.add_typer(app, name="keys")


@app.command(
    epilog=examples(
        "perdure keys create --name ci",
        "perdure keys create --subject alice@example.com --role decisions:write --role runs:read",
        "perdure keys create --subject bob@example.com --group finance",
        "export PERDURE_API_KEY=$(perdure keys create --json | jq -r .key)",
    ),
)
def create(
    name: Annotated[str, typer.Option(metavar="TEXT", help="What it is for.")] = "",
    subject: Annotated[
        str | None, typer.Option(metavar="WHO", help="The person or system who will use it.")
    ] = None,
    tenant: Tenant = None,
    role: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE",
            help=f"{', '.join(Role)}; may be given more than once. By default all but admin.",
        ),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="What its holder belongs to, for policies; may be given more than once.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Create a key and print it: once, it is stored as a hash alone. A new tenant is made."""

    async def make(conn: Connection) -> keys.NewKey:
        async with conn.transaction():
            tenant_id = (
                DEFAULT_TENANT if tenant is None else await keys.find_or_make_tenant(conn, tenant)
            )
            return await keys.create_key(
                conn,
                name=name,
                subject=subject,
                tenant_id=tenant_id,
                roles=role or DEFAULT_ROLES,
                groups=group or (),
                by=whoever_this_is(),
            )

    made = with_database(make, name="keys")
    if as_json:
        print_json({**_as_json(made.api_key), "key": made.secret})
        return
    print_fields(
        {
            "key": made.secret,
            "id": str(made.api_key.id),
            "roles": ", ".join(made.api_key.roles),
            "groups": ", ".join(made.api_key.groups) or None,
            "subject": made.api_key.subject,
        }
    )
    print_note("\nKeep it now: it is not shown again. Use it: export PERDURE_API_KEY=…")


@app.command("list", epilog=examples("perdure keys list", "perdure keys list --json"))
def list_keys(tenant: Tenant = None, as_json: Json = False) -> None:
    """List a tenant's keys, revoked ones too: everything but the keys themselves."""

    async def read(conn: Connection) -> list[keys.ApiKey]:
        async with conn.transaction():
            tenant_id = await tenant_named(conn, tenant)
            return await keys.list_keys(conn, tenant_id=tenant_id)

    found = with_database(read, name="keys")
    if as_json:
        print_json({"object": "list", "data": [_as_json(key) for key in found]})
    elif not found:
        print_note("No keys yet. Create one: perdure keys create --name NAME")
    else:
        print_table(
            ["id", "key", "name", "subject", "status", "used", "roles", "groups"],
            [
                [
                    str(key.id),
                    f"{key.hint}…",
                    key.name or "-",
                    key.subject or "-",
                    "active" if key.revoked_at is None else "revoked",
                    "never"
                    if key.last_used_at is None
                    else f"{ago(rfc3339(key.last_used_at))} ago",
                    ", ".join(key.roles),
                    ", ".join(key.groups) or "-",
                ]
                for key in found
            ],
        )


@app.command(epilog=examples("perdure keys revoke 01a20131-4a27-77ae-b605-6e01616eb463"))
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, not the key.")],
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Make a key worthless, from now on and for good."""
    id_ = UUID(checked_id("key", key_id))

    async def make_worthless(conn: Connection) -> keys.ApiKey:
        tenant_id = await tenant_named(conn, tenant)
        return await keys.revoke_key(conn, id_, tenant_id=tenant_id, by=whoever_this_is())

    revoked = with_database(make_worthless, name="keys")
    if as_json:
        print_json(_as_json(revoked))
    else:
        print_fields({"revoked": str(revoked.id), "key": f"{revoked.hint}…"})


def _as_json(key: keys.ApiKey) -> dict[str, Any]:
    return {
        "id": str(key.id),
        "object": "key",
        "name": key.name,
        "subject": key.subject,
        "roles": list(key.roles),
        "groups": list(key.groups),
        "hint": key.hint,
        "created_at": rfc3339(key.created_at),
        "last_used_at": rfc3339(key.last_used_at),
        "revoked_at": rfc3339(key.revoked_at),
    }
