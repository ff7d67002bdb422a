"""Who is asking: recognised once for each request, then asked for a role."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from perdure.access import user_sessions
from perdure.access.keys import authenticate as authenticate_key
from perdure.access.principals import Principal, Role, local_principal
from perdure.errors import UnauthorizedError
from perdure.web.state import api_of
from perdure.web.users import confine

Authenticate = Callable[[Request], Awaitable[Principal]]
"""Recognises who sent a request. Raises UnauthorizedError (401) for nobody known."""

# Only describes the scheme in /openapi.json: the header is read by what recognises.
_bearer = HTTPBearer(
    auto_error=False,
    description="A service key (`perdure keys create`), or a user's token (`POST "
    "/v1/user_sessions`).",
)


async def by_service_key(request: Request) -> Principal:
    """Recognise the service key, or the user's token, of ``Authorization: Bearer <key>``.

    Raises:
        UnauthorizedError: there is none, or it is unknown, revoked or expired.
    """
    key = _key_of(request)
    if key is None:
        raise UnauthorizedError("Send a service key with the request: Authorization: Bearer <key>.")
    async with api_of(request).connection() as conn:
        if key.startswith(user_sessions.PREFIX):
            return await user_sessions.authenticate(conn, key)
        return await authenticate_key(conn, key)


async def as_local_user(request: Request) -> Principal:
    """Take whoever asks for the person at this machine; only behind ``LoopbackOnly``.

    Who comes with a user's token is that user here too: a page is tried as it will be.
    """
    key = _key_of(request)
    if key is not None and key.startswith(user_sessions.PREFIX):
        return await by_service_key(request)
    return local_principal()


def _key_of(request: Request) -> str | None:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None


async def _recognise(
    request: Request,
    described: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
) -> Principal:
    principal = await api_of(request).authenticate(request)
    if principal.user_id is not None:
        await confine(request, principal.tenant_id, principal.user_id)
    if principal.source is not None:
        return principal
    way = "local" if principal.type == "local" else "api"
    return replace(principal, source=source_of(request, way))


def source_of(request: Request, way: str) -> str:
    """Return where a request came from: the ``way`` in, and the address of the connection.

    What a proxy says of its client counts where the server trusts the proxy: uvicorn puts it in
    the place of the connection's own (``--forwarded-allow-ips``, ``FORWARDED_ALLOW_IPS``).
    """
    return way if request.client is None else f"{way} {request.client.host}"


def _with(*roles: Role) -> Callable[[Principal], Awaitable[Principal]]:
    async def check(principal: Annotated[Principal, Depends(_recognise)]) -> Principal:
        principal.require(*roles)
        return principal

    return check


Anybody = Annotated[Principal, Depends(_recognise)]
"""Whoever is known, whatever their roles."""
RunReader = Annotated[Principal, Depends(_with(Role.RUNS_READ))]
RunWriter = Annotated[Principal, Depends(_with(Role.RUNS_WRITE))]
Admin = Annotated[Principal, Depends(_with(Role.ADMIN))]
Decider = Annotated[Principal, Depends(_with(Role.DECISIONS_WRITE))]
InterruptionReader = Annotated[Principal, Depends(_with(Role.RUNS_READ, Role.DECISIONS_WRITE))]
