"""Workflows forgotten through DBOS's own API: its payload tables have no key to their workflows.

A client is enough, which runs nothing, so that commands and API servers can forget too. It blocks:
call it in a thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from perdure.errors import UnavailableError
from perdure.runs.dbos_inside.kinds import DELIVERY, SEGMENT
from perdure.runs.dbos_inside.tested import require_tested

if TYPE_CHECKING:
    from dbos import DBOSClient

__all__ = ["forget", "forget_ended", "held"]

_HELD = ["PENDING"]
"""What a worker may have in hand. One that waits, of a run that has ended, would return at once."""
_ENDED = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
_AT_ONCE = 500


@contextmanager
def _client(url: str) -> Iterator[DBOSClient]:
    require_tested()
    from dbos import DBOSClient
    from dbos._serialization import DBOSPortableJSON
    from sqlalchemy.exc import SQLAlchemyError

    client = DBOSClient(
        system_database_url=url,
        serializer=DBOSPortableJSON,
        application_name="perdure",
        system_database_pool_size=1,
        # Whoever forgets tries again as a whole, in an hour or when told to.
        retry_connection_errors=False,
        lazy=True,
    )
    try:
        yield client
    except SQLAlchemyError as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        raise UnavailableError(
            f"DBOS's rows could not be looked at or deleted: {reason}. Nothing of ours was deleted "
            "with them; try again."
        ) from error
    finally:
        client.destroy()


def held(url: str, workflow_ids: Sequence[str]) -> set[str]:
    """Return those of the workflows that a worker may have in hand.

    Raises:
        ConfigurationError: this DBOS was not tested.
        UnavailableError: the database does not answer, or its role may not.
    """
    found: set[str] = set()
    with _client(url) as client:
        for ids in _parts(workflow_ids):
            rows = client.list_workflows(
                workflow_ids=ids, status=_HELD, load_input=False, load_output=False
            )
            found.update(row.workflow_id for row in rows)
    return found


def forget(url: str, workflow_ids: Sequence[str]) -> int:
    """Delete workflows with all DBOS keeps of them; returns how many there were.

    Raises: as ``held``.
    """
    count = 0
    with _client(url) as client:
        for ids in _parts(workflow_ids):
            rows = client.list_workflows(workflow_ids=ids, load_input=False, load_output=False)
            if rows:
                client.delete_workflows([row.workflow_id for row in rows])
                count += len(rows)
    return count


def forget_ended(url: str, before: datetime) -> int:
    """Delete our workflows that ended before a moment, some of them; how many, 0 at last.

    They are of no use: what a segment or a delivery came to is in its own row. It also takes what
    runs left that were deleted one by one.

    Raises: as ``held``.
    """
    with _client(url) as client:
        rows = client.list_workflows(
            name=[SEGMENT.workflow, DELIVERY.workflow],
            status=_ENDED,
            completed_before=before.isoformat(),
            limit=_AT_ONCE,
            load_input=False,
            load_output=False,
        )
        if rows:
            client.delete_workflows([row.workflow_id for row in rows])
        return len(rows)


def _parts(ids: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), _AT_ONCE):
        yield list(ids[start : start + _AT_ONCE])
