"""``perdure prune``: ended runs deleted by age, in the database of ``DATABASE_URL``.

``perdure archive verify`` reads what it wrote before.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from perdure.cli.database import tenant_named, whoever_this_is, with_database
from perdure.cli.help import examples
from perdure.cli.output import print_error, print_json, print_note, print_table, print_text
from perdure.cli.pages import Json
from perdure.config import Settings
from perdure.db import Connection
from perdure.errors import InvalidRequestError
from perdure.runs.keeping.archive import archived, verify_archive
from perdure.runs.keeping.policy import STATUSES, parse_age

archive = typer.Typer(
    help="Look at runs that `perdure prune --archive` wrote to files.",
    no_args_is_help=True,
    epilog=examples("perdure archive verify /var/archive"),
)


def register(parent: typer.Typer) -> None:
    """Add the commands to those of ``perdure``."""
    parent.command(
        "prune",
        epilog=examples(
            "perdure prune --dry-run",
            "perdure prune --older-than 30d --status completed --archive /var/archive",
            "perdure prune --older-than 180d --tenant acme --json",
            "perdure prune --older-than 90d --events 30d",
        ),
    )(prune)
    parent.add_typer(archive, name="archive")


def prune(
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="Since when a run has to have ended: 36h, 90d, 12w.")
    ] = "90d",
    status: Annotated[
        str, typer.Option(metavar="LIST", help="Of which runs, by commas.")
    ] = ",".join(STATUSES),
    to: Annotated[
        Path | None,
        typer.Option("--archive", metavar="DIR", help="Write each run to a file there first."),
    ] = None,
    gzip: Annotated[bool, typer.Option("--gzip", help="Compress these files.")] = False,
    events: Annotated[
        str | None,
        typer.Option(
            metavar="AGE", help="Before that, the events of all runs that ended so long ago."
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option(metavar="N", min=1, max=1000, help="So many runs a transaction.")
    ] = 100,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would go, and change nothing.")
    ] = False,
    tenant: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of one tenant; by default of all.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Delete runs that ended long ago, with all they left, in batches.

    Nothing that is queued, running or interrupted goes, nor what another run, a session or DBOS
    still needs. It can be stopped at any time and started again. With --archive a run is on the
    disk before it is deleted. The audit stays, without what it was about.
    """
    ages = dict.fromkeys(_statuses(status), _age(older_than, "--older-than"))
    if gzip and to is None:
        raise typer.BadParameter("--gzip is about the files of --archive DIR.")
    if events is not None and tenant is not None:
        raise typer.BadParameter("--events is for all tenants; leave out --tenant.")
    of_events = None if events is None else _age(events, "--events")
    done = with_database(
        lambda conn: _work(conn, ages, of_events, to, gzip, batch, dry_run, tenant), name="prune"
    )
    if as_json:
        print_json({"object": "prune", "dry_run": dry_run, **done})
        return
    _show(done, dry_run)


async def _work(
    conn: Connection,
    ages: dict[str, timedelta],
    events: timedelta | None,
    to: Path | None,
    gzip: bool,
    batch: int,
    dry_run: bool,
    tenant: str | None,
) -> dict[str, Any]:
    # DBOS is slow to import.
    from perdure.runs.keeping import pruning
    from perdure.runs.keeping.events import drop_empty_months, prune_events

    tenant_id = None if tenant is None else await tenant_named(conn, tenant)
    done: dict[str, Any] = {}
    if events is not None:
        done["events"] = (await prune_events(conn, events, dry_run=dry_run)).as_dict()
    pruned = await pruning.prune(
        conn,
        Settings.from_env().require_database_url(),
        ages,
        by=whoever_this_is(),
        tenant_id=tenant_id,
        archive=None if to is None else pruning.Archive(to, gzip),
        batch=batch,
        dry_run=dry_run,
    )
    return {
        **done,
        **pruned.as_dict(),
        "empty_months": await drop_empty_months(conn, dry_run=dry_run),
    }


def _show(done: dict[str, Any], dry_run: bool) -> None:
    events = done.get("events")
    if done["rows"]:
        print_table(["table", "rows"], [[name, str(n)] for name, n in done["rows"].items()])
    if events is not None and (events["months"] or events["runs"]):
        months = ", ".join(events["months"]) or "none"
        print_text(
            f"{events['events']} events of {events['runs']} runs; months dropped whole: {months}"
        )
    for name in done["empty_months"]:
        print_text(f"{name}, of which no run is left")
    for reason, count in done["kept"].items():
        print_note(f"{count} stay: {reason.replace('_', ' ')}.")
    runs = sum(done["runs"].values())
    if not runs:
        print_note("No run ended that long ago.")
        return
    archived_too = f", {done['archived']} of them archived" if done["archived"] else ""
    what = "would be deleted" if dry_run else "were deleted"
    print_note(f"{runs} runs {what} with {_size(done['bytes'])}{archived_too}.")


def _size(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


def _age(text: str, option: str) -> timedelta:
    age = parse_age(text)
    if age is None:
        raise typer.BadParameter(f"{option} is {text!r}; say hours, days or weeks: 36h, 90d, 12w.")
    return age


def _statuses(text: str) -> list[str]:
    given = [one.strip() for one in text.split(",")]
    wrong = [one for one in given if one not in STATUSES]
    if wrong:
        raise typer.BadParameter(
            f"--status has {wrong[0]!r}; runs that ended are {', '.join(STATUSES)}."
        )
    return given


@archive.command(
    "verify",
    epilog=examples(
        "perdure archive verify /var/archive",
        "perdure archive verify --json 2026-11/01a20131-4a27-77ae-b605-6e01616eb463.jsonl.gz",
    ),
)
def verify(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Files, or directories of them.")
    ],
    as_json: Json = False,
) -> None:
    """Read archived runs to the end and compare them with their checksums.

    The exit code is 1 if one is not what was written.
    """
    whole: list[dict[str, Any]] = []
    broken: list[str] = []
    for path in archived(paths):
        try:
            whole.append(verify_archive(path))
        except InvalidRequestError as error:
            broken.append(error.message)
    if as_json:
        print_json({"object": "archive_verification", "runs": whole, "broken": broken})
    else:
        if whole:
            print_table(
                ["run", "rows", "file"],
                [[one["run_id"], str(sum(one["rows"].values())), one["path"]] for one in whole],
            )
        for message in broken:
            print_error(message)
        if not whole and not broken:
            print_note("There is no archived run there.")
        else:
            print_note(f"{len(whole)} whole, {len(broken)} broken.")
    if broken:
        raise typer.Exit(1)
