"""What people fill in, checked against a JSON schema: edited arguments, answers. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jsonschema
from jsonschema.protocols import Validator

from perdure import jsonsafe
from perdure.errors import FieldError, InvalidRequestError

_MOST_ERRORS = 20
_LONGEST = 300
_CACHED = 256


def problem_with_schema(schema: Mapping[str, Any]) -> str | None:
    """Return why ``schema`` is none that values can be checked against, or None."""
    try:
        jsonschema.validators.validator_for(
            schema, default=jsonschema.Draft202012Validator
        ).check_schema(dict(schema))
    except jsonschema.SchemaError as error:
        return f"{error.json_path}: {error.message[:_LONGEST]}"
    except RecursionError:
        return "it is nested too deep."
    return None


def check_filled_in(
    schema: Mapping[str, Any] | None, value: Any, *, pointer: str, patterns: bool = True
) -> None:
    """Pass when ``value``, which stands at ``pointer`` of a request, fits ``schema``.

    Without ``patterns`` regular expressions in it are not tried: those of strangers (an MCP
    server, a model) can be made to take for ever. References lead nowhere but into the schema.

    Raises:
        InvalidRequestError: it does not fit; each field that does not is named.
    """
    if schema is None:
        return
    try:
        validator = _validator(jsonsafe.dumps(schema), patterns)
        found = sorted(validator.iter_errors(value), key=lambda error: list(map(str, error.path)))
    except Exception as error:
        # A reference that leads nowhere, a schema of a kind that is not known.
        raise InvalidRequestError.at(
            pointer, f"cannot be checked, as its schema cannot be read: {error}"
        ) from error
    if found:
        errors = [
            FieldError(pointer + _pointer(error.absolute_path), _words(error))
            for error in map(_of_what_was_meant, found[:_MOST_ERRORS])
        ]
        raise InvalidRequestError(
            " ".join(f"{one.pointer}: {one.detail}" for one in errors), errors
        )


@lru_cache(_CACHED)
def _validator(schema_text: str, patterns: bool) -> Validator:
    schema = jsonsafe.loads(schema_text)
    cls = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    if not patterns:
        additional = cls.VALIDATORS["additionalProperties"]

        def other_properties(validator: Any, rule: Any, value: Any, within: Any) -> Any:
            # What is additional is found by trying the patterns.
            return (
                () if "patternProperties" in within else additional(validator, rule, value, within)
            )

        cls = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
            cls,
            validators={
                "pattern": _pass,
                "patternProperties": _pass,
                "unevaluatedProperties": _pass,
                "additionalProperties": other_properties,
            },
        )
    # A registry of its own that fetches nothing is the library's default.
    validator: Validator = cls(schema)
    return validator


def _pass(*_: Any) -> tuple[()]:
    return ()


def _pointer(path: Any) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _of_what_was_meant(error: jsonschema.ValidationError) -> jsonschema.ValidationError:
    """Return what is wrong with a value that may be null, as if it might not."""
    context = error.context or []
    others = [one for one in context if (one.validator, one.validator_value) != ("type", "null")]
    one_was_null = error.validator == "anyOf" and len(others) == len(context) - 1
    # By which of the alternatives each of them comes.
    of_one = len({one.relative_schema_path[0] for one in others}) == 1
    return others[0] if one_was_null and of_one else error


def _words(error: jsonschema.ValidationError) -> str:
    text = error.message
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
