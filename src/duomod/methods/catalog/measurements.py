"""What training steps cost, as measured once for the package (``benchmarks/method_costs.py``)."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from duomod.workspace import read_json

#: What every relative number is relative to.
BASELINE = "supervised"


class RelativeCost(BaseModel):
    """Time and memory of a training step, those of the baseline being 1."""

    model_config = ConfigDict(frozen=True)

    time: float
    memory: float


class Measurements(BaseModel):
    """The file of measurements: under which ``conditions``, and the cost of each method."""

    model_config = ConfigDict(frozen=True)

    conditions: str = "not measured"
    relative: dict[str, RelativeCost] = {}


def measurements_file() -> Path:
    """Where the package keeps them."""
    return Path(str(resources.files("duomod.methods").joinpath("measurements.json")))


def stored_measurements() -> Measurements:
    """The measurements that come with the package."""
    return Measurements.model_validate(read_json(measurements_file()))
