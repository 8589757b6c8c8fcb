"""A series: the files that belong together, and the grid that their slices form."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from pydicom.dataset import Dataset

from duomod.datasets.dicom.header import Header, Unusable, text, whole
from duomod.datasets.dicom.planes import Plane, planes_of
from duomod.datasets.dicom.stack import named, sentences, stack
from duomod.datasets.grid import Geometry
from duomod.datasets.spec import Modality
from duomod.errors import InputError

#: HU beyond these are no part of a patient.
_LEAST_HU, _MOST_HU = -10_000, 10_000


@dataclass(frozen=True)
class Series:
    """A checked series.

    Attributes:
        case_id: Names its result.
        folder: Where its files lie; they are named within it.
        title: What its headers call it, for people.
        modality_name: DICOM's word for the modality, such as ``CT``, ``MR`` or ``PT``; empty where it is not said.
        planes: Its slices along their normal.
        geometry: The grid they form.
        doubts: Sentences about what is doubtful; each names the folder.
    """

    case_id: str
    folder: Path
    title: str
    modality_name: str
    planes: tuple[Plane, ...]
    geometry: Geometry
    doubts: tuple[str, ...]

    @property
    def modality(self) -> Modality | None:
        """The modality where it is one that duomod knows; None for others."""
        return cast(Modality, self.modality_name) if self.modality_name in ("CT", "MR") else None

    @property
    def called(self) -> str:
        """What messages call it: its folder, or the one file that holds all of it."""
        files = {plane.path for plane in self.planes}
        return str(self.folder) if len(files) > 1 else f"{files.pop()} ({len(self.planes)} frames)"

    @property
    def identity(self) -> str:
        """Another text for other or changed files."""
        facts = [path.stat() for path in {plane.path for plane in self.planes}]
        size, newest = sum(fact.st_size for fact in facts), max(fact.st_mtime_ns for fact in facts)
        return f"{self.folder.name} {self.title} {size} {newest}"


@dataclass(eq=False)
class Candidate:
    """Files of one SeriesInstanceUID, not checked yet.

    Attributes:
        headers: Its slices' files.
        wrong: What is wrong with files that are of it or may be, by file.
    """

    uid: str
    headers: list[Header] = field(default_factory=list)
    wrong: list[tuple[Path, Unusable]] = field(default_factory=list)

    @property
    def folders(self) -> list[Path]:
        """The folders its slices lie in."""
        return list(dict.fromkeys(header.path.parent for header in self.headers))

    @property
    def folder(self) -> Path:
        """The innermost folder that holds all of them."""
        first, *others = self.folders
        return next(one for one in (first, *first.parents) if all(other.is_relative_to(one) for other in others))

    @property
    def number(self) -> str:
        """SeriesNumber."""
        return text(self.headers[0].data, "SeriesNumber")

    @property
    def description(self) -> str:
        """SeriesDescription."""
        return text(self.headers[0].data, "SeriesDescription")

    @property
    def title(self) -> str:
        """What to call it in a list of series."""
        data = self.headers[0].data
        files = f"{len(self.headers)} file{'' if len(self.headers) == 1 else 's'}"
        facts = [text(data, "Modality") or "no modality", f"number {self.number}" if self.number else "no number"]
        facts += [f"'{self.description}'"] if self.description else []
        return f"{self.uid or 'no SeriesInstanceUID'} ({', '.join([*facts, files])})"

    def check(self, case_id: str) -> Series:
        """Make sure that all its files are whole and form one regular grid.

        Raises:
            InputError: lists what is wrong; each sentence names the folder and the files.
        """
        wrong = list(self.wrong)
        planes: list[Plane] = []
        for header in self.headers:
            try:
                planes += planes_of(header)
            except Unusable as reason:
                wrong.append((header.path, reason))
        problems = sentences(self.folder, wrong)
        copies = self._copies()
        problems += [f"{self.folder}: the same slice twice ({copies}); remove the copies"] if copies else []
        if problems:
            raise InputError(problems)
        data = self.headers[0].data
        try:
            size = whole(data, "Rows") or 0, whole(data, "Columns") or 0
            ordered, geometry, doubts = stack(planes, size, self.folder)
        except Unusable as reason:
            raise InputError(f"{self.folder}: {reason.what}; {reason.advice}") from None
        doubts += self._doubts(ordered)
        return Series(
            case_id,
            self.folder,
            self.title,
            # "Other", which programs write that do not know, says nothing.
            "" if text(data, "Modality") == "OT" else text(data, "Modality"),
            ordered,
            geometry,
            tuple(f"{self.folder}: {doubt}" for doubt in doubts),
        )

    def _copies(self) -> str:
        """The files that hold one SOPInstanceUID."""
        holders: dict[str, list[Path]] = defaultdict(list)
        for header in self.headers:
            holders[text(header.data, "SOPInstanceUID")].append(header.path)
        pairs = [named(paths, self.folder) for uid, paths in holders.items() if uid and len(paths) > 1]
        return "; ".join(pairs[:3]) + (f"; {len(pairs) - 3} more" if len(pairs) > 3 else "")

    def _doubts(self, planes: tuple[Plane, ...]) -> list[str]:
        data = self.headers[0].data
        found = []
        modality = text(data, "Modality")
        if modality not in ("CT", "MR"):
            found.append(f"the modality is {modality or 'not said'}, neither CT nor MR")
        promised = _told(data, "NumberOfSeriesRelatedInstances") or _told(data, "ImagesInAcquisition") or 0
        if len(planes) == len(self.headers) < promised:
            found.append(f"{len(planes)} slices, but its headers speak of {promised} images: some may be missing")
        if text(data, "LossyImageCompression") == "01":
            found.append("the images were packed with loss")
        rescales = Counter(plane.rescale for plane in planes)
        # In PET every slice has its own.
        if len(rescales) > 1 and modality != "PT":
            usual = rescales.most_common(1)[0][0]
            places = named((plane.path for plane in planes if plane.rescale != usual), self.folder)
            found.append(f"RescaleSlope or RescaleIntercept of {places} differ from the other slices'; each is applied")
        if modality == "CT":
            found += self._ct_doubts(planes)
        return found

    def _ct_doubts(self, planes: tuple[Plane, ...]) -> list[str]:
        found = []
        if planes[0].rescale is None:
            found.append("no RescaleSlope and RescaleIntercept: the stored numbers are taken for HU")
        kind = planes[0].agree["RescaleType"]
        if kind not in ("", "HU", "US"):
            found.append(f"its values are of the type {kind}, not HU")
        padding = _told(self.headers[0].data, "PixelPaddingValue")
        slope, intercept = planes[0].rescale or (1.0, 0.0)
        if padding is not None and not _LEAST_HU <= padding * slope + intercept <= _MOST_HU:
            value = padding * slope + intercept
            found.append(f"PixelPaddingValue {padding} stands for {value:g} HU; it is left as it is")
        return found


def _told(data: Dataset, keyword: str) -> int | None:
    """A whole number that nothing depends on; None where there is none or it makes no sense."""
    try:
        return whole(data, keyword)
    except Unusable:
        return None
