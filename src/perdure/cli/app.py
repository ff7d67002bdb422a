"""The commands, put together."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from perdure import __version__
from perdure.cli import (
    agents,
    audit,
    budgets,
    demo,
    dev,
    doctor,
    feedback,
    grants,
    inbox,
    interruptions,
    keys,
    links,
    migrate,
    operations,
    partition,
    people,
    policies,
    preflight,
    prune,
    runs,
    serve,
    sessions,
    usage,
    webhooks,
)
from perdure.cli.help import examples
from perdure.cli.output import print_error, print_text
from perdure.errors import PerdureError

FAILED = 1
MISUSED = 2


class Commands(TyperGroup):
    """Shows every error of ours as one message and ends with the right exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except PerdureError as error:
            print_error(error.message)
            code = getattr(error, "reason", error.code)
            raise typer.Exit(MISUSED if code == "not_supported" else FAILED) from error


app = typer.Typer(
    name="perdure",
    cls=Commands,
    help="Agents that outlive their process: durable runs of the OpenAI Agents SDK.",
    epilog=examples(
        "perdure demo                      the whole story in a minute, no key, no set-up",
        "perdure dev refunds.py            serve the engine of a file on this machine",
        'perdure runs start triage "Hi"    start a run of the agent triage',
        "perdure inbox                     what waits for a person",
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        print_text(f"perdure {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    if hasattr(sys.stdout, "reconfigure"):
        # Text of models may hold what the terminal's encoding has no character for.
        sys.stdout.reconfigure(errors="backslashreplace")


_MODULES = (
    *(
        demo,
        dev,
        serve,
        migrate,
        preflight,
        runs,
        inbox,
        interruptions,
        grants,
        sessions,
        feedback,
        usage,
        operations,
        policies,
        budgets,
        agents,
        links,
        webhooks,
    ),
    *(keys, audit, prune, people, partition, doctor),
)
for module in _MODULES:
    module.register(app)
