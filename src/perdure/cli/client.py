"""Talks to a server: ``PERDURE_URL``, with the key ``PERDURE_API_KEY``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx
import typer

from perdure.config import Settings
from perdure.errors import ConfigurationError, PerdureError

_CONNECT_SECONDS = 5.0
_READ_SECONDS = 30.0
_CARRYING_SECONDS = 660.0
"""How long an import may take once it is sent: longer than the server gives it."""
_TRIES = 3


class ServerError(PerdureError):
    """The server refused, or could not be asked. ``reason`` is its stable code, ``problem`` all."""

    def __init__(
        self, message: str, reason: str = "", problem: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.problem = dict(problem or {})


class Client:
    """The server's API; each call returns the JSON of the answer.

    A POST carries an idempotency key, so that one whose answer was lost can be sent again.

    Raises, from each call:
        ServerError: refused or not reachable; the message says what to do.
    """

    def __init__(self, settings: Settings) -> None:
        self.url = _checked_url(settings.server_url)
        self._has_key = settings.api_key is not None
        headers = {"Accept": "application/json"}
        if settings.api_key is not None:
            headers["Authorization"] = f"Bearer {_checked_key(settings.api_key)}"
        self._http = httpx.Client(
            base_url=self.url,
            headers=headers,
            timeout=httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS),
            # A proxy of the environment cannot reach what listens on this machine.
            trust_env=not _is_loopback(self.url),
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, query: Mapping[str, Any] | None = None, *, wait: float = 0) -> Any:
        """GET ``path``; query fields that are None are left out. ``wait`` is in seconds."""
        params = {name: value for name, value in (query or {}).items() if value is not None}
        if wait:
            params["wait"] = wait
        return self._send("GET", path, params=params, timeout=_READ_SECONDS + wait)

    def changed(
        self, path: str, query: Mapping[str, Any], *, etag: str | None, wait: float
    ) -> tuple[Any, str] | None:
        """GET a page once it is another than that of ``etag``; returns it with its own.

        None: it is the same after ``wait`` seconds. Without an ETag it is given at once.
        """
        params = {name: value for name, value in query.items() if value is not None}
        response = self._answer(
            "GET",
            path,
            params={**params, "wait": wait},
            headers={} if etag is None else {"If-None-Match": etag},
            timeout=_READ_SECONDS + wait,
        )
        if response.status_code == httpx.codes.NOT_MODIFIED:
            return None
        return self._content(response), response.headers.get("etag", "")

    def events(self, path: str, *, after: int) -> Iterator[dict[str, Any] | None]:
        """GET ``path`` as a stream and give its events after a number until it ends.

        None: it says that it is there. Ends, too, when the server stops; one that says nothing for
        long is taken for gone.
        """
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        try:
            with self._http.stream("GET", path, headers=headers) as response:
                if not response.is_success:
                    response.read()
                    raise self._refusal(response)
                # What is an event's is one line of ASCII (web/stream.py).
                for line in response.iter_lines():
                    if line.startswith("data: "):
                        yield json.loads(line.removeprefix("data: "))
                    elif line.startswith(":"):
                        yield None
        except httpx.InvalidURL as error:
            raise ConfigurationError(f"PERDURE_URL is no URL: {error}.") from error
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def lines(self, path: str, query: Mapping[str, Any]) -> Iterator[bytes]:
        """GET ``path`` and give its lines as they come, each with its end."""
        params = {name: value for name, value in query.items() if value is not None}
        line = bytearray()
        try:
            with self._http.stream("GET", path, params=params) as response:
                if not response.is_success:
                    response.read()
                    raise self._refusal(response)
                for piece in response.iter_bytes():
                    *ends, rest = piece.split(b"\n")
                    for end in ends:
                        line += end + b"\n"
                        yield bytes(line)
                        line.clear()
                    line += rest
        except httpx.InvalidURL as error:
            raise ConfigurationError(f"PERDURE_URL is no URL: {error}.") from error
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def send_lines(
        self,
        path: str,
        query: Mapping[str, Any],
        content: Callable[[], Iterator[bytes]],
        *,
        again: bool,
    ) -> Any:
        """POST lines of JSON as they are given; ``again``: they can be given more than once."""
        params = {name: value for name, value in query.items() if value is not None}
        headers = {"Idempotency-Key": str(uuid4()), "Content-Type": "application/x-ndjson"}
        for last in (*[False] * (_TRIES - 1), True) if again else (True,):
            try:
                return self._content(
                    self._http.post(
                        path,
                        params=params,
                        content=content(),
                        headers=headers,
                        timeout=httpx.Timeout(_CARRYING_SECONDS, connect=_CONNECT_SECONDS),
                    )
                )
            except httpx.InvalidURL as error:
                raise ConfigurationError(f"PERDURE_URL is no URL: {error}.") from error
            except httpx.TransportError as error:
                if last or isinstance(error, httpx.ConnectError | httpx.TimeoutException):
                    raise self._unreachable(error) from error
        raise AssertionError  # the last try returns or raises

    def post(
        self, path: str, body: Mapping[str, Any] | None = None, *, key: str | None = None
    ) -> Any:
        """POST ``body`` under the idempotency key ``key``, a new one by default."""
        headers = {"Idempotency-Key": key or str(uuid4())}
        return self._send("POST", path, json=dict(body or {}), headers=headers)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """PATCH ``body``."""
        return self._send("PATCH", path, json=dict(body))

    def delete(self, path: str) -> None:
        """DELETE ``path``."""
        self._send("DELETE", path)

    def _send(self, method: str, path: str, **options: Any) -> Any:
        return self._content(self._answer(method, path, **options))

    def _answer(self, method: str, path: str, **options: Any) -> httpx.Response:
        for last in (*[False] * (_TRIES - 1), True):
            try:
                return self._http.request(method, path, **options)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
                # The connection broke under way: the server may be starting again.
                if last:
                    raise self._unreachable(error) from error
            except httpx.InvalidURL as error:
                raise ConfigurationError(f"PERDURE_URL is no URL: {error}.") from error
            except httpx.TransportError as error:
                raise self._unreachable(error) from error
        raise AssertionError  # the last try returns or raises

    def _content(self, response: httpx.Response) -> Any:
        if response.is_success:
            return self._json(response)
        raise self._refusal(response)

    def _json(self, response: httpx.Response) -> Any:
        if not response.content:
            return None
        try:
            return response.json()
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise self._stranger(response) from error

    def _refusal(self, response: httpx.Response) -> ServerError:
        try:
            problem = response.json()
            code, detail = problem["code"], problem["detail"]
        except (ValueError, KeyError, TypeError):
            return self._stranger(response)
        message = str(detail)
        if code == "unauthorized":
            message += (
                " The key in PERDURE_API_KEY was sent."
                if self._has_key
                else " Set PERDURE_API_KEY to a key; `perdure keys create` makes one."
            )
        return ServerError(message, str(code), problem)

    def _stranger(self, response: httpx.Response) -> ServerError:
        return ServerError(
            f"What answers at {self.url} is no Perdure server (status {response.status_code}). "
            "Set PERDURE_URL to where yours is.",
            # A proxy before it says so while it starts again.
            "unavailable" if response.status_code in (502, 503, 504) else "",
        )

    def _unreachable(self, error: httpx.TransportError) -> ServerError:
        reason = str(error) or type(error).__name__
        if isinstance(error, httpx.TimeoutException):
            return ServerError(
                f"The server at {self.url} did not answer in time. Try again, or check "
                f"PERDURE_URL and the server's log.",
                "unavailable",
            )
        return ServerError(
            f"No server answers at {self.url} ({reason}). Start one with `perdure dev`, or set "
            "PERDURE_URL to where yours is.",
            "unavailable",
        )


@contextmanager
def connected() -> Iterator[Client]:
    """Give a client for the server the environment names.

    Raises:
        ConfigurationError: the environment names none that can be meant.
    """
    client = Client(Settings.from_env())
    try:
        yield client
    finally:
        client.close()


def id_if_given(kind: str, text: str | None) -> str | None:
    """Return the id of an option as ``checked_id`` does; None where it was not given."""
    return None if text is None else checked_id(kind, text)


def checked_id(kind: str, text: str) -> str:
    """Return an id as the API wants it; ``kind`` is what it should be of: ``run``, ``key``, ….

    Raises:
        BadParameter: it is no id; the message says where to find one.
    """
    try:
        return str(UUID(text))
    except ValueError:
        where = {
            "run": "perdure runs list",
            "interruption": "perdure inbox",
            "row": "perdure audit list",
            "webhook": "perdure webhooks list",
            "delivery": "perdure webhooks deliveries",
            "grant": "perdure grants list",
            "session": "perdure sessions list",
        }.get(kind, "perdure keys list")
        raise typer.BadParameter(
            f"{text!r} is no id of a {kind}: ids have 36 characters, such as "
            f"01a20131-4a27-77ae-b605-6e01616eb463. `{where}` shows them."
        ) from None


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise ConfigurationError(
            f"PERDURE_URL is {url!r}; it has to look like http://127.0.0.1:8484."
        )
    return url.rstrip("/")


def _checked_key(key: str) -> str:
    if key.isascii() and key.isprintable() and " " not in key.strip():
        return key.strip()
    raise ConfigurationError(
        "PERDURE_API_KEY holds characters no key has. Copy it again, or make another with "
        "`perdure keys create`."
    )


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
