"""A collector of OpenTelemetry spans on a loopback port, for processes that export theirs."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Came:
    """A span as it came: ids in hex, ``parent`` empty for a root."""

    name: str
    trace_id: str
    id: str
    parent: str
    attributes: dict[str, Any]


@dataclass(eq=False)
class Collector:
    """What came so far."""

    url: str = ""
    spans: list[Came] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def add(self, body: bytes) -> None:
        """Take a request."""
        asked = ExportTraceServiceRequest.FromString(body)
        with self._changed:
            for resource in asked.resource_spans:
                for scope in resource.scope_spans:
                    self.spans += map(_came, scope.spans)
            self._changed.notify_all()

    def wait_for(self, found: Callable[[Came], bool]) -> Came:
        """Return the first span that fits, when it has come."""

        def fitting() -> Came | None:
            return next(filter(found, self.spans), None)

        with self._changed:
            came = self._changed.wait_for(fitting, SECONDS)
        assert came is not None, f"it never came: {[span.name for span in self.spans]}"
        return came

    @property
    def environment(self) -> dict[str, str]:
        """What a process is told by, to send its spans here as soon as they end."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "OTEL_BSP_SCHEDULE_DELAY": "20",
            "NO_PROXY": "127.0.0.1",
        }


def _came(span: Any) -> Came:
    attributes = {}
    for one in span.attributes:
        kind = one.value.WhichOneof("value")
        attributes[one.key] = getattr(one.value, kind) if kind else None
    ids = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
    return Came(span.name, *ids, attributes)


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens inside the block."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            collector.add(body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
