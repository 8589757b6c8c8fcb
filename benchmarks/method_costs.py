"""What a training step of each method costs beside the supervised one; written to where ``duomod methods`` reads it.

python benchmarks/method_costs.py
python benchmarks/method_costs.py cps dhc --output costs.json --patch 16 16 16 --steps 1
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from duomod.methods.catalog.costs import Conditions, measure, relative
from duomod.methods.catalog.measurements import measurements_file
from duomod.methods.registry import builtin_names
from duomod.workspace import write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help="all that are built in, if none is named")
    parser.add_argument("--patch", type=int, nargs=3, default=(32, 48, 48))
    parser.add_argument("--classes", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5, help="timed, after two that are not; the fastest counts")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=measurements_file())
    given = parser.parse_args()
    if given.methods and given.output == measurements_file():
        parser.error("that file holds all methods: name no methods, or another --output")
    conditions = Conditions(tuple(given.patch), given.classes, given.steps, given.device)
    costs = measure(given.methods or builtin_names(), conditions)
    content = {
        "conditions": str(conditions),
        "relative": {name: cost.model_dump() for name, cost in relative(costs).items()},
        "measured": {name: asdict(cost) for name, cost in costs.items()},
    }
    write_json(given.output, content)
    print(given.output)


if __name__ == "__main__":
    main()
