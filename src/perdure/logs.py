"""Log records that say of which run they are, also in one's own tools, and a line of JSON each.

``RunFields`` on a handler gives each record ``run_id``, ``segment``, ``execution``, ``executor``
and ``tenant_id`` where they are known, and ``trace_id`` and ``span_id`` inside a span;
``JsonLines`` writes them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from opentelemetry import trace

__all__ = ["FIELDS", "JsonLines", "RunFields", "run_fields"]

FIELDS = ("run_id", "segment", "execution", "executor", "tenant_id", "trace_id", "span_id")

run_fields: ContextVar[Mapping[str, str | int]] = ContextVar(
    "perdure_run_fields", default=MappingProxyType({})
)
"""What is known here of the run a record is of."""


class RunFields(logging.Filter):
    """Gives records the fields of the run they are written in; lets every record pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Put them on the record; what it was given itself (``extra``) stays."""
        known: dict[str, Any] = dict(run_fields.get())
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            known["trace_id"] = trace.format_trace_id(span.trace_id)
            known["span_id"] = trace.format_span_id(span.span_id)
        for name, value in known.items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


class JsonLines(logging.Formatter):
    """One JSON object a record, on one line: time (RFC 3339, UTC), level, logger, message, run."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = self.formatException(record.exc_info)
            line["error_type"] = record.exc_info[0].__qualname__
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        # In ASCII: whatever a terminal would obey is escaped, and lone surrogates do no harm.
        return json.dumps(line, default=str)
