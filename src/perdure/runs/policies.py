"""The policies that hold for a run now, remembered by this process so that a turn asks nobody.

A tenant's policies are read in one query and remembered with their revision. They are read again
when a notification says that there is a later one, when a segment begins and its tenant's row
says so, and after the connection that hears notifications was lost. So what was made before a
segment began holds for it, and what is made while it runs holds for its next calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from perdure.db import Pool
from perdure.interruptions.policies import store as policies
from perdure.interruptions.policies.policy import Policy


@dataclass(frozen=True, slots=True)
class _Read:
    revision: int
    policies: tuple[Policy, ...]


_NONE = _Read(0, ())


@dataclass(eq=False)
class Policies:
    """What this process knows of each tenant's policies; ``own`` are the application file's."""

    pool: Pool
    own: Sequence[Policy] = ()
    _read: dict[UUID, _Read] = field(default_factory=dict)
    _latest: dict[UUID, int] = field(default_factory=dict)
    """The latest revision heard of, by tenant."""
    _forgot: int = 0
    """How often all was forgotten."""

    def heard(self, payload: str) -> None:
        """Take a notification: ``<tenant>:<revision>``, or nothing: some may have been missed."""
        tenant, _, revision = payload.partition(":")
        if not tenant:
            self._forgot += 1
            self._read.clear()
            self._latest.clear()
            return
        self.expect(UUID(tenant), int(revision))

    def expect(self, tenant_id: UUID, revision: int) -> None:
        """Take note that there is this revision of a tenant's policies; 0 is that of none."""
        if revision == 0:
            self._read.setdefault(tenant_id, _NONE)
        self._latest[tenant_id] = max(revision, self._latest.get(tenant_id, 0))

    def known(self, tenant_id: UUID) -> tuple[Policy, ...] | None:
        """Return the policies of a tenant, the API's before the file's; None: they are not known.

        Not known are also those that are known to have changed.
        """
        read = self._read.get(tenant_id)
        if read is None or read.revision < self._latest.get(tenant_id, 0):
            return None
        return (*read.policies, *self.own)

    async def of(self, tenant_id: UUID) -> tuple[Policy, ...]:
        """Return the policies of a tenant as ``known`` does, read when they are not known.

        Raises:
            psycopg.Error: they cannot be read now.
        """
        while (found := self.known(tenant_id)) is None:
            forgot = self._forgot
            async with self.pool.connection() as conn:
                revision, made = await policies.standing(conn, tenant_id)
            if forgot == self._forgot:
                self._read[tenant_id] = _Read(revision, made)
                self.expect(tenant_id, revision)
        return found
