"""The fields of a line, each checked for what it may be. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, get_args
from uuid import UUID

from perdure.errors import InvalidRequestError
from perdure.sessions.rules import Status, check_name, check_tags, check_title

SESSION = frozenset(
    {
        "object",
        "id",
        "key",
        "user_id",
        "group_id",
        "title",
        "system_prompt",
        "tags",
        "metadata",
        "status",
        "rating",
        "parent_session_id",
        "fork_seq",
        "fork_version",
        "version",
        "last_seq",
        "holes",
        "created_at",
        "updated_at",
    }
)
"""What a session's line may have."""

ITEM = frozenset(
    {
        "object",
        "session_id",
        "id",
        "seq",
        "role",
        "text",
        "sender",
        "item",
        "agent",
        "run_id",
        "user_id",
        "token_count",
        "metadata",
        "created_at",
        "removed_version",
    }
)
"""What an item's line may have. ``id``, ``role`` and ``text`` are there to be read: an item gets an
id of its own, the others are those of ``item``."""

_STATUSES = get_args(Status)


class Fields:
    """A line's fields. Null and what is left out are the same to all of these methods.

    Raises, here and from each method:
        InvalidRequestError: naming the field.
    """

    def __init__(self, given: Mapping[str, Any], known: frozenset[str]) -> None:
        self._given = given
        if not given.keys() <= known:
            for name in sorted(given.keys() - known):
                raise InvalidRequestError.at(f"/{name}", "is no field of such a line.")

    def without(self, *names: str) -> None:
        """Pass when none of them says anything."""
        for name in names:
            if self._given.get(name):
                raise InvalidRequestError.at(f"/{name}", "belongs to a branch.")

    def name(self, name: str) -> str | None:
        """Return a name, a key or an id: text of 1 to 255 characters."""
        value = self._given.get(name)
        return None if value is None else check_name(value, f"/{name}")

    def required_name(self, name: str) -> str:
        """Return a name that has to be there."""
        return check_name(self._given.get(name), f"/{name}")

    def text(self, name: str) -> str | None:
        """Return text."""
        value = self._given.get(name)
        if value is not None and not isinstance(value, str):
            raise InvalidRequestError.at(f"/{name}", "has to be text.")
        return value

    def title(self) -> str | None:
        """Return the title."""
        return check_title(self.text("title"))

    def tags(self) -> list[str]:
        """Return the tags."""
        tags = self._given.get("tags")
        if tags is None:
            return []
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise InvalidRequestError.at("/tags", "has to be a list of texts.")
        return check_tags(tags)

    def status(self) -> str:
        """Return the status."""
        status = self._given.get("status")
        if status is None:
            return "active"
        if status not in _STATUSES:
            raise InvalidRequestError.at("/status", f"has to be one of {', '.join(_STATUSES)}.")
        return str(status)

    def object(self, name: str) -> dict[str, Any]:
        """Return an object, empty where there is none."""
        value = self._given.get(name)
        if value is not None and not isinstance(value, dict):
            raise InvalidRequestError.at(f"/{name}", "has to be an object.")
        return value or {}

    def number(self, name: str, least: int, most: int) -> int | None:
        """Return a whole number."""
        value = self._given.get(name)
        return None if value is None else _whole(value, f"/{name}", least, most)

    def id(self, name: str) -> str | None:
        """Return a UUID as text."""
        value = self._given.get(name)
        if value is None:
            return None
        try:
            return str(UUID(value))
        except (ValueError, AttributeError, TypeError):
            raise InvalidRequestError.at(f"/{name}", "has to be a UUID.") from None

    def moment(self, name: str) -> str | None:
        """Return a moment, in UTC."""
        value = self._given.get(name)
        if value is None:
            return None
        try:
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is not None:
                return moment.astimezone(UTC).isoformat()
        except (ValueError, TypeError, OverflowError):
            pass
        raise InvalidRequestError.at(f"/{name}", "has to be a time such as 2026-01-31T12:00:00Z.")

    def holes(self, fork_seq: int) -> list[dict[str, int]]:
        """Return the ranges of its ancestors' items a branch has removed, with its version then."""
        holes = self._given.get("holes")
        if holes is None:
            return []
        if not isinstance(holes, list):
            raise InvalidRequestError.at("/holes", "has to be a list.")
        read: dict[tuple[int, int], dict[str, int]] = {}
        for index, hole in enumerate(holes):
            at = f"/holes/{index}"
            if not isinstance(hole, dict) or hole.keys() != {"version", "from_seq", "to_seq"}:
                raise InvalidRequestError.at(at, "has to have version, from_seq and to_seq.")
            version = _whole(hole["version"], f"{at}/version", 1, 2**31 - 2)
            first = _whole(hole["from_seq"], f"{at}/from_seq", 1, fork_seq)
            last = _whole(hole["to_seq"], f"{at}/to_seq", first, fork_seq)
            if (version, first) in read:
                raise InvalidRequestError.at(at, "begins where another of its version does.")
            read[version, first] = {"version": version, "from_seq": first, "to_seq": last}
        return list(read.values())


def _whole(value: Any, pointer: str, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise InvalidRequestError.at(pointer, f"has to be a number from {least} to {most}.")
    return value
