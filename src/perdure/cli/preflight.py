"""``perdure preflight``: what a build could not go on with, before it is deployed."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.doctor.where import database_url
from perdure.cli.help import examples
from perdure.cli.output import one_line, print_json, print_note, print_text
from perdure.cli.progress import Progress
from perdure.cli.serve import Target
from perdure.cli.target import load_engine
from perdure.config import Settings

if TYPE_CHECKING:
    from perdure.engine import Engine
    from perdure.runs.preflight_findings import Finding, LookedAt, PreflightReport

_SOME_FAIL = 1
_SHOWN = 10
"""Runs that are named beneath one reason; ``--json`` names all."""


def register(app: typer.Typer) -> None:
    """Add the command to those of ``perdure``."""
    app.command(
        "preflight",
        epilog=examples(
            "perdure preflight refunds.py",
            "DATABASE_URL=postgresql://perdure@db.internal/perdure perdure preflight refunds.py",
            "perdure preflight refunds.py --json | jq -r '.failing[].run_id'",
        ),
    )(run)


def run(
    target: Target,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Say which runs the engine of TARGET could not go on with, before it is deployed.

    Loads every run that waits, is queued or is under way as a worker would, and names those it
    could not resume: agent, tool, why, and what to do. Nothing is run, nothing is written. The
    database is the engine's, that of DATABASE_URL, or else the embedded one of PERDURE_HOME if it
    runs. The exit code is 1 if a run could not be resumed, or if nothing could be looked at; runs
    that go on but ask people again are told of and leave it 0.
    """
    engine = load_engine(target)
    with _database_of(engine) as url:
        report = asyncio.run(_look(engine, url))
    if as_json:
        print_json(report.as_dict())
    else:
        show(report)
    if not report.ok:
        raise typer.Exit(_SOME_FAIL)


@contextmanager
def _database_of(engine: Engine) -> Iterator[str]:
    if engine.database_url is not None:
        yield engine.database_url
        return
    with database_url(Settings.from_env()) as url:
        yield url


async def _look(engine: Engine, url: str) -> PreflightReport:
    from perdure.runs.preflight import look, look_pool
    from perdure.runs.preflight_findings import PreflightReport

    report = PreflightReport()
    with Progress("runs looked at") as progress:
        async with await look_pool(url) as pool:
            async for one in look(engine.registry, pool):
                report.add(one)
                progress.add()
    return report


def show(report: PreflightReport) -> None:
    """Print what was found: what stands in the way of runs, and a summary."""
    if not report.runs:
        print_note("No run waits, is queued or is under way: there is nothing to go on with.")
        return
    _show_all("Cannot be resumed", report.failing)
    _show_all("Goes on, and", report.noticed)
    counts = ", ".join(f"{count:,} {status}" for status, count in report.looked_at.items() if count)
    verdict = (
        "All of them can be resumed"
        if report.ok
        else f"{len(report.failing):,} of them cannot be resumed"
    )
    print_text(f"Looked at {report.runs:,} run{'s' * (report.runs != 1)} ({counts}). {verdict}.")


def _show_all(what: str, found: Sequence[LookedAt]) -> None:
    """Print runs beneath what is said of them; many mostly have one reason."""
    runs: dict[Finding, list[LookedAt]] = defaultdict(list)
    for one in found:
        for finding in (one.problem,) if one.problem is not None else one.notices:
            runs[finding].append(one)
    for finding, those in runs.items():
        tool = "" if finding.tool is None else f", tool {finding.tool}"
        print_text(f"{what}: {finding.kind} (agent {finding.agent}{tool})")
        print_text(f"  {one_line(finding.why)}")
        print_text(f"  → {finding.do}")
        for one in those[:_SHOWN]:
            print_text(f"  {one.run_id}  {one.status}")
        if len(those) > _SHOWN:
            print_text(f"  and {len(those) - _SHOWN:,} more (--json names them)")
        print_text("")
