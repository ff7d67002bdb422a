"""What answers a call: by tool and canonical arguments, one after the other."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.runs.inherited import ORIGIN, Inherited


def outcome(n: int, kind: str, arguments: Any, raw: str | None = None) -> dict[str, Any]:
    return {
        "id": f"call {n}",
        "run_id": "run",
        "tool": "t",
        "kind": kind,
        "arguments": arguments,
        "arguments_raw": raw,
        "output": {"type": "text", "text": str(n)},
    }


def test_the_nth_call_is_answered_by_the_nth_and_each_once() -> None:
    known = Inherited([outcome(n, "function", {"a": 1, "b": [n // 2]}) for n in range(3)])

    def ask(call_id: str, **arguments: Any) -> str | None:
        answer = known.answer("", call_id, tool="t", kind="function", arguments=arguments)
        return None if answer is None else answer["text"]

    assert ask("x", b=[0], a=1.0) == "0"
    assert ask("y", b=[0], a=1) == "1"
    assert ask("x", a=1, b=[0]) == "0"
    assert ask("z", a=1, b=[0]) is None
    assert ask("z", a=1, b=[1]) == "2"
    assert ask("w", a=True, b=[1]) is None
    assert known.answer("", "v", tool="t", kind="mcp", arguments={"a": 1, "b": [1]}) is None


@pytest.mark.parametrize(
    ("kind", "arguments", "raw", "asked"),
    [
        ("custom", None, "ls -l", {"input": "ls -l"}),
        ("shell", {"commands": ["ls"], "timeout_ms": None}, None, {"commands": ["ls"]}),
        ("function", {"a": None}, None, {"a": None}),
    ],
)
def test_every_kind_of_call_finds_its_own(
    kind: str, arguments: Any, raw: str | None, asked: dict[str, Any]
) -> None:
    known = Inherited([outcome(1, kind, arguments, raw), outcome(2, "function", None, "no JSON")])

    answer = known.answer("p/q", "x", tool="t", kind=kind, arguments=asked)
    assert answer is not None
    assert answer[ORIGIN] == {"run_id": "run", "tool_call_id": "call 1"}
    assert known.answer("", "y", tool="t", kind="function", arguments=None) is None
    assert known.answer("", "y", tool="t", kind="function", arguments={}) is None
