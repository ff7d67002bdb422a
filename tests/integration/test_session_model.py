"""Sessions against lists: whatever is added, popped, cleared, replaced, branched and deleted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from perdure.access.principals import DEFAULT_TENANT, program_principal
from perdure.db import Connection, connect
from perdure.errors import ConflictError
from perdure.paging import PageRequest
from perdure.sessions import (
    branching,
    erasing,
    exporting,
    importing,
    items,
    reading,
    removing,
    store,
)
from perdure.sessions.rules import NewItem
from tests.factories import insert_tenant

T = TypeVar("T")
ANYBODY = program_principal("tests")
PLACES = st.integers(min_value=0, max_value=2**16)


@dataclass(eq=False)
class Plain:
    """A session as one would write it down: what it has, by number."""

    id: UUID
    parent: Plain | None
    last: int
    has: list[tuple[int, str]] = field(default_factory=list)
    deleted: bool = False

    def is_below(self, other: Plain) -> bool:
        """Whether it is a branch of the other, or of such a one."""
        return self.parent is not None and (self.parent is other or self.parent.is_below(other))


class Conversations(RuleBasedStateMachine):
    """Any order of changes to a few sessions; each is read after every one of them."""

    def __init__(self, conn: Connection, runner: asyncio.Runner, elsewhere: UUID) -> None:
        super().__init__()
        self.conn = conn
        self.runner = runner
        self.elsewhere = elsewhere
        self.all: list[Plain] = []
        self.said = 0

    def wait(self, doing: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(doing)

    def of(self, place: int) -> Plain:
        living = self.living
        return living[place % len(living)]

    @property
    def living(self) -> list[Plain]:
        return [one for one in self.all if not one.deleted]

    def where(self, one: Plain) -> dict[str, Any]:
        return {"tenant_id": DEFAULT_TENANT, "session_id": one.id, "by": ANYBODY}

    def new(self, count: int) -> list[NewItem]:
        self.said += count
        words = [f"{n}\0é\ud800" for n in range(self.said - count, self.said)]
        return [NewItem({"role": "user", "content": text}) for text in words]

    @initialize()
    def begin(self) -> None:
        self.make()

    @rule()
    def make(self) -> None:
        """Begin a session."""
        made, _ = self.wait(
            store.find_or_make(
                self.conn, tenant_id=DEFAULT_TENANT, fields=store.SessionFields(), by=ANYBODY
            )
        )
        self.all.append(Plain(UUID(made["id"]), None, 0))

    def appended(self, one: Plain, new: list[NewItem]) -> None:
        for item in new:
            one.last += 1
            one.has.append((one.last, item.item["content"]))

    @precondition(lambda self: self.living)
    @rule(place=PLACES, count=st.integers(min_value=1, max_value=4))
    def add(self, place: int, count: int) -> None:
        """Append."""
        one, new = self.of(place), self.new(count)
        added = self.wait(items.append(self.conn, **self.where(one), items=new))
        assert [row["seq"] for row in added] == list(range(one.last + 1, one.last + count + 1))
        self.appended(one, new)

    @precondition(lambda self: self.living)
    @rule(place=PLACES)
    def pop(self, place: int) -> None:
        """Take the newest away."""
        one = self.of(place)
        popped = self.wait(removing.pop(self.conn, **self.where(one)))
        expected = one.has.pop() if one.has else None
        assert (None if popped is None else (popped.seq, popped.item["content"])) == expected

    @precondition(lambda self: self.living)
    @rule(place=PLACES)
    def clear(self, place: int) -> None:
        """Take all away."""
        one = self.of(place)
        self.wait(removing.clear(self.conn, **self.where(one)))
        one.has.clear()

    @precondition(lambda self: self.living)
    @rule(place=PLACES, count=st.integers(min_value=0, max_value=3))
    def replace(self, place: int, count: int) -> None:
        """Put others in the place of all."""
        one, new = self.of(place), self.new(count)
        self.wait(removing.replace(self.conn, **self.where(one), items=new))
        one.has.clear()
        self.appended(one, new)

    @precondition(lambda self: any(one.has for one in self.living))
    @rule(place=PLACES, which=PLACES)
    def remove(self, place: int, which: int) -> None:
        """Take one away, its own or an ancestor's."""
        filled = [one for one in self.living if one.has]
        one = filled[place % len(filled)]
        seq, _ = one.has.pop(which % len(one.has))
        [stored] = [item for item in self.wait(self.read(one, reading.LAST)) if item.seq == seq]
        self.wait(removing.remove_item(self.conn, **self.where(one), item_id=stored.id))

    @precondition(lambda self: self.living)
    @rule(place=PLACES, at=PLACES)
    def branch(self, place: int, at: int) -> None:
        """Go on from somewhere."""
        one = self.of(place)
        from_seq = at % (one.last + 1)
        made = self.wait(branching.branch_session(self.conn, **self.where(one), from_seq=from_seq))
        has = [(seq, text) for seq, text in one.has if seq <= from_seq]
        self.all.append(Plain(UUID(made["id"]), one, from_seq, has))

    @precondition(lambda self: len(self.living) > 1)
    @rule(place=PLACES)
    def delete(self, place: int) -> None:
        """Delete one that may have branches: they do not mind."""
        one = self.of(place)
        self.wait(erasing.delete_session(self.conn, **self.where(one)))
        one.deleted = True

    @precondition(lambda self: len(self.living) > 1)
    @rule(place=PLACES, cascade=st.booleans())
    def erase(self, place: int, cascade: bool) -> None:
        """Erase one, deleted before or not; not under branches that live."""
        one = self.all[place % len(self.all)]
        below = [other for other in self.all if other.is_below(one)]
        erased = erasing.erase_session(self.conn, **self.where(one), cascade=cascade)
        if not cascade and any(not other.deleted for other in below):
            with pytest.raises(ConflictError):
                self.wait(erased)
            return
        assert self.wait(erased) == 1 + len(below)
        self.all = [other for other in self.all if other is not one and other not in below]
        if not self.living:
            self.make()

    async def read(
        self,
        one: Plain,
        at: reading.Moment,
        limit: int | None = None,
        tenant_id: UUID = DEFAULT_TENANT,
    ) -> Any:
        return await reading.newest(
            self.conn, tenant_id=tenant_id, session_id=one.id, at=at, limit=limit
        )

    @invariant()
    def all_is_as_written_down(self) -> None:
        """Every session reads as its list does; so do its newest, its pages, and a part of it."""
        for one in self.living:
            read = self.wait(self.read(one, reading.LAST))
            assert [(item.seq, item.item["content"]) for item in read] == one.has
            newest = self.wait(self.read(one, reading.LAST, 2))
            assert [item.seq for item in newest] == [seq for seq, _ in one.has[-2:]]
            half = reading.Moment(one.last // 2, reading.LAST.version)
            before = self.wait(self.read(one, half))
            assert [item.seq for item in before] == [
                seq for seq, _ in one.has if seq <= one.last // 2
            ]
            page = self.wait(
                reading.list_items(
                    self.conn,
                    tenant_id=DEFAULT_TENANT,
                    session_id=one.id,
                    page=PageRequest(3, read[0].id if read else None, "asc"),
                )
            )
            assert [row["seq"] for row in page.data] == [seq for seq, _ in one.has[1:4]]

    @precondition(lambda self: self.all)
    @rule(some=st.none() | st.sets(PLACES, min_size=1, max_size=3))
    def carry(self, some: set[int] | None) -> None:
        """Take all of them, or some, elsewhere: there they read as they do here."""
        chosen = self.living if some is None else list({self.of(place): None for place in some})
        ids = None if some is None else [one.id for one in chosen]
        became = self.wait(self.carried(exporting.Exported(store.SessionFilter(), ids)))
        assert became.keys() == {one.id for one in chosen}
        for one in chosen:
            there = Plain(became[one.id], one.parent, one.last, deleted=True)
            read = self.wait(self.read(there, reading.LAST, tenant_id=self.elsewhere))
            assert [(item.seq, item.item["content"]) for item in read] == one.has
        gone = "DELETE FROM perdure.sessions WHERE tenant_id = %s"
        self.wait(self.conn.execute(gone, (self.elsewhere,)))

    async def carried(self, wanted: exporting.Exported) -> dict[UUID, UUID]:
        with importing.Spool() as spool:
            lines = exporting.export_sessions(self.conn, tenant_id=DEFAULT_TENANT, wanted=wanted)
            async for line in lines:
                spool.feed(json.dumps(line).encode() + b"\n")
            spool.end()
            done = await importing.import_sessions(
                self.conn, spool, tenant_id=self.elsewhere, by=ANYBODY
            )
        return {UUID(one["from"]): UUID(one["id"]) for one in done["sessions"]}

    def teardown(self) -> None:
        """Erase all: nothing of it is left."""
        for one in self.all:
            if one.parent is None or one.parent not in self.all:
                self.wait(erasing.erase_session(self.conn, **self.where(one), cascade=True))
        left = self.wait(self.count())
        assert left == {"sessions": 0, "items": 0, "holes": 0}

    async def count(self) -> Any:
        cursor = await self.conn.execute(
            "SELECT (SELECT count(*) FROM perdure.sessions) AS sessions,"
            " (SELECT count(*) FROM perdure.session_items) AS items,"
            " (SELECT count(*) FROM perdure.session_holes) AS holes"
        )
        return await cursor.fetchone()


def test_sessions_are_what_lists_would_be(database_url: str) -> None:
    with asyncio.Runner() as runner:
        conn = runner.run(connect(database_url))
        elsewhere = runner.run(insert_tenant(conn, "elsewhere"))
        try:
            run_state_machine_as_test(
                lambda: Conversations(conn, runner, elsewhere),  # type: ignore[arg-type]
                settings=settings(
                    max_examples=20,
                    stateful_step_count=30,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(conn.close())
