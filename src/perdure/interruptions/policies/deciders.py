"""Who may decide, and whether two decisions are of one person. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self
from uuid import UUID

from perdure.audit.log import Actor
from perdure.errors import ForbiddenError, InvalidRequestError

ROLES: Final = ("runs:read", "runs:write", "decisions:write", "admin")
"""The roles there are; ``access.principals.Role`` has them too."""
MOST: Final = 100
"""Entries in one list."""


class Person(Actor, Protocol):
    """Who decides, and what they may and belong to."""

    @property
    def roles(self) -> Collection[str]:
        """What they may do."""

    @property
    def groups(self) -> Collection[str]:
        """What they belong to."""


@dataclass(frozen=True, slots=True)
class ByPolicy:
    """A policy that decides by itself, as it says of the call, or as the time is over."""

    id: str | None
    overdue: bool = False
    type: str = "policy"
    subject: str | None = None
    roles: Collection[str] = ()
    groups: Collection[str] = ()
    source: str = "policy"


@dataclass(frozen=True, slots=True)
class Deciders:
    """Who may decide: whoever has one of ``roles``, is in one of ``groups``, or is a subject.

    ``admin`` has every role, and belongs to no group by that.

    Raises:
        InvalidRequestError: nobody is named, or a role that there is not.
    """

    roles: Collection[str] = ()
    groups: Collection[str] = ()
    subjects: Collection[str] = ()

    def __post_init__(self) -> None:
        for name in ("roles", "groups", "subjects"):
            object.__setattr__(self, name, names(getattr(self, name), f"/{name}"))
        for index, role in enumerate(self.roles):
            if role not in ROLES:
                raise InvalidRequestError.at(
                    f"/roles/{index}", f"{role!r} is no role; use {', '.join(ROLES)}."
                )
        if not (self.roles or self.groups or self.subjects):
            raise InvalidRequestError.at("", "names nobody: give roles, groups or subjects.")

    @property
    def named(self) -> int | None:
        """How many people there are at most, where all are named."""
        return None if self.roles or self.groups else len(self.subjects)

    def has(self, person: Person) -> bool:
        """Whether ``person`` is one of them."""
        held = set(person.roles)
        return (
            (bool(self.roles) and ("admin" in held or not held.isdisjoint(self.roles)))
            or not set(person.groups).isdisjoint(self.groups)
            or (person.subject is not None and person.subject in self.subjects)
        )

    def __str__(self) -> str:
        return " or ".join(
            [f"the role {one}" for one in self.roles]
            + [f"the group {one}" for one in self.groups]
            + list(self.subjects)
        )

    def as_json(self) -> dict[str, list[str]]:
        """Return it as it is stored and shown."""
        return {
            "roles": list(self.roles),
            "groups": list(self.groups),
            "subjects": list(self.subjects),
        }

    @classmethod
    def from_json(cls, stored: Any, pointer: str = "") -> Self:
        """Return what ``as_json`` gave, or what a request says.

        Raises:
            InvalidRequestError: naming the field below ``pointer`` that is wrong.
        """
        if not isinstance(stored, Mapping) or not set(stored) <= {"roles", "groups", "subjects"}:
            raise InvalidRequestError.at(
                pointer, "has to be an object with roles, groups and subjects."
            )
        with _below(pointer):
            return cls(**{name: stored[name] or () for name in stored})


@contextmanager
def _below(pointer: str) -> Iterator[None]:
    """Let what is refused within say where, seen from further out."""
    try:
        yield
    except InvalidRequestError as error:
        if not pointer or not error.errors:
            raise
        first = error.errors[0]
        raise InvalidRequestError.at(pointer + first.pointer, first.detail) from None


def names(given: Any, pointer: str, *, longest: int = 255) -> tuple[str, ...]:
    """Return a list of names, each once and in order, as a tuple.

    Raises:
        InvalidRequestError: it is none, is too long, or holds what is no name.
    """
    if isinstance(given, str | Mapping) or not isinstance(given, Collection):
        raise InvalidRequestError.at(pointer, "has to be a list of names.")
    if len(given) > MOST:
        raise InvalidRequestError.at(pointer, f"has more than {MOST} entries.")
    for index, one in enumerate(given):
        check_text(one, f"{pointer}/{index}", longest=longest)
    if isinstance(given, set | frozenset):
        given = sorted(given)
    return tuple(dict.fromkeys(str(one) for one in given))


def check_text(given: Any, pointer: str, *, longest: int = 255) -> None:
    """Pass when ``given`` is text of 1 to ``longest`` characters that Postgres takes.

    Raises:
        InvalidRequestError: it is none.
    """
    if not isinstance(given, str) or not 1 <= len(given) <= longest:
        raise InvalidRequestError.at(pointer, f"has to be text of 1 to {longest} characters.")
    if "\0" in given or any("\ud800" <= character <= "\udfff" for character in given):
        raise InvalidRequestError.at(pointer, "must not hold NUL characters or lone surrogates.")


def identity(person: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what tells a person (``type``, ``id``, ``subject``) from others.

    The subject, however they came in; the way they came in and their id there, where nobody knows
    a subject.
    """
    if person.get("subject"):
        return ("subject", str(person["subject"]))
    return ("type and id", str(person.get("type")), str(person.get("id")))


def identity_of(person: Person) -> tuple[str, ...]:
    """Return ``identity`` of somebody who is asking."""
    return identity({"type": person.type, "id": person.id, "subject": person.subject})


def check_may_decide(
    interruption_id: UUID,
    person: Person,
    *,
    deciders: Deciders | None,
    requester_may_decide: bool,
    started_by: Mapping[str, Any] | None,
    user_id: str | None,
) -> None:
    """Pass when ``person`` may decide on an interruption of a run.

    ``started_by`` says who started the run, ``user_id`` whom it was started for.

    Raises:
        ForbiddenError: naming what is needed.
    """
    if deciders is not None and not deciders.has(person):
        raise ForbiddenError(
            f"Interruption {interruption_id} is for {deciders} to decide, and "
            f"{person.subject or 'the key in use'} is not one of them. Ask somebody who is."
        )
    if requester_may_decide:
        return
    own = started_by is not None and identity(started_by) == identity_of(person)
    if own or (user_id is not None and person.subject == user_id):
        raise ForbiddenError(
            f"Interruption {interruption_id} has to be decided by somebody else: its run was "
            f"started by {person.subject or 'the key in use'}, and a requester may not decide "
            "their own."
        )
