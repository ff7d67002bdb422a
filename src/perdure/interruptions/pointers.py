"""JSON pointers (RFC 6901): places in a JSON value, as ``/lines/0/cents``. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

_WRONG_ESCAPE = re.compile(r"~(?![01])")
_INDEX = re.compile(r"0|[1-9][0-9]{0,17}")


class _Missing:
    """Stands for a place where a value has nothing."""

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


MISSING: Final = _Missing()


def is_pointer(text: str) -> bool:
    """Say whether ``text`` is a JSON pointer: empty (the whole value), or ``/`` before each name.

    Within a name ``~1`` stands for ``/`` and ``~0`` for ``~``.
    """
    return (not text or text.startswith("/")) and not _WRONG_ESCAPE.search(text)


def escape(name: str) -> str:
    """Return one member's name as it stands in a pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def value_at(value: Any, pointer: str) -> Any:
    """Return what stands in ``value`` at ``pointer`` (``is_pointer``), or ``MISSING``."""
    for name in pointer.split("/")[1:]:
        if isinstance(value, Mapping):
            value = value.get(name.replace("~1", "/").replace("~0", "~"), MISSING)
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            known = _INDEX.fullmatch(name) and int(name) < len(value)
            value = value[int(name)] if known else MISSING
        else:
            return MISSING
    return value
