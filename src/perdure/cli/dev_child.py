"""The process that serves for ``perdure dev``; ``supervisor`` starts it and says with what."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from typing import Any

from perdure.cli import serving
from perdure.cli.logs import log_to_stderr, trace_from_environment
from perdure.cli.target import load, own_files, parse_target
from perdure.errors import PerdureError

_STOP_SECONDS = 1
_ORPHANED = 1


def _end_with_parent(alive: int) -> None:
    # Nothing is ever written: the read returns when the parent has gone, however it died.
    os.read(alive, 1)
    os._exit(_ORPHANED)


def main(orders: dict[str, Any]) -> int:
    """Load, serve, and report each step as a line of JSON; returns the exit code."""
    threading.Thread(target=_end_with_parent, args=(orders["alive"],), daemon=True).start()
    with os.fdopen(orders["report"], "w", buffering=1, encoding="utf-8") as pipe:

        def report(event: str, **more: Any) -> None:
            pipe.write(json.dumps({"event": event, **more}) + "\n")

        try:
            target = parse_target(orders["target"])
            engine = load(target)
            report("loaded", files=[str(file) for file in own_files(target)])
            names = list(engine.registry.agents)
            log_to_stderr()
            trace_from_environment()
            with socket.socket(fileno=orders["listening"]) as listening:
                serving.run_until_stopped(
                    serving.serve(
                        engine,
                        listening,
                        worker=True,
                        loopback_only=True,
                        migrate_first=True,
                        stop_seconds=_STOP_SECONDS,
                        replace_lost=True,
                        on_ready=lambda: report("ready", agents=names),
                    )
                )
        except PerdureError as error:
            report("failed", message=error.message)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(json.loads(sys.argv[1])))
