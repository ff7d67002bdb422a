"""Which decision fits which interruption."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.errors import InvalidRequestError
from perdure.interruptions.rules import MAX_MESSAGE, Decision, check_form, effect_on

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("type", "fields", "becomes"),
    [
        (
            "tool_approval",
            {"decision": "approve", "digest": DIGEST},
            ("approved", "awaiting_approval", "approved"),
        ),
        ("tool_approval", {"decision": "reject"}, ("rejected", "awaiting_approval", "rejected")),
        (
            "tool_approval",
            {"decision": "reject", "message": "No."},
            ("rejected", "awaiting_approval", "rejected"),
        ),
        (
            "uncertain_effect",
            {"decision": "resolve", "outcome": "done"},
            ("resolved", "uncertain", "succeeded"),
        ),
        (
            "uncertain_effect",
            {"decision": "resolve", "outcome": "done", "result": None},
            ("resolved", "uncertain", "succeeded"),
        ),
        (
            "uncertain_effect",
            {"decision": "resolve", "outcome": "not_done", "digest": DIGEST},
            ("resolved", "uncertain", "proposed"),
        ),
        (
            "uncertain_effect",
            {"decision": "resolve", "outcome": "abandon"},
            ("resolved", "uncertain", "uncertain"),
        ),
    ],
)
def test_what_a_decision_does(
    type: str, fields: dict[str, Any], becomes: tuple[str, str, str]
) -> None:
    decision = Decision(**fields)
    check_form(decision)
    effect = effect_on(type, decision)
    assert (effect.closes_as, effect.call_from, effect.call_to) == becomes


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"decision": "approve"}, "/digest"),
        ({"decision": "perhaps"}, "/decision"),
        ({"decision": "resolve"}, "/outcome"),
        ({"decision": "resolve", "outcome": "perhaps"}, "/outcome"),
        ({"decision": "approve", "digest": DIGEST, "outcome": "done"}, "/outcome"),
        ({"decision": "resolve", "outcome": "not_done", "result": None}, "/result"),
        ({"decision": "approve", "digest": DIGEST, "result": 1}, "/result"),
        ({"decision": "reject", "message": "x" * (MAX_MESSAGE + 1)}, "/message"),
    ],
)
def test_what_makes_no_sense_names_its_field(fields: dict[str, Any], pointer: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_form(Decision(**fields))
    assert caught.value.code == "validation_error"
    assert [error.pointer for error in caught.value.errors] == [pointer]


@pytest.mark.parametrize(
    ("type", "fields", "error"),
    [
        ("uncertain_effect", {"decision": "approve", "digest": DIGEST}, InvalidRequestError),
        ("uncertain_effect", {"decision": "reject"}, InvalidRequestError),
        ("tool_approval", {"decision": "resolve", "outcome": "done"}, InvalidRequestError),
        ("budget", {"decision": "resolve", "outcome": "done"}, InvalidRequestError),
    ],
)
def test_a_decision_of_another_type_is_refused(
    type: str, fields: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match="decision"):
        effect_on(type, Decision(**fields))
