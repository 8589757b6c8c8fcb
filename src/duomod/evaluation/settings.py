"""Settings of ``duomod evaluate``, ``duomod aggregate`` and ``duomod compare``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from duomod.bounds import Count, Seed
from duomod.flags import WORKERS, Dataset, Flag, NumClasses, Workers
from duomod.settings import Settings

AsdVariant = Literal["assd", "assd_mean_of_means", "one_way", "itk_average_hausdorff"]
Protocol = Literal["default", "dhc"]
PolicyName = Literal["default", "reward_absence", "reference", "dhc"]
#: Name of a run's result table, without its ending.
RESULT = "result"
RESULT_TABLE = f"{RESULT}.csv"
#: How the folders of a method's seeds are called.
SEEDS = "seed_*"
#: Tolerance of NSD where none is given.
TOLERANCE_MM = 2.0


def _tolerance(value: Any) -> Any:
    """``2``, ``1,2,3`` or ``liver=1,spleen=2`` as numbers; what is a number already stays."""
    try:
        if isinstance(value, str):
            if "=" in value:
                value = dict(part.strip().split("=") for part in value.split(","))
            elif "," in value:
                value = value.split(",")
        if isinstance(value, Mapping):
            found: Any = {str(name): float(number) for name, number in value.items()}
        elif isinstance(value, list | tuple):
            found = tuple(map(float, value))
        else:
            found = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{value}: write 2, or 1,2,3 (one for each class), or liver=1,spleen=2") from None
    numbers = found.values() if isinstance(found, dict) else found if isinstance(found, tuple) else (found,)
    if not all(0 <= number < float("inf") for number in numbers):
        raise ValueError(f"{value}: tolerances are distances in mm, 0 or more")
    return found


def _tolerance_text(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}={number}" for name, number in value.items())
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


#: One for all classes, one for each, or by class name.
Tolerance = Annotated[
    float | tuple[float, ...] | dict[str, float],
    BeforeValidator(_tolerance),
    Flag("--tolerance", write=_tolerance_text),
]


class EvaluateOptions(Settings):
    """What an experiment's file says about all its evaluations."""

    metrics: tuple[str, ...] = Field(
        ("dice", "asd"), min_length=1, description="Separated by commas: dice, iou, asd, hd95, hd, nsd, ..."
    )
    asd: AsdVariant = Field("assd", description="Variant of ASD; itk_average_hausdorff is the reference's.")
    protocol: Protocol = Field("default", description="dhc: voxels of a 72x144x144 grid.")
    empty_policy: PolicyName = Field(
        "default", description="What an organ absent from truth, prediction or both counts."
    )
    tolerance: Tolerance = Field(
        TOLERANCE_MM, description="Tolerance of NSD in mm: one, or one for each class, or liver=1,spleen=2 (others 2)."
    )
    workers: Workers = WORKERS
    allow_missing: bool = Field(False, description="Score a case without prediction as all-missed.")
    cases: Path | None = Field(None, description="List of the cases to score, one id a line, e.g. splits/test.txt.")


class EvaluateSettings(EvaluateOptions):
    """Score label maps against the truth: Dice and average symmetric surface distance in mm, and more."""

    command: ClassVar[str] = "evaluate"

    pred_path: Annotated[Path, Flag("--pred_path", or_positional=True)] = Field(
        description="Predicted label maps: a folder or a file."
    )
    gt_path: Annotated[Path, Flag("--gt_path", or_positional=True)] = Field(
        description="True label maps with the same names."
    )
    output_csv: Path | None = Field(None, description="Result table, .csv or .xlsx. Default: beside the predictions.")
    num_classes: NumClasses = None
    dataset: Dataset = None


class AggregateOptions(Settings):
    """What an experiment's file says about averaging over seeds."""

    seed_pattern: str = Field(SEEDS, description="Which of a method's folders are seeds.")
    min_seeds: Count = Field(2, description="How many seeds are needed.")
    dataset: Dataset = None
    ddof: int = Field(1, ge=0, le=1, description="1: sample standard deviation; 0: population.")
    group_table: Path | None = Field(None, description="Table of cases (scanner, modality, ...) to group by.")
    table: tuple[Path, ...] = Field(
        (), description="Also write the means as .txt, .md, .tex, .csv or .xlsx; repeatable."
    )


class AggregateSettings(AggregateOptions):
    """Average a method's results over its seeds: mean ± std per class, over the foreground and over the tail."""

    command: ClassVar[str] = "aggregate"

    method_base_dir: Path = Field(description="Folder with a folder per seed.")
    results_filename: str = Field(RESULT, description="Result table in each.")
    aggregated_csv_output: Path | None = Field(None, description="Per-case metrics averaged over seeds.")
    summary_output: Path | None = Field(None, description="The summary as text.")


class Significance(Settings):
    """How sure a difference must be."""

    alpha: float = Field(0.05, gt=0, lt=1, description="Level of significance.")
    resamples: int = Field(10_000, ge=100, le=10**7, description="Bootstrap samples.")
    seed: Seed = Field(0, description="Seed of bootstrap and permutations.")


class CompareOptions(Significance):
    """What an experiment's file says about the comparison of its methods."""

    baseline: str = Field(description="The method the others are compared with.")
    output: Annotated[Path, Flag("--output", "-o")] = Field(Path("comparison"), description="Folder of the comparison.")
    metrics: tuple[str, ...] | None = Field(
        None, min_length=1, description="Columns, separated by commas: Dice,ASD. Default: all."
    )
    dataset: Dataset = None


class CompareSettings(CompareOptions):
    """Compare methods case by case: paired tests, Holm correction, bootstrap intervals, a sentence per comparison."""

    command: ClassVar[str] = "compare"

    tables: Annotated[tuple[Path, ...], Flag(positional=True)] = Field(
        min_length=1, description="Aggregated tables of two or more methods."
    )
