"""What sessions and items may be, and what is read off an item. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from perdure.errors import InvalidRequestError

__all__ = [
    "MAX_DEPTH",
    "MAX_ITEMS",
    "MAX_NAME",
    "MAX_TOKENS",
    "NewItem",
    "Status",
    "check_content",
    "check_item",
    "check_name",
    "check_tags",
    "role_of",
    "text_of",
    "title_of",
]

Status = Literal["active", "archived", "completed"]
ROLES = ("user", "assistant", "system", "developer", "tool")
MAX_NAME = 255
MAX_ITEMS = 1000
"""Items of one request."""
MAX_TAGS = 50
MAX_TAG = 100
MAX_DEPTH = 256
"""How many branches may follow one from the other: each is a step of every read."""
MAX_TOKENS = 2**31 - 1
_TITLE = 80
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class NewItem:
    """An item to append: ``item`` is JSON as the SDK has it, the rest is what is known beside it.

    ``id``: its id, where the caller has one; a second append of the same id to the same session is
    refused by the database.
    """

    item: Mapping[str, Any]
    sender: str | None = None
    agent: str | None = None
    run_id: UUID | None = None
    user_id: str | None = None
    token_count: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    id: UUID | None = None


def check_name(value: Any, pointer: str) -> str:
    """Return a key, a user's or a group's id when it may be one.

    Raises:
        InvalidRequestError: it is empty, longer than 255 characters, or holds what is no text.
    """
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME:
        raise InvalidRequestError.at(pointer, f"has to have 1 to {MAX_NAME} characters.")
    if _NOT_TEXT.search(value):
        raise InvalidRequestError.at(pointer, "holds a NUL character or a lone surrogate.")
    return value


def check_title(title: str | None) -> str | None:
    """Return a title when it may be one; None is none.

    Raises:
        InvalidRequestError: it is empty, or longer than 255 characters.
    """
    if title is not None and not 1 <= len(title) <= MAX_NAME:
        raise InvalidRequestError.at("/title", f"has to have 1 to {MAX_NAME} characters.")
    return title


def check_tags(tags: Iterable[str], pointer: str = "/tags") -> list[str]:
    """Return tags, each once, in the order they came.

    Raises:
        InvalidRequestError: one is empty or too long, or there are too many.
    """
    unique = list(dict.fromkeys(tags))
    if len(unique) > MAX_TAGS:
        raise InvalidRequestError.at(pointer, f"has {len(unique)} tags; {MAX_TAGS} are possible.")
    for index, tag in enumerate(unique):
        if not 1 <= len(tag) <= MAX_TAG:
            raise InvalidRequestError.at(
                f"{pointer}/{index}", f"has to have 1 to {MAX_TAG} characters."
            )
    return unique


def check_item(item: Any, pointer: str) -> None:
    """Pass when ``item`` has the shape of a Responses item: a message, or something with a type.

    Raises:
        InvalidRequestError: names the place that is wrong.
    """
    role = role_of(item, pointer)
    if item.get("type", "message") != "message":
        return
    if role is None:
        raise InvalidRequestError.at(f"{pointer}/role", f"has to be one of {', '.join(ROLES)}.")
    check_content(item.get("content"), pointer)


def check_content(content: Any, pointer: str) -> None:
    """Pass when ``content``, of the message at ``pointer``, is text or a list of parts.

    Raises:
        InvalidRequestError: names the place that is wrong.
    """
    if isinstance(content, str):
        return
    if not isinstance(content, list) or not content:
        raise InvalidRequestError.at(f"{pointer}/content", "has to be text or a list of parts.")
    for number, part in enumerate(content):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise InvalidRequestError.at(
                f"{pointer}/content/{number}", "has to be an object with a type."
            )


def role_of(item: Any, pointer: str = "") -> str | None:
    """Return whose an item is: its role, or what its type says of one without.

    None where it has neither, as what was encrypted before it came here.

    Raises:
        InvalidRequestError: it is no object, or its role is none.
    """
    if not isinstance(item, Mapping):
        raise InvalidRequestError.at(pointer, "has to be an object.")
    role, kind = item.get("role"), item.get("type")
    if kind is not None and (not isinstance(kind, str) or not kind):
        raise InvalidRequestError.at(f"{pointer}/type", "has to be text.")
    if role is not None:
        if role not in ROLES:
            raise InvalidRequestError.at(f"{pointer}/role", f"has to be one of {', '.join(ROLES)}.")
        return str(role)
    if kind is None or kind == "message":
        return None
    if kind.endswith("_output"):
        return "tool"
    return "user" if kind == "mcp_approval_response" else "assistant"


def text_of(item: Mapping[str, Any]) -> str | None:
    """Return what of an item a person would read: a message's words, a tool's output."""
    kind = str(item.get("type", "message"))
    if kind == "reasoning":
        return _words(item.get("summary"))
    return _words(item.get("output") if kind.endswith("_output") else item.get("content"))


def title_of(items: Iterable[Mapping[str, Any]]) -> str | None:
    """Return a title made from the first message of a user, on one line, or None without one."""
    for item in items:
        if item.get("role") == "user" and (text := text_of(item)):
            line = " ".join(text.split())
            if line:
                return line if len(line) <= _TITLE else _shortened(line)
    return None


def _shortened(line: str) -> str:
    cut = line[: _TITLE - 1]
    head, _, _ = cut.rpartition(" ")
    # A cut at a word, unless that leaves little.
    return (head if len(head) > _TITLE // 2 else cut).rstrip() + "…"


def _words(content: Any) -> str | None:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, Mapping)]
        texts = [part.get("text", part.get("refusal")) for part in parts]
        return "".join(text for text in texts if isinstance(text, str)) or None
    return None
