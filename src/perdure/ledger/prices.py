"""What a request to a model costs: by the engine's own prices, else by genai-prices. Pure.

The price list comes with the genai-prices package; a program that runs its ``UpdatePrices`` has
the newest one used. A model neither knows has no price: its requests are counted, and cost nothing
that anybody could tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

import genai_prices
from genai_prices.types import ModelPrice

from perdure.errors import ConfigurationError

__all__ = ["Price", "Priced", "Prices"]

_COUNTS = {
    "input_tokens": "input_tokens",
    "cached_input_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "output_tokens": "output_tokens",
}
_REMEMBERED = 1000
_RATES = ("input_mtok", "cache_read_mtok", "cache_write_mtok", "output_mtok")
_LIST = f"genai-prices {genai_prices.__version__}"


@dataclass(frozen=True, slots=True)
class Price:
    """A price of one's own: USD per million tokens, as text, ``Decimal`` or ``int``.

    ``cached_input`` is for input the provider read from its cache, ``cache_write`` for input it
    wrote to it; without one it is priced as input. ``as_of`` is the day the price is of; by
    default the day it is used.

    Raises:
        ConfigurationError: a price is no number, or below zero.
    """

    input: Decimal | str | int
    output: Decimal | str | int
    cached_input: Decimal | str | int | None = None
    cache_write: Decimal | str | int | None = None
    as_of: date | None = None

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached_input", "cache_write"):
            value = getattr(self, name)
            if value is None and name not in ("input", "output"):
                continue
            try:
                number = Decimal(value)
            except (InvalidOperation, TypeError, ValueError):
                number = Decimal("NaN")
            # A float is what nobody wrote: 0.1 is 0.1000000000000000055…
            if isinstance(value, float | bool) or not number.is_finite() or number < 0:
                raise ConfigurationError(
                    f"Price({name}={value!r}) has to be USD per million tokens, 0 or more, "
                    'as text, Decimal or int: "1.25".'
                )
            object.__setattr__(self, name, number)

    def _as_listed(self) -> ModelPrice:
        rates: dict[str, Any] = {
            "input_mtok": self.input,
            "cache_read_mtok": self.cached_input,
            "cache_write_mtok": self.cache_write,
            "output_mtok": self.output,
        }
        return ModelPrice(**{name: rate for name, rate in rates.items() if rate is not None})


@dataclass(frozen=True, slots=True)
class Priced:
    """What something cost, and by which price: the columns of a usage entry."""

    cost_usd: Decimal
    price: dict[str, Any]
    price_source: str
    price_date: date | None = None
    """None: the day it is stored, by the database's clock."""

    def as_columns(self) -> dict[str, Any]:
        """Return the columns, as JSON keeps them exactly."""
        return {
            "cost_usd": format(self.cost_usd, "f"),
            "price": self.price,
            "price_source": self.price_source,
            "price_date": None if self.price_date is None else self.price_date.isoformat(),
        }


class Prices:
    """The prices an engine counts by; ``own`` stand before the list's.

    The keys of ``own`` are names of models as agents have them; one that ends in ``*`` stands for
    all that begin so. The longest that fits counts.

    Raises:
        ConfigurationError: one of ``own`` is no ``Price``.
    """

    def __init__(self, own: Mapping[str, Price] | None = None) -> None:
        self._own = dict(own or {})
        for name, price in self._own.items():
            if not name or not isinstance(price, Price):
                raise ConfigurationError(f"prices[{name!r}] is no Price: {price!r}.")
        self._listed = {name: price._as_listed() for name, price in self._own.items()}
        self._unknown: set[str] = set()

    def cost(self, model: str, tokens: Mapping[str, int]) -> Priced | None:
        """Return what a request cost that used ``tokens`` (columns by name), None if not known."""
        own = self._own_name(model)
        if own is not None:
            price = self._listed[own]
            cost = price.calc_price(_used(tokens))["total_price"]
            return Priced(cost, _shown(price), "own", self._own[own].as_of)
        if model in self._unknown:
            return None
        for name, provider in _references(model):
            try:
                found = genai_prices.calc_price(_used(tokens), name, provider_id=provider)
            except LookupError:
                continue
            updated = found.auto_update_timestamp
            return Priced(
                found.total_price,
                _shown(found.model_price),
                _LIST if updated is None else "genai-prices",
                None if updated is None else updated.date(),
            )
        if len(self._unknown) < _REMEMBERED:
            self._unknown.add(model)
        return None

    def _own_name(self, model: str) -> str | None:
        """Return the name under which there is an own price of ``model``."""
        if model in self._own:
            return model
        fits = [key for key in self._own if key.endswith("*") and model.startswith(key[:-1])]
        return max(fits, key=len, default=None)


def _references(model: str) -> list[tuple[str, str | None]]:
    """Return what a model may be listed as: its name, or the provider and name it is made of."""
    parts = model.split("/")
    within = [("/".join(parts[n:]), parts[n - 1]) for n in range(1, len(parts))]
    return [(model, None), *within]


def _used(tokens: Mapping[str, int]) -> genai_prices.Usage:
    counts = {theirs: tokens[ours] for ours, theirs in _COUNTS.items()}
    # What is said to be part of the input can be no more than all of it.
    counts["cache_read_tokens"] = min(counts["cache_read_tokens"], counts["input_tokens"])
    rest = counts["input_tokens"] - counts["cache_read_tokens"]
    counts["cache_write_tokens"] = min(counts["cache_write_tokens"], rest)
    return genai_prices.Usage(**counts)


def _shown(price: ModelPrice) -> dict[str, Any]:
    rates = ((name, getattr(price, name)) for name in _RATES)
    return {name: _rate(rate) for name, rate in rates if rate is not None}


def _rate(rate: Any) -> Any:
    if isinstance(rate, Decimal):
        return format(rate, "f")
    return {
        "base": format(rate.base, "f"),
        "tiers": [{"from": tier.start, "rate": format(tier.price, "f")} for tier in rate.tiers],
    }
