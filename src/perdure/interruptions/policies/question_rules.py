"""What a policy asks of the people who decide: kept with each interruption it opened. Pure.

The row's own columns ``required``, ``expires_at`` and ``remind_at`` are what counts; the rest is
read from here, as the policy was when the question was opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Self
from uuid import UUID

from perdure.errors import InvalidRequestError
from perdure.interruptions.policies.deciders import ByPolicy, Deciders
from perdure.interruptions.policies.policy import OnExpire, Policy, Then
from perdure.interruptions.policies.verdicts import about, verdict


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for one interruption; times in seconds. ``policy`` is None where none matched."""

    then: Then = "ask"
    policy: str | None = None
    policy_id: str | None = None
    deciders: Deciders | None = None
    requester_may_decide: bool = True
    required: int = 1
    expires_after: float | None = None
    on_expire: OnExpire = "reject"
    escalate_to: tuple[Deciders, ...] = ()
    remind_every: float | None = None
    message: str | None = None
    policies: tuple[Policy, ...] = ()
    """All that are about such calls, where it depends on the arguments which of them counts."""

    def by(self, *, overdue: bool = False) -> ByPolicy:
        """Return the policy as the one who decides."""
        return ByPolicy(self.policy_id or self.policy, overdue=overdue)

    def denial(self) -> str:
        """Return what the model reads of a call the policy denies."""
        return self.message or f"The policy {self.policy!r} does not allow this call."

    def escalated(self) -> Rules | None:
        """Return the rules when the time is over and others are to be asked; None: nobody is left.

        After the last of them the end is ``reject``.
        """
        if self.on_expire != "escalate" or not self.escalate_to:
            return None
        others, *later = self.escalate_to
        return replace(self, deciders=others, escalate_to=tuple(later))

    def at_the_end(self) -> OnExpire:
        """Return what becomes of the question when its time is over and nobody else is asked."""
        return "reject" if self.on_expire == "escalate" else self.on_expire

    def of_a_question(self) -> Rules:
        """Return the rules of a question that is answered in words: by one person, or nobody."""
        ends: OnExpire = "fail" if self.on_expire == "approve" else self.on_expire
        then: Then = "ask" if self.then == "allow" else self.then
        return replace(self, then=then, required=1, on_expire=ends)

    def of_a_doubt(self) -> Rules:
        """Return the rules of a question whether a call happened, where one answer is enough.

        Nobody but people can know: when their time is over the run fails, and can be resumed.
        """
        return replace(self, then="ask", required=1, on_expire="fail", escalate_to=())

    def edited(self, arguments: Mapping[str, Any]) -> Rules:
        """Return the rules when a person approves the call with these arguments instead.

        They are those of the policy that counts for them, and never less than what was asked for
        before.

        Raises:
            InvalidRequestError: a policy denies a call with these.
        """
        policy = verdict(self.policies, arguments)
        if policy is None or policy.then == "allow":
            return self
        if policy.then == "deny":
            raise InvalidRequestError.at("/arguments", _rules(policy).denial())
        other = _rules(policy)
        return replace(
            other,
            deciders=other.deciders or self.deciders,
            requester_may_decide=other.requester_may_decide and self.requester_may_decide,
            required=max(other.required, self.required),
            # The question goes on; its time is as long as it was.
            expires_after=self.expires_after,
            on_expire=self.on_expire,
            escalate_to=self.escalate_to,
            remind_every=self.remind_every,
            policies=self.policies,
        )

    def as_json(self) -> dict[str, Any]:
        """Return what differs from no policy at all."""
        stored: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if value != one.default:
                stored[one.name] = _plain(value)
        return stored

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Return what ``as_json`` gave; what a later build added is left out."""
        known = {one.name for one in fields(cls)}
        given = {name: value for name, value in stored.items() if name in known}
        if given.get("deciders") is not None:
            given["deciders"] = Deciders.from_json(given["deciders"])
        given["escalate_to"] = tuple(
            Deciders.from_json(one) for one in given.get("escalate_to", ())
        )
        given["policies"] = tuple(_policy(one) for one in given.get("policies", ()))
        return cls(**given)


NO_RULES: Final = Rules()
"""No policy matched: the tool's own gate counts, and whoever may decide decides."""


def rules_for(
    policies: Sequence[Policy], *, agent: str, tool: str, arguments: Mapping[str, Any] | None
) -> Rules:
    """Return the rules of the policy that counts for a call of ``tool`` by ``agent``.

    ``policies`` are all there are, in their order; ``arguments`` is the object the model wrote,
    None where it wrote something else.
    """
    these = about(policies, agent=agent, tool=tool)
    if not these:
        return NO_RULES
    policy = verdict(these, arguments)
    rules = NO_RULES if policy is None else _rules(policy)
    return replace(rules, policies=these) if any(one.when for one in these) else rules


def _rules(policy: Policy) -> Rules:
    definition = policy.as_json()
    return Rules(
        then=policy.then,
        policy=policy.name,
        policy_id=None if policy.id is None else str(policy.id),
        deciders=policy.deciders,
        escalate_to=tuple(policy.escalate_to),  # type: ignore[arg-type]
        **{
            name: definition[name]
            for name in (
                "requester_may_decide",
                "required",
                "expires_after",
                "on_expire",
                "remind_every",
                "message",
            )
        },
    )


def shown(stored: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return stored rules as the API shows them with the interruption; None: no policy."""
    rules = Rules.from_json(stored)
    if rules.policy is None:
        return None
    return {
        "id": rules.policy_id,
        "name": rules.policy,
        "deciders": None if rules.deciders is None else rules.deciders.as_json(),
        "requester_may_decide": rules.requester_may_decide,
        "on_expire": None if rules.expires_after is None else rules.on_expire,
        "message": rules.message,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Deciders):
        return value.as_json()
    if isinstance(value, Policy):
        return {**value.as_json(), "id": None if value.id is None else str(value.id)}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value


def _policy(stored: Mapping[str, Any]) -> Policy:
    definition = dict(stored)
    id = definition.pop("id", None)
    return Policy.from_json(definition, None if id is None else UUID(id))
