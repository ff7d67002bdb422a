"""Conditions on the arguments of a call: what a grant covers and a policy matches. Pure.

``{"/cents": {"lte": 5000}, "/currency": {"in": ["EUR"]}}``: a JSON pointer into the arguments,
operators, operands. All of them have to hold; conditions that are empty hold for everything.

=================  ====================  ========================================================
operator           operand               holds when the value
=================  ====================  ========================================================
eq, ne             any JSON value        is that one, is another one
in, not_in         a list of JSON        is one of them, is none of them
gt gte lt lte      a number or a text    is of the same kind and greater, less …
prefix, suffix     a text                is a text and begins, ends with it
glob               a text                is a text and the pattern (``*`` ``?`` ``[a-z]`` ``[!a]``)
                                         fits the whole of it; ``*`` does not stop at a slash
exists             true or false         is there, is not
=================  ====================  ========================================================

Values are the same by their canonical form, as in a digest: 1 and 1.0 are, members may stand in
any order, integers keep all their digits, true is no number. Numbers are compared as the decimals
they were written as, texts by code point.

What is not there fulfils ``exists: false`` and nothing else, not even ``ne``: a tool takes its own
default then, which may be the very value that ``ne`` was to exclude. Arguments that are not a JSON
object, or cannot be compared exactly, fulfil no condition at all.
"""

from __future__ import annotations

import json
import math
import operator as operators
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple

from perdure.errors import InvalidRequestError
from perdure.interruptions.digest import canonical, parse_object
from perdure.interruptions.pointers import MISSING, escape, is_pointer, value_at

Conditions = Mapping[str, Mapping[str, Any]]
"""By JSON pointer into the arguments: by operator, its operand."""

MAX_POINTERS: Final = 50
"""Places that conditions may name."""
MAX_VALUES: Final = 1000
"""Values in one list."""
MAX_TEXT: Final = 1000
"""Characters of a pointer, a prefix, a suffix or a pattern."""

_UNCOMPARABLE = (ValueError, TypeError, RecursionError, ArithmeticError)


def check(conditions: Any, pointer: str = "/when") -> Conditions:
    """Return ``conditions`` when they are conditions; ``pointer`` says where they came from.

    Raises:
        InvalidRequestError: naming the place and what should stand there.
    """
    if not isinstance(conditions, Mapping):
        raise InvalidRequestError.at(
            pointer, 'has to be an object such as {"/cents": {"lte": 5000}}.'
        )
    if len(conditions) > MAX_POINTERS:
        raise InvalidRequestError.at(pointer, f"has more than {MAX_POINTERS} members.")
    for place, tests in conditions.items():
        at = f"{pointer}/{escape(str(place))}"
        if not isinstance(place, str) or not is_pointer(place):
            raise InvalidRequestError.at(
                at, "is no JSON pointer into the arguments: /cents, /lines/0/cents."
            )
        if len(place) > MAX_TEXT:
            raise InvalidRequestError.at(at, f"is longer than {MAX_TEXT} characters.")
        if not isinstance(tests, Mapping) or not tests:
            raise InvalidRequestError.at(
                at, 'has to be an object of operators, such as {"lte": 5000}.'
            )
        for operator, operand in tests.items():
            known = _OPERATORS.get(operator) if isinstance(operator, str) else None
            if known is None:
                raise InvalidRequestError.at(
                    f"{at}/{escape(str(operator))}",
                    f"is no operator; there are {', '.join(_OPERATORS)}.",
                )
            needs, right, _ = known
            if not right(operand):
                raise InvalidRequestError.at(f"{at}/{operator}", f"has to be {needs}.")
    return conditions


def matches(conditions: Conditions, arguments: Any) -> bool:
    """Say whether all of ``conditions`` (which passed ``check``) hold for a call's arguments.

    ``arguments`` is the object, or the text the model wrote: text that is a JSON object counts as
    that object. Never raises: what cannot be compared does not match.
    """
    if not conditions:
        return True
    if isinstance(arguments, str):
        arguments = parse_object(arguments)
    if not isinstance(arguments, Mapping):
        return False
    try:
        return all(
            _OPERATORS[operator].holds(value, operand)
            for place, tests in conditions.items()
            for value in [value_at(arguments, place)]
            for operator, operand in tests.items()
        )
    except (*_UNCOMPARABLE, LookupError, AttributeError):
        return False


def same(one: Any, other: Any) -> bool:
    """Say whether two JSON values are the same by their canonical form.

    Raises:
        ValueError: for what is not JSON, or nested too deep.
    """
    return canonical({"value": one}) == canonical({"value": other})


def in_words(conditions: Conditions) -> list[str]:
    """Return one line for each condition, as a person writes them: ``/cents lte 5000``."""
    return [
        f"{place} {operator} {json.dumps(operand, ensure_ascii=False)}".strip()
        for place, tests in conditions.items()
        for operator, operand in tests.items()
    ]


def parse(lines: Iterable[str], pointer: str = "/when") -> Conditions:
    """Return the conditions written as ``POINTER OPERATOR OPERAND``, one a line.

    The operand is JSON, or else the text it is; a list may be written ``EUR,USD``.

    Raises:
        InvalidRequestError: a line is none, or says a second time what another says.
    """
    conditions: dict[str, dict[str, Any]] = {}
    for line in lines:
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise InvalidRequestError.at(
                pointer,
                f"{line!r} is no condition. Write POINTER OPERATOR OPERAND, such as "
                f"'/cents lte 5000'; operators are {', '.join(_OPERATORS)}.",
            )
        place, operator, text = found[1] or "", found[2], found[3]
        tests = conditions.setdefault(place, {})
        if operator in tests:
            raise InvalidRequestError.at(pointer, f"{place} {operator} is there twice.")
        operand = _operand(text)
        if operator in ("in", "not_in") and not isinstance(operand, list):
            operand = [_operand(part.strip()) for part in text.split(",")]
        tests[operator] = operand
    return check(conditions, pointer)


def _operand(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


class _Operator(NamedTuple):
    needs: str
    """What its operand has to be, after "has to be"."""
    right: Callable[[Any], bool]
    """Whether an operand is that."""
    holds: Callable[[Any, Any], bool]
    """Whether it holds for a value (``MISSING`` where there is none) and an operand."""


def _is_json(operand: Any) -> bool:
    try:
        canonical({"value": operand})
    except _UNCOMPARABLE:
        return False
    return True


def _is_list(operand: Any) -> bool:
    return isinstance(operand, list) and 0 < len(operand) <= MAX_VALUES and _is_json(operand)


def _is_text(operand: Any) -> bool:
    return isinstance(operand, str) and 0 < len(operand) <= MAX_TEXT


def _is_measure(operand: Any) -> bool:
    if isinstance(operand, str):
        return _is_text(operand)
    return _number(operand) is not None


def _is_bool(operand: Any) -> bool:
    return isinstance(operand, bool)


def _number(value: Any) -> Decimal | None:
    """Return a JSON number as the decimal it is written as; None: it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float):
        return Decimal(repr(value)) if math.isfinite(value) else None
    return Decimal(value)


def _compared(decide: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def holds(value: Any, operand: Any) -> bool:
        if isinstance(value, str) and isinstance(operand, str):
            return decide(value, operand)
        one, other = _number(value), _number(operand)
        return one is not None and other is not None and decide(one, other)

    return holds


def _of_text(decide: Callable[[str, str], bool]) -> Callable[[Any, Any], bool]:
    def holds(value: Any, operand: Any) -> bool:
        return isinstance(value, str) and isinstance(operand, str) and decide(value, operand)

    return holds


def _is_one_of(value: Any, operand: Any) -> bool:
    return value is not MISSING and any(same(value, one) for one in operand)


def _is_none_of(value: Any, operand: Any) -> bool:
    return value is not MISSING and not any(same(value, one) for one in operand)


_A_LIST = f"a list of 1 to {MAX_VALUES} JSON values"
_A_MEASURE = f"a number, or a text of 1 to {MAX_TEXT} characters"
_A_TEXT = f"a text of 1 to {MAX_TEXT} characters"

_OPERATORS: Final[Mapping[str, _Operator]] = {
    "eq": _Operator("a JSON value", _is_json, lambda value, one: _is_one_of(value, [one])),
    "ne": _Operator("a JSON value", _is_json, lambda value, one: _is_none_of(value, [one])),
    "in": _Operator(_A_LIST, _is_list, _is_one_of),
    "not_in": _Operator(_A_LIST, _is_list, _is_none_of),
    "gt": _Operator(_A_MEASURE, _is_measure, _compared(operators.gt)),
    "gte": _Operator(_A_MEASURE, _is_measure, _compared(operators.ge)),
    "lt": _Operator(_A_MEASURE, _is_measure, _compared(operators.lt)),
    "lte": _Operator(_A_MEASURE, _is_measure, _compared(operators.le)),
    "prefix": _Operator(_A_TEXT, _is_text, _of_text(str.startswith)),
    "suffix": _Operator(_A_TEXT, _is_text, _of_text(str.endswith)),
    "glob": _Operator(_A_TEXT, _is_text, _of_text(fnmatchcase)),
    "exists": _Operator(
        "true or false", _is_bool, lambda value, wanted: (value is not MISSING) is wanted
    ),
}
_LINE = re.compile(rf"(?:(/.*?)\s+)?({'|'.join(_OPERATORS)})\s+(.+)", re.DOTALL)
