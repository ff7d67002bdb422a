"""Audit rows are sealed every few seconds; all workers together do it as one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import psycopg

from perdure.audit.sealing import Pass, seal_due
from perdure.config import NamedKey
from perdure.db import Pool, in_words

_LOG = logging.getLogger(__name__)
INTERVAL_SECONDS = 5.0


async def keep_sealing(pool: Pool, keys: Sequence[NamedKey]) -> None:
    """Seal what can be sealed, signed by the first of ``keys``, until cancelled."""
    sign_heads = True
    while True:
        done = Pass()
        try:
            async with pool.connection() as conn:
                done = await seal_due(conn, keys, sign_heads=sign_heads)
            sign_heads = False
        except psycopg.errors.UniqueViolation:
            _LOG.info("Another process has sealed the audit meanwhile.")
        except psycopg.Error as error:
            _LOG.warning("Sealing the audit failed: %s", in_words(error))
        await asyncio.sleep(0 if done.more else INTERVAL_SECONDS)
