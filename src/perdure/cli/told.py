"""A run as a person follows it: its events become lines, and a text that grows.

What agents that serve as tools say is left out: several may talk at once, it is working material,
and the last of it is what their tool gave, which is shown. The tools they call are shown behind the
name of the tool they work for, and what they cost is in the sum. ``--json`` has every word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from perdure.cli.live import Live
from perdure.cli.words import STYLES, elapsed, short, void, words

__all__ = ["Told"]

_HEADS: Final = {"text": "", "reasoning": " thinks", "refusal": " refuses"}
"""Whose pieces are shown as they come; arguments are shown with the call."""
_RETRIED: Final = "the provider failed; it is asked again"

_Event = Mapping[str, Any]


@dataclass
class _Reply:
    """One attempt at a reply, as far as it has been shown."""

    key: tuple[str, int]
    begun: str
    """The time its head has: all of its text stands under one."""
    text: str = ""
    shown: bool = False
    dropped: int = 0
    """How many characters were lost at its end, as far as it has come."""


@dataclass
class Told:
    """Tells events on ``live``. ``whole``: they are told from the run's first one on."""

    live: Live
    whole: bool = True
    said: str | None = None
    """The whole text of the last reply, if it has been shown."""
    waits: bool = False
    """Whether the run waits for people."""
    _reply: _Reply | None = None
    _tools: dict[str, str] = field(default_factory=dict)
    """Names of tools by call id, those that agents serve as."""
    _under_way: dict[str, str] = field(default_factory=dict)
    _void: str = ""
    _began: datetime | None = None
    _turn: int = 0
    _tokens: int = 0

    @property
    def doing(self) -> str:
        """What goes on, for who has seen nothing for long."""
        if self._under_way:
            return ", ".join(self._under_way.values())
        return "the model" if self._turn or self._reply else "the run"

    def tell(self, event: _Event) -> None:
        """Show an event."""
        moment = datetime.fromisoformat(event["created_at"]).astimezone()
        self._began = self._began or moment
        time = f"{moment:%H:%M:%S} "
        kind = event["event"]
        if kind == "model.delta":
            self._delta(event, time)
        elif kind == "model.superseded":
            self._superseded(event, time)
        elif kind == "model.completed":
            self._completed(event, time, moment)
        else:
            self._note(event)
            self._line(event, time)

    def _note(self, event: _Event) -> None:
        kind = event["event"]
        if kind == "tool.started":
            self._tools[event["call_id"]] = self._under_way[event["call_id"]] = short(event["tool"])
        elif kind.startswith("tool."):
            self._under_way.pop(event["call_id"], None)
        elif kind.startswith("run."):
            self._under_way.clear()
            self.waits = kind == "run.interrupted"

    def _line(self, event: _Event, time: str) -> None:
        said = words(event)
        recovered = event["event"] == "run.recovered"
        if recovered and self._void and self._void == event.get("after"):
            # That its worker died stands in the line before.
            said = "it begins again" if self._void == "trouble" else "another worker took it up"
        if not said:
            return
        self._void = ""
        if event["event"] == "interruption.created":
            said, _, command = said.rpartition(": perdure ")
            self.live.line(time, said, STYLES["interruption.created"])
            self.live.command(f"perdure {command}")
            return
        self.live.line(time, self._beneath(event) + said, STYLES.get(event["event"], ""))

    def _beneath(self, event: _Event) -> str:
        """Return what an event of an agent that serves as a tool is marked with."""
        path = [part for part in str(event.get("scope") or "").split("/") if part]
        return "".join(f"{self._tools.get(part) or short(event['agent'])} > " for part in path)

    def _delta(self, event: _Event, time: str) -> None:
        if event.get("scope") or event["type"] not in _HEADS:
            return
        reply = self._attempt(event, time)
        reply.dropped += event.get("dropped") or 0
        if not event["delta"]:
            return
        self._missing(reply, event)
        self._say(reply, event, event["delta"])
        if event["type"] == "text":
            reply.text += event["delta"]

    def _missing(self, reply: _Reply, event: _Event) -> None:
        if reply.dropped:
            self._say(reply, event, f"[… {reply.dropped:,} characters are missing] ")
            reply.dropped = 0

    def _say(self, reply: _Reply, event: _Event, text: str) -> None:
        head = f"{reply.begun}{short(event['agent'])}{_HEADS[event['type']]}: "
        self.live.say(head, text, "dim" if event["type"] == "reasoning" else "")
        reply.shown = True

    def _attempt(self, event: _Event, time: str) -> _Reply:
        key = event["model_response_id"], event["attempt"]
        if self._reply is None or self._reply.key != key:
            self._reply = _Reply(key, time)
        return self._reply

    def _superseded(self, event: _Event, time: str) -> None:
        if event.get("scope"):
            return
        reply, self._reply = self._attempt(event, time), None
        if reply.shown:
            self.live.drop()
            self.live.line(time, void(event), STYLES["model.superseded"])
            self._void = event["reason"]
        elif event["reason"] == "retry":
            self.live.line(time, _RETRIED, STYLES["model.superseded"])

    def _completed(self, event: _Event, time: str, moment: datetime) -> None:
        agent, text, tokens = short(event["agent"]), event.get("text"), event["usage"]
        self._tokens += tokens["total_tokens"]
        if event.get("scope"):
            return
        reply, self._reply = self._attempt(event, time), None
        self._turn += 1
        said = {**event, "type": "text"}
        if text and text.startswith(reply.text):
            # Its pieces are thinned away, or the last ones were dropped.
            if rest := text.removeprefix(reply.text):
                self._say(reply, said, rest)
            reply.text = text
        else:
            self._missing(reply, said)
        self.live.end()
        self.said = reply.text
        if self.whole and self._began is not None:
            since = elapsed((moment - self._began).total_seconds())
            so_far = f"turn {self._turn}, {self._tokens:,} tokens, {since}"
        else:
            so_far = f"the model replied ({tokens['total_tokens']:,} tokens)"
        self.live.line(time, f"{agent}: {so_far}", "dim")

    def has_said(self, output: Any) -> bool:
        """Whether the run's output is what was said last: it need not be shown again."""
        if not self.said:
            return False
        if isinstance(output, str):
            return output == self.said
        try:
            return bool(json.loads(self.said) == output)
        except ValueError:
            return False
