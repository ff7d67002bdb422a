"""``/v1/sessions/export`` and ``import``: conversations taken along, as lines of JSON."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi import Query as QueryParameters
from pydantic import Field
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from perdure.access.principals import Principal
from perdure.db import Connection
from perdure.errors import InvalidRequestError
from perdure.sessions.exporting import Exported, export_sessions
from perdure.sessions.importing import Spool, import_sessions
from perdure.sessions.rules import Status
from perdure.sessions.store import SessionFilter
from perdure.web import session_answers as shown
from perdure.web.auth import RunReader, RunWriter
from perdure.web.idempotency import Done, IdempotencyHeader, perform
from perdure.web.parameters import Query
from perdure.web.problems import problem
from perdure.web.rendering import render
from perdure.web.schemas import Text255
from perdure.web.state import CARRYING_SECONDS, Api, api_of

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])

MEDIA_TYPE: Final = "application/x-ndjson"
_TAKEN = frozenset({MEDIA_TYPE, "application/ndjson", "application/jsonl"})
_PIECE_BYTES = 64 << 10
_LINES = {MEDIA_TYPE: {"schema": {"type": "string"}}}


class ExportQuery(Query):
    """Which sessions go along."""

    user_id: Text255 | None = None
    session_id: Annotated[
        list[UUID], Field(max_length=1000, description="Given more than once: these.")
    ] = Field(default_factory=list)
    group_id: Text255 | None = None
    tag: Annotated[list[str], Field(description="Given more than once: those that have all.")] = (
        Field(default_factory=list)
    )
    status: Status | None = None

    def wanted(self) -> Exported:
        """Return it as the export takes it."""
        only = SessionFilter(
            user_id=self.user_id, group_id=self.group_id, status=self.status, tags=self.tag
        )
        return Exported(only, self.session_id or None)


class ImportQuery(Query):
    """What becomes of sessions whose key is taken, and whose they are."""

    user_id: Annotated[
        Text255 | None,
        Field(description="Whose all of them shall be, in the place of what the lines say."),
    ] = None
    on_conflict: Annotated[
        Literal["refuse", "skip"],
        Field(description="`skip` leaves out sessions whose key is taken, and their branches."),
    ] = "refuse"


class _Lines(StreamingResponse):
    """Streams, and closes what it streams also when nobody reads it to its end."""

    async def stream_response(self, send: Send) -> None:
        """Send it."""
        content = self.body_iterator
        assert isinstance(content, AsyncGenerator)  # noqa: S101 - export gives one
        async with aclosing(content):
            await super().stream_response(send)


@router.get(
    "/export",
    response_class=Response,
    responses={200: {"description": "Lines of JSON.", "content": _LINES}},
)
async def export(
    request: Request, principal: RunReader, query: Annotated[ExportQuery, QueryParameters()]
) -> Response:
    """Take sessions along: a line of JSON for each, and one for each of its items, as of now.

    A branch follows its parent, where that goes along; one whose parent does not is a session of
    its own that has all it read. The last line is `end`, with how many there were: without it
    something is missing. Deleted sessions are left out.
    """
    content = _pieces(api_of(request), principal, query.wanted())
    # Before anything is said: what is refused is a problem.
    first = await anext(content)
    return _Lines(_then(first, content), media_type=MEDIA_TYPE)


async def _then(first: bytes, content: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(content):
        yield first
        async for piece in content:
            yield piece


async def _pieces(api: Api, principal: Principal, wanted: Exported) -> AsyncGenerator[bytes, None]:
    piece = bytearray()
    async with api.carrying(), api.connection(CARRYING_SECONDS) as conn:
        lines = export_sessions(conn, tenant_id=principal.tenant_id, wanted=wanted)
        async with aclosing(lines):
            async for line in lines:
                piece += render(line) + b"\n"
                if len(piece) >= _PIECE_BYTES:
                    yield bytes(piece)
                    piece.clear()
    yield bytes(piece)


@router.post(
    "/import",
    status_code=201,
    response_model=shown.SessionImport,
    openapi_extra={"requestBody": {"required": True, "content": _LINES}},
)
async def import_(
    request: Request,
    principal: RunWriter,
    query: Annotated[ImportQuery, QueryParameters()],
    key: IdempotencyHeader = None,
) -> Response:
    """Bring sessions from elsewhere, as the export gives them: all of them, or none.

    They get ids of their own, which the answer names, and keep keys, numbers and times. Of runs
    only those that are here are named.
    """
    refusal = _check(request)
    if refusal is not None:
        return refusal
    api = api_of(request)
    with Spool(query.user_id) as spool:
        most, size = api.settings.max_import_bytes, 0
        # What comes behind a wrong line is let pass: who still sends does not see an answer.
        wrong: InvalidRequestError | None = None
        try:
            async for chunk in request.stream():
                size += len(chunk)
                if size > most:
                    return _too_large(most)
                if wrong is None:
                    wrong = _fed(spool, chunk)
        except ClientDisconnect:
            # Nobody is there to be answered.
            return Response(status_code=400)
        if wrong is not None:
            raise wrong
        body_hash = spool.end()

        async def bring(conn: Connection) -> Done:
            done = await import_sessions(
                conn,
                spool,
                tenant_id=principal.tenant_id,
                by=principal,
                skip=query.on_conflict == "skip",
            )
            return Done(201, done)

        async with api.carrying():
            return await perform(
                *(request, principal, key, bring), body_hash=body_hash, seconds=CARRYING_SECONDS
            )


def _fed(spool: Spool, chunk: bytes) -> InvalidRequestError | None:
    try:
        spool.feed(chunk)
    except InvalidRequestError as error:
        return error
    return None


def _check(request: Request) -> Response | None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoded = request.headers.get("content-encoding", "identity").lower()
    if media_type not in _TAKEN or encoded != "identity":
        return problem(
            "unsupported_media_type",
            f"Send lines of JSON in UTF-8, not compressed, with Content-Type: {MEDIA_TYPE}.",
        )
    most = api_of(request).settings.max_import_bytes
    length = request.headers.get("content-length", "0")
    if length.isascii() and length.isdigit() and int(length[:20]) > most:
        return _too_large(most)
    return None


def _too_large(most: int) -> Response:
    return problem(
        "payload_too_large",
        f"An import may have {most} bytes: import in parts, or raise PERDURE_MAX_IMPORT_BYTES.",
        # What is left of the body is not read; the connection is of no more use.
        headers={"Connection": "close"},
    )
