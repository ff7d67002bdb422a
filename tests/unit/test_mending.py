from __future__ import annotations

import json

import pytest
from agents.testing import assistant_message, function_call
from openai.types.responses import ResponseCustomToolCall

from perdure.interruptions.digest import MAX_DEPTH
from perdure.runs.mending import fit_arguments, fit_output


@pytest.mark.parametrize(
    ("written", "fit"),
    [
        ('{"a": "plain"}', '{"a": "plain"}'),
        ('{"a": "\\ud83d\\ude00"}', '{"a": "\\ud83d\\ude00"}'),
        ('{"a": "\\uD83D\\uDE00"}', '{"a": "\\uD83D\\uDE00"}'),
        ('{"a": "\\ud83d"}', '{"a": "\\ufffd"}'),
        ('{"a": "\\uDC00 \\ud83d\\ud83d\\ude00"}', '{"a": "\\ufffd \\ufffd\\ud83d\\ude00"}'),
        ('{"a": "\\\\ud83d"}', '{"a": "\\\\ud83d"}'),
        ('{"a": "\ud800"}', '{"a": "\ufffd"}'),
        ("\ud800 no json", "\ufffd no json"),
    ],
)
def test_lone_surrogates_become_the_replacement_character(written: str, fit: str) -> None:
    assert fit_arguments(written) == fit


def test_arguments_nested_too_deep_are_cut_to_what_is_no_json() -> None:
    deepest = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert fit_arguments(deepest) == deepest
    wide = json.dumps([[] for _ in range(500)])
    assert fit_arguments(wide) == wide
    for depth in (MAX_DEPTH + 1, 100_000):
        cut = fit_arguments('{"a": ' + "[" * depth + "]" * depth + "}")
        with pytest.raises(ValueError, match="Expecting"):
            json.loads(cut)


def test_items_that_are_fit_stay_the_same_objects() -> None:
    message = assistant_message("lone \ud800")
    call = function_call("send", {"to": "ada"}, call_id="c1")
    custom = ResponseCustomToolCall(
        type="custom_tool_call", call_id="c2", name="grep", input="lone \ud800"
    )
    fit = fit_output([message, call, custom])
    assert fit[0] is message
    assert fit[1] is call
    assert fit[2] == custom.model_copy(update={"input": "lone \ufffd"})
    assert fit[2].model_fields_set == custom.model_fields_set
