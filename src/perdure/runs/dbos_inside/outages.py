"""DBOS waits a database out as the rest of the worker does, and is back as soon.

By itself it gives up on some troubles it could wait out (a server that became read-only, a
statement that took too long), and a workflow whose end it could not record is left to nobody. Where
it does wait, its pauses grow to a minute, and each holds one of its few threads.
"""

from __future__ import annotations

from types import MethodType

import sqlalchemy as sa
from dbos._sys_db import SystemDatabase, db_retry
from sqlalchemy.engine.interfaces import ExceptionContext

from perdure.db import is_infrastructure

__all__ = ["wait_out"]

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 1.0
_ITS_OWN = frozenset({"40001", "55P03"})
"""What DBOS's claims mean by these it knows itself: another worker was there first."""


def wait_out(sys_db: SystemDatabase) -> None:
    """Let ``sys_db`` wait out all trouble of its database's, with short pauses."""
    sa.event.listen(sys_db.engine, "handle_error", _tell)
    record = getattr(type(sys_db).update_workflow_outcome, "__wrapped__")  # noqa: B009
    again = db_retry(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)(record)
    sys_db.update_workflow_outcome = MethodType(again, sys_db)  # type: ignore[method-assign]


def _tell(context: ExceptionContext) -> None:
    """Mark trouble of the database's as a lost connection: that is tried again, on another."""
    error = context.original_exception
    if context.is_disconnect or not is_infrastructure(error):
        return
    if getattr(error, "sqlstate", None) not in _ITS_OWN:
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False
