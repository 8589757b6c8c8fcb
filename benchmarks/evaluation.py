"""Time and memory of the evaluation against what people use: SimpleITK per class on whole volumes; surface-distance.

    python benchmarks/evaluation.py            # 512x512x130, 16 classes; about four minutes
    python benchmarks/evaluation.py --truth labels.nii.gz      # a real label map, resampled to that size

Every contender runs in a process of its own, so that its peak memory is its own. Ours and surface-distance run on one
core; SimpleITK's filter is timed with one thread and with all cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.uint8]

SHAPE = (130, 512, 512)  # z, y, x
SPACING_MM = (4.0, 0.75, 0.75)
CLASSES = 16
#: Centre (fractions of the volume) and semi-axes (mm) of 15 ellipsoids with the volumes of AMOS's organs.
ORGANS = (
    ((0.66, 0.60, 0.74), (52, 36, 30)),  # spleen
    ((0.48, 0.62, 0.33), (52, 28, 27)),  # right kidney
    ((0.50, 0.62, 0.67), (54, 28, 27)),  # left kidney
    ((0.54, 0.38, 0.36), (28, 15, 15)),  # gallbladder
    ((0.86, 0.58, 0.51), (60, 9, 9)),  # oesophagus
    ((0.66, 0.45, 0.32), (72, 76, 72)),  # liver
    ((0.66, 0.38, 0.62), (50, 42, 46)),  # stomach
    ((0.55, 0.62, 0.52), (170, 11, 11)),  # aorta
    ((0.58, 0.58, 0.45), (120, 12, 12)),  # inferior vena cava
    ((0.56, 0.48, 0.52), (22, 15, 58)),  # pancreas
    ((0.62, 0.58, 0.39), (17, 9, 6)),  # right adrenal gland
    ((0.62, 0.57, 0.60), (19, 10, 6)),  # left adrenal gland
    ((0.50, 0.46, 0.42), (36, 18, 22)),  # duodenum
    ((0.10, 0.40, 0.50), (36, 40, 46)),  # bladder
    ((0.03, 0.50, 0.50), (18, 20, 24)),  # prostate/uterus
)


def synthetic_pair(seed: int = 0) -> tuple[Labels, Labels]:
    """Return (prediction, truth): ellipsoids, and the same with other centres and axes, so that all surfaces differ."""
    return _ellipsoids(np.random.default_rng(seed), jitter=1.0), _ellipsoids(np.random.default_rng(seed), jitter=0.0)


def _ellipsoids(rng: np.random.Generator, jitter: float) -> Labels:
    labels = np.zeros(SHAPE, np.uint8)
    extent = np.asarray(SHAPE) * SPACING_MM
    for label, (centre, axes) in enumerate(ORGANS, start=1):
        middle = np.asarray(centre) * extent + jitter * rng.normal(0, 1.5, 3)
        radii = np.asarray(axes) * (1 + jitter * rng.normal(0, 0.05, 3))
        low = np.maximum(((middle - radii) / SPACING_MM).astype(int), 0)
        high = np.minimum(((middle + radii) / SPACING_MM).astype(int) + 2, SHAPE)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        grids = np.ogrid[box]
        inside = sum(((g * s - m) / r) ** 2 for g, s, m, r in zip(grids, SPACING_MM, middle, radii, strict=True)) <= 1
        labels[box][inside] = label
    return labels


def real_pair(path: Path) -> tuple[Labels, Labels]:
    """Return (prediction, truth) from a label map brought to 512x512x130; the prediction is the truth, shifted."""
    import SimpleITK as sitk

    truth_small = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).astype(np.uint8)
    index = [np.minimum(np.arange(n) * m // n, m - 1) for n, m in zip(SHAPE, truth_small.shape, strict=True)]
    truth = np.ascontiguousarray(truth_small[np.ix_(*index)])
    prediction = np.zeros_like(truth)
    prediction[1:, 2:, :-2] = truth[:-1, :-2, 2:]
    return prediction, truth


def ours(pred: Labels, truth: Labels, names: tuple[str, ...]) -> dict[str, list[float]]:
    """The package, one core."""
    from duomod.evaluation.metrics import select_metrics
    from duomod.evaluation.policy import get_policy
    from duomod.evaluation.scoring import score_classes

    metrics = select_metrics(names)
    tolerances = [2.0] * (CLASSES - 1)
    scores = score_classes(pred, truth, SPACING_MM, CLASSES, metrics, get_policy("default"), tolerances)
    return {m.column: [s.values[m.column] for s in scores] for m in metrics}


def simpleitk(pred: Labels, truth: Labels) -> dict[str, list[float]]:
    """What the reference evaluates (docs/evaluation.md): Dice, and GetAverageHausdorffDistance, class by class."""
    import SimpleITK as sitk

    dice, asd = [], []
    for label in range(1, CLASSES):
        p, t = pred == label, truth == label
        if not p.any() or not t.any():
            dice.append(float(p.any() == t.any()))
            asd.append(0.0 if p.any() == t.any() else float("nan"))
            continue
        dice.append(2.0 * np.logical_and(p, t).sum() / (p.sum() + t.sum()))
        images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (p, t)]
        for image in images:
            image.SetSpacing(SPACING_MM[::-1])
        hausdorff = sitk.HausdorffDistanceImageFilter()
        hausdorff.Execute(*images)
        asd.append(hausdorff.GetAverageHausdorffDistance())
    return {"Dice": dice, "ITKAverageHausdorff": asd}


def surface_distance(pred: Labels, truth: Labels) -> dict[str, list[float]]:
    """The surface-distance package: both average distances, class by class."""
    from surface_distance import metrics as peer

    values = []
    for label in range(1, CLASSES):
        p, t = pred == label, truth == label
        if p.any() and t.any():
            distances = peer.compute_surface_distances(t, p, SPACING_MM)
            values.append(float(np.mean(peer.compute_average_surface_distance(distances))))
        else:
            values.append(float("nan"))
    return {"ASD (surfels)": values}


CONTENDERS: dict[str, tuple[Callable[[Labels, Labels], dict[str, list[float]]], int | None]] = {
    "duomod: Dice, ASSD, HD95, NSD": (lambda p, t: ours(p, t, ("dice", "asd", "hd95", "nsd")), 1),
    "duomod: ASSD alone": (lambda p, t: ours(p, t, ("asd",)), 1),
    "surface-distance: ASD alone": (surface_distance, 1),
    "SimpleITK per class: Dice, its 'ASD', 1 thread": (simpleitk, 1),
    "SimpleITK per class: Dice, its 'ASD', all cores": (simpleitk, 0),
}


def run_one(name: str, truth: Path | None, repeats: int) -> dict[str, object]:
    """Time one contender in this process; the pair is made before the clock starts."""
    function, threads = CONTENDERS[name]
    if threads and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import SimpleITK as sitk

    if threads:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    pred, true = real_pair(truth) if truth else synthetic_pair()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, cpu_seconds = [], []
    for _ in range(repeats):
        began, cpu_began = time.perf_counter(), time.process_time()
        values = function(pred, true)
        seconds.append(time.perf_counter() - began)
        cpu_seconds.append(time.process_time() - cpu_began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    means = {key: float(np.nanmean(value)) for key, value in values.items()}
    cost = {"seconds": median(seconds), "cpu_seconds": median(cpu_seconds)}
    return {**cost, "peak_mb": peak / 1024, "before_mb": before / 1024, "means": means}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", type=Path, help="a label map (NIfTI) instead of the built-in ellipsoids")
    parser.add_argument("--only", choices=list(CONTENDERS), help="run this contender here and print JSON")
    parser.add_argument("--repeats", type=int, default=5, help="the median of so many runs counts (SimpleITK: three)")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(run_one(options.only, options.truth, options.repeats)))
        return
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print(f"{'contender':<50} {'seconds':>8} {'CPU s':>8} {'peak MB':>8}  means over classes\n{'-' * 110}")
    times = {}
    for name in CONTENDERS:
        command = [sys.executable, __file__, "--only", name]
        command += ["--repeats", str(min(3, options.repeats) if name.startswith("SimpleITK") else options.repeats)]
        command += ["--truth", str(options.truth)] if options.truth else []
        result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        times[name] = result["seconds"]
        means = ", ".join(f"{key} {value:.4f}" for key, value in result["means"].items())
        print(
            f"{name:<50} {result['seconds']:8.3f} {result['cpu_seconds']:8.3f} {result['peak_mb']:8.0f}  {means}",
            flush=True,
        )
    full, alone, peer, itk_one, itk_all = times.values()
    print("\nDice, ASSD, HD95 and NSD on one core, against SimpleITK's Dice and 'ASD':")
    print(
        f"{itk_all / full:.0f} times as fast as that on all cores, {itk_one / full:.0f} times as fast as that on one."
    )
    print(f"Against surface-distance: ASSD alone {peer / alone:.1f} times, all four metrics {peer / full:.1f} times.")


if __name__ == "__main__":
    main()
