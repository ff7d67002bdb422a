"""What an execution knows of what it spends: whether there are budgets, and what its calls took."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from agents import ModelSettings

from perdure.ledger.prices import Prices

__all__ = ["BudgetNews", "Spending"]

_CHARACTERS_A_TOKEN = 4
_NO_TEXT = frozenset(("id", "call_id", "type", "role", "status", "name"))
_LOOK_AGAIN_SECONDS = 1.0
"""How long one waits for the word of others before looking again: it may have been lost."""


@dataclass(eq=False)
class BudgetNews:
    """Tells the waiting runs of this process that somebody's call has ended."""

    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def heard(self, _: str) -> None:
        """Take a notification."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def change(self, since: asyncio.Event) -> None:
        """Return when there was one after ``since`` was given, or after a second."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_AGAIN_SECONDS):
                await since.wait()

    def mark(self) -> asyncio.Event:
        """Return what is set by the next one."""
        return self._changed


@dataclass(eq=False)
class Spending:
    """Whether a run may have budgets, and what its calls took, by agent."""

    budgeted: bool = False
    news: BudgetNews = field(default_factory=BudgetNews)
    _largest: dict[str, tuple[int, Decimal | None]] = field(default_factory=dict)
    _heard: dict[str, int] = field(default_factory=dict)
    """How many characters an agent was last asked with."""

    def took(self, agent: str, entries: list[dict[str, Any]]) -> None:
        """Note the usage entries of a reply."""
        tokens, cost = self._largest.get(agent, (0, None))
        used = sum(one["total_tokens"] for one in entries)
        costs = [Decimal(one["cost_usd"]) for one in entries if one.get("cost_usd") is not None]
        if costs:
            cost = max(sum(costs, Decimal(0)), cost or Decimal(0))
        self._largest[agent] = max(tokens, used), cost

    def largest(self, agent: str) -> tuple[int | None, Decimal | None]:
        """Return what the largest call of an agent took in this execution; None before the first.

        Tokens, and USD where the price is known.
        """
        return self._largest.get(agent, (None, None))

    def takes(
        self,
        agent: str,
        model: str,
        system: str | None,
        model_input: str | list[Any],
        settings: ModelSettings,
        prices: Prices,
    ) -> tuple[int, Decimal | None]:
        """Return what a request takes at least: tokens, and USD where the model's price is known.

        Of the input what is new since the agent was last asked counts, of the output what it may
        have at most, where that is said.
        """
        heard = _length(model_input) + len(system or "")
        new = heard - self._heard.get(agent, 0)
        self._heard[agent] = heard
        tokens_in = max(new, 0) // _CHARACTERS_A_TOKEN + 1
        tokens_out = settings.max_tokens or 0
        counts = {"cached_input_tokens": 0, "cache_write_tokens": 0}
        priced = prices.cost(
            model, {"input_tokens": tokens_in, "output_tokens": tokens_out, **counts}
        )
        return tokens_in + tokens_out, None if priced is None else priced.cost_usd


def _length(value: Any) -> int:
    """Return how many characters of text there are in items, names and ids left out."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(map(_length, value))
    if isinstance(value, dict):
        return sum(_length(one) for name, one in value.items() if name not in _NO_TEXT)
    return 0
