"""A trained model as a function of images in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from torch import nn

from duomod.datasets.spec import Modality, load_spec
from duomod.errors import InputError
from duomod.flags import FIRST_GPU
from duomod.inference.in_memory import NibabelImage, Scan, like_scan, to_itk
from duomod.inference.predict import predict_image
from duomod.inference.settings import WindowSettings
from duomod.settings import checked
from duomod.training.load import load_predictor
from duomod.training.model_info import ModelInfo
from duomod.training.precision import choose_device, lay_out


class Predictor:
    """``Predictor.load("best_model.pth")(image)`` is the label map of a scan, on the scan's own grid.

    Attributes:
        info: What the checkpoint says of its model: method, network, data set description.
    """

    def __init__(self, model: nn.Module, info: ModelInfo, settings: WindowSettings, device: str) -> None:
        self.info = info
        self._model, self._settings, self._device = model, settings, device

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        gpu: str = FIRST_GPU,
        dataset: str | None = None,
        plugin: Path | str | None = None,
        **window: Any,
    ) -> Self:
        """Load a checkpoint.

        Args:
            path: ``best_model.pth``, ``last.pth``, or a published checkpoint.
            gpu: GPU number; "" for the CPU, which is also taken where there is no GPU.
            dataset: For published checkpoints: what they were trained on, a built-in name or a YAML file.
            plugin: Python file of the plug-in it was trained with, where it cannot do without. It is run.
            window: ``overlap``, ``blending``, ``batch_size``, ``precision``, ``patch`` (``duomod settings predict``).

        Raises:
            InputError: not a checkpoint, settings that are wrong, or nothing known of the training's data.
        """
        settings = checked(WindowSettings, window, see="duomod settings predict")
        device = choose_device(gpu)
        model, info = load_predictor(
            Path(path),
            str(device),
            spec=load_spec(dataset) if dataset else None,
            plugin=Path(plugin) if plugin else None,
        )
        if info.spec is None:
            raise InputError(f"{path}: does not say what data it was trained on; name the data set (dataset=...)")
        return cls(lay_out(model, device), info, settings, str(device))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the label values, background (0) first."""
        assert self.info.spec is not None
        return self.info.spec.classes

    def __call__(
        self, scan: Scan, *, modality: Modality | None = None, accept_intensities: bool = False
    ) -> sitk.Image | NibabelImage | NDArray[np.uint8]:
        """Segment a scan.

        Args:
            scan: A 3D SimpleITK image, a nibabel image, or (array indexed (x, y, z), spacing in mm or None, 4x4 affine
                from index to RAS mm or None). Any orientation and spacing; HU for CT.
            modality: ``CT`` or ``MR``; default: the model's if it was trained on one only, or CT where the voxels can
                be nothing but HU.
            accept_intensities: Take voxels that seem to be no HU (CT), or no MR.

        Returns:
            uint8 labels on the scan's grid, in the scan's kind: an image, or an array indexed (x, y, z).

        Raises:
            InputError: see :func:`duomod.inference.in_memory.to_itk` and
                :func:`duomod.inference.predict.predict_image`.
        """
        image = to_itk(scan)
        labels = predict_image(
            self._model,
            self.info,
            image,
            self._settings,
            modality=modality,
            accept_intensities=accept_intensities,
            device=self._device,
        )
        return like_scan(labels, scan)
