"""What ``remember`` may ask for, and what a grant covers. Pure.

A grant is an approval that stands for later calls too. It never stands for ever and never for
whatever comes: it has an end, and exact arguments or conditions.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from perdure.errors import InvalidRequestError
from perdure.interruptions.conditions import Conditions, check, matches
from perdure.interruptions.digest import canonical, parse_object
from perdure.interruptions.pointers import escape

SCOPES: Final = ("run", "session", "user", "agent")
LONGEST_SECONDS: Final = 366 * 24 * 3600
"""A year, also a leap year."""

_FIELDS = ("scope", "until", "when")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_AN_END = (
    "has to say when it ends: an RFC 3339 time such as 2026-12-01T00:00:00Z, or seconds from now; "
    "at most a year."
)


@dataclass(frozen=True, slots=True)
class Remember:
    """What an approval shall stand for beyond its call.

    ``scope`` is ``run``, ``user`` or ``agent``; it ends at ``until`` (aware), or ``seconds`` after
    it is given; it covers calls whose arguments fulfil ``when``, or None: the same arguments.
    """

    scope: str
    until: datetime | None
    seconds: float | None
    when: Conditions | None


def read_remember(value: Any, pointer: str = "/remember") -> Remember:
    """Return ``value``, the field ``remember`` of a decision, as what it asks for.

    Whether a time lies ahead is for the database's clock to say.

    Raises:
        InvalidRequestError: a field is missing, wrong or unknown; it is named beneath ``pointer``.
    """
    if not isinstance(value, Mapping):
        raise InvalidRequestError.at(
            pointer, 'has to be an object such as {"scope": "run", "until": 3600}.'
        )
    for name in value:
        if name not in _FIELDS:
            raise InvalidRequestError.at(
                f"{pointer}/{escape(str(name))}",
                f"is no field of it; there are {', '.join(_FIELDS)}.",
            )
    scope = value.get("scope")
    if scope not in SCOPES:
        raise InvalidRequestError.at(f"{pointer}/scope", f"has to be one of {', '.join(SCOPES)}.")
    until, seconds = _end(value.get("until"), f"{pointer}/until")
    when = value.get("when")
    if when is not None and not check(when, f"{pointer}/when"):
        raise InvalidRequestError.at(
            f"{pointer}/when",
            "names no condition, so it would cover whatever comes. Leave it out to cover the same "
            "arguments.",
        )
    return Remember(scope, until, seconds, when)


def _end(value: Any, pointer: str) -> tuple[datetime | None, float | None]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 < value <= LONGEST_SECONDS:
            raise InvalidRequestError.at(pointer, _AN_END)
        return None, float(value)
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise InvalidRequestError.at(pointer, _AN_END)
    try:
        return datetime.fromisoformat(value.upper()), None
    except ValueError as error:
        raise InvalidRequestError.at(pointer, f"is no time there is. It {_AN_END}") from error


def not_ahead(pointer: str = "/remember/until") -> InvalidRequestError:
    """Return the error that an end is past already, or too far ahead, by the database's clock."""
    return InvalidRequestError.at(
        pointer, f"is not within the coming year on the database's clock. It {_AN_END}"
    )


def schema_digest(schema: Mapping[str, Any] | None) -> str:
    """Return ``sha256:…`` over a tool's schema, null where it has none."""
    return _sha256({"schema": schema})


def arguments_digest(arguments: Any) -> str:
    """Return ``sha256:…`` over a call's arguments, by their canonical form.

    ``arguments`` is the object, or the text the model wrote: text that is a JSON object counts as
    that object.

    Raises:
        ValueError: for an object that is not JSON or nested too deep; no interruption shows one.
    """
    parsed = parse_object(arguments) if isinstance(arguments, str) else arguments
    return _sha256({"arguments_raw": arguments} if parsed is None else {"arguments": parsed})


def covers(conditions: Conditions | None, arguments: Any) -> bool:
    """Say whether a grant that fits a call in all else covers its arguments.

    Without ``conditions`` it does: it was found by the digest of the arguments.
    """
    return conditions is None or (bool(conditions) and matches(conditions, arguments))


def _sha256(content: Mapping[str, Any]) -> str:
    return "sha256:" + hashlib.sha256(canonical(content)).hexdigest()
