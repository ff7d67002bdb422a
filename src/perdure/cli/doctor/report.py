"""How findings are shown to people: what is well first, what is worst last, then a summary."""

from __future__ import annotations

from collections.abc import Sequence

from perdure.cli.doctor.findings import LEVELS, Finding, counted, status
from perdure.cli.output import is_terminal, one_line, print_text

_COLOUR = {"ok": "green", "warning": "yellow", "error": "bold red"}
_REMEDY = "→ "


def show(findings: Sequence[Finding]) -> None:
    """Print ``findings``: a list in colour on a terminal, else one finding a line.

    In a pipe the remedy follows on a line of its own, indented; nothing is cut or wrapped.
    """
    ordered = sorted(findings, key=lambda one: LEVELS.index(one.level))
    (_on_terminal if is_terminal() else _plainly)(ordered)


def summary(findings: Sequence[Finding]) -> str:
    """Return the last line: how many of each level, and what that means."""
    count = {level: sum(one.level == level for one in findings) for level in LEVELS}
    parts = [counted(count[level], level) for level in ("error", "warning") if count[level]] + [
        f"{count['ok']} ok"
    ]
    worst = {"ok": "All is well", "warning": "Works, with warnings", "error": "Needs mending"}
    return f"{worst[status(findings)]}: {', '.join(parts)}."


def _plainly(findings: Sequence[Finding]) -> None:
    width = max(len(one.name) for one in findings)
    for one in findings:
        print_text(f"{one.level:<7}  {one.name:<{width}}  {one_line(one.found)}")
        if one.remedy:
            print_text(f"{'':7}  {'':{width}}  {_REMEDY}{one_line(one.remedy)}")
    print_text(summary(findings))


def _on_terminal(findings: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, emoji=False, markup=False)
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for one in findings:
        colour = _COLOUR[one.level]
        said = Text(one_line(one.found), style="" if one.level == "ok" else "bold")
        if one.remedy:
            said.append(f"\n{_REMEDY}{one_line(one.remedy)}", style="cyan not bold")
        table.add_row(Text(one.level, style=colour), Text(one.name), said)
    console.print(table)
    console.print()
    console.print(Text(summary(findings), style=_COLOUR[status(findings)]))
