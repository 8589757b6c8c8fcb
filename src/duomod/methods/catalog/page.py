"""One method: what it computes, in words, what it builds and costs, and where its page is."""

from __future__ import annotations

import inspect
import textwrap
from dataclasses import asdict, dataclass
from typing import Any

from duomod.methods.catalog.facts import MethodFacts, facts
from duomod.methods.catalog.measurements import BASELINE, stored_measurements
from duomod.methods.registry import METHODS, builtin_names

_WIDTH = 110
_SYMBOLS = (
    "z, p: logits and probabilities; Lsup: Dice + cross-entropy on the labels; w(e): the ramped weight of epoch e;"
    " CE(A, y): network A's cross-entropy against y; v: voxels; n_c: voxels of class c."
)


@dataclass(frozen=True)
class MethodPage:
    """What ``duomod methods NAME`` shows besides the settings.

    Attributes:
        facts: Title, paper, network, parameters and cost.
        equations: The loss and what its parts are, from the class's own docstring; paragraphs separated by empty lines.
        training: Training settings that ``--preset reference`` changes for this method alone: name -> value.
        conditions: How the cost was measured.
        page: Its page in the repository; None for a method of the user's.
    """

    facts: MethodFacts
    equations: str
    training: dict[str, Any]
    conditions: str
    page: str | None

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)

    def as_text(self) -> str:
        """The same for people."""
        own = self.facts
        paper = own.paper if str(own.year) in own.paper else f"{own.paper} ({own.year})"
        lines = [f"{own.title} ({own.name}): {own.summary}", "", *_wrapped(paper), ""]
        for paragraph in self.equations.split("\n\n"):
            lines += [*_wrapped(paragraph), ""]
        lines += [*_wrapped(f"({_SYMBOLS})"), "", *_wrapped(self._network()), *_wrapped(self._cost())]
        if self.training:
            changes = ", ".join(f"{name} = {value}" for name, value in self.training.items())
            lines += _wrapped(f"Training settings of its own under --preset reference: {changes}.")
        if self.page:
            lines += ["", f"All of it: {self.page}, in the symbols of docs/methods/README.md."]
        return "\n".join(lines)

    def _network(self) -> str:
        teacher = self.facts.total - self.facts.trained
        also = f", and {teacher / 1e6:.1f} M that follow or are fixed" if teacher else ""
        return (
            f"Networks: {self.facts.networks}, {self.facts.trained / 1e6:.1f} M parameters trained{also}"
            " (V-Net with 32 filters, 16 classes; --network chooses another)."
        )

    def _cost(self) -> str:
        time, memory = self.facts.relative_time, self.facts.relative_memory
        if time is None or memory is None:
            return "Cost of a step: not measured."
        return (
            f"Cost of a step: {time:.1f} times the time and {memory:.1f} times the memory of {BASELINE}"
            f" ({self.conditions})."
        )


def method_page(name: str) -> MethodPage:
    """The page of a method.

    Raises:
        InputError: unknown method (the nearest is suggested), or a plug-in that cannot be imported.
    """
    method = METHODS.load(name)
    text = (inspect.getdoc(method) or "").strip()
    page = f"docs/methods/{name}.md" if name in builtin_names() else None
    paragraphs = [each for each in text.split("\n\n") if page is None or not each.startswith(f"See {page}")]
    return MethodPage(
        facts=facts([name])[0],
        equations="\n\n".join(" ".join(each.replace("``", "").split()) for each in paragraphs),
        training=dict(_leaves(method.Config.reference_training)),
        conditions=stored_measurements().conditions,
        page=page,
    )


def _leaves(values: Any, before: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        found += _leaves(value, f"{before}{name}.") if isinstance(value, dict) else [(before + name, value)]
    return found


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)
