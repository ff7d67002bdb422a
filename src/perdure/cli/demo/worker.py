"""What runs in the processes the demo kills: a worker for the refund example.

It takes one line of orders from stdin and answers in lines of JSON on stdout: ``loaded`` (before
the orders), ``ready``, ``asked`` (the model is), ``paid`` (a refund was made). Where it was told
to ``hold``, it stops right after the first attempt's payment, before anything is recorded: that
is the moment to kill it. It ends when its stdin does.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from perdure.cli.shipped import shipped_example
from perdure.cli.target import load_engine
from perdure.ledger.tool_call import tool_call
from perdure.offline.model import OfflineProvider


def say(event: str, **more: Any) -> None:
    """Tell the demo, at once: this process may be gone a moment later."""
    os.write(1, (json.dumps({"event": event, **more}) + "\n").encode())


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


class _Told:
    """The example's payments, told of to the demo."""

    def __init__(self, payments: Any, *, hold: bool) -> None:
        self._payments = payments
        self._hold = hold

    def refund(self, order_id: str, cents: int, *, key: str) -> int:
        """Pay; then say so and, if that was ordered, go no further."""
        number: int = self._payments.refund(order_id, cents, key=key)
        attempt = tool_call().attempt
        say("paid", number=number, attempt=attempt)
        if self._hold and attempt == 1:
            threading.Event().wait()
        return number


async def _work(engine: Any, url: str) -> None:
    async with engine.running(worker=True, migrate_first=False, url=url):
        say("ready")
        await asyncio.get_running_loop().create_future()


def main() -> None:
    """Load the example, wait for orders, work until killed."""
    engine = load_engine(str(shipped_example("refunds")))
    provider = engine.registry.model_provider
    assert isinstance(provider, OfflineProvider)  # noqa: S101 - the demo's environment has no key
    provider.on_ask = lambda: say("asked")
    say("loaded")
    orders = json.loads(sys.stdin.buffer.readline())
    example = sys.modules["refunds"]
    payments = example.Payments(Path(orders["refunds_db"]))
    example.payments = _Told(payments, hold=orders["hold"])  # type: ignore[attr-defined]
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    asyncio.run(_work(engine, orders["url"]))


if __name__ == "__main__":
    main()
