"""The help of every command, as ``docs/cli.md`` repeats it.

``python -m tests.cli_docs`` writes it there again; a test holds the two together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from perdure.cli.app import app

DOCS = Path(__file__).parents[1] / "docs" / "cli.md"
_BLOCK = re.compile(
    r"(?P<head>^#+ `(?P<command>perdure[a-z -]*)`\n).*?(?=^#|\Z)", re.MULTILINE | re.DOTALL
)


def command_names(command: Any = None, name: str = "perdure") -> Iterator[str]:
    """Every command that is shown, ``perdure`` itself first."""
    command = command or typer.main.get_command(app)
    yield name
    for inner, found in getattr(command, "commands", {}).items():
        if not found.hidden:
            yield from command_names(found, f"{name} {inner}")


def help_of(name: str) -> str:
    """The help of ``perdure runs list``, 80 columns wide."""
    done = CliRunner().invoke(
        app, [*name.split()[1:], "--help"], prog_name="perdure", env={"COLUMNS": "80"}
    )
    assert done.exit_code == 0, done.output
    return done.output.rstrip()


def with_help(text: str) -> str:
    """``text`` with the help below each heading that is a command."""
    return (
        _BLOCK.sub(
            lambda found: f"{found['head']}\n```text\n{help_of(found['command'])}\n```\n\n", text
        ).rstrip("\n")
        + "\n"
    )


if __name__ == "__main__":
    DOCS.write_text(with_help(DOCS.read_text(encoding="utf-8")), encoding="utf-8")
