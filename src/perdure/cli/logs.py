"""What a process that serves or works says on standard error, and to OpenTelemetry."""

from __future__ import annotations

import logging
import os
import sys

from perdure.cli.output import one_line
from perdure.config import LogFormat, Settings
from perdure.errors import ConfigurationError
from perdure.logs import JsonLines, RunFields

__all__ = ["log_to_stderr", "trace_from_environment"]

_LOG = logging.getLogger(__name__)
_EXPORTERS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def log_to_stderr(
    form: str = "%(asctime)s %(levelname)s %(name)s: %(message)s",
    log_format: LogFormat | None = None,
) -> None:
    """Show what ``perdure`` says from level INFO on and everybody else from WARNING on.

    ``form`` is the format of a line of text, as ``logging`` takes it. ``log_format`` is that of the
    environment by default, and of processes this one starts.
    """
    if log_format is not None:
        os.environ["PERDURE_LOG_FORMAT"] = log_format
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(RunFields())
    if Settings.from_env().log_format == "json":
        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(_PlainLines(form, "%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("perdure").setLevel(logging.INFO)
    # The pool says itself, once, that the database is away.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


def trace_from_environment() -> None:
    """Send spans where the environment says, if it does and the program has set nothing up."""
    from opentelemetry import trace

    wanted = any(map(os.environ.get, _EXPORTERS))
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    none = os.environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp"
    ready = not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    if not wanted or off or none or ready:
        return
    try:
        from perdure.otel import configure

        configure()
    except ConfigurationError as error:
        _LOG.warning("No spans are sent: %s", error)


class _PlainLines(logging.Formatter):
    """One line a record, with nothing in it that a terminal would obey; tracebacks below it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line."""
        return one_line(super().formatMessage(record))
