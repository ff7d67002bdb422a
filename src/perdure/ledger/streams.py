"""What models stream, written in batches: one statement for all runs of a process.

Beside the run's way. Text gathers here for some ten milliseconds and goes out in one commit,
however many runs stream; a reply that is over takes what is left of its own along into its ledger
entry (``take``), so its deltas always stand before it. Who is too fast for the database loses
deltas, which is said, and is not slowed down.

Crash points. What has not been sent is gone with its process, and nobody has seen it. What was
sent of a reply that did not come is closed by whoever begins the segment next or writes its rest
(``perdure.end_streams``). A batch whose answer was lost is sent again under its number until the
answer is known, and nothing else before it. An execution that was taken over writes nothing more:
the head says whose turn it is.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, Self

import psycopg

from perdure import jsonsafe
from perdure.db import connect, in_words, is_infrastructure, load_sql
from perdure.ledger.telling import Told
from perdure.ledger.unsent import Part, Source, Unsent
from perdure.tasks import end

_SQL = load_sql("perdure.ledger", "streams.sql")
_LOG = logging.getLogger(__name__)

GATHER_SECONDS: Final = 0.01
"""How long the first text after a silence waits for more: many replies are over by then."""
APART_SECONDS: Final = 0.03
"""How far apart batches are at least."""
_APART_A_RUN: Final = 0.0004
_MOST_APART: Final = 0.1
"""How much farther for each run that streams, and how far at most: many share fewer commits."""
UNWATCHED_SECONDS: Final = 0.25
"""How far apart they are while nobody reads."""
WATCHED_SECONDS: Final = 15.0
"""For how long somebody is taken to read who said so; readers say it again after ten."""
_NAMED_AT_ONCE: Final = 200
_BACKOFF_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0)


class StreamWriter:
    """Writes what the models of this process stream, and tells readers what was written."""

    def __init__(
        self,
        url: str,
        session_name: str = "perdure-streams",
        *,
        held: Callable[[str], bool] = lambda run_id: False,
    ) -> None:
        """Take the database's URL; what a run streams waits while it is ``held``."""
        self._url = url
        self._held = held
        self._session_name = session_name
        self._unsent = Unsent()
        self._flying: dict[str, Part] = {}
        self._landed = asyncio.Event()
        self._named: set[str] = set()
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._began = 0.0
        self._apart = APART_SECONDS
        self._watched_until: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._conn: psycopg.AsyncConnection[Any] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="perdure-stream-writer")
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._task is not None:
            await end(self._task)
        if self._conn is not None:
            await self._conn.close()

    def heard(self, _: str) -> None:
        """Somebody reads, or may: the callback of the channel on which readers say so."""
        if not self.watched:
            self._hurry.set()
        self._watched_until = asyncio.get_running_loop().time() + WATCHED_SECONDS

    @property
    def watched(self) -> bool:
        """Whether somebody may be reading: always, where nothing is heard of readers."""
        until = self._watched_until
        return until is None or asyncio.get_running_loop().time() < until

    def announce(self, run_ids: Iterable[str]) -> None:
        """Tell readers soon that these runs have events, which have committed.

        In a commit of its own, as NOTIFY makes those of a whole database wait for each other.
        """
        if self.watched:
            self._named.update(run_ids)
            self._wake.set()

    def add(self, source: Source, kind: str, data: dict[str, Any], text: str | None = None) -> bool:
        """Queue an event of ``source``; ``text`` is joined to that of the delta before it.

        Returns whether it was: text is not while too much waits.
        """
        taken = self._unsent.add(source, kind, data, text)
        if taken:
            self._wake.set()
        return taken

    async def take(self, source: Source, reply_id: str) -> list[Told]:
        """Take out what waits of a reply, to be written with it; first what is on its way lands."""
        while source.run_id in self._flying:
            await self._landed.wait()
        taken = self._unsent.withdraw(source, lambda one: one["model_response_id"] == reply_id)
        return [event.told() for event in taken]

    def withdraw(self, source: Source, attempt: tuple[str, int]) -> bool:
        """Forget what waits of an attempt at a reply; returns whether nothing of it was sent."""
        taken = self._unsent.withdraw(
            source, lambda one: (one["model_response_id"], one["attempt"]) == attempt
        )
        return any(one.kind == "model.started" for one in taken)

    async def flush(self, run_id: str) -> None:
        """Return when nothing of a run waits any more."""
        while run_id in self._unsent or run_id in self._flying:
            self._hurry.set()
            self._wake.set()
            await self._landed.wait()

    def forget(self, source: Source) -> None:
        """Drop what waits of an execution that ends: whoever goes on closes what it had sent."""
        self._unsent.forget(source)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            apart = self._apart if self.watched else UNWATCHED_SECONDS
            pause = max(self._began + apart - loop.time(), GATHER_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._hurry.wait()
            self._hurry.clear()
            self._wake.clear()
            self._began = loop.time()
            batch = self._unsent.take(self._held)
            if batch:
                self._apart = min(APART_SECONDS + _APART_A_RUN * len(batch), _MOST_APART)
                await self._fly(batch)
            if self._unsent:
                self._wake.set()
            await self._tell()

    async def _fly(self, batch: dict[str, Part]) -> None:
        self._flying = batch
        try:
            await self._write(list(batch.values()))
        except Exception:  # noqa: BLE001 - without this loop runs would wait for ever
            _LOG.exception("A batch of streamed text is lost.")
            for part in batch.values():
                self._unsent.sent(part)
        finally:
            self._flying = {}
            landed, self._landed = self._landed, asyncio.Event()
            landed.set()

    async def _write(self, batch: list[Part]) -> None:
        number = secrets.randbits(63)
        attempt = 0
        while True:
            try:
                rows = await self._send(batch, number)
                break
            except psycopg.Error as error:
                if not is_infrastructure(error):
                    await self._write_alone(batch, error)
                    return
                delay = _BACKOFF_SECONDS[min(attempt, len(_BACKOFF_SECONDS) - 1)]
                attempt += 1
                _LOG.warning(
                    "Streamed text was not written (%s); trying again in %.2f s.",
                    in_words(error), delay,
                )  # fmt: skip
                if self._conn is not None:
                    await self._conn.close()
                await asyncio.sleep(delay)
        for part in batch:
            row = rows[part.source.run_id]
            if not row["written"] and row["current"]:
                # Somebody holds its head: it goes with the next batch.
                self._unsent.put_back(part)
                continue
            self._unsent.sent(part)
            if row["written"]:
                self._named.add(part.source.run_id)

    async def _write_alone(self, batch: list[Part], error: psycopg.Error) -> None:
        """Write each run's part by itself, as the database refuses the whole."""
        if len(batch) > 1:
            for part in batch:
                await self._write([part])
            return
        _LOG.warning("What run %s streamed is left out: %s", batch[0].source.run_id, error)
        self._unsent.sent(batch[0])

    async def _send(self, batch: list[Part], number: int) -> dict[str, dict[str, Any]]:
        events = [
            {"run_id": part.source.run_id, "i": i, **event.told()}
            for part in batch
            for i, event in enumerate(part.events, 1)
        ]
        runs = [{**one.source._asdict(), "n": len(one.events)} for one in batch]
        cursor = await (await self._connected()).execute(
            _SQL["write"],
            {"batch": number, "runs": jsonsafe.dumps(runs), "events": jsonsafe.dumps(events)},
            prepare=True,
        )
        return {row["run_id"]: row for row in await cursor.fetchall()}

    async def _tell(self) -> None:
        named, self._named = sorted(self._named), set()
        if not named or not self.watched:
            return
        try:
            conn = await self._connected()
            for at in range(0, len(named), _NAMED_AT_ONCE):
                payload = ",".join(named[at : at + _NAMED_AT_ONCE])
                await conn.execute(_SQL["announce"], (payload,), prepare=True)
        except Exception as error:  # noqa: BLE001 - readers look for themselves every few seconds
            mistake = None if is_infrastructure(error) else error
            _LOG.warning(
                "Readers were not told of new events (%s).", in_words(error), exc_info=mistake
            )

    async def _connected(self) -> psycopg.AsyncConnection[Any]:
        if self._conn is None or self._conn.closed:
            self._conn = await connect(self._url, application_name=self._session_name)
        return self._conn
