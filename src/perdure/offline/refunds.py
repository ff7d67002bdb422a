"""What a model would answer in ``examples/refunds.py``."""

from __future__ import annotations

import json
import re

from perdure.offline.turn import Answer, Call, Turn

_ORDER = re.compile(r"\b\d{3,}\b")
_WANTS_MONEY = re.compile(r"refund|money back|broken|damaged|return|wrong", re.IGNORECASE)
_REFUNDED = "refunded "


def answer(turn: Turn) -> Answer:
    """Answer as the agent that may call ``refund``, else as the one that greets customers."""
    return _refunds(turn) if "refund" in turn.tools else _triage(turn)


def _triage(turn: Turn) -> Answer:
    order, refund = turn.output("lookup_order"), turn.output("refund")
    if refund is not None:
        if refund.startswith(_REFUNDED):
            return f"Good news: we have {refund} You will see it within a few days."
        return f"I am sorry, we could not refund your order. {refund}"
    if order is not None:
        return f"I am sorry, we could not find your order. {order}"
    if not _WANTS_MONEY.search(turn.question):
        return "Hello! I can help with refunds. Which order is it about, and what happened?"
    if not _ORDER.search(turn.question):
        return "I am sorry to hear that. What is the number of your order?"
    return [Call("transfer_to_refunds")]


def _refunds(turn: Turn) -> Answer:
    wanted = _ORDER.search(turn.question)
    found = turn.output("lookup_order")
    if found is None and wanted is not None:
        return [Call("lookup_order", {"order_id": wanted.group()})]
    order = _order(found)
    if order is None or turn.output("refund") is not None:
        return [Call("transfer_to_triage")]
    return [Call("refund", {"order_id": order["id"], "cents": order["cents"]})]


def _order(found: str | None) -> dict[str, object] | None:
    try:
        order = json.loads(found or "")
    except ValueError:
        return None
    return order if isinstance(order, dict) and {"id", "cents"} <= order.keys() else None
