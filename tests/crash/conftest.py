"""Databases by the dozen: a sweep needs a new one for each point."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio

from tests.crash.nursery import Nursery


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nursery() -> AsyncIterator[Nursery]:
    """One process to fork the workers of a module's tests from: importing takes seconds."""
    async with Nursery() as nursery:
        yield nursery


@pytest.fixture
def make_database(server: Any, template: str) -> Iterator[Callable[[], str]]:
    """Return a function that creates a migrated database; all are dropped after the test."""
    urls: list[str] = []

    def make() -> str:
        urls.append(server.create(template=template))
        return urls[-1]

    yield make
    for url in urls:
        server.drop(url)
