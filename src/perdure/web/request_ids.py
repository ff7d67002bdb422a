"""The outermost layer: an id on every answer, and an answer whatever happens within."""

from __future__ import annotations

import logging
import re
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perdure.web.paths import shown_path
from perdure.web.problems import problem

logger = logging.getLogger(__name__)

_SANE = re.compile(r"[\x21-\x7e]{1,128}")


class RequestIds:
    """Puts ``X-Request-Id`` on every answer: the caller's own if it is sane, else a new one.

    An exception nobody expected is logged with the id and answered with a 500.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _SANE.fullmatch(given) else uuid4().hex
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                # Answers hold private data and what models wrote: for nobody to keep or guess at.
                headers.setdefault("Cache-Control", "no-store")
                headers.setdefault("X-Content-Type-Options", "nosniff")
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            logger.exception(
                "%s %s failed (request %s)", scope["method"], shown_path(scope), request_id
            )
            if started:
                raise
            answer = problem(
                "internal_error", f"The server's log has it under request id {request_id}."
            )
            await answer(scope, receive, send_with_id)
