"""``perdure runs tail``: what happens in a run, as it happens, from its first event to its end.

A connection that breaks is made anew with the number of the last event that was shown, so nothing
is missed and nothing shown twice. Lines and words are added and nothing is drawn over.
"""

from __future__ import annotations

import time
from typing import Any, Final

from perdure.cli.client import Client, ServerError
from perdure.cli.live import live_output
from perdure.cli.output import print_json_line, print_note, print_text
from perdure.cli.runs_shown import as_text
from perdure.cli.told import Told
from perdure.cli.words import elapsed

__all__ = ["follow"]

_PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
_ENDS: Final = {"run.completed", "run.failed", "run.cancelled"}
_SILENCES_SECONDS: Final = (30, 60, 120, 300)
"""After how long without an event it is said what goes on; from the last one on, every so often."""


def follow(client: Client, run_id: str, *, as_json: bool, after: int = 0) -> str:
    """Show the events of a run after the number ``after`` until it has ended.

    Returns how it ended: ``completed``, ``failed`` or ``cancelled``.

    Raises:
        ServerError: there is no such run, or the server is not there at first; later it is
            waited for.
    """
    told = _Followed(as_json, after)
    try:
        return _follow(client, f"/v1/runs/{run_id}", told)
    finally:
        told.live.end()


def _follow(client: Client, path: str, told: _Followed) -> str:
    attempt, connected = 0, False
    while True:
        try:
            for event in client.events(f"{path}/events", after=told.last):
                if attempt and connected:
                    told.note("The server is back.")
                attempt, connected = 0, True
                told.take(event)
            connected = True
            run = client.get(path)
        except ServerError as error:
            if error.reason != "unavailable" or not connected:
                raise
            if not attempt:
                told.note(f"The server at {client.url} is away; waiting for it.")
            time.sleep(_PAUSES_SECONDS[min(attempt, len(_PAUSES_SECONDS) - 1)])
            attempt += 1
            continue
        # A stream that ended before the run did is the server's, which stops.
        if f"run.{run['status']}" in _ENDS and told.kind in ("", f"run.{run['status']}"):
            told.end(run["output"])
            return str(run["status"])
        time.sleep(_PAUSES_SECONDS[0])


class _Followed:
    """What has been shown of a run: which event was the last, and when."""

    def __init__(self, as_json: bool, after: int) -> None:
        self.last = after
        self.kind = ""
        self.live = live_output()
        self._as_json = as_json
        self._told = Told(self.live, whole=not after)
        self._heard = time.monotonic()
        self._silences = 0

    def take(self, event: dict[str, Any] | None) -> None:
        """Show an event; None: the server is there and has nothing to say."""
        if event is None:
            self._say_what_goes_on()
            return
        self._heard, self._silences = time.monotonic(), 0
        self.last, self.kind = event["id"], event["event"]
        if self._as_json:
            print_json_line(event)
        else:
            self._told.tell(event)

    def end(self, output: Any) -> None:
        """Show the run's output, unless it stands there already."""
        if not self._as_json and output is not None and not self._told.has_said(output):
            print_text(as_text(output))

    def note(self, text: str) -> None:
        """Say something that is no event."""
        self.live.give_way()
        print_note(text)

    def _say_what_goes_on(self) -> None:
        silent = time.monotonic() - self._heard
        if self._as_json or self._told.waits or silent < _next_silence(self._silences):
            return
        while silent >= _next_silence(self._silences):
            self._silences += 1
        self.note(f"Nothing new for {elapsed(silent)}: {self._told.doing} is at it.")


def _next_silence(said: int) -> float:
    """Return after how many seconds of silence something is said, when it was ``said`` times."""
    last = len(_SILENCES_SECONDS) - 1
    return _SILENCES_SECONDS[min(said, last)] + max(0, said - last) * _SILENCES_SECONDS[-1]
