"""Rows of numbers, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nahanni_compute.machine import Machine

from .measure import Series

PREFIXES = ((1e6, "M"), (1e3, "k"), (1.0, ""))


@dataclass(frozen=True)
class Row:
    """One contender at one thing. `ratio`: how many times ours is ahead of this peer, or what `note` says."""

    what: str
    who: str
    series: Series
    unit: str
    ratio: float | None = None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: with every sample, so that others can judge the spread."""
        s = self.series
        return {
            "what": self.what,
            "who": self.who,
            "unit": self.unit,
            "median": s.median,
            "min": s.min,
            "max": s.max,
            "samples": list(s.samples),
            "ratio": self.ratio,
            "note": self.note,
        }


@dataclass(frozen=True)
class Goal:
    """What DESIGN asks for, beside what was seen."""

    what: str
    wanted: str
    seen: str
    is_met: bool


def grouped(count: float) -> str:
    """A whole number in groups of thousands."""
    return f"{round(count):,}".replace(",", " ")


def number(value: float, unit: str) -> str:
    """Three digits, or all before the point; rates ("/s") with a prefix."""
    step, prefix = next((step, prefix) for step, prefix in PREFIXES if abs(value) >= step or step == 1.0) if unit == "/s" else (1.0, "")
    digits = f"{value / step:.3g}" if abs(value / step) < 1000 else grouped(value / step)
    return f"{digits} {prefix}".rstrip()


def table(rows: Sequence[Row]) -> str:
    """Aligned, plain; a thing's name only in its first row."""
    cells = [("", "", "median", "[min .. max]", "unit", "ratio", "")]
    previous = ""
    for row in rows:
        s = row.series
        spread = f"[{number(s.min, row.unit)} .. {number(s.max, row.unit)}]"
        ratio = f"{row.ratio:.3g}x" if row.ratio is not None else ""
        cells.append((row.what if row.what != previous else "", row.who, number(s.median, row.unit), spread, row.unit, ratio, row.note))
        previous = row.what
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    aligned = ("<", "<", ">", "<", "<", ">", "<")
    lines = ("  ".join(f"{cell:{a}{w}}" for cell, a, w in zip(line, aligned, widths, strict=True)) for line in cells)
    return "\n".join(line.rstrip() for line in lines)


def goals_table(goals: Sequence[Goal]) -> str:
    """What was wanted, what was seen."""
    width = max(len(goal.what) for goal in goals)
    return "\n".join(f"{'met   ' if g.is_met else 'MISSED'}  {g.what:<{width}}  wanted {g.wanted}, saw {g.seen}" for g in goals)


def write_json(path: Path, machine: Machine, rows: Sequence[Row], goals: Sequence[Goal]) -> None:
    """All of it, in one file."""
    document = {"machine": machine.as_dict(), "rows": [row.as_dict() for row in rows], "goals": [vars(goal) for goal in goals]}
    path.write_text(json.dumps(document, indent=2) + "\n")
