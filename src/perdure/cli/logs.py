"""What a process that serves or works says on standard error."""

from __future__ import annotations

import logging
import sys

from perdure.cli.output import one_line

__all__ = ["log_to_stderr"]


def log_to_stderr(form: str = "%(asctime)s %(levelname)s %(name)s: %(message)s") -> None:
    """Show what ``perdure`` says from level INFO on and everybody else from WARNING on.

    ``form`` is the format of a line, as ``logging`` takes it.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PlainLines(form, "%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("perdure").setLevel(logging.INFO)
    # The pool says itself, once, that the database is away.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


class _PlainLines(logging.Formatter):
    """One line a record, with nothing in it that a terminal would obey; tracebacks below it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line."""
        return one_line(super().formatMessage(record))
