"""Asking a model only as far as the run's budgets go: see ``budgets/reserving.py``.

What a call may take is told by the largest of the agent in this run, or of anybody on that budget
before, and by the length of what is new in it and ``max_tokens``. A call that
would fit, were it not for calls under way, waits for one of them to end.
"""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID

from perdure.budgets.raising import budget_digest
from perdure.budgets.reserving import Reached, Wait, release, reserve
from perdure.errors import StopSegment
from perdure.runs.execution import Execution, database_needed
from perdure.runs.rest import Question

__all__ = ["BudgetReached", "budget_question", "free", "keep_to_budgets"]


class BudgetReached(StopSegment):
    """A budget does not allow the next call: a person has to decide."""

    def __init__(self, run_id: UUID, reached: Reached) -> None:
        super().__init__(run_id, f"Run {run_id} rests: {reached.question}")
        self.reached = reached


async def keep_to_budgets(
    execution: Execution,
    *,
    agent: str,
    model: str,
    reply_id: UUID,
    takes: tuple[int, Decimal | None],
) -> None:
    """Return when a model may be asked, what it may take being reserved; parks where it may not.

    ``takes`` are the tokens and the USD of the call at least.
    """
    run_id, spending = execution.run_id, execution.spending
    own_tokens, own_cost = spending.largest(agent)
    while True:
        mark = spending.news.mark()
        with database_needed(run_id, doing="reserving what its next call may spend"):
            async with execution.pool.connection() as conn:
                verdict = await reserve(
                    conn,
                    run_id=run_id,
                    segment=execution.segment,
                    epoch=execution.epoch,
                    agent=agent,
                    model=model,
                    reply_id=reply_id,
                    tokens=takes[0],
                    cost_usd=takes[1],
                    own_tokens=own_tokens,
                    own_cost_usd=own_cost,
                )
        match verdict:
            case Reached():
                await execution.park(BudgetReached(run_id, verdict))
            case Wait():
                await spending.news.change(mark)
                await execution.check()
            case _:
                return


async def free(execution: Execution, reply_id: UUID) -> None:
    """Give back what was reserved for a call that failed."""
    with database_needed(execution.run_id, doing="freeing what a failed call had reserved"):
        async with execution.pool.connection() as conn:
            await release(conn, reply_id)


def budget_question(reached: Reached, *, tenant_id: UUID, run_id: UUID, base_seq: int) -> Question:
    """Return the interruption that asks a person about a budget."""
    budget = reached.budget
    properties = {
        "cost_usd": {"type": "string", "description": "The new limit in USD."},
        "total_tokens": {"type": "integer", "description": "The new limit in tokens."},
    }
    limited = {name: known for name, known in properties.items() if budget[name] is not None}
    schema = {"type": "object", "properties": limited, "additionalProperties": False}
    return Question(
        type="budget",
        tool_call_id=None,
        agent=reached.agent,
        scope="",
        ordinal=0,
        tool=None,
        digest=budget_digest(
            tenant_id=tenant_id,
            run_id=run_id,
            base_seq=base_seq,
            agent=reached.agent,
            budget=budget,
        ),
        base_seq=base_seq,
        question=reached.question,
        # What the arguments of an approval may be; where none are needed there is none.
        schema=schema if budget["reason"] == "reached" else None,
        budget=budget,
    )
