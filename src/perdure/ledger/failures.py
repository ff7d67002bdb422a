"""What a tool's exception says of its effect: that it failed, or that nobody knows. Pure.

An exception is a tool's word that it failed, unless it tells of a time-out or of a connection
that was lost on the way: the request may have arrived. A connection that never came about sent
nothing, whatever else is said of it. Classes are known by module and name, so that no library has
to be there. Causes and contexts are looked at too, as libraries put their own words around what
happened; ``raise … from None`` ends that: who writes it knows what happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from enum import Enum, auto
from typing import Any


class _Says(Enum):
    NEVER_SENT = auto()
    UNKNOWN = auto()
    LOOK_DEEPER = auto()
    """One of the two; what it was caused by says which, and unknown if that says nothing."""


_NEVER_SENT = {
    "builtins": "ConnectionRefusedError",
    "socket": "gaierror herror",
    "ssl": "SSLCertVerificationError",
    "smtplib": "SMTPConnectError SMTPAuthenticationError",
    "httpx": "ConnectError ConnectTimeout PoolTimeout ProxyError UnsupportedProtocol",
    "httpcore": "ConnectError ConnectTimeout PoolTimeout ProxyError UnsupportedProtocol",
    "urllib3": "NewConnectionError ConnectTimeoutError NameResolutionError ProxyError"
    " EmptyPoolError ClosedPoolError",
    "requests": "ConnectTimeout ProxyError",
    "aiohttp": "ClientConnectorError ClientConnectorSSLError ClientConnectorCertificateError"
    " ClientConnectorDNSError UnixClientConnectorError ClientProxyConnectionError"
    " ConnectionTimeoutError",
    "botocore": "EndpointConnectionError ConnectTimeoutError ProxyConnectionError",
    "psycopg": "ConnectionTimeout",
    "psycopg_pool": "PoolTimeout PoolClosed TooManyRequests",
}
_UNKNOWN = {
    "builtins": "TimeoutError ConnectionResetError ConnectionAbortedError BrokenPipeError",
    "asyncio": "IncompleteReadError",
    "subprocess": "TimeoutExpired",
    "smtplib": "SMTPServerDisconnected",
    "http": "RemoteDisconnected IncompleteRead",
    "agents": "ToolTimeoutError ModelTimeoutError MCPToolCancellationError",
    "anyio": "BrokenResourceError EndOfStream",
    "httpx": "TimeoutException NetworkError RemoteProtocolError",
    "httpcore": "TimeoutException NetworkError RemoteProtocolError",
    "urllib3": "TimeoutError ProtocolError",
    "requests": "Timeout ChunkedEncodingError",
    "aiohttp": "ClientConnectionError ClientPayloadError",
    "botocore": "ReadTimeoutError ConnectionClosedError",
}
_LOOK_DEEPER = {
    "urllib3": "MaxRetryError",
    "requests": "ConnectionError",
    "openai": "APIConnectionError",
    "anthropic": "APIConnectionError",
}
_ALIASES = {"httpx2": "httpx", "httpcore2": "httpcore"}
_DATABASES = frozenset({"psycopg", "psycopg2", "asyncpg"})
_NOT_CONNECTED = (
    "connection failed",
    "connection to server at",
    "could not connect",
    "connection is closed",
    "connection is bad",
)
"""What database clients say, in exceptions without a code, when nothing could be sent."""
_MCP_GAVE_UP = frozenset({408, -32001, -32000})
"""Codes of MCP errors made on this side: the answer did not come in time, or the server went."""

_KNOWN: dict[tuple[str, str], _Says] = {
    (package, name): says
    for table, says in (
        (_LOOK_DEEPER, _Says.LOOK_DEEPER),
        (_UNKNOWN, _Says.UNKNOWN),
        (_NEVER_SENT, _Says.NEVER_SENT),
    )
    for package, names in table.items()
    for name in names.split()
}


def unknown_outcome(error: BaseException) -> BaseException | None:
    """Return what in ``error`` leaves open whether the effect happened, or None.

    None: the tool's word is that it failed, or nothing was ever sent.
    """
    if isinstance(error, asyncio.CancelledError):
        return error
    return _look(error, explained=False, seen=set())[0]


def _look(
    error: BaseException, *, explained: bool, seen: set[int]
) -> tuple[BaseException | None, bool]:
    """Return what leaves the outcome open, and whether a connection never came about.

    ``explained``: a connection that never came about was explicitly caused by ``error``, which
    then says nothing more of the effect.
    """
    if id(error) in seen:
        return None, False
    seen.add(id(error))
    says = _says(error)
    never_sent = says is _Says.NEVER_SENT
    for beneath, explicit in _beneath(error):
        unknown, never = _look(beneath, explained=explicit and (explained or never_sent), seen=seen)
        if unknown is not None:
            # The outer one has the words of the library the tool calls.
            return (error if says is not None and not never_sent else unknown), False
        never_sent = never_sent or never
    if says is _Says.UNKNOWN and not explained:
        return error, False
    if says is _Says.LOOK_DEEPER and not (explained or never_sent):
        return error, False
    return None, never_sent


def _beneath(error: BaseException) -> Iterator[tuple[BaseException, bool]]:
    """Yield what ``error`` came of, and whether it says so itself."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield one, False
    if isinstance(error, asyncio.CancelledError):
        return
    if error.__cause__ is not None:
        yield error.__cause__, True
    elif error.__context__ is not None and not error.__suppress_context__:
        yield error.__context__, False


def _says(error: BaseException) -> _Says | None:
    for cls in type(error).__mro__:
        package = cls.__module__.partition(".")[0]
        says = _KNOWN.get((_ALIASES.get(package, package), cls.__name__))
        if says is not None:
            return says
        if package in _DATABASES:
            return _database_says(error)
        if package == "mcp":
            return _mcp_says(error)
    return None


def _database_says(error: Any) -> _Says | None:
    """Tell a connection that never came about from one lost in mid-statement, by its code."""
    code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if code is None:
        # No server said anything: libpq, or the client itself.
        lost = type(error).__name__ in ("OperationalError", "ConnectionDoesNotExistError")
        if not lost:
            return None
        text = str(error).lower()
        return _Says.NEVER_SENT if any(said in text for said in _NOT_CONNECTED) else _Says.UNKNOWN
    if code in ("08001", "08004", "57P03", "53300") or code.startswith("28"):
        return _Says.NEVER_SENT
    if code.startswith("08") or code in ("57P01", "57P02", "57P05"):
        return _Says.UNKNOWN
    return None


def _mcp_says(error: Any) -> _Says | None:
    code = getattr(error, "code", None) or getattr(getattr(error, "error", None), "code", None)
    return _Says.UNKNOWN if code in _MCP_GAVE_UP else None


def in_words(error: BaseException) -> str:
    """Return an exception's class and, where it has one, its message."""
    text = str(error)
    return f"{type(error).__name__} ({text})" if text else type(error).__name__
