"""JSON that PostgreSQL's ``jsonb`` always accepts, and that comes back as it went in.

``jsonb`` refuses NUL characters and lone surrogates, both of which models and tools produce.
They are written as the private-use character U+E000 followed by their four hex digits, and
U+E000 itself the same way, so the mapping is reversible and the common case costs one scan.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

MARKER = "\ue000"

# In ASCII-only JSON text every such character is a \uXXXX escape; a preceding backslash pair
# keeps an escaped backslash followed by "u0000" from being taken for one.
_REFUSED = re.compile(
    r"\\(?:"
    r"u(?P<high>d[89ab][0-9a-f]{2})\\u(?P<low>d[c-f][0-9a-f]{2})"
    r"|u(?P<refused>0000|d[89a-f][0-9a-f]{2}|e000)"
    r"|(?P<other>.)"
    r")"
)
_MARKED = re.compile(MARKER + "([0-9a-f]{4})")
# The same in JSON text that is not ASCII-only: there but NUL stands as it is.
_REFUSED_AS_IT_IS = re.compile("[\ud800-\udfff" + MARKER + "]")
_REFUSED_UNESCAPED = re.compile(
    r"\\(?P<nul>u0000)|\\.|(?P<refused>[\ud800-\udfff" + MARKER + "])", re.DOTALL
)

# Made once: making one costs more than a short value does.
_READABLE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _escape(match: re.Match[str]) -> str:
    refused = match["refused"]
    return match[0] if refused is None else "\\ue000" + refused


def protect(text: str) -> str:
    """Return ASCII-only JSON ``text`` with what ``jsonb`` refuses written behind the marker."""
    if "\\u0000" not in text and "\\ud" not in text and "\\ue000" not in text:
        return text
    return _REFUSED.sub(_escape, text)


def dumps(value: Any) -> str:
    """Serialize ``value`` to JSON text safe for ``jsonb``.

    Raises:
        ValueError: for NaN and infinities, which JSON does not have.
        TypeError: for values JSON does not know.
    """
    return protect(json.dumps(value, separators=(",", ":"), allow_nan=False))


def dumps_readable(value: Any) -> str:
    """Serialize ``value`` as ``dumps`` does, with all characters but those written as they are.

    For columns of the type ``json``, which keep the text they are given: letters beyond ASCII
    take half the room, and people and ``loads`` read it as it stands.

    Raises:
        ValueError: for NaN and infinities, which JSON does not have.
        TypeError: for values JSON does not know.
    """
    text = _READABLE.encode(value)
    if "\\u0000" not in text and (text.isascii() or not _REFUSED_AS_IT_IS.search(text)):
        return text
    return _REFUSED_UNESCAPED.sub(_mark, text)


def _mark(match: re.Match[str]) -> str:
    if match["nul"]:
        return MARKER + "0000"
    return f"{MARKER}{ord(match[0]):04x}" if match["refused"] else match[0]


def finite(value: Any) -> Any:
    """Return JSON-like ``value`` with NaN and infinities as null, which JSON has instead."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def protect_text(text: str) -> str:
    """Return ``text`` as a text column holds it that is written and read within JSON."""
    return str(json.loads(dumps(text)))


def unprotect_text(text: str) -> str:
    """Return a text column's ``text`` as it was before ``protect_text``."""
    return str(loads(json.dumps(text, ensure_ascii=False)))


def loads(text: str) -> Any:
    """Parse JSON ``text`` read from ``jsonb`` (select ``column::text``) and undo the marking."""
    if MARKER in text:
        text = _MARKED.sub(lambda match: "\\u" + match[1], text)
    return json.loads(text)
