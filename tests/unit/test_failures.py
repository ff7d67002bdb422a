"""What an exception of a tool says of its effect."""

from __future__ import annotations

import asyncio
import http.client
import smtplib
import socket
import ssl
import subprocess
import urllib.error
from collections.abc import Callable
from typing import Any

import agents
import httpcore
import httpx
import httpx2
import openai
import psycopg
import psycopg_pool
import pytest
import requests
import urllib3.exceptions
from mcp import MCPError

from perdure.ledger.failures import in_words, unknown_outcome

_REQUEST: Any = httpx2.Request("POST", "http://service")


def made_up(path: str, *bases: type[BaseException]) -> type[BaseException]:
    """A class as a library that is not installed has it."""
    module, _, name = path.rpartition(".")
    made: type[BaseException] = type(name, bases or (Exception,), {"__module__": module})
    return made


def caused(error: BaseException, *beneath: BaseException) -> BaseException:
    """``error`` raised from the first of ``beneath``, that from the next, and so on."""
    outer = error
    for cause in beneath:
        outer.__cause__ = cause
        outer = cause
    return error


def within(error: BaseException, *beneath: BaseException) -> BaseException:
    """``error`` raised while the first of ``beneath`` was handled, and so on."""
    outer = error
    for context in beneath:
        outer.__context__ = context
        outer = context
    return error


def from_none(error: BaseException, beneath: BaseException) -> BaseException:
    """``error`` as the tool's own last word."""
    error.__context__, error.__suppress_context__ = beneath, True
    return error


def coded(code: str, words: str = "trouble") -> psycopg.Error:
    """What a Postgres server said."""
    return psycopg.errors.lookup(code)(words)


def pool_of(url: str = "http://127.0.0.1:1") -> Any:
    """What urllib3's exceptions want to know."""
    return urllib3.connectionpool.connection_from_url(url)


NEVER_SENT: dict[str, Callable[[], BaseException]] = {
    "refused": lambda: ConnectionRefusedError(111, "refused"),
    "no such host": lambda: socket.gaierror(-2, "unknown"),
    "certificate": lambda: ssl.SSLCertVerificationError("self-signed"),
    "urllib": lambda: within(
        urllib.error.URLError(ConnectionRefusedError()), ConnectionRefusedError()
    ),
    "smtplib": lambda: smtplib.SMTPConnectError(421, "busy"),
    "httpx": lambda: httpx.ConnectError("refused"),
    "httpx, time-out": lambda: caused(
        httpx.ConnectTimeout("slow"), httpcore.ConnectTimeout(), TimeoutError()
    ),
    "httpx2": lambda: httpx2.ConnectTimeout("slow"),
    "httpx, pool": lambda: httpx.PoolTimeout("full"),
    "requests": lambda: within(
        requests.ConnectionError(),
        caused(
            urllib3.exceptions.MaxRetryError(pool_of(), "/"),
            urllib3.exceptions.NewConnectionError(pool_of(), "refused"),
            ConnectionRefusedError(),
        ),
    ),
    "requests, time-out": lambda: within(
        requests.ConnectTimeout(),
        caused(
            urllib3.exceptions.MaxRetryError(pool_of(), "/"),
            urllib3.exceptions.ConnectTimeoutError("slow"),
            TimeoutError(),
        ),
    ),
    "aiohttp": lambda: made_up(
        "aiohttp.client_exceptions.ClientConnectorError",
        made_up("aiohttp.client_exceptions.ClientConnectionError"),
    )(),
    "openai": lambda: caused(openai.APIConnectionError(request=_REQUEST), httpx2.ConnectError("")),
    "openai, time-out": lambda: caused(openai.APITimeoutError(_REQUEST), httpx2.ConnectTimeout("")),
    "psycopg": lambda: psycopg.OperationalError("connection failed: connection refused"),
    "psycopg, pool": lambda: psycopg_pool.PoolTimeout("no connection"),
    "Postgres starts": lambda: coded("57P03"),
    "in a group": lambda: ExceptionGroup("two", [ConnectionRefusedError(), ValueError()]),
}

UNKNOWN: dict[str, Callable[[], BaseException]] = {
    "time-out": lambda: TimeoutError(),
    "asyncio.timeout": lambda: caused(TimeoutError(), asyncio.CancelledError()),
    "reset": lambda: ConnectionResetError(104, "reset"),
    "pipe": lambda: BrokenPipeError(32, "broken"),
    "cancelled": lambda: asyncio.CancelledError(),
    "cut": lambda: asyncio.IncompleteReadError(b"", 10),
    "command": lambda: subprocess.TimeoutExpired("pay", 1),
    "http.client": lambda: http.client.RemoteDisconnected("closed"),
    "smtplib": lambda: smtplib.SMTPServerDisconnected("closed"),
    "httpx": lambda: caused(httpx.ReadTimeout("slow"), httpcore.ReadTimeout(), TimeoutError()),
    "httpx, write": lambda: httpx.WriteTimeout("slow"),
    "httpx2, reset": lambda: httpx2.ReadError("reset"),
    "httpx2, closed": lambda: httpx2.RemoteProtocolError("closed"),
    "httpcore": lambda: httpcore.ReadError(),
    "requests": lambda: requests.ReadTimeout(),
    "requests, reset": lambda: within(
        requests.ConnectionError(), urllib3.exceptions.ProtocolError("aborted")
    ),
    "urllib3": lambda: urllib3.exceptions.ReadTimeoutError(pool_of(), "/", "slow"),
    "aiohttp": lambda: made_up(
        "aiohttp.client_exceptions.ServerDisconnectedError",
        made_up("aiohttp.client_exceptions.ClientConnectionError"),
    )(),
    "openai": lambda: openai.APITimeoutError(_REQUEST),
    "openai, read": lambda: caused(
        openai.APIConnectionError(request=_REQUEST), httpx2.ReadError("")
    ),
    "the SDK's": lambda: agents.ToolTimeoutError("pay", 1.0),
    "MCP": lambda: MCPError(-32001, "timed out"),
    "psycopg": lambda: psycopg.OperationalError("server closed the connection unexpectedly"),
    "Postgres stops": lambda: coded("57P01"),
    "wrapped": lambda: caused(RuntimeError("no payment"), httpx.ReadTimeout("slow")),
    "handled": lambda: within(RuntimeError("no payment"), ValueError("x"), TimeoutError()),
    "in a group": lambda: ExceptionGroup("two", [ConnectionRefusedError(), TimeoutError()]),
    # The first attempt may have arrived, whatever became of the second.
    "tried again": lambda: within(ConnectionRefusedError(), httpx.ReadTimeout("slow")),
}

ITS_WORD: dict[str, Callable[[], BaseException]] = {
    "its own": lambda: ValueError("no such order"),
    "named like one": lambda: made_up("shop.Timeout")("the shop is closed"),
    "status": lambda: httpx.HTTPStatusError(
        "503", request=httpx.Request("GET", "http://service"), response=httpx.Response(503)
    ),
    "generic": lambda: ConnectionError("not now"),
    "file": lambda: FileNotFoundError("x"),
    "statement": lambda: coded("23505", "duplicate key"),
    "statement cancelled": lambda: coded("57014"),
    "MCP": lambda: MCPError(-32602, "invalid"),
    "its last word": lambda: from_none(ValueError("did not happen"), TimeoutError()),
    "exit": lambda: caused(RuntimeError("exit"), SystemExit(1)),
}


def _id(case: tuple[str, Any]) -> str:
    return case[0]


@pytest.mark.parametrize("case", NEVER_SENT.items(), ids=_id)
def test_a_connection_that_never_came_about_is_a_failure(case: tuple[str, Any]) -> None:
    assert unknown_outcome(case[1]()) is None


@pytest.mark.parametrize("case", UNKNOWN.items(), ids=_id)
def test_a_time_out_or_a_lost_connection_leaves_it_open(case: tuple[str, Any]) -> None:
    assert unknown_outcome(case[1]()) is not None


@pytest.mark.parametrize("case", ITS_WORD.items(), ids=_id)
def test_all_else_is_the_tools_word(case: tuple[str, Any]) -> None:
    assert unknown_outcome(case[1]()) is None


def test_it_names_the_outermost_that_leaves_it_open() -> None:
    error = caused(
        RuntimeError("no payment"),
        httpx.ReadTimeout("slow"),
        httpcore.ReadTimeout(),
        TimeoutError(),
    )
    found = unknown_outcome(error)
    assert found is not None
    assert in_words(found) == "ReadTimeout (slow)"
    assert in_words(TimeoutError()) == "TimeoutError"


def test_exceptions_that_go_round_in_circles_come_to_an_end() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert unknown_outcome(one) is None
