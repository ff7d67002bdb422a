"""Items as a request gives them: plain, or with what is known beside them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perdure.errors import InvalidRequestError
from perdure.sessions.rules import MAX_ITEMS, MAX_TOKENS, NewItem, check_item, check_name

__all__ = ["read_items"]

_NAMES = ("sender", "agent", "user_id")
_BESIDE = frozenset({"item", "token_count", "metadata", *_NAMES})


def read_items(given: Any, pointer: str = "/items", *, least: int = 1) -> list[NewItem]:
    """Return what a request gives as items, each a Responses item or ``{"item": …, …}``.

    Beside ``item`` may stand sender, agent, user_id, token_count and metadata.

    Raises:
        InvalidRequestError: names the first place that is wrong.
    """
    if not isinstance(given, list) or len(given) < least:
        raise InvalidRequestError.at(pointer, f"has to be a list of at least {least} item(s).")
    if len(given) > MAX_ITEMS:
        raise InvalidRequestError.at(
            pointer, f"has {len(given)} items; {MAX_ITEMS} are possible at once."
        )
    return [_read(one, f"{pointer}/{index}") for index, one in enumerate(given)]


def _read(given: Any, pointer: str) -> NewItem:
    if not isinstance(given, Mapping) or "item" not in given or {"role", "type"} & given.keys():
        check_item(given, pointer)
        return NewItem(given)
    for name in given:
        if name not in _BESIDE:
            raise InvalidRequestError.at(f"{pointer}/{name}", "is no field of an item.")
    check_item(given["item"], f"{pointer}/item")
    for name in _NAMES:
        if given.get(name) is not None:
            check_name(given[name], f"{pointer}/{name}")
    tokens, metadata = given.get("token_count"), given.get("metadata")
    if tokens is not None and (type(tokens) is not int or not 0 <= tokens <= MAX_TOKENS):
        raise InvalidRequestError.at(f"{pointer}/token_count", "has to be a number of tokens.")
    if metadata is not None and not isinstance(metadata, dict):
        raise InvalidRequestError.at(f"{pointer}/metadata", "has to be an object.")
    return NewItem(
        given["item"],
        sender=given.get("sender"),
        agent=given.get("agent"),
        user_id=given.get("user_id"),
        token_count=tokens,
        metadata=metadata or {},
    )
