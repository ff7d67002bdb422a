"""Which decision fits which interruption, and what it makes of the call. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from perdure.errors import InvalidRequestError
from perdure.interruptions.grants.rules import read_remember


class _Unset:
    """Stands for a field that was not given, where null is a value."""

    def __repr__(self) -> str:
        return "UNSET"

    def __bool__(self) -> bool:
        return False


UNSET: Final = _Unset()

MAX_MESSAGE = 10_000


@dataclass(frozen=True, slots=True)
class Decision:
    """What somebody decided, as they said it.

    ``decision`` is ``approve``, ``reject``, ``answer`` or ``resolve``; ``digest`` is what was
    shown to them; ``outcome`` (``done``, ``not_done``, ``abandon``) and ``result`` (JSON) belong
    to ``resolve``; ``arguments`` (an object) are those to approve a call with instead of the
    model's; ``answer`` (JSON) belongs to ``answer``. ``UNSET`` marks what was not given, where
    null means something.
    """

    decision: str
    digest: str | None = None
    message: str | None = None
    outcome: str | None = None
    result: Any = UNSET
    arguments: Any = UNSET
    answer: Any = UNSET
    remember: Any = UNSET


@dataclass(frozen=True, slots=True)
class Effect:
    """What a decision does: the interruption's new status, and its call's, from one to another."""

    closes_as: str
    call_from: str
    call_to: str


_DECISIONS: dict[str, tuple[str, ...]] = {
    "tool_approval": ("approve", "reject"),
    "question": ("answer", "reject"),
    "uncertain_effect": ("resolve",),
    "budget": ("approve", "reject"),
}
_EFFECTS = {
    ("approve", None): Effect("approved", "awaiting_approval", "approved"),
    ("reject", None): Effect("rejected", "awaiting_approval", "rejected"),
    ("answer", None): Effect("answered", "awaiting_approval", "approved"),
    ("resolve", "done"): Effect("resolved", "uncertain", "succeeded"),
    ("resolve", "not_done"): Effect("resolved", "uncertain", "proposed"),
    ("resolve", "abandon"): Effect("resolved", "uncertain", "uncertain"),
}
_OUTCOMES = ("done", "not_done", "abandon")


def check_form(decision: Decision) -> None:
    """Pass when ``decision`` makes sense in itself, whatever it is on.

    Raises:
        InvalidRequestError: a field is missing, wrong, or belongs to another decision.
    """
    if decision.decision not in ("approve", "reject", "answer", "resolve"):
        raise InvalidRequestError.at("/decision", "has to be approve, reject, answer or resolve.")
    if decision.message is not None and len(decision.message) > MAX_MESSAGE:
        raise InvalidRequestError.at("/message", f"has more than {MAX_MESSAGE} characters.")
    if decision.decision == "approve" and decision.digest is None:
        raise InvalidRequestError.at(
            "/digest", "is needed to approve: the digest of what was shown to you."
        )
    if decision.arguments is not UNSET and decision.decision != "approve":
        raise InvalidRequestError.at("/arguments", "belong to the decision approve.")
    if (decision.answer is not UNSET) != (decision.decision == "answer"):
        raise InvalidRequestError.at("/answer", "is needed to answer, and belongs to nothing else.")
    if decision.remember is not UNSET:
        if decision.decision != "approve":
            raise InvalidRequestError.at("/remember", "belongs to the decision approve.")
        read_remember(decision.remember)
    if decision.decision == "resolve" and decision.outcome not in _OUTCOMES:
        raise InvalidRequestError.at("/outcome", f"has to be one of {', '.join(_OUTCOMES)}.")
    if decision.decision != "resolve" and decision.outcome is not None:
        raise InvalidRequestError.at("/outcome", "belongs to the decision resolve.")
    if decision.result is not UNSET and decision.outcome != "done":
        raise InvalidRequestError.at("/result", "belongs to resolve with the outcome done.")


def effect_on(interruption_type: str, decision: Decision) -> Effect:
    """Return what ``decision`` (which passed ``check_form``) does to an interruption.

    Raises:
        InvalidRequestError: this type takes other decisions; they are named.
    """
    allowed = _DECISIONS[interruption_type]
    if decision.decision not in allowed:
        raise InvalidRequestError.at(
            "/decision",
            f"an interruption of type {interruption_type} takes {' or '.join(allowed)}.",
        )
    return _EFFECTS[decision.decision, decision.outcome]
