"""Splits are nested, disjoint, seeded and complete, and what the user lists is respected."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duomod.datasets.division import beginning, divide
from duomod.datasets.spec import DatasetSpec, parse_spec
from duomod.datasets.splits import Split, copy_lists, make_splits, raw_list_problems, read_list, resolve_split
from duomod.errors import InputError


@dataclass(frozen=True)
class Facts:
    role: str = "Tr"
    labelled: bool = True
    voxels: tuple[int, ...] | None = (9, 1, 1)


@dataclass(frozen=True)
class FakeStore:
    folder: Path
    cases: Mapping[str, Facts]
    spec: DatasetSpec = field(default_factory=lambda: spec())


def spec(**split: Any) -> DatasetSpec:
    return parse_spec({"name": "x", "classes": ["background", "a", "b"], "split": split}, "x")


def cases(labelled: int = 0, unlabelled: int = 0, va: int = 0, ts: int = 0) -> dict[str, Facts]:
    return {
        **{f"tr{i:03}": Facts() for i in range(labelled)},
        **{f"un{i:03}": Facts(labelled=False, voxels=None) for i in range(unlabelled)},
        **{f"va{i:03}": Facts("Va") for i in range(va)},
        **{f"ts{i:03}": Facts("Ts") for i in range(ts)},
    }


def store(folder: Path, *, rules: dict[str, Any] | None = None, seed: int | None = 0, **counts: int) -> FakeStore:
    made = FakeStore(folder, cases(**counts), spec(**(rules or {})))
    if seed is not None:
        make_splits(made, seed)
    return made


def write(store: FakeStore, name: str, text: str) -> None:
    (store.folder / "splits").mkdir(exist_ok=True)
    (store.folder / "splits" / f"{name}.txt").write_text(text, encoding="utf-8")


def disjoint(split: Split) -> bool:
    parts = [*split.labelled, *split.unlabelled, *split.eval, *split.test]
    return len(parts) == len(set(parts))


class TestDivision:
    @settings(max_examples=150, deadline=None)
    @given(
        voxels=st.lists(st.tuples(st.just(9), st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30),
        unlabelled=st.integers(0, 10),
        va=st.integers(0, 3),
        order=st.sampled_from(["seeded", "sorted"]),
        persons=st.integers(0, 3),
        seed=st.integers(0, 5),
    )
    def test_parts_are_disjoint_complete_and_keep_persons_together(
        self, voxels: list[tuple[int, int, int]], unlabelled: int, va: int, order: str, persons: int, seed: int
    ) -> None:
        known = {f"tr{i:03}": Facts(voxels=v) for i, v in enumerate(voxels)} | cases(unlabelled=unlabelled, va=va)
        groups = [[f"tr{2 * i:03}", f"tr{2 * i + 1:03}"] for i in range(persons)]
        description = spec(order=order, same_person=groups, eval=0.2, test="Va")
        parts = divide(known, description, seed)
        together = [*parts.train, *parts.eval, *parts.test]
        assert sorted(together) == sorted(known)
        assert set(parts.order) == {c for c in parts.train if known[c].labelled}
        of_part = {c: name for name in ("train", "eval", "test") for c in getattr(parts, name)}
        for group in groups:
            assert len({of_part[c] for c in group if c in of_part}) <= 1
        prefixes = [set(beginning(parts.order, n, groups)) for n in range(1, len(parts.order) + 1)]
        for smaller, larger in itertools.pairwise(prefixes):
            assert smaller <= larger
        for chosen in prefixes:
            assert chosen
            for group in groups:
                there = set(group) & set(parts.order)
                assert not there & chosen or there <= chosen
        assert parts == divide(known, description, seed)

    @settings(max_examples=100, deadline=None)
    @given(
        voxels=st.lists(st.tuples(st.just(9), st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=20),
        seed=st.integers(0, 5),
    )
    def test_two_labelled_cases_have_every_class_that_two_cases_can_have(
        self, voxels: list[tuple[int, int, int]], seed: int
    ) -> None:
        # With two foreground classes, one case for each is always enough.
        known = {f"tr{i:03}": Facts(voxels=v) for i, v in enumerate(voxels)}
        parts = divide(known, spec(eval=0.2, test=0.2), seed)
        present = {label for v in voxels for label in (1, 2) if v[label]}
        covered = {label for case in parts.order[:2] for label in (1, 2) if known[case].voxels[label]}  # type: ignore[index]
        assert covered == present

    def test_the_rare_class_is_in_the_smallest_part_for_every_seed(self) -> None:
        known = cases(labelled=100)
        known["tr042"] = Facts(voxels=(9, 1, 1))
        for case in known.keys() - {"tr042"}:
            known[case] = Facts(voxels=(9, 1, 0))
        assert all("tr042" in divide(known, spec(test=0.2), seed).order[:1] for seed in range(20))

    def test_other_seeds_choose_others(self) -> None:
        orders = {divide(cases(labelled=30), spec(), seed).order[:3] for seed in range(5)}
        assert len(orders) == 5

    def test_sorted_order_labels_the_first_and_evaluates_the_last(self) -> None:
        parts = divide(cases(labelled=80, va=10), spec(order="sorted", eval=8, test="Va"), 3)
        assert parts.order[:2] == ("tr000", "tr001")
        assert parts.eval == tuple(f"tr{i:03}" for i in range(72, 80))
        assert len(parts.test) == 10

    @pytest.mark.parametrize(
        ("counts", "rules", "sizes"),
        [
            ({"labelled": 20, "va": 5}, {}, (18, 2, 5)),
            ({"labelled": 20, "ts": 5}, {}, (18, 2, 5)),
            ({"labelled": 20}, {}, (14, 2, 4)),
            ({"labelled": 20, "va": 3, "ts": 5}, {"eval": "Va", "test": "Ts"}, (20, 3, 5)),
            ({"labelled": 20, "va": 3}, {"eval": "Va", "test": "Ts"}, (16, 3, 4)),
            ({"labelled": 20, "va": 3}, {"eval": "Va", "test": "Va"}, (18, 2, 3)),
            ({"labelled": 27}, {"eval": 3, "test": 6}, (18, 3, 6)),
            ({"labelled": 3}, {}, (2, 1, 0)),
            ({"labelled": 1}, {}, (1, 0, 0)),
            ({"labelled": 1, "unlabelled": 9}, {}, (10, 0, 0)),
            ({"labelled": 12, "va": 4}, {"eval": 0}, (12, 0, 4)),
        ],
    )
    def test_sizes(self, counts: dict[str, int], rules: dict[str, Any], sizes: tuple[int, int, int]) -> None:
        # All cases are alike, so that each but one may be held out.
        parts = divide(cases(**counts), spec(**rules), 0)
        assert (len(parts.train), len(parts.eval), len(parts.test)) == sizes

    def test_a_fallback_is_said(self) -> None:
        assert any("no labelled Va case" in note for note in divide(cases(labelled=20), spec(), 0).notes)
        assert divide(cases(labelled=20, va=2), spec(), 0).notes == ()


class TestLists:
    @pytest.mark.parametrize("text", ["a\nb\n", "a\n\n  b.nii.gz \n\n", "a\r\nb.npy", "\ufeffa\nb"])
    def test_ids_are_read_in_any_form(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "list.txt"
        path.write_text(text, encoding="utf-8", newline="")
        assert read_list(path) == ("a", "b")

    def test_a_one_line_file_is_one_case_not_its_letters(self, tmp_path: Path) -> None:
        (tmp_path / "list.txt").write_text("amos_0001", encoding="utf-8")
        assert read_list(tmp_path / "list.txt") == ("amos_0001",)

    def test_a_case_listed_twice_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "list.txt").write_text("a\nb\na\n", encoding="utf-8")
        with pytest.raises(InputError, match="twice: a"):
            read_list(tmp_path / "list.txt")


class TestMade:
    def test_ratios_are_nested_and_relative_to_all_training_cases(self, tmp_path: Path) -> None:
        made = store(tmp_path, labelled=240, va=120)
        splits = [resolve_split(made, labeled_ratio=ratio) for ratio in (2, 5, 10, 20)]
        assert [len(s.labelled) for s in splits] == [4, 11, 22, 43]
        for small, large in itertools.pairwise(splits):
            assert set(small.labelled) < set(large.labelled)
        assert all(disjoint(s) and len(s.labelled) + len(s.unlabelled) == 216 for s in splits)
        assert len(splits[0].test) == 120
        assert len(splits[0].eval) == 24

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(count=st.integers(1, 40), ratio=st.sampled_from([0.5, 2.5, 7, 33, 100]), seed=st.integers(0, 3))
    def test_counts_and_odd_ratios_are_nested_too(
        self, tmp_path_factory: pytest.TempPathFactory, count: int, ratio: float, seed: int
    ) -> None:
        made = store(tmp_path_factory.mktemp("store"), labelled=30, unlabelled=5, va=3, seed=seed)
        by_count, by_ratio = resolve_split(made, labeled_count=count), resolve_split(made, labeled_ratio=ratio)
        smaller, larger = sorted((set(by_count.labelled), set(by_ratio.labelled)), key=len)
        assert smaller <= larger
        assert len(by_count.labelled) == min(count, 27)
        assert disjoint(by_count)
        assert disjoint(by_ratio)

    def test_names_of_lists(self, tmp_path: Path) -> None:
        made = store(tmp_path, labelled=40)
        assert resolve_split(made, labeled_ratio=5.0).name == "labeled_5p"
        assert resolve_split(made, labeled_ratio=2.5).name == "labeled_2.5p"
        assert resolve_split(made, labeled_count=3).name == "labeled_3n"
        assert read_list(tmp_path / "splits" / "labeled_3n.txt") == resolve_split(made, split="labeled_3n").labelled

    def test_default_is_five_per_cent_or_all_labels_of_a_partly_labelled_set(self, tmp_path: Path) -> None:
        assert resolve_split(store(tmp_path / "a", labelled=40)).name == "labeled_5p"
        partly = resolve_split(store(tmp_path / "b", labelled=10, unlabelled=300))
        assert partly.name == "labeled_all"
        assert len(partly.unlabelled) == 300

    def test_labels_are_capped_at_those_there_are_and_it_is_said(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        made = store(tmp_path, labelled=5, unlabelled=95, va=2)
        split = resolve_split(made, labeled_ratio=20)
        assert len(split.labelled) == 4
        assert {c for c in made.cases if c.startswith("un")} <= set(split.unlabelled)
        assert "asked for" in capsys.readouterr().err

    def test_one_case_is_enough(self, tmp_path: Path) -> None:
        split = resolve_split(store(tmp_path, labelled=1), labeled_ratio=5)
        assert split == Split("labeled_5p", ("tr000",), (), (), ())

    def test_making_again_changes_nothing_and_another_seed_makes_all_lists_anew(self, tmp_path: Path) -> None:
        made = store(tmp_path, labelled=40)
        before = {p.name: p.read_text() for p in (tmp_path / "splits").iterdir()}
        resolve_split(made, labeled_count=3)
        make_splits(made, 0)
        assert {p.name: p.read_text() for p in (tmp_path / "splits").iterdir()} == before
        resolve_split(made, labeled_count=3)
        make_splits(made, 1)
        assert not (tmp_path / "splits" / "labeled_3n.txt").exists()
        assert set(resolve_split(made, labeled_count=1).labelled) <= set(resolve_split(made, labeled_ratio=20).labelled)

    def test_a_store_whose_splits_were_never_made(self, tmp_path: Path) -> None:
        made = store(tmp_path, labelled=40, seed=None)
        assert resolve_split(made, labeled_count=4, seed=7) == resolve_split(made, labeled_count=4, seed=7)
        assert (tmp_path / "splits" / "labeled_4n.txt").is_file()


class TestUsersLists:
    def test_the_rest_is_unlabelled_where_only_labelled_cases_are_listed(self, tmp_path: Path) -> None:
        made = store(tmp_path, labelled=20, seed=None)
        write(made, "labeled_5p", "tr000\n")
        make_splits(made, 0)
        split = resolve_split(made, labeled_ratio=5)
        assert split.labelled == ("tr000",)
        assert sorted([*split.labelled, *split.unlabelled, *split.eval, *split.test]) == sorted(made.cases)
        assert (tmp_path / "splits" / "labeled_5p.txt").read_text() == "tr000\n"

    def test_listed_cases_are_never_held_out(self, tmp_path: Path) -> None:
        mine = [f"tr{i:03}" for i in range(0, 20, 2)]
        for seed in range(5):
            made = store(tmp_path / str(seed), labelled=20, seed=None)
            made.folder.mkdir()
            write(made, "labeled_mine", "\n".join(mine))
            make_splits(made, seed)
            assert resolve_split(made, split="labeled_mine").labelled == tuple(mine)

    @pytest.mark.parametrize("name", ["eval", "valid"])
    def test_evaluation_and_test_lists_are_respected(self, tmp_path: Path, name: str) -> None:
        made = store(tmp_path, labelled=20, va=4)
        write(made, name, "tr000\ntr001\n")
        write(made, "test", "va001\n")
        make_splits(made, 0)
        split = resolve_split(made, labeled_ratio=10)
        assert split.eval == ("tr000", "tr001")
        assert split.test == ("va001",)
        assert disjoint(split)

    def test_lists_of_the_raw_data_set_are_copied_but_not_over_the_users(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        made = store(tmp_path / "store", labelled=20)
        raw = tmp_path / "raw"
        raw.mkdir()
        (raw / "labeled_5p.txt").write_text("tr003.nii.gz")
        (raw / "valid.txt").write_text("tr004")
        copy_lists(raw, made)
        make_splits(made, 0)
        split = resolve_split(made, labeled_ratio=5)
        assert (split.labelled, split.eval) == (("tr003",), ("tr004",))
        (raw / "labeled_5p.txt").write_text("tr005")
        copy_lists(raw, made)
        assert resolve_split(made, labeled_ratio=5).labelled == ("tr005",)
        write(made, "labeled_5p", "tr006")
        copy_lists(raw, made)
        assert resolve_split(made, labeled_ratio=5).labelled == ("tr006",)
        assert "kept" in capsys.readouterr().err

    def test_another_scan_of_a_held_out_person_leaves_training(self, tmp_path: Path) -> None:
        made = FakeStore(tmp_path, cases(labelled=10), spec(same_person=[["tr000", "tr001"]]))
        write(made, "test", "tr000\n")
        make_splits(made, 0)
        split = resolve_split(made, labeled_ratio=100)
        assert "tr001" not in {*split.labelled, *split.unlabelled, *split.eval}


class TestErrors:
    def test_all_overlaps_are_named_together(self, tmp_path: Path) -> None:
        made = store(tmp_path, labelled=20, va=2)
        write(made, "labeled_x", "tr000\ntr001\nva000\n")
        write(made, "unlabeled_x", "tr001\ntr002\n")
        write(made, "eval", "tr000\ntr002\n")
        write(made, "test", "va000\n")
        with pytest.raises(InputError) as caught:
            resolve_split(made, split="labeled_x")
        text = "\n".join(caught.value.problems)
        for case, a, b in [
            ("tr001", "labeled_x", "unlabelled"), ("tr000", "labeled_x", "eval"),
            ("tr002", "unlabelled", "eval"), ("va000", "labeled_x", "test"),
        ]:  # fmt: skip
            assert f"{case}: in both {a} and {b}" in text
        assert len(caught.value.problems) == 4

    def test_an_unknown_case_is_named_with_the_nearest(self, tmp_path: Path) -> None:
        made = store(tmp_path, labelled=20)
        write(made, "labeled_x", "tr0O1\n")
        with pytest.raises(InputError, match=r"tr0O1\. Did you mean 'tr0"):
            resolve_split(made, split="labeled_x")

    @pytest.mark.parametrize("part", ["labeled_x", "eval", "test"])
    def test_an_unlabelled_case_where_labels_are_needed(self, tmp_path: Path, part: str) -> None:
        made = store(tmp_path, labelled=20, unlabelled=2)
        write(made, "labeled_x", "tr000\n")
        write(made, part, "un001\n")
        with pytest.raises(InputError, match="no label: un001"):
            resolve_split(made, split="labeled_x")

    def test_a_missing_split_lists_those_there_are(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"no split 'labelled_5p'.*Did you mean 'labeled_5p'.*labeled_10p"):
            resolve_split(store(tmp_path, labelled=20), split="labelled_5p")

    def test_no_labelled_case_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no labelled case"):
            resolve_split(store(tmp_path, unlabelled=5))

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ({"labeled_ratio": 5, "labeled_count": 3}, "only one"),
            ({"labeled_ratio": 0}, "above 0"),
            ({"labeled_ratio": 101}, "at most 100"),
            ({"labeled_count": 0}, "at least 1"),
        ],
    )
    def test_wrong_use(self, tmp_path: Path, given: dict[str, Any], words: str) -> None:
        with pytest.raises(InputError, match=words):
            resolve_split(store(tmp_path, labelled=20), **given)

    def test_raw_lists_are_checked_before_anything_is_done(self, tmp_path: Path) -> None:
        (tmp_path / "labeled_5p.txt").write_text("a\nz\n")
        (tmp_path / "unlabeled_5p.txt").write_text("b\na\n")
        (tmp_path / "valid.txt").write_text("b\n")
        problems = "\n".join(raw_list_problems(tmp_path, ["a", "b"]))
        assert "no such case: z" in problems
        assert "a: in both labeled_5p and unlabeled_5p" in problems
        assert "b: in both unlabeled_5p and valid" in problems


def test_a_labelled_part_covers_all_classes_where_a_greedy_choice_would_not() -> None:
    """Greedy takes the case with four classes first and then needs two more; two cases suffice."""

    @dataclass(frozen=True)
    class Facts:
        voxels: tuple[int, ...] | None
        role: str = "Tr"
        labelled: bool = True

    spec = DatasetSpec(name="x", classes=("background", *"abcdef"), split={"eval": 0, "test": 0})
    have = {"many": "abde", "left": "abc", "right": "def", "few": "a"}
    cases = {n: Facts((9, *(int(c in classes) for c in "abcdef"))) for n, classes in have.items()}
    for seed in range(5):
        assert set(divide(cases, spec, seed).order[:2]) == {"left", "right"}


def test_files_beside_the_lists_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("eval.csv", "test.TXT", "made.json"):
        (tmp_path / name).touch()
    (tmp_path / "eval.txt").write_text("a\n")
    assert raw_list_problems(tmp_path, ["a"]) == []
    assert f"{tmp_path}: not read (lists end in .txt): eval.csv, test.TXT" in capsys.readouterr().err


def test_thirty_thousand_cases_take_seconds(tmp_path: Path) -> None:
    made = FakeStore(tmp_path, cases(labelled=15_000, unlabelled=15_000))
    began = time.process_time()  # of this process: other work on the machine does not count
    make_splits(made, 0)
    split = resolve_split(made, split="labeled_all")
    assert len(split.labelled) + len(split.unlabelled) + len(split.eval) + len(split.test) == 30_000
    problems = raw_list_problems(tmp_path / "splits", list(made.cases)[:-1])
    assert all("no such case: un14999." in problem for problem in problems)
    assert problems
    assert time.process_time() - began < 15
