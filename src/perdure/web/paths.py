"""Paths within this app, and which of them are a person's own link."""

from __future__ import annotations

from starlette.types import Scope

__all__ = ["is_import", "is_link", "path_within", "shown_path"]

_LINKS = "/d/"
_IMPORT = "/v1/sessions/import"


def path_within(scope: Scope) -> str:
    """Return the path within this app, wherever a host application has mounted it."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def is_link(scope: Scope) -> bool:
    """Whether a decision link is asked for: it is opened by a browser, which sends forms."""
    return path_within(scope).startswith(_LINKS)


def is_import(scope: Scope) -> bool:
    """Whether lines are sent, which are read as they come: many times what a body may have."""
    return scope["method"] == "POST" and path_within(scope) == _IMPORT


def shown_path(scope: Scope) -> str:
    """Return the path as it may be logged: without the token of a link."""
    return f"{_LINKS}…" if is_link(scope) else str(scope["path"])
