"""What is shown while it happens: lines, and text that grows.

On a terminal a text is appended as it comes, word by word, and nothing is drawn over. In a pipe
whole lines are written, so that what reads them never gets half a word. Only the first line of what
is said stands at the margin: a model that writes line breaks, or blanks up to the edge, cannot make
its words look like ours.
"""

from __future__ import annotations

import re
import shutil
from typing import Final, Protocol

from perdure.cli.output import is_terminal, print_part, visible

__all__ = ["Live", "live_output"]

_INDENT: Final = " " * 9
"""As wide as the time each line begins with."""
_PIECES: Final = re.compile(r"\n| +|[^ \n]+")
_LONGEST_HELD: Final = 24
"""A word that is longer is not waited for: some languages have no blanks."""
_NARROWEST: Final = 30


class Live(Protocol):
    """Where it is shown."""

    def line(self, head: str, text: str, style: str = "") -> None:
        """Show a line. A text that is being said goes on behind it, on a line of its own."""
        ...

    def command(self, text: str) -> None:
        """Show what to type, on a line of its own that can be copied whole."""
        ...

    def say(self, head: str, text: str, style: str = "") -> None:
        """Begin a text with ``head``, or go on with the one that has this head."""
        ...

    def end(self) -> None:
        """End the text that is being said, if one is."""
        ...

    def drop(self) -> None:
        """End it without what has not been shown of it yet: it is void."""
        ...

    def give_way(self) -> None:
        """Let something else be written to the terminal, by lines."""
        ...


def live_output() -> Live:
    """Return the one for this process's stdout."""
    return Terminal() if is_terminal() else Lines()


class Lines:
    """In a pipe: whole lines, without colours."""

    def __init__(self) -> None:
        self._head: str | None = None
        self._margin = ""
        self._held = ""

    def line(self, head: str, text: str, style: str = "") -> None:
        """Write a line; of what is being said the whole words before it."""
        if self._head is not None:
            whole, blank, rest = self._held.rpartition(" ")
            if blank:
                self._give(whole)
            self._held, self._margin = rest, self._head
        print_part(f"{head}{text}\n")

    def command(self, text: str) -> None:
        """Write what to type."""
        self.line(_INDENT, text)

    def say(self, head: str, text: str, style: str = "") -> None:
        """Write the lines that are whole."""
        if self._head != head:
            self.end()
            self._head = self._margin = head
        *whole, self._held = (self._held + text).split("\n")
        for line in whole:
            self._give(line)

    def end(self) -> None:
        """Write what is left."""
        if self._held:
            self._give(self._held)
        self.drop()

    def drop(self) -> None:
        """Forget what is left."""
        self._head, self._held = None, ""

    def give_way(self) -> None:
        """Nothing is in the way: what is written are whole lines."""

    def _give(self, line: str) -> None:
        print_part(f"{self._margin}{line}\n")
        self._margin = _INDENT


class Terminal:
    """Where somebody looks: text as it comes, broken at words, in colour."""

    def __init__(self) -> None:
        self._head: str | None = None
        self._style = ""
        self._said_style = ""
        self._open = False
        self._held = ""
        self._column = 0

    def line(self, head: str, text: str, style: str = "") -> None:
        """Write a line, broken where the terminal ends."""
        self.give_way()
        self._begin("", style)
        # In one piece with its time, which has no place to break at.
        self._give(head + text)
        self._break("")

    def command(self, text: str) -> None:
        """Write what to type, unbroken."""
        self.give_way()
        print_part(f"{_INDENT}{text}", "bold yellow")
        self._break("")

    def say(self, head: str, text: str, style: str = "") -> None:
        """Write all but a last word that may go on."""
        if self._head != head:
            self.end()
            self._head, self._said_style = head, style
        self._open_line()
        pieces = _PIECES.findall(self._held + text)
        self._held = ""
        if pieces and not pieces[-1].isspace() and len(pieces[-1]) < _LONGEST_HELD:
            # Its end comes with what comes next; where it stands on the line depends on that.
            self._held = pieces.pop()
        self._give("".join(pieces))

    def end(self) -> None:
        """Write what is left, and end the line."""
        if self._held:
            self._open_line()
            self._give(self._held)
        self.drop()

    def drop(self) -> None:
        """Forget what is left, and end the line."""
        self.give_way()
        self._head, self._held = None, ""

    def give_way(self) -> None:
        """End the line; what is being said goes on behind its head again."""
        if self._open:
            self._open = False
            self._break("")

    def _open_line(self) -> None:
        if not self._open:
            self._begin(self._head or "", self._said_style)
            self._open = True

    def _begin(self, head: str, style: str) -> None:
        self._style, self._column = style, 0
        self._write(head)

    def _give(self, text: str) -> None:
        """Write text from where the line stands, broken so that no line of it is at the margin."""
        # Tabs would jump; what else does not show is as wide as its code.
        room = max(shutil.get_terminal_size().columns, _NARROWEST) - 1
        line: list[str] = []
        for piece in _PIECES.findall(visible(text).replace("\t", "    ")):
            if piece == "\n" or self._column + _width(piece) > room:
                if piece == "\n" or self._column > len(_INDENT):
                    self._flush(line)
                    self._break(_INDENT)
                if piece.isspace():
                    continue
            for part in _cut(piece, room - len(_INDENT)):
                if self._column + _width(part) > room:
                    self._flush(line)
                    self._break(_INDENT)
                line.append(part)
                self._column += _width(part)
        self._flush(line)

    def _flush(self, line: list[str]) -> None:
        if line:
            print_part("".join(line), self._style)
            line.clear()

    def _write(self, text: str) -> None:
        self._column += _width(text)
        print_part(text, self._style)

    def _break(self, indent: str) -> None:
        print_part(f"\n{indent}")
        self._column = len(indent)


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _cut(word: str, room: int) -> list[str]:
    """Return a word in parts that fit a line each."""
    if _width(word) <= room:
        return [word]
    from rich.cells import chop_cells

    return chop_cells(word, room)
