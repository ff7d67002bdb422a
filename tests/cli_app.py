"""An application the command line is tested with: it does as its user says.

``echo`` calls ``note`` with the user's very words, which has to be approved, and repeats what it
gave. ``payer`` calls ``pay``, which says so on stderr and, the first time, stops there for good.
``asker`` asks a person where to send things. ``failing`` has a model that fails. ``dying`` calls
``die``, which reads a null pointer the first time.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Literal

from agents import Agent, function_tool
from pydantic import BaseModel

from perdure import Engine, ask_human, effect, record_operation, tool_call
from perdure.offline.model import OfflineModel
from perdure.offline.turn import Answer, Call, Turn

PAID = Path(os.environ.get("PAID", "paid.txt"))


def _echo(turn: Turn) -> Answer:
    given = turn.output("note")
    return f"note gave: {given}" if given else [Call("note", {"text": turn.question})]


def _pay(turn: Turn) -> Answer:
    given = turn.output("pay")
    return f"pay gave: {given}" if given else [Call("pay", {"cents": 5})]


def _ask(turn: Turn) -> Answer:
    given = turn.output("ask_address")
    return f"asked: {given}" if given else [Call("ask_address", {"question": turn.question})]


def _die(turn: Turn) -> Answer:
    given = turn.output("die")
    return f"die gave: {given}" if given else [Call("die", {})]


def _fail(turn: Turn) -> Answer:
    raise RuntimeError("no model today")


@function_tool(needs_approval=True)
def note(text: str) -> str:
    """Write something down."""
    record_operation("WRITE", f"note/{len(text)}", {"text": ""}, {"text": text})
    return text


@function_tool
def pay(cents: int) -> str:
    """Pay, at most once."""
    attempt = tool_call().attempt
    with PAID.open("a") as file:
        file.write(f"{cents}\n")
    logging.getLogger("shop").warning("paying now\nfor real")
    sys.stderr.write(f"paying, attempt {attempt}\n")
    sys.stderr.flush()
    if attempt == 1:
        threading.Event().wait()
    return f"paid {cents}"


@effect("read")
@function_tool
def die() -> str:
    """End the process, once."""
    attempt = tool_call().attempt
    sys.stdout.write(f"dying, attempt {attempt}, stdin {sys.stdin.read()!r}\n")
    sys.stdout.flush()
    if attempt == 1:
        ctypes.string_at(0)
    return f"lived at attempt {attempt}"


class Address(BaseModel):
    """Where to."""

    street: str
    country: Literal["DE", "FR"]
    floor: int | None = None


engine = Engine(
    agents=[
        Agent(name="echo", tools=[note], model=OfflineModel(_echo)),
        Agent(name="payer", tools=[pay], model=OfflineModel(_pay)),
        Agent(
            name="asker",
            tools=[ask_human(schema=Address, name="ask_address")],
            model=OfflineModel(_ask),
        ),
        Agent(name="failing", model=OfflineModel(_fail)),
        Agent(name="dying", tools=[die], model=OfflineModel(_die)),
    ],
    operations=["WRITE"],
)
