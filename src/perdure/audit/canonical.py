"""JSON in one spelling, and its digest. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import rfc8785

from perdure import jsonsafe

_EXACT = 2**53 - 1


def canonical(value: Any) -> str:
    """Return the RFC 8785 text of JSON-like ``value``, fit for a ``json`` column.

    The RFC's numbers are doubles: integers beyond 2^53 are written as strings of all their digits,
    NaN and infinities as null. What Postgres refuses in text is written as ``jsonsafe`` does.
    """
    # Read back from what jsonsafe wrote: characters are protected, as in every other column.
    plain = json.loads(jsonsafe.dumps(_exact(jsonsafe.finite(value))))
    return rfc8785.dumps(plain).decode()


def digest(text: str) -> str:
    """Return ``sha256:<64 hex digits>`` of a text in UTF-8."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _exact(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _EXACT:
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _exact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_exact(item) for item in value]
    return value
