"""What a decision is bound to: a digest over exactly what would be executed.

Version 1 is ``sha256`` over the RFC 8785 form of one object naming the version, tenant, run,
checkpoint, scope, call id, tool, the tool's schema and the arguments. Two details go beyond the
RFC, whose numbers are IEEE doubles and whose strings are valid Unicode:

- Integers beyond 2^53 would collapse into their neighbours. Each is replaced by null and listed
  under ``big_integers`` by its JSON pointer with all its digits. So is a float of that size
  without a fraction, because ``jsonb`` hands it back as an integer.
- Characters ``jsonb`` refuses are written in the same reversible way as in the database.

Arguments a model wrote that are not a JSON object stand under ``arguments_raw`` as the text they
are, so that no text and no object can have the same digest.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

import rfc8785

from perdure import jsonsafe

MAX_DEPTH = 64

_EXACT = 2**53 - 1


def digest_v1(
    *,
    tenant_id: UUID,
    run_id: UUID,
    base_seq: int,
    scope: str,
    call_id: str,
    tool: str,
    schema: Mapping[str, Any] | None,
    arguments: Mapping[str, Any] | str,
) -> str:
    """Return ``sha256:<64 hex digits>`` over one call as it would be executed.

    ``base_seq`` and ``scope`` say where in the run the call stands; ``schema`` is the JSON schema
    of the tool's parameters as it was shown. ``arguments`` is the object, or the text the model
    wrote: text that is a JSON object counts as that object.

    Raises:
        ValueError: for an object that is not JSON (NaN, infinities) or nested deeper than
            ``MAX_DEPTH``.
    """
    parsed = parse_object(arguments) if isinstance(arguments, str) else arguments
    content: dict[str, Any] = {
        "version": 1,
        "tenant_id": str(tenant_id),
        "run_id": str(run_id),
        "base_seq": base_seq,
        "scope": scope,
        "call_id": call_id,
        "tool": tool,
        "schema": schema,
    }
    if parsed is None:
        content["arguments_raw"] = arguments
    else:
        content["arguments"] = parsed
    return "sha256:" + hashlib.sha256(canonical(content)).hexdigest()


def canonical(content: Mapping[str, Any]) -> bytes:
    """Return the one form of a JSON object: RFC 8785, with the digits of big integers beside it.

    Raises:
        ValueError: for what is not JSON (NaN, infinities) or nested deeper than ``MAX_DEPTH``.
    """
    big: dict[str, str] = {}
    exact = {key: _exact(value, f"/{key}", big) for key, value in content.items()}
    if big:
        exact["big_integers"] = big
    return rfc8785.dumps(json.loads(jsonsafe.dumps(exact)))


def same_json(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same by their canonical form, where 1 is 1.0 and not true.

    What has no such form (NaN, too many levels) is the same as nothing.
    """
    try:
        return canonical({"value": one}) == canonical({"value": other})
    except ValueError:
        return False


def parse_object(text: str) -> dict[str, Any] | None:
    """Return the JSON object ``text`` is, or None: no object, or one that cannot be kept exactly.

    Infinite and undefined numbers, integers of more digits than Python reads, and more than
    ``MAX_DEPTH`` levels cannot.
    """
    try:
        value = json.loads(text, parse_constant=_finite, parse_float=_finite)
        _exact(value, "", {})
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a JSON number")
    return number


def _exact(value: Any, pointer: str, big: dict[str, str], depth: int = 0) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError(f"arguments are nested deeper than {MAX_DEPTH}")
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        digits = _big_integer(value)
        if digits is None:
            return value
        big[pointer] = digits
        return None
    if isinstance(value, Mapping):
        return {
            key: _exact(item, f"{pointer}/{_escape(key)}", big, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [
            _exact(item, f"{pointer}/{index}", big, depth + 1) for index, item in enumerate(value)
        ]
    return value


def _big_integer(number: int | float) -> str | None:
    if isinstance(number, float):
        if not math.isfinite(number):
            raise ValueError(f"{number} is not a JSON number")
        if abs(number) <= _EXACT:
            return None
        # The shortest decimal text is what was stored, not the binary value behind it.
        return str(int(Decimal(repr(number))))
    return str(number) if abs(number) > _EXACT else None


def _escape(token: str) -> str:
    return token.replace("~", "~0").replace("/", "~1")
