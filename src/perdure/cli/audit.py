"""``perdure audit``: who did what, and whether that record is as it was written."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import typer

from perdure.audit import queries
from perdure.audit.erasing import erase
from perdure.audit.verification import Broken, Head, Verification
from perdure.audit.verify import tenants, verify
from perdure.cli.client import checked_id
from perdure.cli.database import tenant_named, whoever_this_is, with_database
from perdure.cli.help import examples
from perdure.cli.keys import Tenant
from perdure.cli.output import (
    print_error,
    print_fields,
    print_json,
    print_note,
    print_table,
    print_text,
)
from perdure.cli.pages import Json
from perdure.config import Settings
from perdure.db import Connection
from perdure.paging import DEFAULT_LIMIT, MAX_LIMIT, Page, PageRequest
from perdure.times import rfc3339

_BROKEN = 1

app = typer.Typer(
    help="Who did what, and whether that record still is as it was written, in the database of "
    "DATABASE_URL.",
    no_args_is_help=True,
    epilog=examples(
        "perdure audit list --actor alice@example.com",
        "perdure audit verify",
        "perdure audit export > audit.jsonl",
        "perdure audit erase --subject alice@example.com",
    ),
)


def register(parent: typer.Typer) -> None:
    """Add the commands to those of ``perdure``."""
    parent.add_typer(app, name="audit")


@app.command(
    "list",
    epilog=examples(
        "perdure audit list",
        "perdure audit list --run 01a20131-4a27-77ae-b605-6e01616eb463 --json",
        "perdure audit list --kind interruption.decided --actor alice@example.com",
    ),
)
def list_entries(
    run: Annotated[str | None, typer.Option(metavar="ID", help="Of this run alone.")] = None,
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="Such as interruption.decided.")
    ] = None,
    actor: Annotated[
        str | None,
        typer.Option(metavar="WHO", help="What this person did, whether erased since or not."),
    ] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, max=MAX_LIMIT, help="So many at most.")
    ] = DEFAULT_LIMIT,
    after: Annotated[
        str | None, typer.Option(metavar="ID", help="Go on after the row with this id.")
    ] = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """List who did what, the newest first."""
    only = queries.AuditFilter(
        run_id=None if run is None else UUID(checked_id("run", run)), kind=kind, actor=actor
    )
    page = PageRequest(limit, None if after is None else UUID(checked_id("row", after)))

    async def read(conn: Connection) -> Page:
        tenant_id = await tenant_named(conn, tenant)
        return await queries.list_entries(conn, tenant_id=tenant_id, only=only, page=page)

    found = with_database(read, name="audit")
    if as_json:
        print_json(found.as_dict())
        return
    if not found.data:
        print_note("Nothing has been recorded yet, or nothing fits.")
        return
    print_table(
        ["id", "at", "kind", "who", "from", "seal", "what"],
        [
            [
                str(one["id"]),
                one["at"],
                one["kind"],
                _who(one),
                one["source"] or "-",
                "-" if one["seal"] is None else str(one["seal"]),
                f"{one['subject']['type']} {one['subject']['id']}",
            ]
            for one in found.data
        ],
    )
    if found.has_more:
        print_note(f"There are more: --after {found.data[-1]['id']}")


def _who(entry: Any) -> str:
    actor = entry["actor"]
    if actor is None:
        return "-"
    if "who" in entry["erased"]:
        return f"(erased, {actor['pseudonym'][:8]})"
    return str(actor["subject"] or f"{actor['type']}:{actor['id'] or ''}")


@app.command(
    "verify",
    epilog=examples(
        "perdure audit verify",
        "perdure audit verify --all-tenants --json",
        "perdure audit verify --expect $(cat head.txt)   a head that was printed earlier",
    ),
)
def verify_chain(
    expect: Annotated[
        str | None,
        typer.Option(
            metavar="HEAD",
            help="A head that was printed earlier and kept elsewhere: the chain has to hold it.",
        ),
    ] = None,
    tenant: Tenant = None,
    all_tenants: Annotated[
        bool, typer.Option("--all-tenants", help="Look at every tenant's chain.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Look whether the audit still is as it was written, and name the first row that is not.

    With PERDURE_SECRET_KEYS the end of the chain has to be signed by one of them; without, the
    hashes alone are looked at, which who owns the tables could have made anew. The head that is
    printed, kept where that owner cannot reach, shows later whether the end was cut. The exit code
    is 1 if something is broken.
    """
    if all_tenants and (tenant is not None or expect is not None):
        raise typer.BadParameter("--all-tenants goes with neither --tenant nor --expect.")
    head = None if expect is None else Head.parse(expect)
    keys = Settings.from_env().secret_keys

    async def look(conn: Connection) -> list[tuple[UUID, str, Verification]]:
        whose = await tenants(conn)
        if not all_tenants:
            wanted = await tenant_named(conn, tenant)
            whose = [one for one in whose if one[0] == wanted]
        return [
            (id_, name, await verify(conn, tenant_id=id_, keys=keys, expect=head))
            for id_, name in whose
        ]

    found = with_database(look, name="audit")
    if as_json:
        print_json(_verification_as_json(found, checked=bool(keys)))
    else:
        for number, (_, name, one) in enumerate(found):
            if number:
                print_text("")
            _show(name, one, checked=bool(keys))
    if any(one.broken is not None for _, _, one in found):
        raise typer.Exit(_BROKEN)


def _show(name: str, one: Verification, *, checked: bool) -> None:
    if not checked:
        signed = "not looked at: PERDURE_SECRET_KEYS is not set"
    else:
        signed = "none" if one.signed is None else f"up to seal {one.signed}"
    waiting = str(one.waiting)
    if one.waiting_since is not None:
        waiting += f", since {rfc3339(one.waiting_since)}"
    print_fields(
        {
            "tenant": name,
            "sealed": f"{one.rows} in {one.seals} seals",
            "signed": signed,
            "waiting": waiting,
            "erased": str(one.erased) if one.erased else None,
            "head": one.head or "none yet",
            "result": "as it was written" if one.broken is None else "BROKEN",
        }
    )
    if one.broken is not None:
        print_error(one.broken.message)


def _verification_as_json(
    found: list[tuple[UUID, str, Verification]], *, checked: bool
) -> dict[str, Any]:
    return {
        "object": "audit_verification",
        "ok": all(one.broken is None for _, _, one in found),
        "signatures_checked": checked,
        "tenants": [
            {
                "id": str(id_),
                "name": name,
                "ok": one.broken is None,
                "rows": one.rows,
                "seals": one.seals,
                "signed_up_to": one.signed,
                "waiting": one.waiting,
                "waiting_since": rfc3339(one.waiting_since),
                "erased": one.erased,
                "head": one.head,
                "broken": None if one.broken is None else _broken_as_json(one.broken),
            }
            for id_, name, one in found
        ],
    }


def _broken_as_json(broken: Broken) -> dict[str, Any]:
    row = broken.row
    return {
        "reason": broken.reason,
        "message": broken.message,
        "seal": broken.seal,
        "row": None
        if row is None
        else {"id": str(row.id), "kind": row.kind, "at": rfc3339(row.at)},
    }


@app.command(epilog=examples("perdure audit export > audit.jsonl"))
def export(tenant: Tenant = None) -> None:
    """Print all of a tenant's audit, one JSON object a line: rows by age, then seals.

    It has every column and the very texts the digests are of, as of one moment.
    """

    async def write(conn: Connection) -> None:
        tenant_id = await tenant_named(conn, tenant)
        async for one in queries.export(conn, tenant_id=tenant_id):
            print_text(queries.as_line(one))

    with_database(write, name="audit")


@app.command(
    "erase",
    epilog=examples(
        "perdure audit erase --subject alice@example.com",
        "perdure audit erase --subject user-4711 --tenant acme --json",
    ),
)
def erase_person(
    subject: Annotated[
        str,
        typer.Option(
            metavar="WHO", help="A key's subject, or the user_id of runs, as it was given then."
        ),
    ],
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Delete what is personal of somebody from the audit; it still verifies.

    Gone are name, key and address where they acted, and what it was about, also in rows on runs
    that were for them and on keys of theirs. Pseudonyms, kinds, times and digests stay. The
    erasure is recorded itself.
    """

    async def work(conn: Connection) -> int:
        tenant_id = await tenant_named(conn, tenant)
        return await erase(conn, tenant_id=tenant_id, person=subject, by=whoever_this_is())

    rows = with_database(work, name="audit")
    if as_json:
        print_json({"object": "audit_erasure", "rows": rows})
    else:
        print_fields({"erased from": f"{rows} rows"})
