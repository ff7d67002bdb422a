"""The queue's loop: claims when a NOTIFY wakes it, and every few seconds in case one was lost."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from perdure.db import in_words
from perdure.worker.held import Round

_LOG = logging.getLogger(__name__)
POLL_SECONDS = 5.0
_GROWTH_SECONDS = 0.5
_RETRY_SECONDS = 0.5
"""When a claim failed: DBOS's pool may have found only then that its connections are dead."""


class QueueLoop:
    """Claims in a thread of its own, when woken.

    ``claim`` claims and starts what there is; what it raises is logged, and it is called again.
    ``full`` says whether it may have left something for want of room, ``growing`` whether there
    will be more room in a moment.
    """

    def __init__(
        self,
        claim: Callable[[], object],
        full: Callable[[], bool] = lambda: False,
        growing: Callable[[], bool] = lambda: False,
        *,
        name: str = "perdure-queue",
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._claim = claim
        self._full = full
        self._growing = growing
        self._poll_seconds = poll_seconds
        self._woken = threading.Event()
        self._stopped = False
        self._rounds = 0
        self._resting = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to claim; what is queued already is claimed at once."""
        self._woken.set()
        self._thread.start()

    def wake(self) -> None:
        """Look now; callable from any thread."""
        self._woken.set()

    def room(self) -> None:
        """Look now if something may wait for the place that was just given up."""
        if self._full():
            self.wake()

    @property
    def round(self) -> Round:
        """Where the loop is: what it claimed in a round that is over has been started here."""
        return Round(self._rounds, self._resting or not self._thread.is_alive())

    def stop(self, timeout: float) -> None:
        """Claim nothing more; waits up to ``timeout`` seconds for a claim under way. Blocks."""
        self._stopped = True
        self._woken.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        seconds = self._poll_seconds
        while True:
            self._resting = True
            self._woken.wait(seconds)
            self._resting = False
            self._woken.clear()
            if self._stopped:
                return
            seconds = self._poll_seconds
            try:
                self._claim()
                if self._full() and self._growing():
                    seconds = _GROWTH_SECONDS
            except Exception as error:  # noqa: BLE001 - whatever it is, the next look may do better
                seconds = _RETRY_SECONDS
                if not self._stopped:
                    _LOG.warning("Claiming from the queue failed: %s", in_words(error))
            self._rounds += 1
