"""DBOS waits a database out as the rest of the worker does, and is back as soon.

By itself it gives up on some troubles it could wait out (a server that became read-only, a
statement that took too long), and a workflow whose end it could not record is left to nobody. Where
it does wait, its pauses grow to a minute, each holds one of its few threads, and nothing ends them.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from dbos._sys_db import SystemDatabase
from sqlalchemy.engine.interfaces import ExceptionContext

from perdure.db import in_words, is_infrastructure

__all__ = ["wait_out"]

_LOG = logging.getLogger(__name__)
_PAUSES_SECONDS = (0.1, 0.25, 0.5, 1.0)
_SOMEBODY_WAS_FIRST = frozenset({"40001", "55P03"})
"""What claims at once may meet. It says nothing of the session."""


def wait_out(sys_db: SystemDatabase) -> Callable[[], None]:
    """Let ``sys_db`` record ends of workflows however long its database is away.

    Returns what ends that: those that wait then fail.
    """
    ended = threading.Event()
    # As it was before DBOS wrapped its own retries around it.
    record: Callable[..., bool] = type(sys_db).update_workflow_outcome.__wrapped__  # type: ignore[attr-defined]

    @functools.wraps(record)
    def update_workflow_outcome(*args: Any, **options: Any) -> bool:
        attempt = 0
        while True:
            try:
                return record(sys_db, *args, **options)
            except sa.exc.DBAPIError as error:
                if not is_infrastructure(error.orig):
                    raise
                pause = _PAUSES_SECONDS[min(attempt, len(_PAUSES_SECONDS) - 1)]
                attempt += 1
                _LOG.warning(
                    "The end of a workflow could not be recorded (%s); trying again in %.2f s.",
                    in_words(error.orig or error),
                    pause,
                )
                if ended.wait(pause):
                    raise

    sys_db.update_workflow_outcome = update_workflow_outcome  # type: ignore[method-assign]
    sa.event.listen(sys_db.engine, "handle_error", _leave_the_session)
    return ended.set


def _leave_the_session(context: ExceptionContext) -> None:
    """Have a session not used again that met trouble of the database's: it may be read-only."""
    error = context.original_exception
    if context.is_disconnect or not is_infrastructure(error):
        return
    if getattr(error, "sqlstate", None) not in _SOMEBODY_WAS_FIRST:
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False
