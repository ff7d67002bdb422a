"""Without keys, only this machine's own pages and programs may ask.

A web page anywhere can make its visitor's browser send requests to 127.0.0.1. Such a request
names the page's own host (after DNS rebinding) or carries its origin; both are refused.
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from perdure.web.paths import is_link
from perdure.web.problems import problem


class LoopbackOnly:
    """Refuses a ``Host`` that is not loopback and an ``Origin`` that is not this server."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or not is_loopback(hosts[0]):
            reason = "This server answers to localhost only; use `perdure serve` for others."
        elif any(not _same_origin(origin, hosts[0]) for origin in origins) and not (
            # A page that tells nobody where it is has no origin either; its form has a token.
            origins == ["null"] and is_link(scope)
        ):
            reason = "Pages of other origins may not ask this server."
        else:
            await self._app(scope, receive, send)
            return
        await problem("forbidden", reason)(scope, receive, send)


def is_loopback(host: str) -> bool:
    """Whether a ``Host`` header, with or without a port, names this machine itself."""
    name = _hostname(f"//{host}")
    if name == "localhost":
        return True
    try:
        return name is not None and ip_address(name).is_loopback
    except ValueError:
        return False


def _same_origin(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def _hostname(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        # Reading the port checks it.
        _ = parts.port
    except ValueError:
        return None
    if parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        return None
    return parts.hostname
