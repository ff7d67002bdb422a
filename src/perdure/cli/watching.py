"""``perdure inbox --watch``: a line for each question that is asked, and for each that is closed.

It holds a request that the server answers when something has changed, so nothing is asked in vain
and nothing comes late. Lines are added and none is drawn over: what was there can be scrolled to,
copied and piped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from perdure.cli.client import Client, ServerError, connected
from perdure.cli.output import print_json_line, print_note, print_text, ring, shortened
from perdure.cli.runs_shown import arguments_text, as_text

__all__ = ["watch"]

_PATH = "/v1/interruptions"
_WAIT_SECONDS = 30
_PAGE = 100
_PAUSES_SECONDS = (0.5, 1.0, 2.0, 5.0)
_SHOWN = 160

_Question = Mapping[str, Any]


def watch(only: Mapping[str, Any], *, as_json: bool, bell: bool) -> None:
    """Follow the questions that ``only`` (query fields) lets through, until Ctrl-C.

    Raises:
        ServerError: the server refuses, or was not there at first; later it is waited for.
    """
    with connected() as client:
        watcher = _Watcher(client, only, as_json=as_json, bell=bell)
        try:
            watcher.begin()
            while True:
                watcher.follow()
        except KeyboardInterrupt:
            return


class _Watcher:
    """Knows what is pending, and tells what is new."""

    def __init__(
        self, client: Client, only: Mapping[str, Any], *, as_json: bool, bell: bool
    ) -> None:
        self._client = client
        # The newest, so that a new one is on the page however many wait.
        self._query = {**only, "limit": _PAGE, "order": "desc"}
        self._as_json = as_json
        self._bell = bell
        self._known: dict[str, _Question] = {}
        self._etag: str | None = None

    def begin(self) -> None:
        """Show what waits already."""
        self._take(self._client.changed(_PATH, self._query, etag=None, wait=0), anew=False)
        if not self._as_json:
            decide = "perdure approve ID, reject ID or resolve ID"
            print_note(f"{len(self._known)} waiting. Ctrl-C ends watching; decide with {decide}.")

    def follow(self) -> None:
        """Wait for a change and tell it; a server that is away is waited for."""
        self._take(self._patiently(self._ask), anew=True)

    def _ask(self, again: bool) -> tuple[Any, str] | None:
        # Whether a server is back is to be known at once.
        wait = 0 if again else _WAIT_SECONDS
        return self._client.changed(_PATH, self._query, etag=self._etag, wait=wait)

    def _take(self, changed: tuple[Any, str] | None, *, anew: bool) -> None:
        if changed is None:
            return
        page, self._etag = changed
        there = {one["id"]: one for one in reversed(page["data"])}
        for id, one in list(self._known.items()):
            if id not in there:
                self._look_after(one)
        for id, one in there.items():
            before = self._known.get(id)
            self._known[id] = one
            if before is None:
                self._tell("opened", one, f"+ {_asked(one)}")
                if anew and self._bell:
                    ring()
            elif len(one["decisions"]) > len(before["decisions"]):
                so_far = f"{len(one['decisions'])} of {one['required']} have decided"
                self._tell("changed", one, f"~ {id} {so_far}")

    def _look_after(self, one: _Question) -> None:
        """Tell what became of a question that is not on the page any more."""

        def read(_: bool) -> _Question | None:
            try:
                found: _Question = self._client.get(f"{_PATH}/{one['id']}")
            except ServerError as error:
                if error.reason == "not_found":
                    return None
                raise
            return found

        now = self._patiently(read)
        if now is not None and now["status"] == "pending":
            # Pushed off the page by newer ones.
            return
        del self._known[one["id"]]
        if now is None:
            self._tell("closed", one, f"- {one['id']} is gone: its run was deleted")
        else:
            self._tell("closed", now, f"- {_closed(now)}")

    def _tell(self, change: str, one: _Question, line: str) -> None:
        if self._as_json:
            print_json_line({"object": "inbox.change", "change": change, "interruption": dict(one)})
        else:
            print_text(f"{datetime.now(UTC).astimezone():%H:%M:%S} {line}")

    def _patiently(self, ask: Callable[[bool], Any]) -> Any:
        """Ask until there is an answer; ``ask`` is told whether it is asked again."""
        attempt = 0
        while True:
            try:
                answer = ask(attempt > 0)
            except ServerError as error:
                if error.reason != "unavailable":
                    raise
                if not attempt:
                    print_note(f"The server at {self._client.url} is away; waiting for it.")
                time.sleep(_PAUSES_SECONDS[min(attempt, len(_PAUSES_SECONDS) - 1)])
                attempt += 1
            else:
                if attempt:
                    print_note("The server is back.")
                return answer


def _asked(one: _Question) -> str:
    tool = one["tool"] or {}
    what = one["question"] or arguments_text(tool.get("arguments"), tool.get("arguments_raw"))
    name = tool.get("name") or one["type"]
    line = shortened(f"{one['agent']}: {name} {as_text(what)}", _SHOWN)
    return f"{one['id']} {line}"


def _closed(one: _Question) -> str:
    decision = one["decision"]
    if decision is None:
        return f"{one['id']} {one['status']}"
    by = decision["by"]
    who = shortened(str(by["subject"] or by["type"]), _SHOWN)
    message = f": {shortened(decision['message'], _SHOWN)}" if decision["message"] else ""
    return f"{one['id']} {one['status']} by {who}{message}"
