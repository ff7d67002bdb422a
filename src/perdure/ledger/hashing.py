"""What a model reply answered, as a hash: a pure function of the input items.

Each turn's input repeats the turns before it, so hashing it whole would cost more than the
rest of the turn. A fold over the items, whose value after a known prefix is remembered, makes
it the price of what is new; prefixes are compared, never assumed.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any

_MAX_CHAINS = 8


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    return dump(mode="json", exclude_unset=True) if callable(dump) else repr(value)


def _fold(state: bytes, item: Any) -> bytes:
    text = json.dumps(item, sort_keys=True, separators=(",", ":"), default=_plain)
    return blake2b(text.encode(), key=state, digest_size=24).digest()


class InputHasher:
    """Remembers the folds of the last inputs of one scope, so that growth is cheap."""

    __slots__ = ("_chains",)

    def __init__(self) -> None:
        self._chains: list[tuple[list[Any], bytes]] = []

    def digest(self, model_input: str | list[Any]) -> str:
        """Return the hash of what the model is asked; order and content of the items count.

        ``model_input`` is what the SDK hands a ``Model``: a text or Responses input items.
        """
        items = [model_input] if isinstance(model_input, str) else list(model_input)
        best: tuple[list[Any], bytes] | None = None
        for chain in self._chains:
            known = chain[0]
            if (
                len(known) <= len(items)
                and (best is None or len(known) > len(best[0]))
                and items[: len(known)] == known
            ):
                best = chain
        done, state = best if best is not None else ([], b"perdure")
        for item in items[len(done) :]:
            state = _fold(state, item)
        if best is not None:
            self._chains.remove(best)
        self._chains.append((items, state))
        if len(self._chains) > _MAX_CHAINS:
            self._chains.pop(0)
        return state.hex()
