"""Lists in pages: so many rows after an id, and whether more follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

Order = Literal["asc", "desc"]

DEFAULT_LIMIT = 20
MAX_LIMIT = 100


@dataclass(frozen=True, slots=True)
class PageRequest:
    """``limit`` rows that stand after the row ``after`` (None: from the beginning)."""

    limit: int = DEFAULT_LIMIT
    after: UUID | None = None
    order: Order = "desc"

    def params(self) -> dict[str, Any]:
        """Return the statement's parameters; one row more is asked for, to see whether there is."""
        return {"fetch": self.limit + 1, "after": self.after, "ascending": self.order == "asc"}


@dataclass(frozen=True, slots=True)
class Page:
    """Objects as the API shows them, each with an ``id``."""

    data: Sequence[Mapping[str, Any]]
    has_more: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the list as the API shows it."""
        return {
            "object": "list",
            "data": list(self.data),
            "first_id": self.data[0]["id"] if self.data else None,
            "last_id": self.data[-1]["id"] if self.data else None,
            "has_more": self.has_more,
        }


def page_of(objects: Sequence[Mapping[str, Any]], request: PageRequest) -> Page:
    """Cut what a statement gave for ``request.params()`` to the page that was asked for."""
    return Page(objects[: request.limit], len(objects) > request.limit)


def in_order(statement: str, order: Order) -> str:
    """Return a statement written for ``desc`` as it is, or turned round for ``asc``.

    The two places that differ are marked in it: ``/*beyond*/ <`` and ``/*order*/ DESC``.
    """
    if order == "desc":
        return statement
    return statement.replace("/*beyond*/ <", ">").replace("/*order*/ DESC", "ASC")
