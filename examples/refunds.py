"""Customer support that pays money back, once, and asks a person before it pays much.

    perdure dev examples/refunds.py
    perdure runs start triage "Order 1042 arrived broken, please refund it." --wait
    perdure inbox
    perdure approve <id>

``triage`` talks to the customer and hands over to ``refunds``, which looks the order up, refunds it
and hands back. A refund above 50 euros waits for a person. Whatever process dies on the way, the
customer gets one refund: `sqlite3 refunds.sqlite 'SELECT * FROM refunds'`.

Without ``OPENAI_API_KEY`` (or ``OPENAI_BASE_URL``) the replies come from a model made of rules.
"""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from agents import Agent, RunContextWrapper, function_tool

from perdure import Engine, effect, offline, tool_call

APPROVAL_ABOVE_CENTS = 5_000

ORDERS = {
    "1041": {"id": "1041", "item": "a tea cup", "cents": 1_450},
    "1042": {"id": "1042", "item": "an espresso machine", "cents": 12_900},
    "1043": {"id": "1043", "item": "a bag of beans", "cents": 2_100},
}


class Payments:
    """Stands for a payment service that knows idempotency keys: the same key pays once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def refund(self, order_id: str, cents: int, *, key: str) -> int:
        """Pay back, unless ``key`` was paid already; returns the number of the refund."""
        with closing(sqlite3.connect(self.path, timeout=10)) as db, db:
            db.execute(
                "CREATE TABLE IF NOT EXISTS refunds (number INTEGER PRIMARY KEY, key TEXT UNIQUE,"
                " order_id TEXT, cents INTEGER, requests INTEGER DEFAULT 1)"
            )
            db.execute(
                "INSERT INTO refunds (key, order_id, cents) VALUES (?, ?, ?)"
                " ON CONFLICT (key) DO UPDATE SET requests = requests + 1",
                (key, order_id, cents),
            )
            (number,) = db.execute("SELECT number FROM refunds WHERE key = ?", (key,)).fetchone()
        return int(number)


payments = Payments(Path(os.environ.get("REFUNDS_DB", "refunds.sqlite")))


async def is_much(_: RunContextWrapper[Any], arguments: dict[str, Any], call_id: str) -> bool:
    """Whether a person has to approve: decided from the arguments the model gave."""
    return int(arguments.get("cents", 0)) > APPROVAL_ABOVE_CENTS


@effect("read")
@function_tool
def lookup_order(order_id: str) -> str:
    """Look an order up by its number."""
    order = ORDERS.get(order_id)
    return json.dumps(order) if order else f"There is no order {order_id}."


@effect("idempotent")
@function_tool(needs_approval=is_much)
def refund(order_id: str, cents: int) -> str:
    """Pay the customer back, in cents."""
    number = payments.refund(order_id, cents, key=tool_call().idempotency_key)
    return f"refunded {cents / 100:.2f} euros for order {order_id} (refund no. {number})."


triage = Agent(
    name="triage",
    instructions=(
        "You talk to customers of a shop. When one wants money back, hand over to refunds. "
        "When refunds has handed back, tell the customer in one sentence what was done."
    ),
)
refunds = Agent(
    name="refunds",
    instructions=(
        "Look the order up, refund its full price once, then hand back to triage. "
        "If there is no such order or the refund was rejected, hand back to triage at once."
    ),
    tools=[lookup_order, refund],
    handoffs=[triage],
)
triage.handoffs = [refunds]

engine = Engine(agents=[triage, refunds], model_provider=offline.unless_key("refunds"))
