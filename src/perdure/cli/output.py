"""What people see: tables on a terminal, plain lines in a pipe, one JSON document with ``--json``.

Models and their users write much of what is shown. On a terminal such text could move the cursor,
retitle the window or show other arguments than would be executed; ``visible.py`` makes all of it
plain before it is written. Whatever is printed here has gone through it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from perdure.visible import one_line as one_line
from perdure.visible import to_json as to_json
from perdure.visible import visible as visible

STYLES: Final = {
    "bold yellow": "1;33",
    "cyan": "36",
    "dim": "2",
    "green": "32",
    "red": "31",
    "yellow": "33",
}
"""How a style is asked of a terminal."""


Part = tuple[str, str]
"""A part of a text, and its style: one of ``STYLES`` or none."""


def shortened(text: str, width: int) -> str:
    """Return ``one_line(text)``, cut with an ellipsis to ``width`` characters."""
    text = one_line(text)
    return text if len(text) <= width else text[: width - 1] + "…"


def print_json(value: Any) -> None:
    """Print ``value`` as the one JSON document of a command."""
    _write(sys.stdout, to_json(value, indent=2))


def print_json_line(value: Any) -> None:
    """Print ``value`` as one line of JSON, of a command that prints many."""
    _write(sys.stdout, to_json(value))


def print_text(text: str) -> None:
    """Print lines to stdout."""
    _write(sys.stdout, visible(text))


def print_part(text: str, style: str = "") -> None:
    """Print a part of a line to stdout, on a terminal in a ``style`` of ``STYLES``."""
    code = STYLES.get(style) if style and has_colours() else None
    text = visible(text)
    if text:
        _put(sys.stdout, text if code is None else f"\x1b[{code}m{text}\x1b[0m")


def has_colours() -> bool:
    """Whether results are shown in colour: on a terminal that is not asked to be without."""
    return is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def print_note(text: str) -> None:
    """Print lines to stderr: what is for people and no result."""
    _write(sys.stderr, visible(text))


def print_error(message: str) -> None:
    """Print why the command failed."""
    _write(sys.stderr, f"Error: {visible(message)}")


def _write(stream: Any, text: str) -> None:
    _put(stream, text + "\n")


def _put(stream: Any, text: str) -> None:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def ring() -> None:
    """Ring the bell of the terminal, where somebody sits at one."""
    if sys.stderr.isatty():
        sys.stderr.write("\a")
        sys.stderr.flush()


def is_terminal() -> bool:
    """Whether results are written to a terminal."""
    return sys.stdout.isatty()


def can_ask() -> bool:
    """Whether somebody sits there to be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def print_fields(fields: Mapping[str, str | None], *, as_note: bool = False) -> None:
    """Print names and values, one a line; the lines of a value are indented alike.

    Fields that are None are left out. ``as_note`` prints to stderr.
    """
    stream = sys.stderr if as_note else sys.stdout
    shown = {name: value for name, value in fields.items() if value is not None}
    width = max(map(len, shown), default=0) + 2
    for name, value in shown.items():
        lines = visible(value).split("\n")
        indent = "\n" + " " * width
        _write(stream, f"{name:<{width}}{indent.join(lines)}".rstrip())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table in columns of plain text; on a terminal with a bold head and fitted to it.

    Only the last column is cut to fit: the others hold ids and words to copy.
    """
    from rich.cells import cell_len, set_cell_size
    from rich.console import Console
    from rich.text import Text

    table = [[column.upper() for column in columns]]
    table += [[one_line(cell) for cell in row] for row in rows]
    widths = [max(cell_len(line[index]) for line in table) for index in range(len(columns))]
    console = Console(highlight=False, emoji=False, markup=False)
    if console.is_terminal:
        room = console.width - sum(widths[:-1]) - 2 * (len(columns) - 1)
        widths[-1] = max(min(widths[-1], room), 12)
    for number, line in enumerate(table):
        if cell_len(line[-1]) > widths[-1]:
            line[-1] = set_cell_size(line[-1], widths[-1] - 1).rstrip() + "…"
        cells = zip(line, widths, strict=True)
        text = "  ".join(set_cell_size(cell, width) for cell, width in cells).rstrip()
        if console.is_terminal:
            console.print(Text(text, style="" if number else "bold"), soft_wrap=True)
        else:
            _write(sys.stdout, text)


def print_beside(rows: Iterable[tuple[Sequence[Part], Sequence[Part]]]) -> None:
    """Print texts beside each other, in two columns as wide as the terminal has room for.

    A text is parts one after the other, each with its style, which shows where there are colours.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = has_colours()
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(ratio=1, overflow="fold")
    grid.add_column(ratio=1, overflow="fold")
    for row in rows:
        grid.add_row(
            *(
                Text.assemble(*((visible(text), style if colours else "") for text, style in parts))
                for parts in row
            )
        )
    console = Console(highlight=False, emoji=False, markup=False)
    with console.capture() as shown:
        console.print(grid)
    for line in shown.get().splitlines():
        _write(sys.stdout, line.rstrip())


def ago(moment: str | None, *, now: datetime | None = None) -> str:
    """Return roughly how long ago an RFC 3339 ``moment`` was: ``12 s``, ``5 min``, ``3 h``.

    Measured with this machine's clock, as it is only shown.
    """
    if moment is None:
        return "-"
    now = now or datetime.now(UTC)
    seconds = max(0.0, (now - datetime.fromisoformat(moment)).total_seconds())
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
