"""The queue's loop: a claim for each wake, whatever the one before came to."""

from __future__ import annotations

import itertools
import logging
import queue

import pytest

from perdure.worker.wake import QueueLoop

SECONDS = 10.0


def test_a_claim_that_fails_is_told_and_the_next_wake_claims_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    claims: queue.Queue[int] = queue.Queue()

    numbers = itertools.count(1)

    def claim() -> None:
        number = next(numbers)
        claims.put(number)
        if number == 1:
            raise RuntimeError("the database is gone")

    loop = QueueLoop(claim)
    with caplog.at_level(logging.WARNING):
        # What is queued already is claimed at once.
        loop.start()
        assert claims.get(timeout=SECONDS) == 1
        loop.wake()
        assert claims.get(timeout=SECONDS) == 2
        loop.stop(SECONDS)
    assert "Claiming from the queue failed: the database is gone" in caplog.text
    # Stopped, it claims nothing more.
    loop.wake()
    assert claims.empty()
