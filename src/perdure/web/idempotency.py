"""POST, done once: the work and its answer in one transaction, replayed to who asks again."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Header, Request
from psycopg import AsyncConnection
from starlette.responses import Response

from perdure.access.principals import Principal
from perdure.db import Connection
from perdure.errors import ConflictError
from perdure.idempotency import IdempotencyKey, RecordedAnswer, claim, hash_request, record
from perdure.web.problems import problem_of
from perdure.web.rendering import json_response
from perdure.web.state import ANSWER_SECONDS, api_of, own_path

IdempotencyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="The same request with the same key counts once, for 24 hours.",
    ),
]


@dataclass(frozen=True, slots=True)
class Done:
    """What an operation answers when its transaction commits."""

    status_code: int
    content: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


Operation = Callable[[Connection], Awaitable[Done]]


async def perform(
    request: Request,
    principal: Principal,
    key: str | None,
    operation: Operation,
    *,
    body_hash: bytes | None = None,
    seconds: float = ANSWER_SECONDS,
) -> Response:
    """Run ``operation`` in one transaction, of so many ``seconds``, and return its answer.

    ``body_hash`` tells its body from others where that has been read already.

    With a key it runs once: who sends the same request again gets the same answer, marked
    ``Idempotent-Replayed: true``. A conflict is such an answer; another refusal or a failure
    leaves the key free.

    Raises:
        InvalidRequestError: the key is empty or too long.
        IdempotencyConflictError: it came with another request before.
    """
    async with api_of(request).connection(seconds) as conn:
        if key is None:
            async with conn.transaction():
                return _response(await operation(conn))
        route = f"{request.method} {own_path(request)}"
        if principal.user_id is not None:
            # One user's answer is not replayed to another.
            route += f" as {principal.user_id}"
        claimed = IdempotencyKey(
            tenant_id=principal.tenant_id,
            route=route,
            key=key,
            request_hash=await _hash(request, body_hash),
        )
        async with conn.transaction():
            before = await claim(conn, claimed)
            if before is not None:
                return _replay(before)
            response = await _run(conn, operation)
            headers = {k: v for k, v in response.headers.items() if k != "content-length"}
            answer = RecordedAnswer(response.status_code, headers, bytes(response.body))
            await record(conn, claimed, answer)
            return response


async def _run(conn: AsyncConnection[Any], operation: Operation) -> Response:
    try:
        async with conn.transaction():
            return _response(await operation(conn))
    except ConflictError as error:
        return problem_of(error)


def _response(done: Done) -> Response:
    return json_response(done.content, done.status_code, done.headers)


def _replay(answer: RecordedAnswer) -> Response:
    headers = {**answer.headers, "Idempotent-Replayed": "true"}
    return Response(answer.body, answer.status_code, headers)


async def _hash(request: Request, body_hash: bytes | None) -> bytes:
    if body_hash is not None:
        return hash_request(body_hash.hex(), request.url.query)
    body = await request.body()
    return hash_request(json.loads(body) if body else None, request.url.query)
