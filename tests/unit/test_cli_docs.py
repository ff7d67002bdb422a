"""docs/cli.md says what the commands say."""

from __future__ import annotations

from tests.cli_docs import DOCS, command_names, with_help


def test_every_command_has_its_help_in_the_docs() -> None:
    text = DOCS.read_text(encoding="utf-8")

    headings = [line.strip("# `") for line in text.splitlines() if line.startswith("#")]
    assert set(command_names()) <= set(headings)
    assert with_help(text) == text, "run `python -m tests.cli_docs`"
