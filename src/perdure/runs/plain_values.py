"""Values of a program as JSON that means the same in every process."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Set
from datetime import timedelta
from enum import Enum
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel

__all__ = ["name_of", "origin_of", "plain", "switch", "without_urls"]

_DEEPEST = 48
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s'\"<>]+")


def name_of(value: Any) -> str:
    """Return what something is called in its code: never where it lies in memory."""
    while isinstance(value, partial):
        value = value.func
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def plain(value: Any, *, depth: int = 0) -> Any:
    """Return ``value`` as JSON; of what is none, its name. NaN and infinities are null."""
    if value is None or (isinstance(value, bool | int | str) and not isinstance(value, Enum)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth > _DEEPEST:
        return name_of(value)
    if isinstance(value, Enum):
        return plain(value.value, depth=depth + 1)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return {str(key): plain(one, depth=depth + 1) for key, one in value.items()}
    if isinstance(value, Set):
        return sorted((plain(one, depth=depth + 1) for one in value), key=repr)
    if isinstance(value, list | tuple):
        return [plain(one, depth=depth + 1) for one in value]
    if isinstance(value, BaseModel):
        return plain(value.model_dump(), depth=depth + 1)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            one.name: plain(getattr(value, one.name), depth=depth + 1)
            for one in dataclasses.fields(value)
        }
    return name_of(value)


def switch(value: Any) -> tuple[str, str | None]:
    """Return whether something is so: ``always``, ``never``, or ``function`` and which."""
    if callable(value):
        return "function", name_of(value)
    return ("always" if value else "never"), None


def origin_of(url: Any) -> str | None:
    """Return where a URL leads to: scheme, host and port. The rest of one may be a secret."""
    try:
        parts = urlsplit(str(url))
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not parts.scheme or not host:
        return None
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + ("" if port is None else f":{port}")


def without_urls(text: str) -> str:
    """Return ``text``, of URLs in it only where they lead to."""
    return _URL.sub(lambda found: origin_of(found[0]) or "…", text)
