"""DBOS's queue loop, woken by NOTIFY instead of a short poll.

DBOS claims workflows in a thread that waits on an event between polls. Given an event whose wait
also ends when a notification comes, the poll can be long and a claim still starts in
milliseconds, with all of DBOS's limits and its exactly-one claim kept.
"""

from __future__ import annotations

import threading

from dbos import DBOS
from dbos._queue import Queue, queue_worker_thread


class WakeEvent(threading.Event):
    """Set means stop; a wake ends one wait without setting it."""

    def __init__(self) -> None:
        super().__init__()
        self._woken = threading.Event()
        self.waits = 0
        self.waiting = False

    def wake(self) -> None:
        """End the wait that is on, or the next one if none is."""
        self._woken.set()

    def set(self) -> None:
        """Stop the loop."""
        super().set()
        self._woken.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for a wake, a stop or ``timeout`` seconds; True when it is to stop."""
        if not self.is_set():
            self.waits += 1
            self.waiting = True
            self._woken.wait(timeout)
            self.waiting = False
            self._woken.clear()
        return self.is_set()


class QueueLoop:
    """Claims workflows of one queue in a thread of its own, when woken."""

    def __init__(self, dbos: DBOS, queue: Queue) -> None:
        self._event = WakeEvent()
        self._thread = threading.Thread(
            target=queue_worker_thread,
            args=(self._event, dbos, queue),
            name=f"perdure-queue-{queue.name}",
            daemon=True,
        )

    def start(self) -> None:
        """Begin to claim; what is queued already is claimed at once."""
        self._thread.start()
        self._event.wake()

    def wake(self) -> None:
        """Look now; callable from any thread."""
        self._event.wake()

    @property
    def rounds(self) -> int:
        """How many rounds of claiming are over: what they claimed has been started here."""
        return self._event.waits

    @property
    def resting(self) -> bool:
        """Whether no round is under way now."""
        return self._event.waiting or not self._thread.is_alive()

    def stop(self, timeout: float) -> None:
        """Claim nothing more; waits up to ``timeout`` seconds for a claim under way. Blocks."""
        self._event.set()
        self._thread.join(timeout)
