"""How figures are shown: a table for people, and the same as Markdown for the documentation.

``python -m chaos.page perdure.json plain.json`` puts the figures of two trials into
``docs/reliability.md``, between its two marks.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

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


def put_into(page: str, trials: Sequence[Figures]) -> str:
    """Return ``page`` with the table of ``trials`` between its marks.

    Raises:
        ValueError: it has no marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"The page has no {BEGIN} … {END}.")
    return f"{before}{BEGIN}\n{markdown(trials)}{END}{after}"


def main(arguments: Sequence[str]) -> None:
    """Put the figures of files, as ``python -m chaos --json`` wrote them, into the page."""
    parser = argparse.ArgumentParser(prog="python -m chaos.page", description=main.__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    files = parser.parse_args(arguments).files
    trials = [trial for file in files for trial in json.loads(file.read_text())["trials"]]
    PAGE.write_text(put_into(PAGE.read_text(encoding="utf-8"), trials), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
