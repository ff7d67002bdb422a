"""Ended runs deleted by age, with all they left, in batches.

A batch is a transaction: runs are held, archived, forgotten by DBOS, deleted. In this order, so
that a process that dies at any point has lost nothing: a run that is archived and still there is
archived again, to the same file; one that DBOS knows no more has ended all the same, and goes at
the next pass. A run stays while something needs it: a run that came from it and is not over, the
turn of its session, a workflow of it that a worker has in hand.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from perdure.audit.erasing import forget_runs
from perdure.audit.log import Actor, Entry, record
from perdure.db import Connection, load_sql
from perdure.runs.dbos_inside.forgetting import forget
from perdure.runs.dbos_inside.forgetting import held as in_hand
from perdure.runs.keeping.archive import ArchiveFile, unwritable
from perdure.runs.keeping.kin import Kin, Left, read_kin

__all__ = ["BATCH", "Archive", "Pruned", "delete_ended", "prune", "workflows_of"]

_SQL = load_sql("perdure.runs.keeping", "pruning.sql")
_CANDIDATES = _SQL["candidates"]
_LOOK = _SQL["to_look_at"]
_REPEATABLE = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
_TRIES = 3
_FIRST = (datetime(1, 1, 1, tzinfo=UTC), UUID(int=0))
BATCH = 100


@dataclass(frozen=True, slots=True)
class Archive:
    """Where runs are written to before they are deleted, and whether compressed."""

    directory: Path
    compress: bool = False


@dataclass(slots=True)
class Pruned:
    """What was deleted, or would be: runs by status, what they left, and what was kept and why."""

    runs: Counter[str] = field(default_factory=Counter)
    left: Left = field(default_factory=Left.nothing)
    workflows: int = 0
    archived: int = 0
    kept: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "runs": dict(self.runs),
            "rows": dict(sorted(self.left.rows.items())),
            "bytes": self.left.bytes,
            "workflows": self.workflows,
            "archived": self.archived,
            "kept": dict(self.kept),
        }


async def prune(
    conn: Connection,
    url: str,
    ages: Mapping[str, timedelta],
    *,
    by: Actor | None,
    tenant_id: UUID | None = None,
    archive: Archive | None = None,
    batch: int = BATCH,
    dry_run: bool = False,
    after_batch: Callable[[Pruned], None] = lambda _: None,
) -> Pruned:
    """Delete the runs of each status that ended longer ago than its age; what was deleted.

    ``conn`` is an idle connection of its own, ``url`` the same database's, for DBOS. Without
    ``tenant_id`` those of all tenants. ``after_batch`` is told how far it is. It can be stopped
    anywhere, and begun again.

    Raises:
        UnavailableError: the archive cannot be written, or DBOS cannot be asked. Nothing of that
            batch was deleted.
        psycopg.Error: the database was lost.
    """
    pruned = Pruned()
    kin = await read_kin(conn)
    for status, age in ages.items():
        [found] = await (await conn.execute(_SQL["moment"], {"age": age})).fetchall()
        after: tuple[datetime, UUID] | None = _FIRST
        while after is not None:
            params = {
                "status": status,
                "before": found["before"],
                "after": after[0],
                "after_id": after[1],
                "tenant_id": tenant_id,
                "most": batch,
            }
            one = _Batch(conn, url, kin, status, by, archive)
            after = await (one.look(params, pruned) if dry_run else one.delete(params, pruned))
            after_batch(pruned)
    return pruned


@dataclass(frozen=True, slots=True)
class _Batch:
    conn: Connection
    url: str
    kin: Kin
    status: str
    by: Actor | None
    archive: Archive | None

    async def look(self, params: Mapping[str, Any], pruned: Pruned) -> tuple[datetime, UUID] | None:
        found = await (await self.conn.execute(_LOOK, params)).fetchall()
        ids, kept, workflows = await _needless(self.conn, self.url, self.kin, found)
        pruned.kept.update(kept)
        if ids:
            pruned.runs[self.status] += len(ids)
            pruned.left.add(await self.kin.count(self.conn, ids))
            pruned.workflows += len(workflows)
        return _last(found, params)

    async def delete(
        self, params: Mapping[str, Any], pruned: Pruned
    ) -> tuple[datetime, UUID] | None:
        """Delete a batch and return where the next one begins, None after the last."""
        for tries_left in reversed(range(_TRIES)):
            try:
                async with self.conn.transaction():
                    await self.conn.execute(_REPEATABLE)
                    found = await (await self.conn.execute(_CANDIDATES, params)).fetchall()
                    ids, kept, workflows = await _needless(self.conn, self.url, self.kin, found)
                    done = Pruned()
                    if ids:
                        done.left.add(await self.kin.count(self.conn, ids))
                        tenants = {row["id"]: row["tenant_id"] for row in found}
                        gone = {run_id: tenants[run_id] for run_id in ids}
                        if self.archive is not None:
                            done.archived = await _write(self.conn, self.kin, self.archive, gone)
                        done.workflows = await asyncio.to_thread(forget, self.url, workflows)
                        await delete_ended(self.conn, gone, by=self.by)
            except psycopg.errors.SerializationFailure:
                # Somebody changed one of them meanwhile: looked at again, it is as it is now.
                if not tries_left:
                    raise
                continue
            pruned.kept.update(kept)
            pruned.runs[self.status] += len(ids)
            pruned.left.add(done.left)
            pruned.archived += done.archived
            pruned.workflows += done.workflows
            return _last(found, params)
        raise AssertionError("unreachable")


def _last(
    found: Sequence[Mapping[str, Any]], params: Mapping[str, Any]
) -> tuple[datetime, UUID] | None:
    if len(found) < params["most"]:
        return None
    return found[-1]["finished_at"], found[-1]["id"]


async def _needless(
    conn: Connection, url: str, kin: Kin, found: Sequence[Mapping[str, Any]]
) -> tuple[list[UUID], Counter[str], list[str]]:
    """Return the runs nothing needs, why how many others stay, and the workflows of the former."""
    ids = [row["id"] for row in found]
    if not ids:
        return [], Counter(), []
    params = {"runs": ids}
    with_turn = await (await conn.execute(_SQL["have_a_turn"], params)).fetchall()
    reasons = {row["id"]: "has_the_turn_of_its_session" for row in with_turn}
    reasons |= dict.fromkeys(await kin.needed(conn, ids), "another_run_needs_it")
    cursor = await conn.execute(_SQL["workflows"], params)
    owners = {row["workflow_id"]: row["run_id"] for row in await cursor.fetchall()}
    for workflow in await asyncio.to_thread(in_hand, url, list(owners)):
        reasons[owners[workflow]] = "a_worker_has_it_in_hand"
    workflows = [one for one, run_id in owners.items() if run_id not in reasons]
    return [id_ for id_ in ids if id_ not in reasons], Counter(reasons.values()), workflows


async def _write(conn: Connection, kin: Kin, archive: Archive, runs: Mapping[UUID, UUID]) -> int:
    [row] = await (await conn.execute(_SQL["migration"])).fetchall()
    for run_id, tenant_id in runs.items():
        file = ArchiveFile(
            *(archive.directory, run_id, tenant_id),
            migration=row["version"],
            compress=archive.compress,
        )
        try:
            async for table, line in kin.lines(conn, run_id):
                file.add(table, line)
            await asyncio.to_thread(file.finish)
        except OSError as error:
            file.drop()
            raise unwritable(error) from error
        except BaseException:
            file.drop()
            raise
    return len(runs)


async def workflows_of(conn: Connection, run_ids: Sequence[UUID]) -> list[str]:
    """Return the ids of the workflows DBOS may know of runs and of what told webhooks of them."""
    cursor = await conn.execute(_SQL["workflows"], {"runs": list(run_ids)})
    return [row["workflow_id"] for row in await cursor.fetchall()]


async def delete_ended(conn: Connection, runs: Mapping[UUID, UUID], *, by: Actor | None) -> None:
    """Delete ended runs, each with its tenant, that the caller's transaction holds.

    The audit keeps who did what on them and that they were deleted, not what it was about.
    """
    ids = list(runs)
    await forget_runs(conn, ids)
    await record(
        conn,
        *(
            Entry("run.deleted", tenant_id, ("run", run_id), by, run_id)
            for run_id, tenant_id in runs.items()
        ),
    )
    await conn.execute(_SQL["delete"], {"runs": ids})
