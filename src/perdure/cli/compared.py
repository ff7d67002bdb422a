"""Turns of two conversations, or runs, beside each other, as the API compares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perdure.cli.output import Part, has_colours
from perdure.cli.runs_shown import call_text

__all__ = ["answered", "asked"]

_BASE, _OURS = ("[-", "-]", "red"), ("{+", "+}", "green")
"""How what one of two texts has alone is marked where there are no colours, and its colour."""


def asked(turn: Mapping[str, Any], side: str) -> list[Part]:
    """What the user said in a compared turn, on one side of it."""
    text = turn["input"][side]
    if text is None:
        return [("-", "dim")]
    return [(f"{turn['number']}> ", "cyan"), (text, "" if turn["input"]["same"] else "yellow")]


def answered(turn: Mapping[str, Any], side: str) -> list[Part]:
    """What was called and said in a compared turn, on one side: what it has alone is marked."""
    told = turn[side]
    if told is None:
        return []
    parts: list[Part] = [(f"{line}\n", "dim") for line in _called(told["items"])]
    words = [_word(change, side) for change in turn["changes"] if change[side]]
    parts += words or ([(told["text"], "")] if told["text"] else [])
    if told["run_status"] not in (None, "completed"):
        parts.append((f"({told['run_status']})", "bold yellow"))
    return parts


def _word(change: Mapping[str, Any], side: str) -> Part:
    text = str(change[side])
    if change["op"] == "equal":
        return text, ""
    before, behind, colour = _BASE if side == "base" else _OURS
    if has_colours():
        return text, colour
    words = text.strip()
    start = text.index(words)
    return f"{text[:start]}{before}{words}{behind}{text[start + len(words) :]}", ""


def _called(items: Sequence[Mapping[str, Any]]) -> list[str]:
    calls = [one["item"] for one in items if str(one["item"].get("type", "")).endswith("_call")]
    return [call_text(one) for one in calls]
