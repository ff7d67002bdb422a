"""What changed between two states, and what may not be recorded."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from agents import Agent
from hypothesis import given
from hypothesis import strategies as st

from perdure import Engine, record_operation
from perdure.errors import ConfigurationError, InvalidRequestError
from perdure.jsondiff import apply, diff
from perdure.ledger.operations import Operations
from perdure.ledger.tool_call import ToolCall, current_tool_call

LEAVES = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, 1.0, "", "a", "~/"])
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from(["", "a", "b", "~/", "~1", "0"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON, JSON)
def test_the_steps_lead_from_one_state_to_the_other(previous: Any, new: Any) -> None:
    before = copy.deepcopy((previous, new))
    steps = diff(previous, new)
    written = json.dumps(steps)
    assert json.dumps(apply(steps, previous), sort_keys=True) == json.dumps(new, sort_keys=True)
    assert (diff(new, new), json.dumps(steps)) == ([], written)
    assert (previous, new) == before
    # And back: each step has what was there before.
    back = [
        {"op": {"add": "remove", "remove": "add"}.get(step["op"], "replace"), "path": step["path"]}
        | ({"new": step["previous"]} if "previous" in step else {})
        for step in reversed(steps)
    ]
    assert json.dumps(apply(back, new), sort_keys=True) == json.dumps(previous, sort_keys=True)


def test_the_steps_are_what_people_expect() -> None:
    todo = {"title": "a", "done": False, "tags": ["x", "y", "z"], "of": {"a/b": 1}}
    assert diff(None, todo) == [{"op": "add", "path": "", "new": todo}]
    assert diff(todo, None) == [{"op": "remove", "path": "", "previous": todo}]
    assert diff(todo, {**todo, "done": True, "tags": ["x", "z"], "of": {"a/b": 2}}) == [
        {"op": "replace", "path": "/done", "previous": False, "new": True},
        {"op": "remove", "path": "/tags/1", "previous": "y"},
        {"op": "replace", "path": "/of/a~1b", "previous": 1, "new": 2},
    ]
    assert diff(1, True) == [{"op": "replace", "path": "", "previous": 1, "new": True}]


def test_kinds_that_cannot_be_declared() -> None:
    kinds: Any
    for kinds in ("CREATE", [""], ["x" * 51], [1], ["CREATE", None], ["a\0"]):
        with pytest.raises(ConfigurationError, match="operations"):
            Engine([Agent(name="a")], operations=kinds)


def deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (("DELETE", "todo/1"), ConfigurationError, "declares CREATE, UPDATE"),
        ((["CREATE"], "todo/1"), ConfigurationError, "declares CREATE, UPDATE"),
        (("CREATE", ""), InvalidRequestError, "/target"),
        (("CREATE", "x" * 256), InvalidRequestError, "/target"),
        (("CREATE", 42), InvalidRequestError, "/target"),
        (("CREATE", "a\0"), InvalidRequestError, "/target"),
        (("CREATE", "\ud800"), InvalidRequestError, "/target"),
        (("CREATE", "todo/1", object()), InvalidRequestError, "/previous"),
        (("CREATE", "todo/1", None, float("nan")), InvalidRequestError, "/new"),
        (("CREATE", "todo/1", None, deep(65)), InvalidRequestError, "/new"),
        (("CREATE", "todo/1", None, deep(50_000)), InvalidRequestError, "/new"),
        (("CREATE", "todo/1", None, "x" * 1024 * 1024), InvalidRequestError, "/new"),
    ],
)
def test_what_cannot_be_recorded_says_where(
    given: tuple[Any, ...], error: type[Exception], words: str
) -> None:
    operations = Operations(frozenset({"CREATE", "UPDATE"}), tool="plan", run_id="r1")
    call = ToolCall("r1", "c1", 1, "key", _operations=operations)
    token = current_tool_call.set(call)
    try:
        with pytest.raises(error, match=words) as raised:
            record_operation(*given)
        assert "Tool plan of run r1" in str(raised.value)
        record_operation("CREATE", "x" * 255, None, deep(64))
        assert len(operations.close()) == 1
        with pytest.raises(ConfigurationError, match="after its call was over"):
            record_operation("CREATE", "todo/1")
    finally:
        current_tool_call.reset(token)


def test_it_is_part_of_a_tool_call() -> None:
    with pytest.raises(ConfigurationError, match="outside a tool"):
        record_operation("CREATE", "todo/1")
    # As a probe is asked.
    token = current_tool_call.set(ToolCall("r1", "c1", 1, "key"))
    try:
        with pytest.raises(ConfigurationError, match="outside a tool"):
            record_operation("CREATE", "todo/1")
    finally:
        current_tool_call.reset(token)
    nothing = Operations(frozenset(), tool="plan", run_id="r1")
    with pytest.raises(ConfigurationError, match="declares none"):
        nothing.add("CREATE", "todo/1", None, None)
