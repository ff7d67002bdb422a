"""Which claim brought the workflow that runs here."""

from __future__ import annotations

from dbos._context import get_local_dbos_context

__all__ = ["current_claim"]


def current_claim() -> tuple[str, str | None]:
    """Return the id of the workflow the caller's task runs, and the owner its claim wrote.

    It stands in ``dbos.workflow_status.owner_xid`` for as long as nobody claims the workflow anew.
    Raises RuntimeError outside a workflow.
    """
    context = get_local_dbos_context()
    if context is None:
        raise RuntimeError("There is no workflow here to have been claimed.")
    return context.workflow_id, context.owner_xid
