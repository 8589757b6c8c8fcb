"""One case as a script that a page can load from disk: volumes, label maps, surfaces and numbers.

A page opened from ``file://`` may not fetch files, but it may load scripts. A case is therefore a ``.js`` file that
calls ``DuomodViewer.add(<case id>, {...})`` with everything in it: voxels are gzip-compressed and base64-encoded, and
the browser only decompresses and draws. Arrays in the file run x fastest, then y, then z, and x, y, z point to the
patient's right, front and top (RAS).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from duomod.datasets.grid import Geometry
from duomod.datasets.scan import to_array
from duomod.report.assets.palette import FALSE_NEGATIVE, FALSE_POSITIVE, organ_colour
from duomod.report.sources.scans import CaseImages, label_array
from duomod.report.templates import script_json
from duomod.report.viewer.facts import LabelFacts, centres, label_facts
from duomod.report.viewer.framing import Frame, framed
from duomod.report.viewer.grey import grey_image
from duomod.report.viewer.packing import packed
from duomod.report.viewer.surfaces import meshes
from duomod.workspace import atomic_path

#: Above this many voxels the finest axes are made coarser, for the screen only: numbers come from the full grid.
MAX_VOXELS = 12_000_000


def write_case(
    target: Path, case: str, images: CaseImages, classes: Sequence[str], *, max_voxels: int = MAX_VOXELS
) -> None:
    """Write the viewer's script of a case, atomically.

    Args:
        target: The ``.js`` file.
        case: Its id, under which the page finds it.
        images: The scan and its label maps.
        classes: Class names, background first.
        max_voxels: Most voxels of the volume on the screen.
    """
    scan, maps = images.scan, images.maps
    full = [label_array(one) for one in maps]
    true_map, predictions = (full[0], full[1:]) if images.truth is not None else (None, full)
    truth, predicted = label_facts(
        true_map,
        [(name, labels) for (name, _), labels in zip(images.predictions, predictions, strict=True)],
        len(classes),
        float(np.prod(Geometry.of(scan).spacing)) / 1000,
    )
    frame = framed(scan, maps, max_voxels)
    facts = [*([truth] if truth is not None else []), *predicted]
    data = {
        "format": 1,
        "modality": images.modality,
        "size": list(frame.scan.GetSize()),
        "spacing": [round(value, 6) for value in frame.scan.GetSpacing()],
        "affine": frame.affine,
        "notes": list(frame.notes),
        "image": grey_image(to_array(frame.scan), images.modality),
        "classes": [
            {"label": label, "name": str(classes[label]), "colour": organ_colour(label)}
            for label in range(1, len(classes))
        ],
        "errors": {"missed": FALSE_NEGATIVE, "extra": FALSE_POSITIVE},
        "maps": [
            _label_map(frame, index, fact, len(classes), is_truth=fact is truth) for index, fact in enumerate(facts)
        ],
    }
    with atomic_path(target) as temporary:
        temporary.write_text(script_text(case, data), encoding="ascii")


def script_text(case: str, data: dict[str, Any]) -> str:
    """Return the call of ``DuomodViewer.add``. Safe inside a page too: ``</script>`` cannot occur in it."""
    return f"DuomodViewer.add({script_json(case)}, {script_json(data)});\n"


def _label_map(frame: Frame, index: int, fact: LabelFacts, classes: int, *, is_truth: bool) -> dict[str, Any]:
    labels = label_array(frame.maps[index])
    return {
        "name": fact.name,
        "truth": is_truth,
        "data": packed(labels),
        "ml": [round(value, 4) for value in fact.ml],
        "dice": None if fact.dice is None else [None if d is None else round(d, 6) for d in fact.dice],
        "centres": centres(labels, classes),
        "meshes": [
            None if mesh is None else mesh.as_json(packed) for mesh in meshes(labels, frame.scan.GetSpacing(), classes)
        ],
    }
