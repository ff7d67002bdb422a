"""Commands of the contract that this build does not have yet: they say so."""

from __future__ import annotations

import typer

from perdure.errors import NotSupportedError

_ANYTHING = {"allow_extra_args": True, "ignore_unknown_options": True}
_LATER_FOR_RUNS = {
    "fork": "starting a run from another one's checkpoint",
}


def register_for_runs(app: typer.Typer) -> None:
    """Add those of ``perdure runs``."""
    for name, what in _LATER_FOR_RUNS.items():
        add(app, name, f"`perdure runs {name}`", what)


def add(app: typer.Typer, name: str, shown: str, what: str) -> None:
    """Add one that says it is not supported yet, and shows in no help."""

    @app.command(name, hidden=True, context_settings=_ANYTHING, add_help_option=False)
    def not_supported() -> None:
        raise NotSupportedError(f"{shown} ({what}) is not supported by this build yet.")
