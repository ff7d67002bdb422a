"""This process ends, also where the interpreter would wait for a thread that never comes back."""

from __future__ import annotations

import os
import threading
import time

__all__ = ["end_within"]


def end_within(seconds: float, code: int) -> None:
    """End the process with ``code`` in ``seconds`` if it has not ended by itself by then."""

    def end() -> None:
        time.sleep(seconds)
        os._exit(code)

    threading.Thread(target=end, name="perdure-end", daemon=True).start()
