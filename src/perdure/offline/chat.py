"""What a model would answer in ``examples/chat.py``."""

from __future__ import annotations

import re

from perdure.offline.turn import Answer, Turn

_NAME = re.compile(r"\b(?:my name is|call me) +([\w-]+)", re.IGNORECASE)
_ASKED = re.compile(r"\b(?:my name|who am i)\b", re.IGNORECASE)


def answer(turn: Turn) -> Answer:
    """Answer from what was said before: a name that was given, and how much was said."""
    said = turn.said
    names = [found.group(1) for text in said if (found := _NAME.search(text))]
    if _NAME.search(turn.question):
        reply = f"Nice to meet you, {names[-1]}."
    elif _ASKED.search(turn.question):
        reply = f"You are {names[-1]}." if names else "You have not told me your name."
    else:
        reply = f'You said: "{turn.question}" That is message {len(said)} of our conversation.'
    return f"Arr! {reply}" if "pirate" in turn.prompt.lower() else reply
