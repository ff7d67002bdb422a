"""Everything that goes wrong on purpose.

* PerdureError
  x ConfigurationError
  x MigrationError
  x InvalidRequestError
    + NotSupportedError
  x UnauthorizedError
  x ForbiddenError
  x NotFoundError
    + GoneError
  x ConflictError
    + InvalidStateError
    + AlreadyDecidedError
    + DigestMismatchError
    + ExpiredError
    + IdempotencyConflictError
  x UnavailableError

* StopSegment (a BaseException)
  x Fenced
  x LedgerUnavailable
  x LedgerRejected
  x Uncertain

The first family is for people: each has a stable ``code`` and a message that says what happened,
to which object, and what to do next. The second is for the machinery: it ends the segment that is
running. It derives from ``BaseException`` because the Agents SDK turns every ``Exception`` of a
tool into a message for the model, and a run would finish with an infrastructure error as its data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Self
from uuid import UUID

__all__ = [
    "AlreadyDecidedError",
    "ConfigurationError",
    "ConflictError",
    "DigestMismatchError",
    "ExpiredError",
    "Fenced",
    "FieldError",
    "ForbiddenError",
    "GoneError",
    "IdempotencyConflictError",
    "InvalidRequestError",
    "InvalidStateError",
    "LedgerRejected",
    "LedgerUnavailable",
    "MigrationError",
    "NotFoundError",
    "NotSupportedError",
    "PerdureError",
    "StopSegment",
    "UnauthorizedError",
    "UnavailableError",
    "Uncertain",
    "within",
]


def _rebuild(
    cls: type[BaseException], args: tuple[Any, ...], state: Mapping[str, Any]
) -> BaseException:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class _Portable:
    """Exceptions that survive a pickle whatever arguments their constructors take."""

    def __reduce__(self: BaseException) -> tuple[Any, ...]:  # type: ignore[misc]
        return _rebuild, (type(self), self.args, dict(self.__dict__))


class PerdureError(_Portable, Exception):
    """Base of every error a caller of Perdure may want to catch.

    ``code`` is stable and the same in the HTTP API; ``str(error)`` is the whole message.
    """

    code: ClassVar[str] = "internal_error"
    pointer: str | None = None
    """Which part of a request of many it is about, as a JSON pointer; None: all of it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)

    @property
    def message(self) -> str:
        """What happened, to what, and what to do next."""
        return str(self.args[0])


class ConfigurationError(PerdureError):
    """A target that does not load, a database nobody named, an environment variable that is wrong.

    Raised before anything has been started or written.
    """

    code = "configuration_error"


class MigrationError(PerdureError):
    """The database's schema and this build do not fit together, or a migration failed."""

    code = "migration_error"


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field: a JSON pointer (``/input/0/role``) and a sentence."""

    pointer: str
    detail: str


class InvalidRequestError(PerdureError):
    """The request is understood and wrong; ``errors`` names each field that is.

    Nothing of it has been written.
    """

    code = "validation_error"

    def __init__(self, message: str, errors: Iterable[FieldError] = ()) -> None:
        super().__init__(message)
        self.errors: Sequence[FieldError] = tuple(errors)

    @classmethod
    def at(cls, pointer: str, detail: str) -> Self:
        """One wrong field: ``pointer`` is its JSON pointer, ``detail`` says what it should be."""
        where = pointer or "the body"
        return cls(f"{where}: {detail}", [FieldError(pointer, detail)])


def within(error: PerdureError, pointer: str) -> PerdureError:
    """Return ``error`` as one about the part of a request that stands at ``pointer``."""
    if isinstance(error, InvalidRequestError):
        errors = [FieldError(pointer + one.pointer, one.detail) for one in error.errors]
        words = " ".join(f"{one.pointer}: {one.detail}" for one in errors)
        return type(error)(words or error.message, errors)
    error.pointer = pointer
    return error


class NotSupportedError(InvalidRequestError):
    """A field or call of the contract that this build does not keep yet."""

    code = "not_supported"


class UnauthorizedError(PerdureError):
    """Nobody, or nobody known, is asking."""

    code = "unauthorized"


class ForbiddenError(PerdureError):
    """Somebody known is asking for what their roles do not allow."""

    code = "forbidden"


class NotFoundError(PerdureError):
    """There is no such object in the caller's tenant."""

    code = "not_found"

    def __init__(self, kind: str, id: UUID | str) -> None:
        super().__init__(f"There is no {kind} {id} here. Check the id and the key you are using.")
        self.kind = kind
        self.id = str(id)


class GoneError(NotFoundError):
    """There was such an object, and it was deleted."""

    code = "gone"

    def __init__(self, kind: str, id: UUID | str) -> None:
        super().__init__(kind, id)
        self.args = (f"The {kind} {id} was deleted, with all that was told of it.",)


class ConflictError(PerdureError):
    """The request is right in itself and does not fit the state of things."""

    code = "conflict"


class InvalidStateError(ConflictError):
    """The object's status does not allow what was asked.

    ``action`` completes "cannot be …" (``"resumed"``); ``hint`` is a sentence on what would work.
    """

    code = "invalid_state"

    def __init__(
        self, kind: str, id: UUID | str, *, status: str, action: str, hint: str = ""
    ) -> None:
        super().__init__(f"{kind} {id} is {status} and cannot be {action}. {hint}".rstrip())
        self.kind = kind
        self.id = str(id)
        self.status = status
        self.action = action


class AlreadyDecidedError(ConflictError):
    """Somebody decided first; ``recorded`` is that decision as the API shows it, if any."""

    code = "already_decided"

    def __init__(
        self,
        interruption_id: UUID | str,
        *,
        status: str,
        recorded: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            f"Interruption {interruption_id} is {status} already. "
            "The recorded decision stands; read the interruption to see it."
        )
        self.interruption_id = str(interruption_id)
        self.status = status
        self.recorded = recorded


class DigestMismatchError(ConflictError):
    """The decision was made on something other than what would be executed now."""

    code = "digest_mismatch"

    def __init__(self, interruption_id: UUID | str, *, given: str, current: str) -> None:
        super().__init__(
            f"The decision on interruption {interruption_id} names digest {given!r}, but what "
            f"would be executed has digest {current!r}. Read the interruption again and decide on "
            "what it shows now."
        )
        self.interruption_id = str(interruption_id)
        self.given = given
        self.current = current


class ExpiredError(ConflictError):
    """The time to decide is over. ``expired_at`` is on the database's clock."""

    code = "expired"

    def __init__(self, interruption_id: UUID | str, expired_at: datetime) -> None:
        super().__init__(
            f"Interruption {interruption_id} expired at {expired_at.isoformat()}. "
            "Its run has gone on without the decision; read the run to see how."
        )
        self.interruption_id = str(interruption_id)
        self.expired_at = expired_at


class IdempotencyConflictError(ConflictError):
    """An idempotency key came a second time with another request."""

    code = "idempotency_conflict"

    def __init__(self, key: str) -> None:
        super().__init__(
            f"The idempotency key {key!r} was used for another request within the last 24 hours. "
            "Send the same request to get its answer again, or choose a new key."
        )
        self.key = key


class UnavailableError(PerdureError):
    """The database or another part cannot be reached now, or was lost in the middle.

    The message says which: in the first case nothing was written, in the second that is not known.
    ``retry_after`` is in seconds.
    """

    code = "unavailable"

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StopSegment(_Portable, BaseException):
    """The running segment has to end now, whatever the code around it catches."""

    def __init__(self, run_id: UUID | str, message: str) -> None:
        super().__init__(message)
        self.run_id = str(run_id)


class Fenced(StopSegment):
    """Another worker owns the segment: this one must change nothing more."""

    def __init__(self, run_id: UUID | str, *, epoch: int) -> None:
        super().__init__(
            run_id,
            f"Run {run_id}: the segment was taken over after epoch {epoch}. "
            "This worker stops; the run goes on in the other one.",
        )
        self.epoch = epoch


class LedgerUnavailable(StopSegment):
    """The database failed while something was being recorded; ``doing`` names what."""

    def __init__(self, run_id: UUID | str, *, doing: str) -> None:
        super().__init__(
            run_id,
            f"Run {run_id}: the database failed while {doing}. "
            "The segment begins again from its latest state when the database is back.",
        )
        self.doing = doing


class LedgerRejected(StopSegment):
    """The database refused what was to be recorded; trying again would be refused again."""

    def __init__(self, run_id: UUID | str, *, doing: str, reason: str) -> None:
        super().__init__(
            run_id,
            f"Run {run_id}: {doing} could not be recorded: {reason} "
            "The run fails; resume it when the cause is mended.",
        )
        self.doing = doing


class Uncertain(StopSegment):
    """Effects were begun whose outcome nobody recorded; a person has to say what happened."""

    def __init__(self, run_id: UUID | str, *, call_ids: Iterable[str]) -> None:
        self.call_ids: Sequence[str] = tuple(call_ids)
        super().__init__(
            run_id,
            f"Run {run_id}: the outcome of tool call(s) {', '.join(self.call_ids)} is not known. "
            "The run rests until its interruption is resolved.",
        )
