"""One request to a webhook, to the very address that was looked at.

The host's name is resolved once, all it resolved to is checked, and the connection goes to one of
those addresses: a name that resolves to something else a moment later gains nothing by it. The
name stays in ``Host`` and is what the certificate has to be for. Redirects, proxies of the
environment, cookies and compressed answers are not followed, used, kept or unpacked; of an answer's
body a few kilobytes are read.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import httpx

from perdure import __version__
from perdure.webhooks.addresses import Allowed, Target, check_addresses, parse_target
from perdure.webhooks.schedule import Sent

__all__ = ["Sender"]

SECONDS = 15.0
"""How long an attempt may take, from the name's look-up to the last byte that is read."""
READ_BYTES = 4096
KEPT_CHARACTERS = 500
_RESOLVERS = 8
_MOST_ADDRESSES = 4


class Sender:
    """Sends; ``async with`` it, in the event loop it is used in."""

    def __init__(self, allowed: Allowed, *, seconds: float = SECONDS) -> None:
        """Take where it may send to, and how long an attempt may take."""
        self._allowed = allowed
        self._seconds = seconds
        self._tls: ssl.SSLContext | None = None
        self._threads = ThreadPoolExecutor(_RESOLVERS, thread_name_prefix="perdure-resolver")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A look-up that hangs is not waited for.
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Sent:
        """POST ``body`` to ``url`` and return what became of it; whatever went wrong is in that."""
        began = time.monotonic()
        code: int | None = None
        error: str | None = None
        kept: str | None = None
        wish: float | None = None
        try:
            async with asyncio.timeout(self._seconds):
                target = parse_target(url, self._allowed)
                found = check_addresses(target, await self._resolve(target), self._allowed)
                code, kept, wish = await self._post(target, found, body, headers)
        except TimeoutError:
            error = f"There was no whole answer within {self._seconds:g} s."
        except ValueError as refusal:
            error = f"The address {refusal}"
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as failure:
            error = _in_words(failure)
        latency = int((time.monotonic() - began) * 1000)
        return Sent(latency, code, error, kept, wish)

    async def _resolve(self, target: Target) -> list[str]:
        if target.address is not None:
            return [str(target.address)]
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads,
            lambda: socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM),
        )
        return [str(address[0]) for *_, address in found]

    async def _post(
        self, target: Target, found: list[str], body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, str | None, float | None]:
        """POST to the first of the addresses that can be connected to."""
        if self._tls is None and target.url.scheme == "https":
            # The certificates of this machine take a while to load.
            self._tls = await asyncio.to_thread(httpx.create_ssl_context)
        *others, last = found[:_MOST_ADDRESSES]
        for address in others:
            with contextlib.suppress(httpx.ConnectError):
                return await self._post_to(address, target, body, headers)
        return await self._post_to(last, target, body, headers)

    async def _post_to(
        self, address: str, target: Target, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, str | None, float | None]:
        client = httpx.AsyncClient(
            verify=self._tls if self._tls is not None else False,
            trust_env=False,
            follow_redirects=False,
            timeout=self._seconds,
            http2=False,
        )
        async with client:
            request = client.build_request(
                "POST",
                target.url.copy_with(host=address),
                content=body,
                headers={
                    **headers,
                    "Host": target.url.netloc.decode("ascii"),
                    "Content-Type": "application/json",
                    "User-Agent": f"perdure/{__version__}",
                    "Accept": "*/*",
                    "Accept-Encoding": "identity",
                    "Connection": "close",
                },
                extensions={"sni_hostname": target.host},
            )
            response = await client.send(request, stream=True)
            try:
                kept = await _beginning(response)
            finally:
                await response.aclose()
            return response.status_code, kept, _seconds(response.headers.get("retry-after"))


async def _beginning(response: httpx.Response) -> str | None:
    read = b""
    # As it came: what is small when compressed may be large.
    async for chunk in response.aiter_raw(READ_BYTES):
        read += chunk
        if len(read) >= READ_BYTES:
            break
    text = read[:READ_BYTES].decode(errors="replace").replace("\0", "\ufffd")
    return text[:KEPT_CHARACTERS] or None


def _seconds(retry_after: str | None) -> float | None:
    text = (retry_after or "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _in_words(failure: Exception) -> str:
    if isinstance(failure, socket.gaierror):
        return f"The host's name cannot be resolved: {failure.strerror or failure}."
    reason = " ".join(str(failure).split()) or type(failure).__name__
    what = "connected to" if isinstance(failure, httpx.ConnectError) else "asked"
    return f"It could not be {what}: {reason.rstrip('.')}."[:KEPT_CHARACTERS]
