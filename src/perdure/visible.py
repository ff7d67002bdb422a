"""Text that cannot deceive whoever reads it, on a terminal or on a page.

Models and their users write much of what is shown. Characters that do not show, change the
direction of text or command a terminal would let it look like something else than it is.
"""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["one_line", "to_json", "visible"]

# C0 but tab and newline, DEL and C1; lone surrogates; line separators; whatever changes the
# direction of text or takes no room: all could show something else than what is there.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180e"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
_BREAKS = re.compile("[\t\n]")


def visible(text: str) -> str:
    """Return ``text`` with every character that could deceive a terminal written as its code.

    Newlines and tabs stay.
    """
    return _UNSAFE.sub(_code, text)


def one_line(text: str) -> str:
    """Return ``visible(text)`` with newlines and tabs written as their codes too."""
    return _BREAKS.sub(_code, visible(text))


def _code(match: re.Match[str]) -> str:
    character = match.group()
    short = {"\n": r"\n", "\t": r"\t", "\r": r"\r"}.get(character)
    if short is not None:
        return short
    number = ord(character)
    if number > 0xFFFF:
        return f"\\U{number:08x}"
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def _json_code(match: re.Match[str]) -> str:
    return json.dumps(match.group())[1:-1]


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Return ``value`` as JSON of which every character can be shown."""
    return _UNSAFE.sub(_json_code, json.dumps(value, ensure_ascii=False, indent=indent))
