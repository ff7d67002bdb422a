"""What a model wrote, made fit for the SDK before it is recorded or acted on.

The SDK cannot take a call with lone surrogates in it, nor one nested beyond Python's recursion
limit, and would fail the run. So the first become U+FFFD, as when text is encoded, and arguments
nested too deep are cut off: a call that fails, which the model can see.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from perdure.interruptions.digest import MAX_DEPTH

_LONE = re.compile("[\ud800-\udfff]")
# In JSON text a backslash and what follows it are one: an escaped backslash escapes nothing more.
_ESCAPED = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_SHOWN_OF_TOO_DEEP = 2 * MAX_DEPTH  # shorter than any text that deep: never its end


def fit_output(output: Sequence[Any]) -> list[Any]:
    """Return a reply's output items, each as it was or mended."""
    return [_fit(item) for item in output]


def _fit(item: Any) -> Any:
    kind = getattr(item, "type", None)
    if not isinstance(kind, str) or not kind.endswith("_call"):
        return item
    arguments = getattr(item, "arguments", None)
    if kind == "function_call" and isinstance(arguments, str):
        fit = fit_arguments(arguments)
        return item if fit == arguments else item.model_copy(update={"arguments": fit})
    said = item.model_dump(mode="json", exclude_unset=True)
    fit_said = _without_lone(said)
    return item if fit_said == said else type(item).model_validate(fit_said)


def fit_arguments(text: str) -> str:
    """Return the JSON text of a call's arguments without lone surrogates, cut where too deep."""
    if _LONE.search(text):
        text = _LONE.sub("\ufffd", text)
    if "\\ud" in text or "\\uD" in text:
        text = _ESCAPED.sub(lambda match: "\\ufffd" if match["lone"] else match[0], text)
    if text.count("[") + text.count("{") > MAX_DEPTH and _too_deep(text):
        return text[:_SHOWN_OF_TOO_DEEP]
    return text


def _too_deep(text: str) -> bool:
    try:
        return _deeper_than(json.loads(text), MAX_DEPTH)
    except RecursionError:
        return True
    except ValueError:
        return False


def _deeper_than(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return False
    return levels == 0 or any(_deeper_than(item, levels - 1) for item in value)


def _without_lone(value: Any) -> Any:
    if isinstance(value, str):
        return _LONE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {key: _without_lone(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_lone(item) for item in value]
    return value
