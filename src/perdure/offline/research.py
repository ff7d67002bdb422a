"""What a model would answer in ``examples/research.py``."""

from __future__ import annotations

import re

from perdure.offline.turn import Answer, Call, Turn

_WORD = re.compile(r"[A-Za-z]{3,}")
_COMMON = re.compile(
    "about|and|are|but|can|does|for|from|had|has|have|her|him|his|how|its|know|let|make|may|more|"
    "not|our|out|she|tell|that|the|their|them|they|this|was|what|when|where|which|who|why|with|you"
)
_MOST_TOPICS = 3


def answer(turn: Turn) -> Answer:
    """Answer as the agent that may search, else as the one that checks a claim."""
    return _research(turn) if "search" in turn.tools else _check(turn)


def _research(turn: Turn) -> Answer:
    found = turn.outputs("search")
    if not found:
        return [Call("search", {"topic": topic}) for topic in _topics(turn.question)]
    notes = [note for note in found if not note.startswith("Nothing")]
    if not notes:
        return "I searched and found nothing on that. Try bees, tea or volcanoes."
    verdicts = turn.outputs("check_claim")
    if not verdicts:
        return [Call("check_claim", {"input": note}) for note in notes]
    lines = [f"- {note} ({verdict})" for note, verdict in zip(notes, verdicts, strict=False)]
    return "\n".join(["What I found:", *lines])


def _check(turn: Turn) -> Answer:
    return "checked: it names a number" if re.search(r"\d", turn.question) else "checked: plausible"


def _topics(question: str) -> list[str]:
    words = dict.fromkeys(word.lower() for word in _WORD.findall(question))
    topics = [word for word in words if not _COMMON.fullmatch(word)]
    return topics[:_MOST_TOPICS] or ["anything"]
