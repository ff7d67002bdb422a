"""What differs between two versions of an agent. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from perdure.jsondiff import diff

__all__ = ["difference"]

_Object = Mapping[str, Any]
_LISTS = {
    "tools": ("name",),
    "handoffs": ("tool_name",),
    "guardrails": ("kind", "name"),
    "mcp_servers": ("name",),
}
"""The lists of a definition, and what their parts are told apart by."""


def difference(old: _Object, new: _Object) -> dict[str, Any]:
    """Return the steps from one version to another and the agents both reach that differ.

    The paths of the steps lead into ``definition`` and ``run_config``. What stands in lists there
    is told apart by name: ``/definition/tools/refund/effect``. Where the order of a list differs
    and not what is in it, a step says so: ``/definition/order of tools``, from names to names.
    """
    return {
        "object": "agent_diff",
        "agent": new["agent"],
        "from": old["version"],
        "to": new["version"],
        "steps": [*diff(_shown(old), _shown(new)), *_reordered(old, new)],
        "agents": _others(old["agents"], new["agents"]),
    }


def _shown(version: _Object) -> dict[str, Any]:
    definition = dict(version["definition"])
    definition |= {name: _by_name(definition, name) for name in _LISTS}
    definition["tools"] = {
        name: {**tool, "guardrails": _by_name(tool, "guardrails")}
        for name, tool in definition["tools"].items()
    }
    return {"definition": definition, "run_config": version["run_config"]}


def _by_name(definition: _Object, name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in definition[name]:
        key = " ".join(str(one[field]) for field in _LISTS[name])
        count = 1
        while (free := key if count == 1 else f"{key} ({count})") in found:
            count += 1
        found[free] = one
    return found


def _reordered(old: _Object, new: _Object) -> Iterator[dict[str, Any]]:
    for name in _LISTS:
        before, after = (list(_by_name(one["definition"], name)) for one in (old, new))
        if before != after and sorted(before) == sorted(after):
            path = f"/definition/order of {name}"
            yield {"op": "replace", "path": path, "previous": before, "new": after}


def _others(old: Sequence[_Object], new: Sequence[_Object]) -> list[dict[str, Any]]:
    before, after = ({one["name"]: one for one in agents} for agents in (old, new))
    found = []
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        if was is not None and now is not None:
            if was["version"] == now["version"]:
                continue
            same = was["definition_hash"] == now["definition_hash"]
            change = "reaches others" if same else "changed"
        else:
            change = "added" if was is None else "removed"
        found.append(
            {
                "name": name,
                "change": change,
                "from": None if was is None else was["version"],
                "to": None if now is None else now["version"],
            }
        )
    return found
