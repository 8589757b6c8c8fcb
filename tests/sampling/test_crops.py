"""Where crops come from: each setting of the streams, on volumes whose voxels say where they lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
import yaml

from duomod.config import train_config
from duomod.preprocessing.preprocess import run_preprocess
from duomod.preprocessing.settings import PreprocessSettings
from duomod.preprocessing.store import Store
from duomod.sampling.streams import Crop, LabelledStream, UnlabelledStream

SHAPE = (20, 20, 20)
PATCH = (5, 5, 5)
#: A large organ, and one of a single voxel far from every border (z y x).
SPECK = (10, 9, 8)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two cases; inside a body of 12 x 12 x 12 the grey level is not air."""
    folder = tmp_path_factory.mktemp("crops")
    for case in range(2):
        image = np.full(SHAPE, -1000, dtype=np.int16)
        image[4:16, 4:16, 4:16] = 40 + 10 * case
        label = np.zeros(SHAPE, dtype=np.uint8)
        label[4:8, 4:14, 4:14] = 1
        label[SPECK] = 2
        for kind, array in (("imagesTr", image), ("labelsTr", label)):
            (folder / "raw" / kind).mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(sitk.GetImageFromArray(array), folder / "raw" / kind / f"case_{case}.nii.gz")
    spec = {
        "name": "speck",
        "classes": ["background", "large", "speck"],
        "spacing": [1, 1, 1],
        "window": [0, 100],
        "patch": list(PATCH),
        "split": {"eval": 0, "test": 0},
    }
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    return Store.open(
        run_preprocess(
            PreprocessSettings(
                data_path=folder / "raw", output_path=folder / "data", dataset=str(folder / "spec.yaml"), workers=1
            )
        )
    )


def crop_settings(patch: Any, seed: int, **sampling: Any) -> Crop:
    config = train_config("default", {"sampling": sampling, "augment": {"flip_x": "none"}})
    return Crop(patch, seed, config.sampling, config.augment)


def labelled(store: Store, seed: int = 0, steps: int = 60, patch: Any = PATCH, **sampling: Any) -> list[Any]:
    """Image and label of the first samples, each of the patch's shape."""
    stream = LabelledStream(store, ["case_0", "case_1"], crop_settings(patch, seed, **{"batch": 1, **sampling}))
    return [tuple(part.reshape(patch) for part in stream.sample(step, 0)) for step in range(steps)]


def places(samples: list[Any], label: int) -> list[tuple[int, ...]]:
    """Where in its patch a label's only voxel lies, of the patches that have it."""
    return [tuple(np.argwhere(np.asarray(s[1]) == label)[0]) for s in samples if (s[1] == label).any()]


def share_with(samples: list[Any], label: int) -> float:
    return float(np.mean([bool((s[1] == label).any()) for s in samples]))


class TestLabelledCrops:
    def test_without_jitter_the_chosen_voxel_is_the_patch_s_centre(self, store: Store) -> None:
        samples = labelled(store, labelled_share=1.0)
        centred = [bool(s[1][2, 2, 2] in (1, 2)) for s in samples]
        # The large organ's voxels at the body's border are 4 voxels from the volume's: room for half a patch.
        assert all(centred)

    def test_with_jitter_it_lies_anywhere(self, store: Store) -> None:
        still = places(labelled(store, labelled_share=1.0), 2)
        moved = places(labelled(store, labelled_share=1.0, jitter=1.0), 2)
        assert still.count((2, 2, 2)) > len(still) / 2
        for axis in range(3):
            assert {place[axis] for place in moved} == {0, 1, 2, 3, 4}

    def test_balanced_crops_choose_the_class_first(self, store: Store) -> None:
        assert 0.3 < share_with(labelled(store, labelled_share=1.0, labelled="balanced"), 2) < 0.75

    def test_any_voxel_of_the_class_may_be_the_centre(self, store: Store) -> None:
        of_the_large = [s[1] for s in labelled(store, labelled_share=1.0) if s[1][2, 2, 2] == 1]
        assert len({np.asarray(label).tobytes() for label in of_the_large}) > 5

    def test_foreground_crops_go_by_volume(self, store: Store) -> None:
        samples = labelled(store, labelled_share=1.0, labelled="foreground")
        assert share_with(samples, 1) == 1
        assert share_with(samples, 2) < 0.2

    def test_uniform_crops_may_miss_all_organs(self, store: Store) -> None:
        samples = labelled(store, labelled_share=1.0, labelled="uniform")
        assert share_with(samples, 1) < 0.8
        assert np.mean([bool(s[1][2, 2, 2] in (1, 2)) for s in samples]) < 0.3

    @pytest.mark.parametrize(("share", "low", "high"), [(1.0, 1.0, 1.0), (0.8, 0.7, 0.98), (0.0, 0.1, 0.75)])
    def test_the_share_of_centred_crops_is_the_setting_s(
        self, store: Store, share: float, low: float, high: float
    ) -> None:
        samples = labelled(store, steps=200, labelled_share=share)
        centred = float(np.mean([bool(s[1][2, 2, 2] in (1, 2)) for s in samples]))
        assert low <= (centred if share else share_with(samples, 1)) <= high
        if share == 0:
            assert centred < 0.3

    def test_the_seed_decides_the_crops(self, store: Store) -> None:
        first, again, other = (torch.stack([s[1] for s in labelled(store, seed=seed)]) for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_samples_of_one_step_are_different_crops(self, store: Store) -> None:
        stream = LabelledStream(store, ["case_0"], crop_settings(PATCH, 0, batch=2))
        pairs = [(stream.sample(step, 0)[1], stream.sample(step, 1)[1]) for step in range(8)]
        assert not all(torch.equal(a, b) for a, b in pairs)

    def test_cases_come_in_passes_or_with_replacement(self, store: Store) -> None:
        def cases(**sampling: Any) -> list[int]:
            samples = labelled(store, steps=40, labelled_share=1.0, **sampling)
            return [round(float(image.max()) * 10) - 4 for image, _ in samples]

        passes = cases()
        assert all(sorted(passes[i : i + 2]) == [0, 1] for i in range(0, 40, 2))
        drawn = cases(labelled_replacement=True)
        assert not all(sorted(drawn[i : i + 2]) == [0, 1] for i in range(0, 40, 2))

    def test_the_reference_s_margin_pads_short_axes_further(self, store: Store) -> None:
        def depths(margin: int) -> set[int]:
            samples = labelled(
                store, patch=(24, 5, 5), labelled="uniform", labelled_share=0.0, small_axis_margin=margin
            )
            return {int(np.argwhere(np.asarray(image))[:, 0].min()) for image, _ in samples if image.any()}

        assert depths(0) == {6}  # the volume in the patch's middle, the body four voxels further
        assert depths(3) == {3, 4, 5, 6, 7, 8, 9}


class TestUnlabelledCrops:
    def crops(self, store: Store, seed: int = 0, **sampling: Any) -> torch.Tensor:
        stream = UnlabelledStream(store, ["case_0", "case_1"], crop_settings(PATCH, seed, **sampling))
        return torch.stack([stream.sample(step, index).reshape(PATCH) for step in range(40) for index in range(2)])

    def test_they_are_centred_on_the_body(self, store: Store) -> None:
        assert bool((self.crops(store)[:, 2, 2, 2] > 0).all())

    def test_uniform_ones_are_not(self, store: Store) -> None:
        middle = self.crops(store, unlabelled="uniform")[:, 2, 2, 2] > 0
        assert 0.1 < float(middle.float().mean()) < 0.8

    def test_the_share_of_labelled_crops_does_not_concern_them(self, store: Store) -> None:
        assert bool((self.crops(store, labelled_share=0.0)[:, 2, 2, 2] > 0).all())

    def test_the_seed_and_the_sample_decide_them(self, store: Store) -> None:
        first = self.crops(store)
        assert torch.equal(first, self.crops(store))
        assert not torch.equal(first, self.crops(store, seed=1))
        assert len({tuple(crop.flatten().tolist()) for crop in first}) > 20

    def test_the_seed_decides_where_in_a_case_they_lie(self, store: Store) -> None:
        streams = [UnlabelledStream(store, ["case_0"], crop_settings(PATCH, seed)) for seed in (0, 1)]
        first, other = (torch.stack([stream.sample(step, 0) for step in range(20)]) for stream in streams)
        assert not torch.equal(first, other)

    def test_every_pass_has_every_case_once(self, store: Store) -> None:
        cases = [round(float(crop.max()) * 10) - 4 for crop in self.crops(store)]
        assert all(sorted(cases[i : i + 2]) == [0, 1] for i in range(0, 80, 2))
