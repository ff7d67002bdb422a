"""Two turns of two conversations beside each other: what was asked, what became of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

from perdure.sessions.rules import text_of

__all__ = ["Turn", "compare", "essence"]

_WORDS = re.compile(r"\s*\S+|\s+$")
_MOST_WORDS = 2000
"""Words of a text that are compared one by one; the rest is compared whole."""

Object = dict[str, Any]


@dataclass(slots=True)
class Turn:
    """A message of a user and all until the next, in one of the two conversations.

    ``items`` are as the API shows them; ``input`` is that of a run that has said nothing yet.
    """

    items: list[Object] = field(default_factory=list)
    input: Any = None
    run_id: str | None = None
    run_status: str | None = None

    @property
    def asked(self) -> str | None:
        """What the user said, None where the turn begins in the middle."""
        told = [one["item"] for one in self._messages]
        if not self.items and self.input is not None:
            told = self.input if isinstance(self.input, list) else [{"content": self.input}]
        return "\n".join(text_of(one) or "" for one in told) if told else None

    @property
    def text(self) -> str | None:
        """What was answered in words."""
        texts = [
            one["text"]
            for one in self.items
            if one["role"] == "assistant" and _type(one) == "message" and one["text"]
        ]
        return "\n".join(texts) if texts else None

    @property
    def essence(self) -> list[Any]:
        """What was said and called in the turn, without what differs each time: ids and numbers."""
        return [found for one in self.items if (found := essence(one)) is not None]

    @property
    def _messages(self) -> list[Object]:
        found = []
        for one in self.items:
            if one["role"] != "user" or _type(one) != "message":
                break
            found.append(one)
        return found

    def shown(self) -> Object:
        """Return it as the API shows it."""
        return {
            "items": self.items,
            "text": self.text,
            "run_id": self.run_id,
            "run_status": self.run_status,
        }


def compare(
    number: int, base: Turn | None, session: Turn | None, *, ours: str = "session"
) -> Object:
    """Return the turns of a number beside each other; None where a conversation has none such.

    ``ours`` is what the second is called in it.
    """
    asked = [None if one is None else one.asked for one in (base, session)]
    texts = [None if one is None else one.text for one in (base, session)]
    there = base is not None and session is not None
    return {
        "number": number,
        "input": {"base": asked[0], ours: asked[1], "same": asked[0] == asked[1]},
        "base": None if base is None else base.shown(),
        ours: None if session is None else session.shown(),
        "same": there and base.essence == session.essence,  # type: ignore[union-attr]
        "changes": []
        if texts == [None, None]
        else list(_changes(ours, texts[0] or "", texts[1] or "")),
    }


def _type(item: Mapping[str, Any]) -> str:
    return str(item["item"].get("type", "message"))


def essence(item: Mapping[str, Any]) -> Any:
    """Return what an item says or calls, without what differs each time; None: nothing."""
    kind, raw = _type(item), item["item"]
    if kind == "reasoning":
        return None
    if kind in ("function_call", "custom_tool_call"):
        return kind, raw.get("name"), raw.get("arguments", raw.get("input"))
    if kind == "message":
        return kind, item["role"], item["text"] or raw.get("content")
    left = {name: value for name, value in raw.items() if name not in ("id", "call_id", "status")}
    return kind, left


def _changes(ours: str, base: str, text: str) -> Iterator[Object]:
    before, after = _split(base), _split(text)
    # Words alike but for the space before them are the same.
    matcher = SequenceMatcher(None, _stripped(before), _stripped(after))
    for op, a, b, c, d in matcher.get_opcodes():
        yield {"op": op, "base": "".join(before[a:b]), ours: "".join(after[c:d])}


def _split(text: str) -> list[str]:
    words = _WORDS.findall(text)
    if len(words) <= _MOST_WORDS:
        return words
    return [*words[:_MOST_WORDS], "".join(words[_MOST_WORDS:])]


def _stripped(words: Sequence[str]) -> list[str]:
    return [word.strip() for word in words]
