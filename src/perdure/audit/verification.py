"""What verifying the audit comes to. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from perdure.audit.chain import Sealed
from perdure.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class Broken:
    """The first thing that is not as it was written. ``row`` is None where it is a seal itself.

    ``reason``: ``row_changed``, ``row_deleted``, ``row_inserted``, ``payload_changed``,
    ``payload_deleted``, ``seal_changed``, ``seal_deleted``, ``not_signed``, ``unknown_key``,
    ``wrong_mac``, ``other_head``. ``message`` is a whole sentence.
    """

    reason: str
    message: str
    seal: int | None = None
    row: Sealed | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found of one tenant's audit; ``broken`` is None where all is as it was written.

    ``rows`` and ``seals`` were looked at before anything broken was found. ``head`` is the end of
    the chain. ``signed`` is the last seal whose MAC is right: it vouches for all before it. Rows
    that wait for a seal are ``waiting``, since ``waiting_since``; ``erased`` counts rows parts of
    which were deleted, by an erasure or with their run.
    """

    rows: int = 0
    seals: int = 0
    head: str | None = None
    signed: int | None = None
    waiting: int = 0
    waiting_since: datetime | None = None
    erased: int = 0
    broken: Broken | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """A head of a chain as it was once."""

    seq: int
    hash: bytes

    @classmethod
    def parse(cls, text: str) -> Head:
        """Read ``<seq>:<hash>``.

        Raises:
            InvalidRequestError: it is not that.
        """
        number, _, hexadecimal = text.strip().partition(":")
        try:
            hashed = bytes.fromhex(hexadecimal)
        except ValueError:
            hashed = b""
        if not (number.isascii() and number.isdigit()) or len(hashed) != 32:
            raise InvalidRequestError.at(
                "/expect",
                "has to be a head as `perdure audit verify` printed it: a number, a colon and "
                "64 hex digits.",
            )
        return cls(int(number), hashed)
