"""A policy: for which calls a person is asked, who they are, and until when. Pure.

Policies stand in the application file (``Engine(policies=[…])``) or are made by the API. Which of
several counts for a call, and what it asks of people, is in ``verdicts``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, Final, Literal, Self, get_args
from uuid import UUID

from perdure.errors import InvalidRequestError
from perdure.interruptions import conditions
from perdure.interruptions.policies.deciders import Deciders, check_text, names

Then = Literal["allow", "ask", "deny"]
"""What becomes of a call: it goes on, a person is asked, the model is told no."""
OnExpire = Literal["reject", "approve", "escalate", "fail"]
"""What becomes of a question nobody answered in time; ``fail`` fails the run."""

MAX_REQUIRED: Final = 100
MAX_ESCALATIONS: Final = 10
MAX_SECONDS: Final = 10 * 366 * 24 * 3600.0
MIN_SECONDS: Final = 1.0
MAX_MESSAGE: Final = 10_000


@dataclass(frozen=True, slots=True)
class Policy:
    """What becomes of calls that match, and who decides on them.

    A call matches when its tool and its agent have one of the names (globs: ``refund*``) and all
    conditions of ``when`` hold for its arguments (see ``interruptions.conditions``). ``then`` is
    ``ask``, ``allow`` or ``deny``.

    Of those who may decide at all, ``deciders`` may decide these; with ``requester_may_decide``
    false not whoever started the run, or had it started for them. ``required`` different people
    have to approve; one who rejects is enough. After ``expires_after`` (seconds or a timedelta,
    on the database's clock) ``on_expire`` counts; with ``escalate`` it is the turn of
    ``escalate_to``, one after the other, each as long, and the end is ``reject``. Every
    ``remind_every`` seconds those who may decide are reminded. ``message`` is what the model reads
    of a denial, and what people read of a question.

    Raises:
        InvalidRequestError: naming the field that is wrong.
    """

    name: str
    tool: str | Sequence[str] = "*"
    agent: str | Sequence[str] = "*"
    when: conditions.Conditions = field(default_factory=dict)
    then: Then = "ask"
    deciders: Deciders | None = None
    requester_may_decide: bool = True
    required: int = 1
    expires_after: timedelta | float | None = None
    on_expire: OnExpire = "reject"
    escalate_to: Deciders | Sequence[Deciders] = ()
    remind_every: timedelta | float | None = None
    message: str | None = None
    id: UUID | None = field(default=None, compare=False)
    """Its id where the API made it."""

    def __post_init__(self) -> None:
        check_text(self.name, "/name")
        for name in ("tool", "agent"):
            given = getattr(self, name)
            globs = names([given] if isinstance(given, str) else given, f"/{name}", longest=1000)
            if not globs:
                raise InvalidRequestError.at(f"/{name}", "has to name one at least; * is all.")
            object.__setattr__(self, name, globs)
        conditions.check(self.when, "/when")
        _one_of(self.then, Then, "/then")
        _one_of(self.on_expire, OnExpire, "/on_expire")
        if self.message is not None:
            check_text(self.message, "/message", longest=MAX_MESSAGE)
        if not isinstance(self.requester_may_decide, bool):
            raise InvalidRequestError.at("/requester_may_decide", "has to be true or false.")
        for name in ("expires_after", "remind_every"):
            object.__setattr__(self, name, _seconds(getattr(self, name), f"/{name}"))
        others = self.escalate_to
        object.__setattr__(
            self, "escalate_to", (others,) if isinstance(others, Deciders) else tuple(others)
        )
        self._check_people()
        self._check_together()

    def _check_people(self) -> None:
        people: dict[str, Any] = {f"/escalate_to/{n}": one for n, one in enumerate(self._turns)}
        if self.deciders is not None:
            people["/deciders"] = self.deciders
        for pointer, who in people.items():
            if not isinstance(who, Deciders):
                raise InvalidRequestError.at(pointer, "has to be Deciders(…).")
        if len(self._turns) > MAX_ESCALATIONS:
            raise InvalidRequestError.at(
                "/escalate_to", f"has more than {MAX_ESCALATIONS} entries."
            )
        required: Any = self.required
        known = isinstance(required, int) and not isinstance(required, bool)
        if not known or not 1 <= required <= MAX_REQUIRED:
            raise InvalidRequestError.at("/required", f"has to be from 1 to {MAX_REQUIRED}.")
        for who in people.values():
            if who.named is not None and who.named < self.required:
                raise InvalidRequestError.at(
                    "/required", f"is more than the {who.named} who are named: {who}."
                )

    def _check_together(self) -> None:
        if self.then != "ask":
            plain = Policy(self.name, self.tool, self.agent, self.when, message=self.message)
            for one in ("deciders", "requester_may_decide", "required", *_TIMES):
                if getattr(self, one) != getattr(plain, one):
                    raise InvalidRequestError.at(f"/{one}", 'belongs to a policy with then "ask".')
        if self.expires_after is None and (self.on_expire != "reject" or self._turns):
            raise InvalidRequestError.at(
                "/expires_after", "is needed for what shall become of it when the time is over."
            )
        if (self.on_expire == "escalate") != bool(self._turns):
            raise InvalidRequestError.at(
                "/escalate_to", 'is needed with on_expire "escalate", and belongs to nothing else.'
            )

    @property
    def _turns(self) -> tuple[Deciders, ...]:
        return tuple(self.escalate_to)  # type: ignore[arg-type]

    def as_json(self) -> dict[str, Any]:
        """Return its definition as it is stored and shown; times are in seconds."""
        return {
            "name": self.name,
            "tool": list(self.tool),
            "agent": list(self.agent),
            "when": {place: dict(tests) for place, tests in self.when.items()},
            "then": self.then,
            "deciders": None if self.deciders is None else self.deciders.as_json(),
            "requester_may_decide": self.requester_may_decide,
            "required": self.required,
            "expires_after": self.expires_after,
            "on_expire": self.on_expire,
            "escalate_to": [one.as_json() for one in self._turns],
            "remind_every": self.remind_every,
            "message": self.message,
        }

    @classmethod
    def from_json(cls, definition: Mapping[str, Any], id: UUID | None = None) -> Self:
        """Return the policy of a definition as ``as_json`` gives it; what is left out is default.

        Raises:
            InvalidRequestError: naming the field that is unknown or wrong.
        """
        given = dict(definition)
        known = {one.name for one in fields(cls)} - {"id"}
        for name in given:
            if name not in known:
                raise InvalidRequestError.at(f"/{name}", "is no field of a policy.")
        if "name" not in given:
            raise InvalidRequestError.at("/name", "is needed.")
        for name in ("deciders", "escalate_to", "expires_after", "remind_every", "message"):
            if name in given and given[name] is None:
                del given[name]
        if "deciders" in given:
            given["deciders"] = Deciders.from_json(given["deciders"], "/deciders")
        if "escalate_to" in given:
            turns = given["escalate_to"]
            turns = [turns] if isinstance(turns, Mapping) else turns
            if not isinstance(turns, list):
                raise InvalidRequestError.at("/escalate_to", "has to be a list.")
            given["escalate_to"] = [
                Deciders.from_json(one, f"/escalate_to/{index}") for index, one in enumerate(turns)
            ]
        return cls(**given, id=id)


_TIMES: Final = ("expires_after", "on_expire", "escalate_to", "remind_every")


def _one_of(given: Any, allowed: Any, pointer: str) -> None:
    if given not in get_args(allowed):
        raise InvalidRequestError.at(pointer, f"has to be one of {', '.join(get_args(allowed))}.")


def _seconds(given: Any, pointer: str) -> float | None:
    if given is None:
        return None
    seconds = given.total_seconds() if isinstance(given, timedelta) else given
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not math.isfinite(seconds) or not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise InvalidRequestError.at(
            pointer, f"has to be a number of seconds from {MIN_SECONDS:g} to {MAX_SECONDS:g}."
        )
    return float(seconds)
