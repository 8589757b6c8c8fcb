"""Whether a scan is CT or MR: by what is known of it, never by the digits in the name of a foreign file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from duomod.datasets.spec import DatasetSpec, Modality
from duomod.errors import InputError
from duomod.preprocessing.intensity_check import INSIST, Intensities, findings
from duomod.training.model_info import ModelInfo


class AmbiguousError(InputError):
    """Nothing tells whether a scan is CT or MR."""


@dataclass(frozen=True)
class Decision:
    """How a scan is taken.

    Attributes:
        modality: What its voxels are.
        by: What told it, in words.
        doubts: Sentences about what is doubtful.
    """

    modality: Modality
    by: str
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModalityRule:
    """What decides, in this order: what the user says, the scan's DICOM header, the model's only modality, voxels that
    can be nothing but HU, and the number in the name of a case of the data set that the user says the scans are of.

    Attributes:
        asked: By the user, for all scans.
        trained_on: Modalities that the model can have seen in training.
        own: The data set that the user says the scans are of. Its rules hold for cases that are named after it.
        accept_intensities: Voxels that contradict the decision are doubtful only.
    """

    asked: Modality | None
    trained_on: tuple[Modality, ...]
    own: DatasetSpec | None = None
    accept_intensities: bool = False

    @classmethod
    def of(
        cls,
        info: ModelInfo,
        asked: Modality | None = None,
        own: DatasetSpec | None = None,
        accept_intensities: bool = False,
    ) -> ModalityRule:
        """The rule for scans that a model is to predict."""
        of_set = modalities_of(info.spec) if info.spec else ()
        return cls(asked, info.modalities or of_set, own, accept_intensities)

    def by_number(self, case_id: str) -> Modality | None:
        """The modality of a case of :attr:`own`, by its number; None for all others."""
        letters = re.match(r"[a-z]*", self.own.name.casefold()) if self.own else None
        if self.own is None or not letters or not letters[0] or not case_id.casefold().startswith(letters[0]):
            return None
        return self.own.case_modality(case_id)

    def decide(self, source: str, case_id: str, voxels: Intensities, header: Modality | None = None) -> Decision:
        """Say what a scan is, and make sure that its voxels can be that.

        Args:
            source: The scan, for messages.
            case_id: Its id.
            voxels: Facts about its voxels.
            header: What its DICOM header says.

        Raises:
            AmbiguousError: nothing tells.
            InputError: its voxels or its header contradict.
        """
        modality, by = self._told(source, case_id, voxels, header)
        found = findings(voxels, modality)
        fatal = [f"{source}: {one.text} ({INSIST})" for one in found if one.fatal and not self.accept_intensities]
        if fatal:
            raise InputError(fatal)
        doubts = [one.text for one in found]
        if modality not in self.trained_on:
            doubts.append(f"{modality} {by}, but the model was trained on {' and '.join(self.trained_on)} only")
        if header not in (None, modality):
            doubts.append(f"{modality} {by}, but its DICOM header says {header}")
        return Decision(modality, by, tuple(f"{source}: {text}" for text in doubts))

    def _told(self, source: str, case_id: str, voxels: Intensities, header: Modality | None) -> tuple[Modality, str]:
        if self.asked is not None:
            return self.asked, "as asked"
        if header is not None:
            if header not in self.trained_on:
                raise InputError(
                    f"{source}: {header} by its DICOM header, but the model was trained on"
                    f" {' and '.join(self.trained_on)} only (--modality {header} predicts it all the same)"
                )
            return header, "by its DICOM header"
        if len(self.trained_on) == 1:
            return self.trained_on[0], "as the model was trained on nothing else"
        if voxels.surely_hu:
            return "CT", "by its voxels"
        numbered = self.by_number(case_id)
        if numbered is not None:
            assert self.own is not None
            return numbered, f"by its number in {self.own.name}"
        raise AmbiguousError(source)


def modalities_of(spec: DatasetSpec) -> tuple[Modality, ...]:
    """The modalities that a data set has."""
    return tuple(sorted({spec.modality, *(rule.modality for rule in spec.modality_rules)}))


def ambiguous(sources: Sequence[str]) -> list[str]:
    """The line about all scans of which nothing tells what they are; none where there are none."""
    if not sources:
        return []
    return [
        f"{', '.join(sources)}: CT or MR? The model was trained on both, and neither a DICOM header nor the voxels"
        " tell; say it with --modality CT or --modality MR, the scans of each in a folder of their own"
    ]
