"""All methods, one line each; what ``duomod methods`` shows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from duomod.methods.catalog.facts import MethodFacts, facts
from duomod.methods.catalog.measurements import BASELINE, stored_measurements
from duomod.methods.catalog.page import MethodPage, method_page
from duomod.methods.registry import METHODS
from duomod.methods.settings import MethodsSettings


@dataclass(frozen=True)
class Listing:
    """What ``duomod methods`` prints: the methods by name, and how their costs were measured."""

    methods: list[MethodFacts]
    conditions: str

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)

    def as_text(self) -> str:
        """The table, the conditions and the papers."""
        head = ["method", "year", "networks", "parameters", "time", "memory", "what it does"]
        lines = aligned([head, *([*_numbers(row), row.summary] for row in self.methods)])
        note = f"Trained parameters, at 32 filters and 16 classes. Time and memory of a step: {BASELINE} = 1, measured"
        papers = [f"{row.name}: {row.paper}" for row in self.methods]
        return "\n".join([*lines, "", f"{note} ({self.conditions}).", "", *papers])


def listing() -> Listing:
    """Facts of all methods; a broken plug-in is reported by name and left out."""
    return Listing(facts(sorted(METHODS.available())), stored_measurements().conditions)


def _numbers(row: MethodFacts) -> list[str]:
    cost = ["-" if value is None else f"{value:.1f}" for value in (row.relative_time, row.relative_memory)]
    return [row.name, str(row.year), row.networks, f"{row.trained / 1e6:.1f} M", *cost]


def aligned(rows: list[list[str]]) -> list[str]:
    """Rows of a table as lines; all columns but the last are padded."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return ["  ".join([*map(str.ljust, row, widths), row[-1]]).rstrip() for row in rows]


def run_methods(settings: MethodsSettings) -> Listing | MethodPage:
    """All methods in a line each, or one of them.

    Raises:
        InputError: unknown method.
    """
    return listing() if settings.name is None else method_page(settings.name)
