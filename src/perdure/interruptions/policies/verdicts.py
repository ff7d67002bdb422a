"""Which of several policies counts for a call. Pure.

Any matching ``deny`` wins, wherever it stands; else the first that matches, in their order.

A policy that restricts (``ask``, ``deny``) is not got round by how a model writes: arguments that
cannot be read fulfil every condition of it, and where it compares with a number or with true and
false, the text "6000" counts as the number, "yes" as true, as a tool would read them. For an
``allow`` only what is written counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

from perdure.interruptions.conditions import matches
from perdure.interruptions.pointers import value_at
from perdure.interruptions.policies.policy import Policy

_TRUE: Final = frozenset({"1", "true", "t", "yes", "y", "on"})
_FALSE: Final = frozenset({"0", "false", "f", "no", "n", "off"})


def about(policies: Iterable[Policy], *, agent: str, tool: str) -> tuple[Policy, ...]:
    """Return the policies that are about calls of ``tool`` by ``agent``, whatever its arguments."""
    return tuple(
        policy for policy in policies if _names(policy.tool, tool) and _names(policy.agent, agent)
    )


def verdict(policies: Iterable[Policy], arguments: Mapping[str, Any] | None) -> Policy | None:
    """Return the policy that counts for a call these ``policies`` are about, or None.

    ``arguments`` is the object the model wrote, None where it wrote something else.
    """
    found = None
    for policy in policies:
        if found is not None and policy.then != "deny":
            continue
        if _holds(policy, arguments):
            if policy.then == "deny":
                return policy
            found = policy
    return found


def _names(globs: str | Iterable[str], name: str) -> bool:
    return any(fnmatchcase(name, one) for one in globs)


def _holds(policy: Policy, arguments: Mapping[str, Any] | None) -> bool:
    if not policy.when:
        return True
    if policy.then == "allow":
        return arguments is not None and matches(policy.when, arguments)
    return arguments is None or all(
        _test_holds(arguments, place, operator, operand)
        for place, tests in policy.when.items()
        for operator, operand in tests.items()
    )


def _test_holds(arguments: Mapping[str, Any], place: str, operator: str, operand: Any) -> bool:
    if matches({place: {operator: operand}}, arguments):
        return True
    value = value_at(arguments, place)
    return any(
        matches({"/value": {operator: operand}}, {"value": read})
        for read in _readings(value, operand)
    )


def _readings(value: Any, operand: Any) -> list[Any]:
    """Return what a tool may make of ``value`` where ``operand`` is a number, or true or false."""
    operands = operand if isinstance(operand, list) else [operand]
    readings: list[Any] = []
    if any(isinstance(one, bool) for one in operands):
        word = value.strip().lower() if isinstance(value, str) else str(value)
        if isinstance(value, str | int | float) and word in _TRUE | _FALSE:
            readings.append(word in _TRUE)
    if isinstance(value, str | bool) and any(_is_number(one) for one in operands):
        number = _number(value)
        if number is not None:
            readings.append(number)
    return readings


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(text: str | bool) -> int | float | None:
    for read in (int, float):
        try:
            number = read(text)
        except (ValueError, OverflowError):
            continue
        return number if isinstance(number, int) or math.isfinite(number) else None
    return None
