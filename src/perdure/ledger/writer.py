"""The one place ledger rows are written: entries of all runs of a process, in shared commits.

While one statement commits, what arrives meanwhile waits and shares the next one, in order:
an entry never commits before one submitted earlier. Entries may be sent again after a lost
connection, as each is idempotent (row ids are chosen here, changes are compare-and-set). So they
are, for as long as the process lives: what it knows of an effect is not dropped because the
database is away, and nobody has to be asked about it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from typing import Any, Self

import psycopg

from perdure import jsonsafe
from perdure.db import connect, in_words, is_infrastructure, load_sql, uuid7
from perdure.errors import Fenced, LedgerRejected, LedgerUnavailable
from perdure.ledger.streams import StreamWriter
from perdure.tasks import end

_SQL = load_sql("perdure.ledger", "writer.sql")
_WRITE = _SQL["write"]
_KEEP_LATE = _SQL["keep_late"]
WRITE_WITH_OPERATIONS = _WRITE.replace("/*operations*/", ", operations jsonb").replace(
    "/*operated*/", load_sql("perdure.ledger", "operations.sql")["written_with_outcomes"]
)
"""The same where a call recorded operations; where none did nothing is asked of them."""
_LOG = logging.getLogger(__name__)

MAX_BATCH = 256
LINGER_SECONDS = 0.02
"""How long an entry nobody waits for may wait for one that somebody does, to share its commit."""
_LINGER_WHILE_ASKING_SECONDS = 0.002
"""How long it may from when a model is asked, which may take its time to answer."""
_BACKOFF_SECONDS = (0.05, 0.1, 0.25, 0.5)

Entry = dict[str, Any]
"""One thing to record: ``kind`` (reply, call, intent, outcome), the segment's key and epoch,
and the columns of that kind; the statement in writer.sql names them all."""


class LedgerWriter:
    """Writes entries of every run of this process over one connection of its own."""

    def __init__(self, url: str, session_name: str = "perdure-ledger") -> None:
        self._url = url
        self._session_name = session_name
        self._open: Counter[str] = Counter()
        # What a run's model says comes after all that was recorded of the run before.
        self.streams = StreamWriter(
            url,
            session_name.replace("ledger", "streams"),
            held=lambda run_id: self._open[run_id] > 0,
        )
        """Writes what models stream until their replies are here."""
        self._queue: list[tuple[Entry, str, asyncio.Future[bool]]] = []
        self._wake = asyncio.Event()
        self._urgent = asyncio.Event()
        self._soon: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._conn: psycopg.AsyncConnection[Any] | None = None

    async def __aenter__(self) -> Self:
        self._conn = await connect(self._url, application_name=self._session_name)
        await self.streams.__aenter__()
        self._task = asyncio.create_task(self._run(), name="perdure-ledger-writer")
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._task is not None:
            await end(self._task)
        for entry, _, future in self._queue:
            if not future.done():
                future.set_exception(_unavailable(entry))
        self._queue.clear()
        await self.streams.__aexit__(*exc)
        if self._conn is not None:
            await self._conn.close()

    def submit(self, entry: Entry, *, urgent: bool = True) -> asyncio.Future[bool]:
        """Queue ``entry``; the future is done when it has committed. Its result says of a reply
        whether its tenant has budgets that others share.

        One that is not ``urgent`` lingers a moment for the next that is: the outcome of a quick
        tool shares the commit of the reply after it.

        The future raises Fenced (another execution owns the segment), LedgerRejected (the
        database refused this entry's content) or LedgerUnavailable (the worker stopped first).
        """
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        try:
            text = jsonsafe.dumps(entry)
        except (TypeError, ValueError) as error:
            future.set_exception(_rejected(entry, str(error)))
            return future
        run_id = entry["run_id"]
        self._open[run_id] += 1
        future.add_done_callback(lambda _: self._close(run_id))
        self._queue.append((entry, text, future))
        self._wake.set()
        if urgent:
            self._urgent.set()
        return future

    def _close(self, run_id: str) -> None:
        self._open[run_id] -= 1
        if not self._open[run_id]:
            del self._open[run_id]

    def hurry(self) -> None:
        """Write now what lingers: somebody waits for it."""
        self._urgent.set()

    def asking(self) -> None:
        """Write soon what lingers: a model is asked, and its reply may be long in coming."""
        if self._queue and self._soon is None:
            loop = asyncio.get_running_loop()
            self._soon = loop.call_later(_LINGER_WHILE_ASKING_SECONDS, self._urgent.set)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self._urgent.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(LINGER_SECONDS):
                        await self._urgent.wait()
            self._urgent.clear()
            if self._soon is not None:
                self._soon.cancel()
                self._soon = None
            while self._queue:
                batch, self._queue = self._queue[:MAX_BATCH], self._queue[MAX_BATCH:]
                try:
                    await self._write(batch)
                except BaseException:
                    for entry, _, future in batch:
                        if not future.done():
                            future.set_exception(_unavailable(entry))
                    raise

    async def _write(self, batch: list[tuple[Entry, str, asyncio.Future[bool]]]) -> None:
        try:
            written = await self._execute(batch)
        except psycopg.Error as error:
            if len(batch) > 1:
                # One bad entry must not take its neighbours along.
                for item in batch:
                    await self._write([item])
                return
            entry, _, future = batch[0]
            if not future.done():
                future.set_exception(_rejected(entry, str(error)))
            return
        self.streams.announce({entry["run_id"] for entry, _, _ in batch})
        late = []
        for n, (entry, text, future) in enumerate(batch):
            row = written.get(n)
            if entry["kind"] == "outcome" and (row is None or not row["settled"]):
                late.append(text)
            if not future.done():
                _tell(future, entry, row)
        if late:
            await self._keep_late(late)

    async def _execute(
        self, batch: list[tuple[Entry, str, asyncio.Future[bool]]]
    ) -> dict[int, dict[str, Any]]:
        # Each text is a JSON object; its number within the batch is spliced in.
        numbered = (f'{{"n":{n},{text[1:]}' for n, (_, text, _) in enumerate(batch))
        operated = any("operations" in entry for entry, _, _ in batch)
        statement = WRITE_WITH_OPERATIONS if operated else _WRITE
        cursor = await self._send(statement, f"[{','.join(numbered)}]")
        return {row["n"]: row for row in await cursor.fetchall()}

    async def _keep_late(self, texts: list[str]) -> None:
        """Keep outcomes that changed nothing as evidence; as well as it goes."""
        # Ids are chosen once: what is sent again after a lost answer is kept once.
        rows = ",".join(f'{{"evidence_id":"{uuid7()}",{text[1:]}' for text in texts)
        try:
            await self._send(_KEEP_LATE, f"[{rows}]")
        except psycopg.Error as error:
            _LOG.warning("%d late outcome(s) could not be kept: %s", len(texts), error)

    async def _send(self, statement: str, payload: str) -> psycopg.AsyncCursor[Any]:
        attempt = 0
        while True:
            try:
                if self._conn is None or self._conn.closed:
                    self._conn = await connect(self._url, application_name=self._session_name)
                return await self._conn.execute(statement, (payload,), prepare=True)
            except psycopg.Error as error:
                if not is_infrastructure(error):
                    raise
                delay = _BACKOFF_SECONDS[min(attempt, len(_BACKOFF_SECONDS) - 1)]
                attempt += 1
                _LOG.warning(
                    "Ledger write failed (%s); trying again in %.2f s.", in_words(error), delay
                )
                if self._conn is not None:
                    # Another one may do: it is the session that may be read-only, say.
                    await self._conn.close()
                await asyncio.sleep(delay)


def _tell(future: asyncio.Future[bool], entry: Entry, row: dict[str, Any] | None) -> None:
    """Tell who waits what became of an entry; there is no ``row`` where it was fenced."""
    if row is None:
        future.set_exception(Fenced(entry["run_id"], epoch=entry["epoch"]))
    elif not row["accepted"]:
        future.set_exception(_rejected(entry, "the call is in no state it may start from."))
    else:
        future.set_result(row["budgeted"])


def _doing(entry: Entry) -> str:
    return f"{entry['kind']} of {entry.get('call_id') or entry.get('agent')}"


def _unavailable(entry: Entry) -> LedgerUnavailable:
    return LedgerUnavailable(entry["run_id"], doing=f"recording the {_doing(entry)}")


def _rejected(entry: Entry, reason: str) -> LedgerRejected:
    return LedgerRejected(entry["run_id"], doing=f"the {_doing(entry)}", reason=reason)
