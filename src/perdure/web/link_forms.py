"""The form of a decision link, as it comes back: what is no form of ours, what is no answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from perdure.errors import InvalidRequestError
from perdure.interruptions.fields import Field
from perdure.interruptions.rules import MAX_MESSAGE
from perdure.web.limits import find_refused
from perdure.web.pages.filling import MAX_FIELDS, answer_of, problem_at

__all__ = ["WrongFieldsError", "answer_in", "read_form", "wrong_fields"]

_OWN_FIELDS = 10


class WrongFieldsError(Exception):
    """What was typed is no answer; ``problems`` are words by the form's names."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__()
        self.problems = problems


def read_form(body: bytes) -> dict[str, str]:
    """Return the fields of a form, each once.

    Raises:
        ValueError: it is none, or holds what no browser sends.
    """
    pairs = parse_qsl(
        body.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict",
        max_num_fields=MAX_FIELDS + _OWN_FIELDS,
    )  # fmt: skip
    form = dict(pairs)
    if len(form) != len(pairs) or "\0" in "".join(form.values()):
        raise ValueError("is no form of ours.")
    # A browser counts a line's end as one character and sends it as two.
    if len(form.get("message", "").replace("\r\n", "\n")) > MAX_MESSAGE:
        raise ValueError("has too long a message.")
    return form


def answer_in(fields: Sequence[Field], form: Mapping[str, str]) -> Any:
    """Return the answer a form stands for, JSON as the API would let it in.

    Raises:
        WrongFieldsError: it is none.
    """
    answer, problems = answer_of(fields, form)
    if not problems and (refused := find_refused(answer)) is not None:
        key = problem_at(fields, refused.pointer)
        problems = {} if key is None else {key: refused.detail}
    if problems:
        raise WrongFieldsError(problems)
    return answer


def wrong_fields(fields: Sequence[Field], refusal: InvalidRequestError) -> Exception:
    """Return a refusal as it is shown: by field, or as it is where it is not about fields alone."""
    problems: dict[str, str] = {}
    for error in refusal.errors:
        within = error.pointer.removeprefix("/answer").removeprefix("/arguments")
        key = None if within == error.pointer else problem_at(fields, within)
        if key is None:
            return refusal
        problems.setdefault(key, f"does not fit: {error.detail}")
    return WrongFieldsError(problems) if problems else refusal
