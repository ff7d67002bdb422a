"""The option that says how what serves or works is to say it."""

from __future__ import annotations

from typing import Annotated

import typer

from perdure.config import LogFormat

__all__ = ["LogFormatOption"]

LogFormatOption = Annotated[
    LogFormat | None,
    typer.Option(
        "--log-format",
        metavar="FORMAT",
        help="How it logs: text, or json for one object a line; by default PERDURE_LOG_FORMAT.",
    ),
]
