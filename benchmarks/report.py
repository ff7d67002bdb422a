"""Figures and how they are shown: a table for people, JSON for everything else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Target:
    """What a figure is to reach: ``at_most`` or ``at_least`` some value."""

    value: float
    least: bool = False

    def met_by(self, value: float) -> bool:
        """Whether ``value`` is within the target; the bound itself is."""
        return value >= self.value if self.least else value <= self.value

    def __str__(self) -> str:
        return f"{'≥' if self.least else '≤'} {self.value:g}"


def at_most(value: float) -> Target:
    """Return a target that less is better for."""
    return Target(value)


def at_least(value: float) -> Target:
    """Return a target that more is better for."""
    return Target(value, least=True)


@dataclass(frozen=True)
class Figure:
    """One measured value, with what it was measured from and what it should be."""

    measure: str
    name: str
    value: float
    unit: str = ""
    target: Target | None = None
    note: str = ""

    @property
    def passed(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        return None if self.target is None else self.target.met_by(self.value)

    def as_json(self) -> dict[str, Any]:
        """Return the figure as JSON, its verdict included."""
        return {
            **asdict(self),
            "target": None if self.target is None else str(self.target),
            "passed": self.passed,
        }


@dataclass(frozen=True)
class Steadiness:
    """How long commits took around the rounds: medians in ms, one a round."""

    commits_ms: Sequence[float]

    @property
    def spread(self) -> float:
        """Return the slowest round's commit ÷ the fastest's."""
        return max(self.commits_ms) / min(self.commits_ms)

    @property
    def counts(self) -> bool:
        """Whether the server was steady enough: a threefold change spoils a comparison."""
        return self.spread <= 3

    def figure(self, measure: str) -> Figure:
        """Return the spread as a figure of ``measure``."""
        low, middle, high = min(self.commits_ms), median(self.commits_ms), max(self.commits_ms)
        return Figure(
            measure,
            "commit latency, slowest ÷ fastest round",
            self.spread,
            "x",
            at_most(3),
            f"{low:.2f} to {high:.2f} ms, median {middle:.2f}"
            + ("" if self.counts else "; THIS RUN DOES NOT COUNT"),
        )


def percentile(values: Iterable[float], share: float) -> float:
    """Return the value that ``share`` (0 to 1) of the ``values`` do not exceed (nearest rank)."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("A percentile of nothing was asked for.")
    return ordered[max(0, -(-len(ordered) * share // 1).__int__() - 1)]


def shown(value: float) -> str:
    """Return ``value`` with three significant digits, without an exponent."""
    if value != value or value in (float("inf"), float("-inf")):
        return str(value)
    size = abs(value)
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def print_table(figures: Sequence[Figure], console: Console) -> None:
    """Print the figures, one table a measure."""
    for measure in dict.fromkeys(figure.measure for figure in figures):
        table = Table(title=measure, title_justify="left", title_style="bold", expand=False)
        table.add_column("figure")
        table.add_column("value", justify="right")
        table.add_column("target", justify="right")
        table.add_column("")
        table.add_column("from")
        for figure in figures:
            if figure.measure == measure:
                verdict = {True: "[green]pass[/]", False: "[red]FAIL[/]", None: ""}[figure.passed]
                target = "" if figure.target is None else str(figure.target)
                value = f"{shown(figure.value)} {figure.unit}".strip()
                table.add_row(figure.name, value, target, verdict, figure.note)
        console.print(table)
