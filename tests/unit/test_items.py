"""What is known of an item: how many tokens the model wrote for it."""

from __future__ import annotations

from typing import Any

import pytest
from agents import ModelResponse, Usage
from openai.types.responses import ResponseFunctionToolCall, ResponseReasoningItem
from openai.types.responses.response_usage import OutputTokensDetails

from perdure.runs.items import token_counts

THOUGHT = ResponseReasoningItem(id="r", summary=[], type="reasoning")
OTHER_THOUGHT = ResponseReasoningItem(id="s", summary=[], type="reasoning")
CALL = ResponseFunctionToolCall(arguments="{}", call_id="c", name="f", type="function_call")
OTHER_CALL: Any = {"arguments": "{}", "call_id": "d", "name": "f", "type": "function_call"}


@pytest.mark.parametrize(
    ("output", "written", "reasoned", "known"),
    [
        ([CALL], 7, 0, [7]),
        ([THOUGHT, CALL], 10, 4, [4, 6]),
        ([THOUGHT, CALL, OTHER_CALL], 10, 4, [4, None, None]),
        ([THOUGHT, OTHER_THOUGHT, OTHER_CALL], 10, 4, [None, None, 6]),
        # Whoever gives no usage knows nothing.
        ([CALL], 0, 0, [None]),
        ([THOUGHT, CALL], 10, 0, [None, 10]),
        ([], 3, 0, []),
    ],
)
def test_tokens_are_an_items_where_the_usage_is_of_it_alone(
    output: list[Any], written: int, reasoned: int, known: list[int | None]
) -> None:
    usage = Usage(
        output_tokens=written,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=reasoned),
    )
    reply = ModelResponse(output, usage, None)
    counts = token_counts([reply])
    assert [counts.get(id(item)) for item in reply.output] == known
