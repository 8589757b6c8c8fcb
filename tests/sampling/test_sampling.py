from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

from duomod.config import AugmentConfig, SamplingConfig
from duomod.datasets.phantom import write_phantom
from duomod.datasets.phantom_settings import PhantomSettings
from duomod.datasets.splits import Split, resolve_split
from duomod.errors import InputError
from duomod.preprocessing.preprocess import run_preprocess
from duomod.preprocessing.settings import PreprocessSettings
from duomod.preprocessing.store import Store
from duomod.sampling.augment import Augmentation, apply, draw
from duomod.sampling.batch import Batch
from duomod.sampling.patches import corner_around, random_corner, read_patch
from duomod.sampling.streams import Crop, UnlabelledStream, batches, case_at, class_counts
from duomod.seeding import generator, torch_seed


class TestPatches:
    def test_the_voxel_is_in_the_middle_where_there_is_room(self) -> None:
        assert corner_around((20, 20, 20), (40, 40, 40), (8, 10, 12)) == (16, 15, 14)

    def test_the_patch_is_moved_inside(self) -> None:
        assert corner_around((0, 39, 20), (40, 40, 40), (8, 8, 8)) == (0, 32, 16)

    @pytest.mark.parametrize("offset", [0.0, 0.3, 0.999, 1.0])
    def test_the_voxel_lies_in_the_patch_whatever_the_offset(self, offset: float) -> None:
        for voxel in ((0, 5, 39), (17, 20, 3)):
            corner = corner_around(voxel, (40, 40, 40), (8, 9, 7), (offset,) * 3)
            assert all(c <= v < c + p for c, v, p in zip(corner, voxel, (8, 9, 7), strict=True))

    def test_a_volume_smaller_than_the_patch_is_centred_and_padded(self) -> None:
        volume = np.ones((3, 4, 5))
        corner = corner_around((1, 1, 1), (3, 4, 5), (8, 8, 8))
        voxels, padding = read_patch(volume, corner, (8, 8, 8))
        assert voxels.shape == (3, 4, 5)
        assert np.pad(voxels, padding).shape == (8, 8, 8)
        assert padding == [(2, 3), (2, 2), (1, 2)]

    def test_random_corners_cover_the_volume_and_stay_inside(self) -> None:
        rng = np.random.default_rng(0)
        corners = np.array([random_corner(rng, (10, 10, 10), (8, 8, 8)) for _ in range(300)])
        assert corners.min() == 0
        assert corners.max() == 2

    def test_the_reference_margin_moves_small_axes_about(self) -> None:
        rng = np.random.default_rng(0)
        corners = {random_corner(rng, (4, 20, 20), (8, 8, 8), margin=3)[0] for _ in range(300)}
        assert corners == set(range(-5, 2))  # padded by 2 + 3 on both sides: 14 voxels, 7 places


class TestAugmentation:
    label = torch.randint(0, 4, (5, 6, 7))
    image = torch.rand(5, 6, 7)

    def test_mirroring_swaps_sided_organs(self) -> None:
        image, label = apply(self.image, self.label, Augmentation(flip_x=True), ((1, 2),))
        torch.testing.assert_close(image, self.image.flip(2))
        mirrored = self.label.flip(2)
        assert label is not None
        assert ((label == 2) == (mirrored == 1)).all()
        assert ((label == 1) == (mirrored == 2)).all()
        assert ((label == 3) == (mirrored == 3)).all()

    def test_mirroring_twice_is_nothing(self) -> None:
        once = apply(self.image, self.label, Augmentation(flip_x=True), ((1, 2),))
        image, label = apply(*once, Augmentation(flip_x=True), ((1, 2),))
        assert label is not None
        torch.testing.assert_close(image, self.image)
        torch.testing.assert_close(label, self.label)

    def test_flipping_front_to_back_swaps_nothing(self) -> None:
        _, label = apply(self.image, self.label, Augmentation(flip_y=True), ((1, 2),))
        assert label is not None
        torch.testing.assert_close(label, self.label.flip(1))

    def test_the_identity_warp_changes_nothing(self) -> None:
        identity = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
        image, label = apply(self.image, self.label, Augmentation(affine=identity))
        torch.testing.assert_close(image, self.image, atol=1e-5, rtol=0)
        assert label is not None
        torch.testing.assert_close(label, self.label)

    def test_a_quarter_turn_is_a_rotation_in_voxels(self) -> None:
        turn = ((0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))  # x y z: output (x, y) reads input (-y, x)
        image = torch.rand(3, 5, 5)
        warped, _ = apply(image, None, Augmentation(affine=turn))
        torch.testing.assert_close(warped, torch.rot90(image, 1, (1, 2)), atol=1e-5, rtol=0)

    def test_intensities_stay_in_range(self) -> None:
        config = AugmentConfig(intensity=1.0)
        for i in range(20):
            image, _ = apply(self.image, None, draw(generator(0, "test", i), config))
            assert image.min() >= 0
            assert image.max() <= 1

    def test_settings_do_not_shift_other_draws(self) -> None:
        plain = draw(generator(0, "x"), AugmentConfig(flip_x="plain"))
        strong = draw(generator(0, "x"), AugmentConfig(flip_x="plain", intensity=1.0, rotate_degrees=20))
        assert plain.flip_x == strong.flip_x


class TestSeeding:
    def test_purposes_and_indices_are_independent(self) -> None:
        seeds = {torch_seed(s, p, i) for s in (0, 1) for p in ("a", "b") for i in (0, 1, 2)}
        assert len(seeds) == 12

    def test_the_same_question_gets_the_same_answer(self) -> None:
        assert torch_seed(3, "step", 7) == torch_seed(3, "step", 7)

    def test_a_pass_visits_every_case_once(self) -> None:
        cases = [str(i) for i in range(7)]
        for first in (0, 7, 14):
            assert sorted(case_at(cases, first + i, 0, "x", False) for i in range(7)) == cases


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("sampling")
    raw = write_phantom(PhantomSettings(out=folder / "raw", cases=8, preset="tiny"))
    return Store.open(run_preprocess(PreprocessSettings(data_path=raw, output_path=folder / "data")))


@pytest.fixture(scope="module")
def split(store: Store) -> Split:
    return resolve_split(store, labeled_ratio=None, labeled_count=2, split=None, seed=0)


def crop(**sampling: object) -> Crop:
    return Crop((16, 24, 24), 0, SamplingConfig.model_validate(sampling), AugmentConfig(flip_x="none"))


class TestStreams:
    def test_a_batch_has_the_promised_shapes(self, store: Store, split: Split) -> None:
        batch = next(iter(batches(store, split, crop(batch_unlabeled=3), range(1), True)))
        assert batch.image_l.shape == (2, 1, 16, 24, 24)
        assert batch.label_l.shape == (2, 16, 24, 24)
        assert batch.label_l.dtype == torch.int64
        assert batch.image_u is not None
        assert batch.image_u.shape == (3, 1, 16, 24, 24)
        assert batch.image_l.min() >= 0
        assert batch.image_l.max() <= 1

    def test_steps_do_not_depend_on_where_training_started(self, store: Store, split: Split) -> None:
        whole = list(batches(store, split, crop(), range(4), True))
        resumed = list(batches(store, split, crop(), range(2, 4), True))
        for a, b in zip(whole[2:], resumed, strict=True):
            torch.testing.assert_close(a.image_l, b.image_l)
            torch.testing.assert_close(a.unlabelled(), b.unlabelled())

    def test_workers_change_nothing(self, store: Store, split: Split) -> None:
        alone = list(batches(store, split, crop(), range(3), True))
        helped = list(batches(store, split, crop(), range(3), True, workers=1))
        for a, b in zip(alone, helped, strict=True):
            torch.testing.assert_close(a.image_l, b.image_l)
            torch.testing.assert_close(a.label_l, b.label_l)

    def test_balanced_crops_show_rare_organs_far_more_often(self, store: Store, split: Split) -> None:
        rare = store.spec.num_classes - 1

        def seen(mode: str) -> int:
            small = Crop(
                (6, 6, 6), 0, SamplingConfig.model_validate({"labelled": mode, "labelled_share": 1.0}), AugmentConfig()
            )
            stream = batches(store, split, small, range(40), False)
            return sum(int((b.label_l == rare).flatten(1).any(1).sum()) for b in stream)

        assert seen("balanced") > 2 * seen("foreground")

    def test_an_unlabelled_stream_never_opens_a_label(
        self, store: Store, split: Split, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def trap(self: Store, case_id: str) -> None:
            raise AssertionError(f"label of {case_id} was opened")

        monkeypatch.setattr(Store, "label", trap)
        stream = UnlabelledStream(store, split.unlabelled, crop())
        for step in range(4):
            assert stream.sample(step, 0).shape == (16, 24, 24)

    def test_a_batch_has_no_place_for_unlabelled_labels(self) -> None:
        assert list(inspect.signature(Batch).parameters) == ["image_l", "label_l", "image_u"]

    def test_no_unlabelled_case_is_explained(self, store: Store) -> None:
        alone = Split("labeled_all", tuple(store.cases)[:2], (), (), ())
        with pytest.raises(InputError, match="no unlabelled case"):
            next(iter(batches(store, alone, crop(), range(1), True)))

    def test_a_patch_larger_than_the_scan_is_padded(self, store: Store, split: Split) -> None:
        large = Crop((96, 96, 96), 0, SamplingConfig(), AugmentConfig(flip_x="none"))
        batch = next(iter(batches(store, split, large, range(1), True)))
        assert batch.image_l.shape == (2, 1, 96, 96, 96)

    def test_class_counts_come_from_where_the_method_says(self, store: Store, split: Split) -> None:
        cases = [*split.labelled, *split.unlabelled]
        whole = class_counts(store, cases, crop())
        labels = [np.bincount(store.label(case).ravel(), minlength=store.spec.num_classes) for case in cases]
        assert whole.tolist() == np.sum(labels, axis=0).tolist()
        assert class_counts(store, cases, crop(), "first_volumes").tolist() == np.sum(labels[:4], axis=0).tolist()
        crops = class_counts(store, cases, crop(batch=2), "crops")
        assert crops.sum() == len(cases) * np.prod(crop().patch)
        assert torch.equal(crops, class_counts(store, cases, crop(batch=2), "crops"))
