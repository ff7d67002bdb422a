"""Every command says what it does and shows how, and loads no more than it needs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from perdure import __version__
from perdure.cli.app import app
from tests.cli_support import environment, perdure


def commands(command: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not command.hidden:
        yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, *path, name)


ALL = dict(commands(typer.main.get_command(app)))


def test_the_commands_of_the_contract_are_there() -> None:
    assert set(ALL) >= {
        ("demo",),
        ("dev",),
        ("serve",),
        ("worker",),
        ("migrate",),
        ("inbox",),
        ("approve",),
        ("reject",),
        ("resolve",),
        ("doctor",),
        *(("runs", name) for name in ("list", "show", "start", "cancel", "resume", "delete")),
        *(("keys", name) for name in ("create", "list", "revoke")),
    }


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_help_says_what_and_ends_with_examples(path: tuple[str, ...]) -> None:
    done = perdure(*path, "--help", env={"COLUMNS": "80"})

    before, _, examples = done.stdout.partition("\n  Examples:\n")
    assert f"Usage: perdure {' '.join(path)}".rstrip() in before
    assert "Show this message and exit." in before
    lines = examples.splitlines()
    assert lines
    assert all("perdure" in line for line in lines)
    assert any(f"perdure {' '.join(path)}".strip() in line for line in lines)


def test_the_version() -> None:
    assert perdure("--version").stdout == f"perdure {__version__}\n"


def test_without_arguments_it_shows_its_help() -> None:
    done = perdure(code=2)

    assert "Commands:" in done.stdout + done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["runs", "list", "--nonsense"],
        ["runs", "list", "--limit", "1000"],
        ["runs", "show"],
        ["runs", "show", "not-an-id"],
        ["runs", "start", "a", "b", "--metadata", "novalue"],
        ["runs", "start", "a", "b", "--context", "{"],
        ["runs", "start", "a", "b", "--context", "@/nowhere"],
        ["runs", "start", "a", "{", "--items"],
        ["approve", "../../etc"],
        ["resolve", "01a20131-4a27-77ae-b605-6e01616eb463", "--outcome", "perhaps"],
        ["migrate", "--sql", "--json"],
    ],
    ids=" ".join,
)
def test_misuse_ends_with_2_and_one_message(arguments: list[str]) -> None:
    done = perdure(*arguments, code=2)

    assert done.stdout == ""
    assert done.stderr.startswith("Usage: perdure")
    assert done.stderr.count("Error: ") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["runs", "list"],
        ["inbox"],
        ["approve", "01a20131-4a27-77ae-b605-6e01616eb463"],
        ["keys", "list"],
        ["migrate", "--sql"],
        ["doctor"],
        ["dev", "--help"],
        ["demo", "--help"],
    ],
    ids=" ".join,
)
def test_commands_that_need_no_agents_do_not_load_them(arguments: list[str]) -> None:
    script = (
        "import sys\n"
        "from perdure.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'agents', 'openai', 'fastapi', 'starlette', 'uvicorn'}\n"
        "sys.stderr.write('loaded: ' + ','.join(sorted(heavy & set(sys.modules))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, *arguments],
        env=environment({"PERDURE_URL": "http://127.0.0.1:9"}),
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stderr.endswith("loaded: ")
