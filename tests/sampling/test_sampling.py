from __future__ import annotations

import hashlib
import inspect

import numpy as np
import pytest
import torch

from duomod.config import AugmentConfig, SamplingConfig, train_config
from duomod.datasets.phantom import write_phantom
from duomod.datasets.phantom.settings import PhantomSettings
from duomod.datasets.splits import Split, resolve_split
from duomod.errors import InputError
from duomod.preprocessing.preprocess import run_preprocess
from duomod.preprocessing.settings import PreprocessSettings
from duomod.preprocessing.store import Store
from duomod.sampling.batch import Batch, View
from duomod.sampling.patches import corner_around, random_corner, read_patch
from duomod.sampling.settings import ViewConfig, usual_view
from duomod.sampling.streams import Crop, UnlabelledStream, batches, case_at, class_counts
from duomod.sampling.views import with_views
from duomod.seeding import torch_seed


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
            assert stream.sample(step, 0).shape == (1, 16, 24, 24)

    def test_a_batch_has_no_place_for_unlabelled_labels(self) -> None:
        assert list(inspect.signature(Batch).parameters) == ["image_l", "label_l", "image_u", "views"]
        assert list(inspect.signature(View).parameters) == ["image", "geometry"]

    def test_views_are_made_of_the_batch_s_own_patches_whoever_makes_it(self, store: Store, split: Split) -> None:
        views = {"weak": usual_view("weak"), "strong": usual_view("strong")}
        place = crop()
        plain = list(batches(store, split, place, range(3), True))
        for workers in (0, 1):
            stream = batches(store, split, place, range(1, 3), True, workers, views)
            for step, batch in enumerate(stream, start=1):
                assert torch.equal(batch.image_l, plain[step].image_l)
                assert torch.equal(batch.unlabelled(), plain[step].unlabelled())
                expected = with_views(plain[step], views, place.seed, step)
                assert torch.equal(batch.views["strong"].image, expected.views["strong"].image)
                assert batch.views["weak"].image is batch.image_u

    def test_a_mirrored_view_exchanges_the_data_set_s_sides(self, store: Store, split: Split) -> None:
        mirrored = ViewConfig.model_validate({"transforms": [{"name": "flip_x", "probability": 1}]})
        batch = next(iter(batches(store, split, crop(), range(1), True, 0, {"mirrored": mirrored})))
        assert torch.equal(batch.views["mirrored"].image, batch.unlabelled().flip(4))
        assert all(g.swapped == store.spec.sided_label_pairs for g in batch.views["mirrored"].geometry)

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

    @pytest.mark.parametrize(
        ("preset", "augment", "images", "labels"),
        [
            ("reference", {}, "bb0f32c8ad728145", "eb18f6e0c3eac272"),
            ("default", {"transforms": []}, "a58735297f0654b7", "be0ad55c6db0469d"),
            ("compact", {"transforms": []}, "f3db5810afa8f993", "b2a6f14cdc6bef29"),
        ],
    )
    def test_the_reference_and_a_list_without_transforms_keep_version_0_1_s_patches(
        self, store: Store, split: Split, preset: str, augment: dict[str, object], images: str, labels: str
    ) -> None:
        """Hashes of what version 0.1 drew: 6 steps, images in thousandths."""
        config = train_config(preset, {"augment": augment})
        place = Crop((16, 24, 24), 3, config.sampling, config.augment)
        of_images, of_labels = hashlib.sha256(), hashlib.sha256()
        for batch in batches(store, split, place, range(6), True):
            for image in (batch.image_l, batch.unlabelled()):
                of_images.update((image * 1000).round().to(torch.int16).numpy().tobytes())
            of_labels.update(batch.label_l.to(torch.uint8).numpy().tobytes())
        assert (of_images.hexdigest()[:16], of_labels.hexdigest()[:16]) == (images, labels)

    def test_the_reference_counts_the_crops_that_version_0_1_counted(self, store: Store, split: Split) -> None:
        config = train_config("reference")
        place = Crop((16, 24, 24), 3, config.sampling, config.augment)
        counts = class_counts(store, split.labelled, place, "crops").tolist()
        assert counts == [14197, 503, 190, 588, 0, 2911, 0, 43]

    def test_both_streams_are_augmented_each_in_its_own_way(self, store: Store, split: Split) -> None:
        def first(augment: object) -> Batch:
            config = AugmentConfig.model_validate(augment)
            place = Crop((16, 24, 24), 0, SamplingConfig(), config)
            return next(iter(batches(store, split, place, range(1), True)))

        plain, flipped = first([]), first([{"name": "flip_y", "probability": 1}])
        assert torch.equal(flipped.image_l, plain.image_l.flip(3))
        assert torch.equal(flipped.label_l, plain.label_l.flip(2))
        assert torch.equal(flipped.unlabelled(), plain.unlabelled().flip(3))
        bright = first([{"name": "brightness", "amount": 0.5}])
        inside = (plain.image_l > 0.1) & (plain.image_l < 0.9) & (bright.image_l > 0) & (bright.image_l < 1)
        shifts = [((bright.image_l - plain.image_l)[i][inside[i]]).median() for i in range(2)]
        assert shifts[0] != shifts[1]

    def test_a_mirrored_patch_swaps_the_data_set_s_sided_organs(self, store: Store, split: Split) -> None:
        def first(labels: str) -> Batch:
            entry = {"name": "flip_x", "probability": 1, "labels": labels}
            place = Crop((32, 48, 48), 0, SamplingConfig(), AugmentConfig.model_validate([entry]))
            return next(iter(batches(store, split, place, range(1), False)))

        ((right, left),) = store.spec.sided_label_pairs
        plain, swapped = first("plain").label_l, first("swap_sides").label_l
        assert (plain == right).any()
        assert torch.equal(plain == right, swapped == left)
        assert torch.equal(plain == left, swapped == right)
