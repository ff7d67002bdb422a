"""The documentation as its tests read it: pages, code blocks, commands, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
_GENERATED = {"cli.md", "performance.md", "schema.md"}
"""Pages that are made from what they describe, and tested where that is done."""

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
WRITTEN = [page for page in PAGES if page.name not in _GENERATED]

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`(?P<text>[^`\n]+)`(?!`)")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_COMMAND = re.compile(r"(?:^|(?<=[\s(|;&]))perdure(?= )(?P<rest>[^|)\n;&]*)", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A code block: where it stands, its language and its text."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A ``perdure`` command: where it is shown, and its words after ``perdure``."""

    place: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.place} perdure {' '.join(self.words)}"


def blocks(*languages: str, pages: list[Path] = WRITTEN) -> list[Block]:
    """Return the code blocks of ``languages``, all of them where none is given."""
    found = []
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for match in _FENCE.finditer(text):
            if not languages or match["language"] in languages:
                line = text.count("\n", 0, match.start()) + 1
                found.append(Block(page, line, match["language"], match["text"]))
    return found


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def inline_code(page: Path) -> Iterator[str]:
    """Give what stands between backticks in a page's prose."""
    for match in _INLINE.finditer(prose(page)):
        yield match["text"]


def links(page: Path) -> Iterator[str]:
    """Give the targets of a page's links."""
    for match in _LINK.finditer(prose(page)):
        yield match["target"]


def shown_commands() -> list[Command]:
    """Return the commands in shell blocks, whole."""
    found = []
    for block in blocks("sh"):
        text = re.sub(r"\s#.*$", "", block.text.replace("\\\n", " "), flags=re.MULTILINE)
        found += [
            Command(str(block), tuple(shlex.split(match["rest"])))
            for match in _COMMAND.finditer(text)
        ]
    return found


def named_commands() -> list[Command]:
    """Return the commands in prose: their names, perhaps without what they need."""
    return [
        Command(str(page.relative_to(ROOT)), tuple(shlex.split(text)[1:]))
        for page in WRITTEN
        for text in inline_code(page)
        if text.startswith("perdure ")
    ]


def table_under(page: Path, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its head."""
    _, _, below = page.read_text(encoding="utf-8").partition(f"\n{heading}\n")
    rows: list[list[str]] = []
    for line in below.splitlines():
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            break
    return rows[2:]
