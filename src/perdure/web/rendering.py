"""JSON answers, also of what models and tools said."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response


def render(content: Any) -> bytes:
    """Return ``content`` as JSON text in UTF-8.

    Text that has no UTF-8 form, a lone surrogate of a model's, goes out as an escape.
    """
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def json_response(
    content: Any, status_code: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return ``content`` as an ``application/json`` answer."""
    return Response(render(content), status_code, headers, media_type="application/json")
