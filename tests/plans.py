"""Plans of statements, and what in them reads a table that grows from end to end."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import perdure
from perdure.db import Statements

_PLANNED = re.compile(r"\s*(?:SELECT|WITH|INSERT|UPDATE|DELETE)\b")
_PLACEHOLDER = re.compile(r"%\((\w+)\)s|%s|%%")


def modules() -> Iterator[ModuleType]:
    """Import each module of the product."""
    for found in pkgutil.walk_packages(perdure.__path__, "perdure."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def statements() -> Iterator[tuple[str, str]]:
    """Each statement of the product with where it stands: those of its files, and what is put
    together of them where a module is read. Some of the former are only parts of the latter.
    """
    seen = set()
    for module in modules():
        for name, value in vars(module).items():
            named = (
                {f"{name}[{key}]": text for key, text in value.items()}
                if isinstance(value, Statements)
                else {name: value}
            )
            for key, text in named.items():
                if isinstance(text, str) and _PLANNED.match(text) and "\n" in text and text not in seen:
                    seen.add(text)
                    yield f"{module.__name__}.{key}", text


def numbered(statement: str, types: Mapping[str, str]) -> tuple[str, list[str]]:
    """Return ``statement`` with ``$1``, ``$2`` … as psycopg would send it, and their types."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%"
        name = match[1] or f"{len(names)}"
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    text = _PLACEHOLDER.sub(number, statement)
    return text, [types.get(name, "unknown") for name in names]


def nodes(plan: dict[str, Any], under: tuple[str, ...] = ()) -> Iterator[tuple[dict[str, Any], tuple[str, ...]]]:
    """Each node of a plan, with the kinds of those above it."""
    yield plan, under
    for child in plan.get("Plans", ()):
        yield from nodes(child, (*under, plan["Node Type"]))
