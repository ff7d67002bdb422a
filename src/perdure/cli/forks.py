"""``perdure runs fork``: a run that goes on from a checkpoint of another one."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from perdure.cli.client import checked_id, connected
from perdure.cli.help import examples
from perdure.cli.output import print_json, print_note, print_text
from perdure.cli.pages import Json
from perdure.cli.runs_shown import show_run
from perdure.cli.starting import ENDS_BADLY, text_or_file, wait_for

__all__ = ["register"]

_ID = "01a20131-4a27-77ae-b605-6e01616eb463"


class Tools(StrEnum):
    """What becomes of the fork's calls."""

    LEDGER = "ledger"
    RUN = "run"


def register(app: typer.Typer) -> None:
    """Add the command to those of ``perdure runs``."""
    app.command(
        epilog=examples(
            f"perdure runs fork {_ID} --instructions 'Answer in one sentence.' --wait",
            f"perdure runs fork {_ID} --checkpoint 2 --input 'Try another carrier.'",
            f"perdure runs fork {_ID} --checkpoint 0 --model gpt-5-mini --tools run",
        )
    )(fork)


def fork(
    run_id: Annotated[str, typer.Argument(metavar="ID", help="The run's id.")],
    checkpoint: Annotated[
        int | None,
        typer.Option(
            metavar="SEQ",
            min=0,
            help="The checkpoint's number, 0 the run's beginning; else the latest not final.",
        ),
    ] = None,
    input_: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="TEXT|@FILE",
            help="A message more; at the beginning, what the run is given.",
        ),
    ] = None,
    instructions: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT|@FILE", help="What the agent is told instead of its own instructions."
        ),
    ] = None,
    agent: Annotated[
        str | None, typer.Option(metavar="NAME", help="The agent that goes on instead.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The model of all agents, instead of their own."),
    ] = None,
    tools: Annotated[
        Tools,
        typer.Option(
            help="Answer calls with what came of them in the run and ask before others, or run "
            "them all."
        ),
    ] = Tools.LEDGER,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until it has ended, or waits for a person.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Start a run that goes on from a checkpoint of another one, which stays as it is.

    With --wait a run that fails makes the exit code 1.
    """
    given = {
        "checkpoint": checkpoint,
        "input": _text(input_, "--input"),
        "instructions": _text(instructions, "--instructions"),
        "agent": agent,
        "model": model,
        "tools": tools.value,
    }
    body = {name: value for name, value in given.items() if value is not None}
    with connected() as client:
        run = client.post(f"/v1/runs/{checked_id('run', run_id)}/fork", body)
        if wait:
            run = wait_for(client, run, quietly=as_json)
            calls = (
                []
                if as_json
                else client.get(f"/v1/runs/{run['id']}/tool_calls", {"limit": 100})["data"]
            )
    if as_json:
        print_json(run)
    elif wait:
        show_run(run, calls)
    else:
        origin = run["forked_from"]
        print_text(f"Run {run['id']} goes on from checkpoint {origin['checkpoint']} and is queued.")
    if not as_json:
        print_note(f"Compare: perdure runs diff {run['id']}")
    if wait and run["status"] in ENDS_BADLY:
        raise typer.Exit(1)


def _text(given: str | None, option: str) -> str | None:
    if given is None:
        return None
    said = text_or_file(given, option)
    return said.rstrip("\n") if given.startswith("@") else said
