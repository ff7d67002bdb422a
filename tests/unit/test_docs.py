"""The documentation says what is there: commands, links, files, tests, settings, tables."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from perdure.cli.app import app
from tests.docs_support import (
    DOCS,
    PAGES,
    ROOT,
    WRITTEN,
    Command,
    blocks,
    inline_code,
    links,
    named_commands,
    shown_commands,
)

_HOME = ROOT / "src" / "perdure"


def _shown(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _find(words: tuple[str, ...]) -> tuple[Any, list[str]]:
    """Return the command the first of ``words`` name, and the words that are left."""
    command: Any = typer.main.get_command(app)
    left = list(words)
    while hasattr(command, "commands") and left and not left[0].startswith("-"):
        assert left[0] in command.commands, f"there is no command {left[0]!r}"
        command = command.commands[left[0]]
        left = left[1:]
    return command, left


@pytest.mark.parametrize("command", shown_commands(), ids=str)
def test_a_command_that_is_shown_can_be_given(command: Command) -> None:
    found, words = _find(command.words)
    if words in (["--help"], ["--version"]):
        return
    assert not hasattr(found, "commands"), "it does nothing by itself"
    found.make_context(command.words[0], words)


def test_a_command_that_cannot_be_given_is_found_out() -> None:
    for words in (["runs", "list", "--nope"], ["runs", "start", "triage"], ["migrate", "more"]):
        found, left = _find(tuple(words))
        with pytest.raises(Exception, match=r"(?i)no such option|missing|unexpected"):
            found.make_context(words[0], left)
    with pytest.raises(AssertionError, match="no command 'nope'"):
        _find(("nope",))


@pytest.mark.parametrize("command", named_commands(), ids=str)
def test_a_command_that_is_named_exists(command: Command) -> None:
    found, words = _find(command.words)
    known = {option for parameter in found.params for option in parameter.opts} | {"--help"}
    assert [word for word in words if word.startswith("--") and word not in known] == []


def test_make_has_the_targets_that_are_named() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = "\n".join(block.text for block in blocks("sh"))
    named = {text for page in WRITTEN for text in inline_code(page) if text.startswith("make ")}
    asked = {match for text in [shown, *named] for match in re.findall(r"\bmake ([a-z]+)", text)}
    assert asked >= {"demo", "test"}
    assert asked <= targets


@cache
def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=_shown)
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        if re.match(r"https?://|mailto:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), f"{target}: there is no {there}"
        assert there.is_relative_to(ROOT), f"{target} leads out of the repository"
        if anchor:
            assert anchor in _anchors(there), f"{target}: no such heading"


def test_every_page_is_reached_from_the_readme() -> None:
    reached, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        for target in links(page):
            there = (page.parent / target.partition("#")[0]).resolve()
            if there.suffix == ".md" and there.is_file() and there not in reached:
                waiting.append(there)
    assert set(PAGES) <= reached


@cache
def _tests_in(file: Path) -> set[str]:
    names = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{getattr(inner, 'name', '')}" for inner in node.body}
    return names


def _named_tests(page: Path) -> set[str]:
    return {text for text in inline_code(page) if text.startswith("tests/") and "::" in text}


@pytest.mark.parametrize("page", WRITTEN, ids=_shown)
def test_tests_that_are_named_exist(page: Path) -> None:
    for named in _named_tests(page):
        file, _, name = named.partition("::")
        assert (ROOT / file).is_file(), f"{named}: no such file"
        assert name in _tests_in(ROOT / file), f"{named}: no such test"


def test_every_guarantee_names_its_tests_or_is_not_there_yet() -> None:
    text = (DOCS / "guarantees.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (?=G\d+\b)", text, flags=re.MULTILINE)[1:]
    assert [part.split()[0] for part in parts] == [f"G{n}" for n in range(1, 15)]
    for part in parts:
        heading = part.splitlines()[0]
        named = re.findall(r"`tests/[^`]+::[^`]+`", part)
        assert bool(named) != ("not yet" in heading), heading


@pytest.mark.parametrize("page", WRITTEN, ids=_shown)
def test_files_that_are_named_exist(page: Path) -> None:
    for text in inline_code(page):
        if re.fullmatch(r"[\w.\-]+(/[\w.\-]+)+\.(py|sql|md|toml|yaml|txt)", text):
            assert any((base / text).is_file() for base in (ROOT, _HOME)), text
        elif re.fullmatch(r"[\w\-]+(/[\w\-]+)*/", text):
            assert any((base / text).is_dir() for base in (ROOT, _HOME)), text


@pytest.mark.parametrize("page", WRITTEN, ids=_shown)
def test_settings_and_tables_that_are_named_exist(page: Path) -> None:
    sources = "\n".join(
        file.read_text(encoding="utf-8")
        for folder in (ROOT / "src", ROOT / "migrations", ROOT / "examples")
        for file in (*folder.rglob("*.py"), *folder.rglob("*.sql"))
    )
    text = page.read_text(encoding="utf-8")
    for variable in set(re.findall(r"\bPERDURE_[A-Z_]+\b", text)):
        assert f'"{variable}"' in sources, variable
    migrations = "\n".join(
        file.read_text(encoding="utf-8") for file in (ROOT / "migrations").glob("*.sql")
    )
    tables = set(re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?perdure\.(\w+)", migrations))
    in_sql = "\n".join(block.text for block in blocks("sql", pages=[page]))
    named = set(re.findall(r"(?:FROM|INTO|UPDATE|JOIN|TABLE) perdure\.(\w+)", in_sql))
    assert named <= tables
