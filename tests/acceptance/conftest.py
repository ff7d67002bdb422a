"""A place of its own for each test of the real command, with an embedded Postgres in it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import wait_until_stopped


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder to be ``PERDURE_HOME``; its server has stopped when the test is over."""
    home = Path(tempfile.mkdtemp(prefix="perdure-test-"))
    try:
        yield home
        if (home / "watcher.lock").exists():
            wait_until_stopped(home)
    finally:
        shutil.rmtree(home, ignore_errors=True)
