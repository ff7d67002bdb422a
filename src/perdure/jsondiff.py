"""What changed between two JSON values, as a list of steps from one to the other. Pure.

A step is ``{"op": "add" | "remove" | "replace", "path": …, "previous": …, "new": …}``: those of
JSON Patch (RFC 6902), with what was there before; ``path`` is a JSON pointer. They are meant in
order: each path is that after the steps before it. None as a whole is nothing, as ``add`` and
``remove`` of the path ``""`` have it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["apply", "diff"]

Step = dict[str, Any]


def diff(previous: Any, new: Any) -> list[Step]:
    """Return the steps that make ``new`` of ``previous``; none where they are the same.

    Numbers are the same when they are written the same: 1 and 1.0 are not.
    """
    if previous is None or new is None:
        if previous is new:
            return []
        return [_added("", new) if previous is None else _removed("", previous)]
    return list(_steps("", previous, new))


def _steps(path: str, previous: Any, new: Any) -> Iterator[Step]:
    if isinstance(previous, dict) and isinstance(new, dict):
        yield from _in_object(path, previous, new)
    elif isinstance(previous, list) and isinstance(new, list):
        yield from _in_array(path, previous, new)
    elif not _same(previous, new):
        yield {"op": "replace", "path": path, "previous": previous, "new": new}


def _in_object(path: str, previous: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Step]:
    for name, value in previous.items():
        there = _below(path, name)
        if name in new:
            yield from _steps(there, value, new[name])
        else:
            yield _removed(there, value)
    for name, value in new.items():
        if name not in previous:
            yield _added(_below(path, name), value)


def _in_array(path: str, previous: Sequence[Any], new: Sequence[Any]) -> Iterator[Step]:
    """What stands before and behind the change is left as it is; within, place by place."""
    shorter = min(len(previous), len(new))
    start = 0
    while start < shorter and _same(previous[start], new[start]):
        start += 1
    behind = 0
    while behind < shorter - start and _same(previous[-1 - behind], new[-1 - behind]):
        behind += 1
    old_end, new_end = len(previous) - behind, len(new) - behind
    both = min(old_end, new_end)
    for place in range(start, both):
        yield from _steps(f"{path}/{place}", previous[place], new[place])
    for place in reversed(range(both, old_end)):
        yield _removed(f"{path}/{place}", previous[place])
    for place in range(both, new_end):
        yield _added(f"{path}/{place}", new[place])


def _same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON; True is not 1."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _added(path: str, new: Any) -> Step:
    return {"op": "add", "path": path, "new": new}


def _removed(path: str, previous: Any) -> Step:
    return {"op": "remove", "path": path, "previous": previous}


def _below(path: str, name: str) -> str:
    return f"{path}/{name.replace('~', '~0').replace('/', '~1')}"


def apply(steps: Sequence[Step], previous: Any) -> Any:
    """Return what the ``steps`` make of ``previous``, which stays as it is.

    Raises:
        LookupError: a step's path leads nowhere.
    """
    value = copy.deepcopy(previous)
    for step in steps:
        value = _applied(value, step)
    return value


def _applied(value: Any, step: Step) -> Any:
    new = copy.deepcopy(step.get("new"))
    if step["path"] == "":
        return new
    *way, last = (
        part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:]
    )
    inside = value
    for part in way:
        inside = inside[int(part) if isinstance(inside, list) else part]
    place = int(last) if isinstance(inside, list) else last
    if step["op"] == "remove":
        del inside[place]
    elif step["op"] == "add" and isinstance(inside, list):
        inside.insert(place, new)
    else:
        inside[place] = new
    return value
