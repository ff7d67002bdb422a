"""What a model would answer in ``examples/two_prompts.py``."""

from __future__ import annotations

import re

from perdure.offline.turn import Answer, Call, Turn

_NAME = re.compile(r"\b(?:my name is|for|i am) +([A-Z][\w-]*)", re.IGNORECASE)
_GUESTS = re.compile(r"\b(\d+)\b")


def answer(turn: Turn) -> Answer:
    """Book for as many as are named, then say so: in the manner the instructions ask for."""
    booked = turn.output("book_table")
    if booked is None:
        guests, names = _GUESTS.search(turn.question), _NAME.findall(turn.question)
        if guests is None or not names:
            return "For how many, and under which name?"
        return [Call("book_table", {"name": names[-1], "guests": int(guests.group())})]
    if "pirate" in turn.instructions.lower():
        return f"Arr! Ye have {booked}, matey."
    return f"You have {booked}."
