"""What the demo says at its end. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from perdure.cli.output import one_line, shortened
from perdure.times import rfc3339

if TYPE_CHECKING:
    from perdure.cli.demo.story import Ending


def verdict(ending: Ending, *, width: int | None) -> Iterator[str]:
    """Give the timeline, cut to ``width`` characters where it is given, and what it comes to."""
    yield "\nWhat the database says happened:\n"
    for entry in ending.timeline:
        mark = "✗" if entry.kind == "kill" else " "
        line = f"{entry.seconds:6.2f} s {mark} {entry.who:<12} {entry.what}"
        yield one_line(line) if width is None else shortened(line, width)
    usage = ending.run["usage"]
    requests = sum(refund.requests for refund in ending.refunds)
    yield (
        f"\n{ending.kills} kills, {len(ending.refunds)} refund: the payment service was asked "
        f"{requests} times with one idempotency key."
    )
    yield (
        f"{ending.asked} model calls made, {ending.recorded} recorded: none was paid for twice. "
        f"{usage['total_tokens']} tokens ({usage['input_tokens']} in, "
        f"{usage['output_tokens']} out)."
    )
    if ending.held:
        yield f"The run is {ending.run['status']}, after {ending.seconds:.1f} s."
        yield "\nNext: perdure dev   serves this example on your machine, for you to break."
    else:
        yield f"THIS IS NOT AS PROMISED: the run is {ending.run['status']}. Please report it."


def as_document(ending: Ending) -> dict[str, Any]:
    """Return the same for machines."""
    run = ending.run
    return {
        "object": "demo",
        "ok": ending.held,
        "run_id": run["id"],
        "status": run["status"],
        "output": run["output"],
        "error": run["error"],
        "seconds": round(ending.seconds, 3),
        "kills": ending.kills,
        "refunds": [
            {
                "number": refund.number,
                "order_id": refund.order_id,
                "cents": refund.cents,
                "requests": refund.requests,
            }
            for refund in ending.refunds
        ],
        "model_calls": {"made": ending.asked, "recorded": ending.recorded},
        "usage": run["usage"],
        "timeline": [
            {
                "at": rfc3339(entry.at),
                "seconds": round(entry.seconds, 3),
                "kind": entry.kind,
                "who": entry.who,
                "what": entry.what,
            }
            for entry in ending.timeline
        ],
    }
