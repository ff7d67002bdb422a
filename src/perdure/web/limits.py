"""The door: bodies and queries nobody has to look at twice are refused before they come in.

A body has to be JSON of bounded size and depth, without what Postgres or other people's JSON
readers refuse: NUL characters, lone surrogates, NaN, infinities, integers beyond 64 bits.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.message import Message as Headerlines
from typing import Any
from urllib.parse import unquote_plus

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perdure.errors import FieldError
from perdure.web.paths import is_import, is_link
from perdure.web.problems import problem

MAX_DEPTH = 64
_LEAST, _MOST = -(2**63), 2**63 - 1
_REFUSED_CHARACTER = re.compile("[\0\ud800-\udfff]")
_MAX_DIGITS = len(str(_MOST)) + 1
# What only a body can have that holds something refused: most have none of it and need no walk.
_SUSPECT = re.compile(rb"\\u|[0-9]{19}|[0-9][eE]|NaN|Infinity")
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


@dataclass(frozen=True, slots=True)
class _Bad:
    """Stands in a parsed body where a number was that is none."""

    why: str


def find_refused(value: Any) -> FieldError | None:
    """Return the first thing in a parsed body that is refused, or None."""
    pending: list[tuple[str, Any, int]] = [("", [value], 0)]
    while pending:
        pointer, container, depth = pending.pop()
        if depth > MAX_DEPTH:
            return FieldError(pointer, f"is nested deeper than {MAX_DEPTH}.")
        inside: list[tuple[str, Any, int]] = []
        for key, item in _members(container):
            if isinstance(key, str) and (why := _refused_text(key)):
                return FieldError(_child(pointer, key), f"has a name that {why}")
            if isinstance(item, (dict, list)):
                # The root stands in a list of its own and has no name in it.
                inside.append((_child(pointer, key) if depth else "", item, depth + 1))
            elif why := _refused_scalar(item):
                return FieldError(_child(pointer, key) if depth else "", why)
        pending += reversed(inside)
    return None


def _members(container: dict[str, Any] | list[Any]) -> Iterable[tuple[str | int, Any]]:
    return container.items() if isinstance(container, dict) else enumerate(container)


def parse(body: bytes) -> tuple[Any, Response | None]:
    """Return a body's JSON value, or the refusal it earns."""
    try:
        text = body.decode()
        if not _SUSPECT.search(body) and body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
            return json.loads(text), None
        value = json.loads(text, parse_int=_integer, parse_float=_float, parse_constant=_constant)
    except RecursionError:
        return None, _invalid(FieldError("", f"is nested deeper than {MAX_DEPTH}."))
    except UnicodeDecodeError as error:
        detail = f"The body is not UTF-8: the byte at {error.start} is wrong."
        return None, problem("malformed_json", detail)
    except json.JSONDecodeError as error:
        detail = f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        return None, problem("malformed_json", detail)
    refused = find_refused(value)
    return value, None if refused is None else _invalid(refused)


class Door:
    """Lets requests in whose query and body can be worked with; refuses the rest."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._max = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = _check_query(scope["query_string"])
        if refusal is None and scope["method"] not in _BODILESS and not is_import(scope):
            check = _check_form if is_link(scope) else _check_json
            body, refusal = await self._read(receive, Headers(scope=scope), check)
            if refusal is None and body and check is _check_json:
                refusal = parse(body)[1]
            receive = _once(body, receive)
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await refusal(scope, receive, send)

    async def _read(
        self, receive: Receive, headers: Headers, check: Callable[[Headers], Response | None]
    ) -> tuple[bytes, Response | None]:
        too_large = problem(
            "payload_too_large",
            f"The body may have {self._max} bytes.",
            # What is left of the body is not read; the connection is of no more use.
            headers={"Connection": "close"},
        )
        length = headers.get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length[:20]) > self._max:
            return b"", too_large
        chunks: list[bytes] = []
        size = 0
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._max:
                return b"", too_large
            chunks.append(chunk)
            more = message.get("more_body", False)
        body = b"".join(chunks)
        return body, check(headers) if body else None


def _check_form(headers: Headers) -> Response | None:
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/x-www-form-urlencoded":
        return None
    return problem("unsupported_media_type", "Send the form of the link's page.")


def _check_json(headers: Headers) -> Response | None:
    line = Headerlines()
    line["content-type"] = headers.get("content-type", "")
    media_type = line.get_content_type()
    charset = str(line.get_param("charset", "utf-8")).lower()
    encoded = headers.get("content-encoding", "identity").lower()
    is_json = media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )
    if is_json and charset in ("utf-8", "utf8") and encoded == "identity":
        return None
    return problem(
        "unsupported_media_type",
        "Send JSON in UTF-8, not compressed, with Content-Type: application/json.",
    )


def _check_query(query: bytes) -> Response | None:
    for pair in query.decode("latin-1").split("&"):
        name, _, text = pair.partition("=")
        if "\0" in unquote_plus(text) or "\0" in unquote_plus(name):
            pointer = _child("/query", unquote_plus(name))
            return _invalid(FieldError(pointer, "holds a NUL character."))
    return None


def _once(body: bytes, receive: Receive) -> Receive:
    """Give the body that was read ahead, then go on with what the server says."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _invalid(error: FieldError) -> Response:
    detail = f"{error.pointer or 'The body'} {error.detail}"
    return problem("validation_error", detail, errors=[error])


def _integer(digits: str) -> int | _Bad:
    if len(digits) <= _MAX_DIGITS and _LEAST <= int(digits) <= _MOST:
        return int(digits)
    return _Bad("is an integer beyond 64 bits.")


def _float(text: str) -> float | _Bad:
    number = float(text)
    return number if math.isfinite(number) else _Bad("is a number too large to be told apart.")


def _constant(name: str) -> _Bad:
    return _Bad(f"is {name}, which is not JSON.")


def _refused_scalar(item: Any) -> str | None:
    if isinstance(item, _Bad):
        return item.why
    return _refused_text(item) if isinstance(item, str) else None


def _refused_text(text: str) -> str | None:
    match = _REFUSED_CHARACTER.search(text)
    if match is None:
        return None
    return "holds a NUL character." if match[0] == "\0" else "holds a lone surrogate."


def _child(pointer: str, name: str | int) -> str:
    shown = _REFUSED_CHARACTER.sub("\ufffd", str(name)).replace("~", "~0").replace("/", "~1")
    return f"{pointer}/{shown}"
