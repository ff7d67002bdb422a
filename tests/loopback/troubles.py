"""What can go wrong between a client and the server of its models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.loopback.wire import Reply


@dataclass(frozen=True, slots=True)
class Refused:
    """An answer that is an error."""

    status: int
    code: str | None
    message: str
    kind: str = "server_error"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection ends after so many events and half of the next.

    ``how``: ``reset`` by the network, ``closed`` without the body's end, or ``ended`` as if the
    body were whole.
    """

    after: int
    how: str = "reset"


@dataclass(frozen=True, slots=True)
class Said:
    """After so many events comes this one, and the stream ends properly."""

    event: Callable[[Reply], bytes]
    after: int = 4


@dataclass(frozen=True, slots=True)
class Silence:
    """After so many events nothing more; with None not even the head of the answer."""

    after: int | None = None


Trouble = Refused | Cut | Said | Silence

RATE_LIMIT = Refused(
    429,
    "rate_limit_exceeded",
    "Rate limit reached for gpt-5.6-luna: Limit 30000, Used 29999.",
    "tokens",
    {"retry-after-ms": "1"},
)
DOWN = Refused(500, None, "The server had an error while processing your request.")
TOO_LONG = Refused(
    400,
    "context_length_exceeded",
    "Your input exceeds the context window of this model.",
    "invalid_request_error",
)
NO_MONEY = Refused(
    429,
    "insufficient_quota",
    "You exceeded your current quota, please check your plan.",
    "insufficient_quota",
)
