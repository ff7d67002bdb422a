"""``perdure doctor``: what is wrong with an installation, and what mends it."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from perdure.cli.doctor.checks import look
from perdure.cli.doctor.findings import as_json, status
from perdure.cli.doctor.report import show
from perdure.cli.help import examples
from perdure.cli.output import print_json

_WRONG = 1


def register(app: typer.Typer) -> None:
    """Add the command to those of ``perdure``."""
    app.command(
        "doctor",
        epilog=examples(
            "perdure doctor",
            "DATABASE_URL=postgresql://perdure@db.internal/perdure perdure doctor",
            "perdure doctor --json | jq '.findings[] | select(.level != \"ok\")'",
        ),
    )(run)


def run(
    as_document: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Look for what is wrong with this installation.

    Looks at versions, the database and its settings, migrations, workers, queues, stuck and
    dying runs and what waits for people, and says what mends each. The database is that of
    DATABASE_URL, else the embedded one of PERDURE_HOME if it runs; nothing is changed. The exit
    code is 1 if there is an error; warnings leave it 0.
    """
    findings = asyncio.run(look())
    if as_document:
        print_json(as_json(findings))
    else:
        show(findings)
    if status(findings) == "error":
        raise typer.Exit(_WRONG)
