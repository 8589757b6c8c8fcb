from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from duomod.errors import InputError
from duomod.experiments.steps import Kind, Plan, Step, levels


def step(name: str, *needs: str, after: tuple[str, ...] = ()) -> Step:
    return Step(name, Kind.TRAIN, ("echo", name), needs=needs, after=after)


class TestPlan:
    def test_an_unknown_need_is_named_with_the_nearest_step(self) -> None:
        with pytest.raises(InputError, match=r"'predict' waits for 'tran'.*Did you mean 'train'"):
            Plan((step("train"), step("predict", "tran")))

    def test_a_circle_is_shown(self) -> None:
        with pytest.raises(InputError, match=r"wait for each other: (a -> b -> a|b -> a -> b)"):
            Plan((step("free"), step("a", "b"), step("b", after=("a",))))

    def test_two_steps_of_one_name_or_one_file_name_are_refused(self) -> None:
        with pytest.raises(InputError, match="one file name"):
            Plan((step("a b"), step("a, b")))

    def test_a_step_before_what_it_needs_is_refused(self) -> None:
        with pytest.raises(InputError, match="'a' is listed before 'b'"):
            Plan((step("a", "b"), step("b")))

    def test_all_problems_are_told_at_once(self) -> None:
        with pytest.raises(InputError) as caught:
            Plan((step("a", "x"), step("b", "y")))
        assert len(caught.value.problems) == 2

    def test_levels_hold_steps_that_do_not_wait_for_each_other(self) -> None:
        plan = Plan((step("a"), step("b", "a"), step("c", "a"), step("d", "b", after=("c",)), step("e")))
        assert [[one.name for one in level] for level in levels(plan)] == [["a", "e"], ["b", "c"], ["d"]]


def test_the_script_of_a_plan_is_run_by_bash_as_it_stands(tmp_path: Path) -> None:
    names = ["plain", "with 'quotes' and $HOME", "two\nlines"]
    steps = [Step(f"step {i}", Kind.TRAIN, ("printf", "%s,", name)) for i, name in enumerate(names)]
    steps.append(Step("threads", Kind.TRAIN, ("bash", "-c", "echo $OMP_NUM_THREADS"), needs=("step 0",)))
    script = Plan(tuple(steps)).script({"OMP_NUM_THREADS": "3"})
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "".join(f"{name}," for name in names) + "3\n"
    assert done.stderr == ""
    assert script.startswith("# step 0\nOMP_NUM_THREADS=3 printf %s, plain\n")


def test_a_duomod_command_is_run_by_this_python() -> None:
    import sys

    command = Step("train", Kind.TRAIN, ("duomod", "train", "--model", "cps")).command
    assert command == [sys.executable, "-m", "duomod", "train", "--model", "cps"]
