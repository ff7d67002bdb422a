"""What a policy asks of the people who decide, as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

KINDS: Final = {"role": "roles", "group": "groups", "subject": "subjects"}
"""How one of several deciders is written, and the field it stands in."""


def who(deciders: Mapping[str, Any] | None, required: int, requester_may_decide: bool) -> str:
    """Return who decides: ``2 of group:finance, not the requester``."""
    people = deciders or {}
    names = [f"{kind}:{name}" for kind, field in KINDS.items() for name in people.get(field, ())]
    words = ", ".join(names) or "anybody"
    if required > 1:
        words = f"{required} of {words}"
    return words if requester_may_decide else f"{words}, not the requester"


def asked_of_people(interruption: Mapping[str, Any]) -> dict[str, str | None]:
    """Return fields of a question that say who decides it, until when, and what to look at."""
    policy = interruption.get("policy") or {}
    required = interruption["required"]
    approved = [one for one in interruption["decisions"] if one["decision"] == "approve"]
    fields: dict[str, str | None] = {"until": interruption["expires_at"]}
    if policy or required > 1:
        may = policy.get("requester_may_decide", True)
        fields["policy"] = policy.get("name")
        fields["for"] = who(policy.get("deciders"), required, may)
        fields["note"] = policy.get("message")
    if approved and interruption["status"] == "pending":
        fields["approved"] = ", ".join(
            str(one["by"]["subject"] or one["by"]["type"]) for one in approved
        )
    return fields


def decided_in_words(interruption: Mapping[str, Any]) -> str:
    """Return what a decision has come to: ``Approved.``, or how many people are missing."""
    if interruption["status"] != "pending":
        return f"{interruption['status'].capitalize()}."
    people = {
        (one["by"]["subject"], one["by"]["type"], one["by"]["id"])
        for one in interruption["decisions"]
        if one["decision"] == "approve"
    }
    needed = interruption["required"]
    return f"Recorded. It waits for others: {needed} have to approve, {len(people)} did so far."
