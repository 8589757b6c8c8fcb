"""Whether raw cases can be used. Every problem is a sentence that names the file and says what to do."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from duomod.datasets.grid import Geometry
from duomod.datasets.importers import RawCase
from duomod.datasets.scan import image_problems
from duomod.datasets.spec import DatasetSpec
from duomod.errors import InputError


def load_case(case: RawCase, spec: DatasetSpec) -> tuple[sitk.Image | None, sitk.Image | None, list[str]]:
    """Read a case completely and look for everything that can be wrong with it.

    Returns:
        Image and label (None where it cannot be read or does not exist), and the problems. The label still holds raw
        values, which are known to be integers that ``spec`` can place if there is no problem.
    """
    image, problems = image_problems(case.image)
    if case.label is None:
        return image, None, problems
    label, label_problems = image_problems(case.label)
    problems += label_problems
    if label is None:
        return image, None, problems
    if not label_problems:
        problems += [f"{case.label}: {text}" for text in _value_problems(label, spec)]
    if image is not None:
        differences = Geometry.of(label).differences(Geometry.of(image))
        if differences:
            problems.append(
                f"{case.label}: not on the grid of its image {case.image}: {'; '.join(differences)};"
                " export the label again on the image's grid"
            )
    return image, label, problems


def check_case(case: RawCase, spec: DatasetSpec) -> list[str]:
    """Return all problems of one case."""
    return load_case(case, spec)[2]


def check_cases(cases: Sequence[RawCase], spec: DatasetSpec, workers: int = 1) -> None:
    """Read every case, ``workers`` at a time.

    Raises:
        InputError: lists all problems of all cases.
    """
    if workers <= 1:
        found = [check_case(case, spec) for case in cases]
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            found = list(pool.map(check_case, cases, [spec] * len(cases)))
    problems = [problem for of_case in found for problem in of_case]
    if problems:
        raise InputError(problems)


def _value_problems(label: sitk.Image, spec: DatasetSpec) -> list[str]:
    """What is wrong with the values of a label map whose voxels are finite."""
    voxels: NDArray[np.generic] = sitk.GetArrayViewFromImage(label)
    # Slice by slice: the temporary arrays of a whole CT would take more memory than the scan.
    if np.issubdtype(voxels.dtype, np.floating):
        fractional = sum(int(np.count_nonzero(plane != np.rint(plane))) for plane in voxels)
        if fractional:
            return [
                f"{fractional} voxel(s) are not whole numbers (resampled linearly?); a label map holds class numbers"
            ]
    low, high = voxels.min(), voxels.max()
    if low >= 0 and high < spec.num_classes:
        return []
    values: set[int] = set()
    for plane in voxels:
        values.update(int(v) for v in np.unique(plane[(plane < 0) | (plane >= spec.num_classes)]))
    wrong = sorted(values - set(spec.label_merges))
    if not wrong:
        return []
    shown = ", ".join(map(str, wrong[:10])) + (", ..." if len(wrong) > 10 else "")
    return [
        f"label value(s) {shown} outside 0..{spec.num_classes - 1} (num_classes is {spec.num_classes});"
        " correct the label, the number of classes, or label_merges in the data set description"
    ]
