"""An application with a tool that is in the middle of its effect until it is let go."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from agents import Agent, function_tool

from perdure import Engine, tool_call
from perdure.offline.model import OfflineModel
from perdure.offline.turn import Answer, Call, Turn


def _pay(turn: Turn) -> Answer:
    given = turn.output("pay")
    return f"pay gave: {given}" if given else [Call("pay", {})]


@function_tool
def pay() -> str:
    """Pay, at most once: say so, and return when somebody has written to the pipe LET_GO."""
    sys.stderr.write(f"paying, attempt {tool_call().attempt}\n")
    sys.stderr.flush()
    Path(os.environ["LET_GO"]).read_text()
    return "paid"


engine = Engine(agents=[Agent(name="payer", tools=[pay], model=OfflineModel(_pay))])
