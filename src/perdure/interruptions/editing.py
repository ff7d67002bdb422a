"""Approving a call with other arguments than the model wrote. Pure.

An edit makes another call of it: the arguments are checked against the tool's schema as it was
shown, and what is approved then is bound by a new digest. Both versions stay with the interruption.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from perdure.errors import InvalidRequestError, NotSupportedError
from perdure.interruptions.digest import MAX_DEPTH, digest_v1
from perdure.interruptions.forms import check_filled_in

_OWN_SCHEMA = ("function", "agent")
_EDITABLE = (*_OWN_SCHEMA, "mcp")


@dataclass(frozen=True, slots=True)
class Edited:
    """What is to be executed now: ``tool`` as the interruption shows it, and its ``digest``."""

    tool: dict[str, Any]
    digest: str


def edit(row: Mapping[str, Any], arguments: Any, *, tenant_id: UUID, run_id: UUID) -> Edited | None:
    """Return the interruption's call with ``arguments``, or None when they are what it has.

    ``row`` has ``tool``, ``scope``, ``base_seq`` and ``digest`` of the interruption and ``kind`` of
    its call. ``tool.arguments`` becomes what is executed; ``tool.original_arguments`` is what the
    model wrote.

    Raises:
        InvalidRequestError: they are no object, or do not fit the tool's schema.
        NotSupportedError: the tool takes no JSON object of ours.
    """
    if row["kind"] not in _EDITABLE:
        raise NotSupportedError.at(
            "/arguments",
            f"a {row['kind'] or 'hosted'} call cannot be changed, as it is not made from JSON "
            "arguments. Approve it as it is, or reject it with a message.",
        )
    if not isinstance(arguments, dict):
        raise InvalidRequestError.at("/arguments", "has to be an object.")
    tool: dict[str, Any] = row["tool"]
    schema = tool.get("schema")
    check_filled_in(schema, arguments, pointer="/arguments", patterns=row["kind"] in _OWN_SCHEMA)
    try:
        digest = digest_v1(
            tenant_id=tenant_id,
            run_id=run_id,
            base_seq=row["base_seq"],
            scope=row["scope"],
            call_id=tool["call_id"],
            tool=tool["name"],
            schema=schema,
            arguments=arguments,
        )
    except ValueError as error:
        raise InvalidRequestError.at(
            "/arguments", f"are no JSON that can be kept ({error}; at most {MAX_DEPTH} levels)."
        ) from error
    if digest == row["digest"]:
        return None
    original = tool.get("original_arguments", tool["arguments"])
    return Edited({**tool, "arguments": arguments, "original_arguments": original}, digest)
