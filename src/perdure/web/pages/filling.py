"""The form of a question: its fields drawn, and what comes back of them as an answer. Pure.

What a field is called in the form is a digest of its name: models write names, and a form's own are
not theirs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from perdure.interruptions.fields import (
    MAX_FIELDS,
    Field,
    fields_of,
    nothing_typed,
    pointer_of,
    read,
    shown_choice,
)
from perdure.interruptions.rules import UNSET
from perdure.web.pages.layout import own_text, text

__all__ = ["MAX_FIELDS", "answer_of", "draw", "fields_to_fill", "problem_at"]

_HINTS = {"integer": "A whole number.", "number": "A number.", "json": "JSON."}


def fields_to_fill(interruption: Mapping[str, Any], decision: str) -> Sequence[Field]:
    """Return what to fill in with a decision: an answer, or a budget's new limits."""
    schema = interruption["schema"]
    if decision == "answer" or (decision == "approve" and interruption["type"] == "budget"):
        return fields_of(schema) if decision == "answer" or schema is not None else ()
    return ()


def draw(fields: Sequence[Field], typed: Mapping[str, str], problems: Mapping[str, str]) -> str:
    """Return the fields as HTML, with what was ``typed`` and what is wrong with it.

    ``typed`` is the form as it came, ``problems`` words by the form's names.
    """
    return "".join(_draw(field, typed, problems.get(_key(field))) for field in fields)


def answer_of(fields: Sequence[Field], form: Mapping[str, str]) -> tuple[Any, dict[str, str]]:
    """Return the answer a form that came back stands for, and what is wrong by the form's names.

    While anything is wrong the answer is none.
    """
    answer: dict[str | None, Any] = {}
    problems: dict[str, str] = {}
    for field in fields:
        key = _key(field)
        typed = form.get(key, "").replace("\r\n", "\n")
        try:
            value = _read(field, typed)
        except ValueError as error:
            problems[key] = str(error)
        else:
            if value is not UNSET:
                answer[field.name] = value
    return answer.get(None, answer), problems


def problem_at(fields: Sequence[Field], pointer: str) -> str | None:
    """Return the form's name of the field in which ``pointer`` lies, in the answer, if there is."""
    for field in fields:
        own = pointer_of(field)
        if pointer == own or pointer.startswith(f"{own}/"):
            return _key(field)
    return None


def _key(field: Field) -> str:
    if field.name is None:
        return "answer"
    name = field.name.encode("utf-8", "surrogatepass")
    return f"answer-{hashlib.sha256(name).hexdigest()[:16]}"


def _read(field: Field, typed: str) -> Any:
    if field.kind == "checkbox":
        return typed != ""
    if not typed.strip():
        return nothing_typed(field)
    if field.kind != "choice":
        return read(field, typed)
    if not (typed.isascii() and typed.isdigit()) or not int(typed[:9]) < len(field.choices):
        raise ValueError("has to be one of the choices.")
    return field.choices[int(typed[:9])]


def _draw(field: Field, typed: Mapping[str, str], problem: str | None) -> str:
    key = _key(field)
    label = "Your answer" if field.name is None else text(field.name)
    control = _control(field, key, typed, wrong=problem is not None)
    hints = [field.description, _HINTS.get(field.kind, "")]
    if field.empty != "refused":
        hints.append("It may be left empty.")
    hint = " ".join(filter(None, hints))
    drawn = f'<label for="{key}">{label}</label>\n{control}\n'
    if field.kind == "checkbox":
        drawn = f'<label for="{key}">{control}{label}</label>\n'
    if hint:
        drawn += f'<p class="hint" id="{key}-hint">{text(hint)}</p>\n'
    if problem is not None:
        drawn += f'<p class="wrong" id="{key}-wrong" role="alert">{label} {text(problem)}</p>\n'
    return f'<div class="field">\n{drawn}</div>\n'


def _control(field: Field, key: str, typed: Mapping[str, str], *, wrong: bool) -> str:
    # Not "required": an empty one is told of with the others, and a rejection needs none of them.
    about = f'id="{key}" name="{key}"'
    described = f"{key}-hint {key}-wrong" if wrong else f"{key}-hint"
    about += f' aria-describedby="{described}"' + (' aria-invalid="true"' if wrong else "")
    given = typed.get(key, "")
    match field.kind:
        case "checkbox":
            return f'<input type="checkbox" {about} value="on"{" checked" if given else ""}>'
        case "choice":
            options = "".join(
                f'<option value="{index}"{" selected" if given == str(index) else ""}>'
                f"{text(shown_choice(choice))}</option>\n"
                for index, choice in enumerate(field.choices)
            )
            return f'<select {about}>\n<option value="">Choose…</option>\n{options}</select>'
        case "text" | "json" if field.kind == "json" or field.name is None:
            # The first newline in a textarea is not part of it.
            return f"<textarea {about}>\n{own_text(given)}</textarea>"
        case _:
            # Of type number a browser would throw away what it cannot read.
            mode = {"integer": "numeric", "number": "decimal"}.get(field.kind, "text")
            return f'<input type="text" inputmode="{mode}" {about} value="{own_text(given)}">'
