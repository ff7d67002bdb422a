"""How figures are shown: a table for people, and the same as Markdown for the documentation.

``python -m chaos.page figures.json`` puts the figures of trials, and the command that gave them,
into ``docs/reliability.md``, between its two marks.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from chaos.plan import Plan

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
Figures = dict[str, Any]


def _times(*keys: str) -> Callable[[Figures], str]:
    def shown(figures: Figures) -> str:
        values = [figures[key] for key in keys]
        return "-" if None in values else " / ".join(f"{value:.2f}" for value in values) + " s"

    return shown


def _count(key: str) -> Callable[[Figures], str]:
    return lambda figures: f"{figures[key]:,}"


def _statuses(figures: Figures) -> str:
    parts = [f"{count:,} {status}" for status, count in sorted(figures["statuses"].items())]
    return ", ".join(parts)


ROWS: tuple[tuple[str, Callable[[Figures], str]], ...] = (
    ("kills (`SIGKILL`)", _count("kills")),
    ("… of a worker in the middle of a run", _count("kills_in_mid_run")),
    ("stops (`SIGSTOP`, later `SIGCONT`)", _count("stops")),
    ("restarts of the database (immediate)", _count("restarts")),
    ("workers that ended as the database was away", _count("ended_without_database")),
    ("workers that ended by themselves otherwise", _count("ended_otherwise")),
    ("runs started", _count("started")),
    ("… and how they ended", _statuses),
    ("… that went on alone in a process of their own", _count("ran_alone")),
    ("**runs lost**", _count("lost")),
    ("runs with a wrong result", _count("wrong_output")),
    ("effects in the outside log", _count("effects")),
    ("**effects silently repeated**", _count("silently_repeated")),
    ("… `at_most_once`, happened again", _count("repeated_at_most_once")),
    ("… `idempotent`, under another key", _count("repeated_keys")),
    ("… `transactional`, a second row", _count("repeated_rows")),
    ("effects recorded that never happened", _count("missing")),
    ("effects that came after a person's `not_done`", _count("repeated_after_not_done")),
    ("doubts a person was asked about", _count("asked")),
    ("… that had happened", _count("asked_had_happened")),
    ("… that had not", _count("asked_had_not")),
    ("model requests", _count("requests")),
    ("… repeated, as they were under way at a blow", _count("requests_repeated")),
    ("… repeated although the run was past them", _count("paid_again")),
    ("… the same, by a worker that had been paused", _count("paid_again_by_paused")),
    (
        "takeover after a kill, p50 / p99 / max",
        _times("takeover_p50", "takeover_p99", "takeover_max"),
    ),
    ("… how many", _count("takeovers")),
    (
        "takeover from a paused worker, p50 / max",
        _times("paused_takeover_p50", "paused_takeover_max"),
    ),
    ("… how many", _count("paused_takeovers")),
    (
        "longest time a run stood still, p50 / p99 / max",
        _times("stuck_p50", "stuck_p99", "stuck_max"),
    ),
    ("duration", lambda figures: f"{figures['seconds']:.0f} s"),
    ("seed", _count("seed")),
)


def print_table(trials: Sequence[Figures], console: Console) -> None:
    """Print trials side by side, and what was violated."""
    table = Table(expand=False)
    table.add_column("")
    for figures in trials:
        table.add_column(figures["side"], justify="right")
    for name, shown in ROWS:
        table.add_row(name.replace("`", "").replace("**", ""), *(shown(one) for one in trials))
    console.print(table)
    for figures in trials:
        violations = figures["violations"]
        for violation in violations[:20]:
            console.print(f"{figures['side']}: {violation}", markup=False, highlight=False)
        if len(violations) > 20:
            console.print(f"{figures['side']}: and {len(violations) - 20} more")


def markdown(trials: Sequence[Figures]) -> str:
    """Return trials side by side as a Markdown table."""
    lines = [
        "| | " + " | ".join(figures["side"] for figures in trials) + " |",
        "| --- | " + " | ".join("---:" for _ in trials) + " |",
        *(f"| {name} | " + " | ".join(shown(one) for one in trials) + " |" for name, shown in ROWS),
    ]
    return "\n".join(lines) + "\n"


def command(plan: Figures, trials: Sequence[Figures]) -> str:
    """Return the command that holds these trials."""
    whole = Plan(**plan)
    options = [
        f"--{field.name.replace('_', '-')} {getattr(whole, field.name):g}"
        for field in fields(Plan)
        if field.name != "shortest_stop" and getattr(whole, field.name) != field.default
    ]
    if len(trials) > 1:
        options.append("--both")
    return " ".join([".venv/bin/python -m chaos", *options, "--json > figures.json"])


def section(document: Figures) -> str:
    """Return what the page shows of what ``python -m chaos --json`` printed."""
    machine = ", ".join(f"{name} {value}" for name, value in document["machine"].items())
    trials = document["trials"]
    return (
        f"```sh\n{command(document['plan'], trials)}\n"
        ".venv/bin/python -m chaos.page figures.json   # puts them here\n```\n\n"
        f"On: {machine}.\n\n{markdown(trials)}"
    )


def put_into(page: str, document: Figures) -> str:
    """Return ``page`` with the trials of ``document`` between its marks.

    Raises:
        ValueError: it has no marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"The page has no {BEGIN} … {END}.")
    return f"{before}{BEGIN}\n{section(document)}{END}{after}"


def main(arguments: Sequence[str]) -> None:
    """Put the figures of a file, as ``python -m chaos --json`` wrote it, into the page.

    With several files their trials stand side by side; they are to be of one plan.
    """
    parser = argparse.ArgumentParser(prog="python -m chaos.page", description=main.__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    documents = [json.loads(file.read_text()) for file in parser.parse_args(arguments).files]
    if any(document["plan"] != documents[0]["plan"] for document in documents):
        parser.error("the files are of different plans")
    whole = {**documents[0], "trials": [one for some in documents for one in some["trials"]]}
    PAGE.write_text(put_into(PAGE.read_text(encoding="utf-8"), whole), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
