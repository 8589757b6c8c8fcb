"""Whether raw cases can be used. Every problem is a sentence that names the file and says what to do."""

from __future__ import annotations

import SimpleITK as sitk

from duomod.datasets.grid import Geometry
from duomod.datasets.importers import RawCase
from duomod.datasets.labels import value_problems
from duomod.datasets.scan import image_problems
from duomod.datasets.spec import DatasetSpec


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
        values = sitk.GetArrayViewFromImage(label)
        found = value_problems(values, spec.num_classes, spec.label_merges)
        problems += [f"{case.label}: {text}" for text in found]
    if image is not None:
        differences = Geometry.of(label).differences(Geometry.of(image))
        if differences:
            problems.append(
                f"{case.label}: not on the grid of its image {case.image}: {'; '.join(differences)};"
                " export the label again on the image's grid"
            )
    return image, label, problems
