"""Who is asking, and what their roles allow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from perdure.errors import FieldError, ForbiddenError, InvalidRequestError
from perdure.tenants import DEFAULT_TENANT

__all__ = [
    "DEFAULT_ROLES",
    "DEFAULT_TENANT",
    "Principal",
    "Role",
    "cli_principal",
    "local_principal",
    "parse_roles",
    "program_principal",
]


class Role(StrEnum):
    """What a key may do. ``admin`` implies the others."""

    RUNS_READ = "runs:read"
    RUNS_WRITE = "runs:write"
    DECISIONS_WRITE = "decisions:write"
    ADMIN = "admin"


DEFAULT_ROLES = (Role.RUNS_READ, Role.RUNS_WRITE, Role.DECISIONS_WRITE)
"""What a key gets that asks for nothing in particular: all but ``admin``."""


def parse_roles(names: Iterable[str]) -> tuple[Role, ...]:
    """Return the roles called ``names``, each once, in the order of ``Role``.

    Raises:
        InvalidRequestError: for a name that is no role, or none at all.
    """
    wanted = list(names)
    known = [role.value for role in Role]
    errors = [
        FieldError(f"/roles/{index}", f"{name!r} is no role; use {', '.join(known)}.")
        for index, name in enumerate(wanted)
        if name not in known
    ]
    if errors:
        raise InvalidRequestError(" ".join(error.detail for error in errors), errors)
    if not wanted:
        raise InvalidRequestError.at("/roles", "a key needs at least one role.")
    return tuple(role for role in Role if role in wanted)


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who was recognised.

    ``type`` is how (``service_key``, ``local``, or what a host application says), ``id`` the key's
    or user's id there, ``subject`` the person or system behind it, ``groups`` what they belong to:
    policies say which subjects, roles and groups may decide. They see ``tenant_id``'s objects and
    nothing else. ``source`` is the way in and, where there is one, the client's address:
    ``api 203.0.113.7``, ``local 127.0.0.1``, ``program``, ``cli db-1``.

    ``user_id``: a user they act as and nobody else; the API lets them do what is open to users
    (``web.users``), with what is that user's.
    """

    type: str
    id: str | None
    subject: str | None
    tenant_id: UUID
    roles: frozenset[Role]
    groups: frozenset[str] = frozenset()
    source: str | None = None
    user_id: str | None = None

    def as_requester(self) -> dict[str, str | None]:
        """Return what is kept of them with a run they start."""
        return {"type": self.type, "id": self.id, "subject": self.subject}

    def may(self, *roles: Role) -> bool:
        """Whether any of ``roles`` is held."""
        return Role.ADMIN in self.roles or not self.roles.isdisjoint(roles)

    def require(self, *roles: Role) -> None:
        """Pass when any of ``roles`` is held.

        Raises:
            ForbiddenError: when none is.
        """
        if not self.may(*roles):
            needed = " or ".join(roles)
            held = ", ".join(role for role in Role if role in self.roles) or "none"
            raise ForbiddenError(
                f"This needs the role {needed}; the key in use has {held}. "
                "Use a key that has it, or create one with `perdure keys create --role`."
            )


def local_principal() -> Principal:
    """Whoever sits at this machine: everything is allowed, in the default tenant."""
    return Principal("local", None, "local user", DEFAULT_TENANT, frozenset({Role.ADMIN}))


def program_principal(subject: str | None, groups: Iterable[str] = ()) -> Principal:
    """The program the engine runs in, acting for ``subject`` where it names one."""
    return Principal(
        *("program", None, subject, DEFAULT_TENANT, frozenset({Role.ADMIN}), frozenset(groups)),
        source="program",
    )


def cli_principal(user: str, host: str) -> Principal:
    """Whoever has DATABASE_URL and gives a command: ``user`` of the machine ``host``."""
    return Principal(
        *("cli", None, f"{user}@{host}", DEFAULT_TENANT, frozenset({Role.ADMIN})),
        source=f"cli {host}",
    )
