"""What requests cost: by own prices, by the list's, or nobody knows."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import Usage, calc_price
from genai_prices.data_snapshot import DataSnapshot, get_snapshot, set_custom_snapshot

from perdure import Price
from perdure.errors import ConfigurationError
from perdure.ledger.prices import Prices

TOKENS = {
    "input_tokens": 1_000_000,
    "cached_input_tokens": 200_000,
    "cache_write_tokens": 100_000,
    "output_tokens": 10_000,
}


def _cost(prices: Prices, model: str, **tokens: int) -> Decimal | None:
    priced = prices.cost(model, TOKENS | tokens)
    return None if priced is None else priced.cost_usd


def test_own_prices_stand_before_the_list_and_the_longest_name_counts() -> None:
    prices = Prices(
        {
            "gpt-4.1": Price("1", "2", cached_input="0.5", cache_write="4"),
            "my-*": Price(2, 2),
            "my-big-*": Price(Decimal(10), 10, as_of=date(2026, 10, 1)),
        }
    )
    # 700,000 at 1, 200,000 at 0.5, 100,000 at 4, 10,000 at 2 USD a million.
    assert _cost(prices, "gpt-4.1") == Decimal("1.22")
    assert _cost(prices, "my-small-model") == Decimal("2.02")
    assert _cost(prices, "my-big-model") == Decimal("10.1")
    assert _cost(prices, "gpt-4.1-mini") not in (None, Decimal("1.22"))
    dated = prices.cost("my-big-model", TOKENS)
    assert dated is not None
    assert dated.as_columns() == {
        "cost_usd": "10.1",
        "price": {"input_mtok": "10", "output_mtok": "10"},
        "price_source": "own",
        "price_date": "2026-10-01",
    }


@pytest.mark.parametrize(
    "name", ["gpt-4.1", "openai/gpt-4.1", "azure/gpt-4.1", "litellm/openai/gpt-4.1"]
)
def test_the_list_knows_a_model_by_its_name_and_by_its_providers(name: str) -> None:
    listed = calc_price(
        Usage(
            input_tokens=1_000_000,
            cache_read_tokens=200_000,
            cache_write_tokens=100_000,
            output_tokens=10_000,
        ),
        "gpt-4.1",
    )
    priced = Prices().cost(name, TOKENS)
    assert priced is not None
    assert priced.cost_usd == listed.total_price > 0
    assert priced.price["input_mtok"] == format(Decimal(str(listed.model_price.input_mtok)), "f")
    assert priced.price_source.startswith("genai-prices ")


def test_tiers_count_and_are_shown() -> None:
    prices = Prices()
    few = prices.cost("gemini-2.5-pro", TOKENS | {"input_tokens": 300, "cached_input_tokens": 0})
    many = prices.cost("gemini-2.5-pro", TOKENS)
    assert few is not None
    assert many is not None
    assert few.price["input_mtok"]["tiers"] == many.price["input_mtok"]["tiers"] != []
    assert many.cost_usd > few.cost_usd


def test_what_nobody_knows_has_no_price() -> None:
    prices = Prices({"mine": Price("1", "1")})
    assert _cost(prices, "nobody-s-model") is None
    assert _cost(prices, "nobody-s-model") is None
    assert _cost(prices, "") is None


def test_a_provider_that_counts_more_than_all_is_taken_for_all() -> None:
    prices = Prices({"m": Price("1", "1", cached_input="0.5")})
    said = {"input_tokens": 10, "cached_input_tokens": 900, "cache_write_tokens": 900}
    assert _cost(prices, "m", **said, output_tokens=0) == Decimal("0.000005")


def test_a_list_brought_up_to_date_has_its_own_day() -> None:
    newer = DataSnapshot(providers=get_snapshot().providers, from_auto_update=True)
    newer.timestamp = datetime(2027, 1, 2, tzinfo=UTC)
    set_custom_snapshot(newer)
    try:
        priced = Prices().cost("gpt-4.1", TOKENS)
    finally:
        set_custom_snapshot(None)
    assert priced is not None
    assert priced.price_date == date(2027, 1, 2)


@pytest.mark.parametrize("wrong", [-1, "x", "NaN", "Infinity", 0.1, True, None, []])
def test_a_price_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"USD per million tokens|Price\(input="):
        Price(wrong, 1)


def test_prices_are_prices() -> None:
    with pytest.raises(ConfigurationError, match="is no Price"):
        Prices({"m": 3})  # type: ignore[dict-item]
