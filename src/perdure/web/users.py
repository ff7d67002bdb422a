"""What is open to people's own tokens: all else is closed to them, what is new too.

Whoever acts as one user (``Principal.user_id``) comes through ``confine`` before a route does
anything. A route is open where ``OPEN_TO_USERS`` names it, and then only for that user: the user is
put into the request where the route takes one, and what is another's is not found.

Leans on FastAPI: it asks who is asking before it reads a route's own parameters, and it reads these
from this very request. A test goes over all routes there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

from fastapi import Request

from perdure.db import load_sql
from perdure.errors import ForbiddenError, NotFoundError
from perdure.web.state import api_of

__all__ = ["OPEN_TO_USERS", "Open", "confine"]

_SQL = load_sql("perdure.web", "users.sql")


@dataclass(frozen=True, slots=True)
class Open:
    """How a route is open. ``whose`` says where the user comes in.

    ``query`` and ``body``: as ``user_id`` there, to which the route keeps. ``run``: the run of the
    path has to be theirs. ``self``: the route is about the token that was sent.

    ``fields``: what a body may have. What a model, a tool or a policy goes by as the application's
    word is not for its users to say.
    """

    whose: Literal["query", "body", "run", "self"]
    fields: frozenset[str] = frozenset()


_OWN_RUN = Open("run")
_OWN = Open("query")

OPEN_TO_USERS: Final[Mapping[tuple[str, str], Open]] = {
    ("GET", "/v1/sessions"): _OWN,
    ("POST", "/v1/sessions"): Open(
        "body", frozenset({"key", "session_key", "title", "tags", "user_id"})
    ),
    ("GET", "/v1/sessions/{id}"): _OWN,
    ("PATCH", "/v1/sessions/{id}"): Open("query", frozenset({"title", "tags", "rating", "status"})),
    ("GET", "/v1/sessions/{id}/items"): _OWN,
    ("GET", "/v1/sessions/{id}/items/{item_id}"): _OWN,
    ("POST", "/v1/sessions/{id}/branch"): Open("query", frozenset({"from_seq", "title"})),
    ("GET", "/v1/sessions/{id}/tree"): _OWN,
    ("GET", "/v1/sessions/{id}/diff"): _OWN,
    ("GET", "/v1/search"): _OWN,
    ("GET", "/v1/events"): _OWN,
    ("GET", "/v1/feedback"): _OWN,
    ("POST", "/v1/feedback"): Open(
        "body",
        frozenset({"run_id", "item_id", "rating", "liked", "type", "comment", "user_id"}),
    ),
    ("GET", "/v1/feedback/{id}"): _OWN,
    ("DELETE", "/v1/feedback/{id}"): _OWN,
    ("POST", "/v1/runs"): Open(
        "body",
        frozenset({"agent", "input", "session_id", "session_key", "when_busy", "task", "user_id"}),
    ),
    ("GET", "/v1/runs"): _OWN,
    ("GET", "/v1/runs/{id}"): _OWN_RUN,
    ("GET", "/v1/runs/{id}/events"): _OWN_RUN,
    ("GET", "/v1/runs/{id}/items"): _OWN_RUN,
    ("GET", "/v1/runs/{id}/inputs"): _OWN_RUN,
    ("POST", "/v1/runs/{id}/input"): Open("run", frozenset({"input"})),
    ("POST", "/v1/runs/{id}/cancel"): _OWN_RUN,
    ("GET", "/v1/user_sessions/current"): Open("self"),
    ("DELETE", "/v1/user_sessions/current"): Open("self"),
}
"""The routes that are open to users, by method and path."""

_Kind = Literal["run", "session", "item"]
_IS_THEIRS: Final[Mapping[_Kind, str]] = {
    "run": _SQL["has_run"],
    "session": _SQL["has_session"],
    "item": _SQL["has_item"],
}
_WHEN_BUSY = ("queue", "reject")
"""The others act on the run under way, which may be another's."""


async def confine(request: Request, tenant_id: UUID, user_id: str) -> None:
    """Let a request of somebody who is ``user_id`` alone go on as that user's, or refuse it.

    Raises:
        ForbiddenError: it is not open to users, names another one, or says what is not theirs to.
        NotFoundError: what it is about is not theirs.
    """
    route = getattr(request.scope.get("route"), "path", None)
    rule = OPEN_TO_USERS.get((request.method, str(route)))
    if rule is None:
        raise ForbiddenError(
            f"{request.method} {route or request.url.path} is not open to users' tokens. The "
            "application does it for its users, with a service key."
        )
    body = None
    # What comes with another method nobody reads, and the door has not looked at it.
    if request.method in ("POST", "PUT", "PATCH") and await request.body():
        body = await request.json()
    if isinstance(body, dict):
        _check_body(body, rule)
    match rule.whose:
        case "query":
            _into_query(request, user_id)
        case "body" if isinstance(body, dict):
            if body.get("user_id") is not None:
                _require_same(body["user_id"], user_id, "/user_id")
            # The very object the route's fields are read from.
            body["user_id"] = user_id
            for kind in _IS_THEIRS:
                if body.get(f"{kind}_id") is not None:
                    await _require(request, kind, body[f"{kind}_id"], tenant_id, user_id)
        case "run":
            await _require(request, "run", request.path_params["id"], tenant_id, user_id)


def _check_body(body: dict[str, Any], rule: Open) -> None:
    for name in body:
        if name not in rule.fields:
            raise _forbidden(f"/{name}", "is not for a user's token to say.")
    if body.get("when_busy", "queue") not in _WHEN_BUSY:
        raise _forbidden("/when_busy", f"has to be {' or '.join(_WHEN_BUSY)} of a user's token.")
    given = body.get("input")
    for index, item in enumerate(given if isinstance(given, list) else ()):
        if not isinstance(item, dict) or (item.get("role"), item.get("type", "message")) != (
            *("user", "message"),
        ):
            raise _forbidden(f"/input/{index}", "has to be a message of the user.")


def _into_query(request: Request, user_id: str) -> None:
    given = parse_qsl(request.url.query, keep_blank_values=True)
    for name, value in given:
        if name == "user_id":
            _require_same(value, user_id, "/query/user_id")
    rest = [(name, value) for name, value in given if name != "user_id"]
    request.scope["query_string"] = urlencode([*rest, ("user_id", user_id)]).encode()
    # What was read of it before is read again.
    for kept in ("_query_params", "_url"):
        vars(request).pop(kept, None)


def _require_same(given: Any, user_id: str, pointer: str) -> None:
    if given != user_id:
        raise _forbidden(pointer, "is another user than the token's.")


async def _require(
    request: Request, kind: _Kind, given: Any, tenant_id: UUID, user_id: str
) -> None:
    try:
        id_ = UUID(given)
    except (ValueError, AttributeError, TypeError):
        raise NotFoundError(kind, str(given)[:64]) from None
    params = {"id": id_, "tenant_id": tenant_id, "user_id": user_id}
    async with api_of(request).connection() as conn:
        [row] = await (await conn.execute(_IS_THEIRS[kind], params)).fetchall()
    if not row["found"]:
        raise NotFoundError(kind, id_)


def _forbidden(pointer: str, why: str) -> ForbiddenError:
    error = ForbiddenError(f"{pointer}: {why}")
    error.pointer = pointer
    return error
