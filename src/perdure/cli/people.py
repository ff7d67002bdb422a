"""``perdure users``: people erased from the database of ``DATABASE_URL``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from perdure.cli.database import tenant_named, whoever_this_is, with_database
from perdure.cli.help import examples
from perdure.cli.keys import Tenant
from perdure.cli.output import print_json, print_note, print_table
from perdure.cli.pages import Json
from perdure.config import Settings
from perdure.db import Connection

app = typer.Typer(
    help="Erase people, in the database of DATABASE_URL.",
    no_args_is_help=True,
    epilog=examples("perdure users erase alice --dry-run", "perdure users erase alice"),
)


def register(parent: typer.Typer) -> None:
    """Add the commands to those of ``perdure``."""
    parent.add_typer(app, name="users")


@app.callback()
def _group() -> None:
    # With one command alone Typer would leave its name out.
    pass


@app.command(
    epilog=examples(
        "perdure users erase alice --dry-run",
        "perdure users erase alice --cancel --json",
        "perdure users erase alice --tenant acme --archive /var/archive",
        "perdure users erase alice --shared keep",
    )
)
def erase(
    user_id: Annotated[str, typer.Argument(metavar="ID", help="The user_id of runs and sessions.")],
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Cancel what is not over first.")
    ] = False,
    shared: Annotated[
        str,
        typer.Option(
            metavar="HOW",
            help="Conversations of others they spoke in: refuse, erase (whole) or keep (all but "
            "what is theirs).",
        ),
    ] = "refuse",
    archive: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also their runs among the files of prune --archive."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would go, and change nothing.")
    ] = False,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Erase a user: runs, conversations, feedback, tokens, budgets, grants, and their name.

    Says what went, by table. Of the audit, pseudonyms and digests stay. Backups are yours to look
    after.
    """
    if shared not in ("refuse", "erase", "keep"):
        raise typer.BadParameter("--shared is refuse, erase or keep.")

    async def work(conn: Connection) -> dict[str, Any]:
        # DBOS is slow to import.
        from perdure.runs.keeping.archived import erase_archived
        from perdure.runs.keeping.people import Shared, cancel_runs_of, erase_user

        tenant_id = await tenant_named(conn, tenant)
        who = whoever_this_is()
        cancelled = 0
        if cancel and not dry_run:
            cancelled = await cancel_runs_of(conn, tenant_id=tenant_id, user_id=user_id, by=who)
        erased = await erase_user(
            conn,
            Settings.from_env().require_database_url(),
            tenant_id=tenant_id,
            user_id=user_id,
            by=who,
            shared=cast(Shared, shared),
            dry_run=dry_run,
        )
        files = (
            []
            if archive is None
            else erase_archived(archive, tenant_id=tenant_id, user_id=user_id, dry_run=dry_run)
        )
        return {
            "object": "user_erasure",
            "user_id": user_id,
            "dry_run": dry_run,
            "cancelled": cancelled,
            **erased.as_dict(),
            "files": [str(file) for file in files],
        }

    done = with_database(work, name="users")
    if as_json:
        print_json(done)
        return
    rows = [[name, str(count), "removed"] for name, count in done["removed"].items()]
    rows += [[name, str(count), "named no more"] for name, count in done["changed"].items()]
    rows += [["audit", str(done["audit_rows"]), "what was personal"]] * bool(done["audit_rows"])
    rows += [["DBOS workflows", str(done["workflows"]), "removed"]] * bool(done["workflows"])
    rows += [["archived runs", str(len(done["files"])), "removed"]] * bool(done["files"])
    if not rows:
        print_note(f"There is nothing of user {user_id}.")
        return
    print_table(["of", "rows", "what"], rows)
    print_note("Nothing was changed (--dry-run)." if dry_run else f"User {user_id} is erased.")
