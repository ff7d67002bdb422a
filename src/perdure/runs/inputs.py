"""Messages added to a run while it is under way: accepted, and given to one of its states.

One is accepted in a transaction that locks the run, and stands in a row of its own until a worker
makes it part of a state of the run, in the transaction that writes that state, behind its fence.
So it is in exactly one state or still waiting, whoever dies; and as a run completes under the same
lock, none slips in between the last look and the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from perdure import jsonsafe
from perdure.access.principals import Principal
from perdure.audit.log import Entry, record
from perdure.db import Connection, load_sql, uuid7
from perdure.errors import InvalidRequestError, InvalidStateError, NotFoundError
from perdure.runs.views import Object, input_object

_SQL = load_sql("perdure.runs", "inputs.sql")
_LOCK_RUN = _SQL["lock_run"]
_ADD = _SQL["add"]
_WAITING = _SQL["waiting"]
_GIVE = _SQL["give"]

MOST_WAITING = 100
"""How many messages may wait for one run."""
_LONGEST_TOLD = 500
_TAKES_INPUT = ("queued", "running", "interrupted")
_FIELDS = frozenset({"type", "role", "content"})


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message that is in no state yet; ``items`` are Responses input items."""

    id: UUID
    items: list[dict[str, Any]]


def messages_of(given: object) -> list[dict[str, Any]]:
    """Return a text, or a list of messages, as Responses input items of the role ``user``.

    Strict, as what a provider refuses would fail a run that may have come far.

    Raises:
        InvalidRequestError: naming the place in ``/input``.
    """
    if isinstance(given, str) and given:
        given = [{"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise InvalidRequestError.at(
            "/input", "has to be text or a list of a user's messages, and not empty."
        )
    for index, item in enumerate(given):
        _check_message(f"/input/{index}", item)
    try:
        jsonsafe.dumps(given)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError.at("/input", f"is no JSON: {error}") from error
    return given


def _check_message(pointer: str, item: Any) -> None:
    if not isinstance(item, dict):
        raise InvalidRequestError.at(pointer, "has to be an object.")
    if item.get("type", "message") != "message":
        raise InvalidRequestError.at(f"{pointer}/type", "has to be message: nothing else is added.")
    if item.get("role") != "user":
        raise InvalidRequestError.at(f"{pointer}/role", "has to be user.")
    for name in item.keys() - _FIELDS:
        raise InvalidRequestError.at(f"{pointer}/{name}", "is no field of a message.")
    content = item.get("content")
    if isinstance(content, str) and content:
        return
    if not isinstance(content, list) or not content:
        raise InvalidRequestError.at(
            f"{pointer}/content", "has to be text or a list of parts, and not empty."
        )
    for number, part in enumerate(content):
        at = f"{pointer}/content/{number}"
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str) or not kind.startswith("input_"):
            raise InvalidRequestError.at(
                at, "has to be an object with a type: input_text, input_image or input_file."
            )
        if kind == "input_text" and not isinstance(part.get("text"), str):
            raise InvalidRequestError.at(f"{at}/text", "has to be text.")


def _told(items: Sequence[dict[str, Any]]) -> str:
    texts = []
    for item in items:
        content = item["content"]
        parts = [{"text": content}] if isinstance(content, str) else content
        texts.append("".join(str(part.get("text", "")) for part in parts))
    return "\n".join(texts)[:_LONGEST_TOLD]


async def add_input(
    conn: Connection, *, tenant_id: UUID, run_id: UUID, input: object, by: Principal
) -> Object:
    """Add a message to a run that has not ended, and return it as the API shows it.

    The model reads it in the run's next request. Joins the caller's transaction or makes one.

    Raises:
        InvalidRequestError: it is no text and no list of a user's messages.
        NotFoundError: the tenant has no such run.
        InvalidStateError: the run has ended, is being cancelled, or ``MOST_WAITING`` wait already.
    """
    items = messages_of(input)
    async with conn.transaction():
        key = {"run_id": run_id, "tenant_id": tenant_id}
        run = await (await conn.execute(_LOCK_RUN, key)).fetchone()
        if run is None:
            raise NotFoundError("run", run_id)
        _check_run(run)
        about = {"by": by.as_requester(), "text": _told(items)}
        cursor = await conn.execute(
            _ADD,
            {
                **key,
                "id": uuid7(),
                "input": jsonsafe.dumps(items),
                "by_type": by.type,
                "by_id": by.id,
                "by_subject": by.subject,
                "told": jsonsafe.dumps(about),
            },
        )
        [row] = await cursor.fetchall()
        added = input_object(jsonsafe.loads(row["input"]))
        details = {"input_id": added["id"]}
        await record(
            conn, Entry("run.input_added", tenant_id, ("run", run_id), by, run_id, details=details)
        )
        return added


def _check_run(run: dict[str, Any]) -> None:
    status, action, hint = run["status"], "given a message", ""
    if status in _TAKES_INPUT and not run["cancel_requested"]:
        if run["inputs_waiting"] < MOST_WAITING:
            return
        hint = f"{MOST_WAITING} messages wait for it already."
    elif status == "failed":
        hint = "Resume it first."
    elif status in _TAKES_INPUT:
        status = "being cancelled"
    else:
        hint = "It has ended; start another."
    raise InvalidStateError("Run", run["id"], status=status, action=action, hint=hint)


async def waiting(conn: Connection, run_id: UUID) -> list[Waiting]:
    """Return the messages of a run that are in no state yet, in the order they were accepted."""
    cursor = await conn.execute(_WAITING, {"run_id": run_id})
    return [Waiting(row["id"], jsonsafe.loads(row["input"])) for row in await cursor.fetchall()]


async def give(
    conn: Connection, run_id: UUID, *, state_seq: int, ids: Sequence[UUID] | None = None
) -> list[dict[str, Any]]:
    """Note that messages are part of a run state; return their items.

    In the transaction that writes the state, which holds the run's row. Without ``ids`` it is all
    that wait.

    Raises:
        ValueError: one of ``ids`` is part of a state already; this one must not be written.
    """
    key = {"run_id": run_id, "state_seq": state_seq, "ids": None if ids is None else list(ids)}
    cursor = await conn.execute(_GIVE, key)
    [row] = await cursor.fetchall()
    given = jsonsafe.loads(row["inputs"])
    if ids is not None and len(given) != len(ids):
        raise ValueError("A message would be part of two states of the run.")
    return [item for items in given for item in items]
