"""What a budget allows, as people write it and as rows keep it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from perdure.errors import InvalidRequestError

__all__ = ["Limits", "parse_limits", "shown_usd"]

_NAMES = ("cost_usd", "total_tokens")
_MOST_TOKENS: Final = 2**62
_MOST_USD: Final = Decimal(10) ** 12


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that may be spent, in money and in tokens (in and out); None: any."""

    cost_usd: Decimal | None = None
    total_tokens: int | None = None

    def as_object(self) -> dict[str, Any]:
        """Return it as the API shows it: money as a decimal text."""
        return {"cost_usd": shown_usd(self.cost_usd), "total_tokens": self.total_tokens}


def parse_limits(given: Any, pointer: str) -> Limits:
    """Return the limits of a JSON object with ``cost_usd``, ``total_tokens`` or both.

    Money is a decimal text, or a number as it is written; tokens are an integer; both from 0.

    Raises:
        InvalidRequestError: it is none such; ``pointer`` is where it stood.
    """
    if not isinstance(given, Mapping):
        raise InvalidRequestError.at(pointer, "has to be an object with cost_usd or total_tokens.")
    for name in given:
        if name not in _NAMES:
            raise InvalidRequestError.at(
                f"{pointer}/{name}", "is no limit: cost_usd and total_tokens are."
            )
    cost, tokens = given.get("cost_usd"), given.get("total_tokens")
    if cost is None and tokens is None:
        raise InvalidRequestError.at(pointer, "needs cost_usd, total_tokens or both.")
    return Limits(
        None if cost is None else _usd(cost, f"{pointer}/cost_usd"),
        None if tokens is None else _tokens(tokens, f"{pointer}/total_tokens"),
    )


def shown_usd(amount: Decimal | None) -> str | None:
    """Return an amount as a decimal text without an exponent."""
    return None if amount is None else format(amount, "f")


def _usd(given: Any, pointer: str) -> Decimal:
    try:
        # A float is meant as it is written: 0.1 and not 0.1000000000000000055….
        amount = Decimal(repr(given)) if isinstance(given, float) else Decimal(given)
        known = not isinstance(given, bool) and amount.is_finite() and 0 <= amount <= _MOST_USD
    except (InvalidOperation, TypeError, ValueError):
        known = False
    if not known or (exponent := amount.as_tuple().exponent) in ("n", "N", "F"):
        raise InvalidRequestError.at(pointer, 'has to be USD from 0 on, as a decimal text: "2.50".')
    if isinstance(exponent, int) and exponent < -12:
        raise InvalidRequestError.at(pointer, "has more than 12 decimal places.")
    return amount


def _tokens(given: Any, pointer: str) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given <= _MOST_TOKENS:
        raise InvalidRequestError.at(pointer, "has to be a whole number of tokens from 0 on.")
    return given
