from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from workshop import Workshop, eventually

from duomod.errors import DuomodError
from duomod.experiments.process import StepProcess
from duomod.experiments.records import born
from duomod.experiments.schedule import StepsFailed
from duomod.experiments.steps import Kind, Step
from duomod.training.stopping import SAME_REQUEST


def test_a_step_starts_after_all_that_it_needs(workshop: Workshop) -> None:
    workshop.run(
        workshop.step("a", seconds=0.3),
        workshop.step("b"),
        workshop.step("c", needs=("a", "b")),
        executor=workshop.local(jobs=2),
    )
    (c_began, _), *_ = workshop.times("c")
    assert c_began > max(workshop.times("a")[0][1], workshop.times("b")[0][1])


def test_two_run_at_once_and_no_third(workshop: Workshop) -> None:
    names = ("a", "b", "c")
    workshop.run(*(workshop.step(name, seconds=0.5) for name in names), executor=workshop.local(jobs=2))
    (a,), (b,), (c,) = (workshop.times(name) for name in names)
    assert max(a[0], b[0]) < min(a[1], b[1])
    assert c[0] > min(a[1], b[1])


def test_each_gpu_has_one_step_at_a_time_and_steps_without_gpu_do_not_wait_for_one(workshop: Workshop) -> None:
    tell = f"open({str(workshop.folder / 'gpus')!r}, 'a').write(os.environ['CUDA_VISIBLE_DEVICES'] + chr(10))"
    steps = [workshop.step(f"on-gpu-{i}", tell, seconds=0.4, gpus=1) for i in range(4)]
    other = workshop.step("on-cpu", "assert 'CUDA_VISIBLE_DEVICES' not in os.environ", kind=Kind.EVALUATE)
    workshop.run(*steps, other, executor=workshop.local(gpus=(3, 5)))
    gpus = (workshop.folder / "gpus").read_text().split()
    assert sorted(gpus) == ["3", "3", "5", "5"]
    times = [workshop.times(step.name)[0] for step in steps]
    assert times[2][0] > min(times[0][1], times[1][1])
    assert workshop.times("on-cpu")[0][0] < min(times[2][0], times[3][0])


def test_several_at_once_share_the_cores_and_one_alone_is_left_as_it_is(workshop: Workshop) -> None:
    assert workshop.local(jobs=1).environment == {}
    share = str(max(1, (os.cpu_count() or 1) // 2))
    assert workshop.local(jobs=2).environment["OMP_NUM_THREADS"] == share
    threads = f"import torch; open({str(workshop.folder / 'threads')!r}, 'w').write(str(torch.get_num_threads()))"
    workshop.run(workshop.step("a", threads), executor=workshop.local(jobs=2))
    assert (workshop.folder / "threads").read_text() == share


class TestFailures:
    def test_what_needs_a_failed_step_is_skipped_and_the_rest_goes_on(self, workshop: Workshop) -> None:
        with pytest.raises(StepsFailed) as caught:
            workshop.run(
                workshop.step("bad", "sys.exit('error: no such thing\\n       look here')"),
                workshop.step("child", needs=("bad",)),
                workshop.step("grandchild", needs=("child",)),
                workshop.step("average", after=("bad",)),
                workshop.step("good"),
            )
        assert caught.value.exit_code == 1
        assert str(caught.value).splitlines() == [
            "1 step(s) failed; everything else is done",
            "bad: no such thing",
            "look here",
            "child: skipped because bad failed",
            "grandchild: skipped because bad failed",
        ]
        assert {path.name for path in workshop.folder.iterdir()} == {".steps", "average", "good"}

    def test_a_step_without_its_input_fails_before_it_starts(self, workshop: Workshop) -> None:
        missing = workshop.folder / "seed_7" / "best_model.pth"
        with pytest.raises(StepsFailed, match=r"predict: missing seed: .*best_model\.pth does not exist"):
            workshop.run(workshop.step("predict", kind=Kind.PREDICT, requires=(missing,)))
        assert not workshop.records.folder.exists()

    def test_a_step_that_ends_well_without_its_result_has_failed(self, workshop: Workshop) -> None:
        with pytest.raises(StepsFailed, match=r"ended well, but there is no .*result"):
            workshop.run(Step("a", Kind.TRAIN, ("true",), done=(workshop.folder / "result",)))

    def test_a_killed_step_is_named_with_its_signal_and_last_words(self, workshop: Workshop) -> None:
        code = "print('almost there', file=sys.stderr, flush=True); os.kill(os.getpid(), 9)"
        with pytest.raises(StepsFailed, match="ended by signal SIGKILL; the log's last line: almost there"):
            workshop.run(workshop.step("a", code))

    def test_what_a_crashed_step_leaves_running_is_ended(self, workshop: Workshop) -> None:
        note = workshop.folder / "pid"
        code = (
            "import subprocess; p = subprocess.Popen(['sleep', '60']);"
            f" open({str(note)!r}, 'w').write(str(p.pid)); os._exit(3)"
        )
        with pytest.raises(StepsFailed):
            workshop.run(workshop.step("a", code))
        assert eventually(lambda: born(int(note.read_text())) is None)


class TestGoingOn:
    def test_what_is_done_is_not_done_again_and_what_failed_is(self, workshop: Workshop) -> None:
        good, bad = workshop.step("good"), workshop.step("bad", "sys.exit(1)")
        last = workshop.step("last", needs=("good",))
        for _ in range(2):
            with pytest.raises(StepsFailed):
                workshop.run(good, bad, last)
        assert len(workshop.times("good")) == len(workshop.times("last")) == 1
        assert workshop.records.log(bad).read_text().count("$ ") == 2

    def test_a_changed_command_input_or_result_is_done_again(self, workshop: Workshop) -> None:
        source = workshop.folder / "source"
        source.write_text("1")
        step = workshop.step("a", reads=(source,))
        workshop.run(step)
        source.write_text("22")
        workshop.run(step)
        assert len(workshop.times("a")) == 2
        (workshop.folder / "a").write_text("0 0\n")
        workshop.run(step)
        assert len(workshop.times("a")) == 2
        workshop.run(workshop.step("a", "1", reads=(source,)))
        assert len(workshop.times("a")) == 3
        workshop.run(workshop.step("a", "1", reads=(source,)))
        assert len(workshop.times("a")) == 3

    def test_a_step_that_another_process_runs_is_left_to_it(self, workshop: Workshop) -> None:
        step = workshop.step("a", seconds=30)
        with under_way(workshop, step), pytest.raises(StepsFailed, match="is being run by process"):
            workshop.run(step)


class TestStopping:
    """The running pipeline is a process of its own that gets a signal."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
    def test_no_process_is_left_behind(self, workshop: Workshop, number: signal.Signals) -> None:
        notes = [workshop.folder / f"pids-{i}" for i in range(2)]
        steps = [
            workshop.step(
                f"step-{i}",
                "import subprocess; p = subprocess.Popen(['sleep', '60']);"
                f" open({str(note)!r}, 'w').write(f'{{os.getpid()}} {{p.pid}}')",
                seconds=60,
            )
            for i, note in enumerate(notes)
        ]
        with under_way(workshop, *steps, workshop.step("later"), jobs=2) as pipeline:
            assert eventually(lambda: all(note.is_file() and note.read_text() for note in notes))
            pids = [int(pid) for note in notes for pid in note.read_text().split()]
            assert all(born(pid) is not None for pid in pids)
            pipeline.send_signal(number)
            pipeline.wait(timeout=20)
        assert eventually(lambda: all(born(pid) is None for pid in pids))
        assert not (workshop.folder / "later").exists()
        assert pipeline.returncode == (-9 if number == signal.SIGKILL else 130)
        states = {workshop.records.read(step).state for step in steps}  # type: ignore[union-attr]
        assert states == {"interrupted"}

    def test_a_step_is_given_time_to_save(self, workshop: Workshop) -> None:
        saved = workshop.folder / "saved"
        code = f"""
import signal
def save(*_):
    time.sleep(1)
    open({str(saved)!r}, 'w').write('state')
    os._exit(130)
signal.signal(signal.SIGTERM, save)
open({str(workshop.folder / "ready")!r}, 'w')
"""
        with under_way(workshop, workshop.step("a", code, seconds=60)) as pipeline:
            assert eventually((workshop.folder / "ready").exists)
            pipeline.terminate()
            pipeline.wait(timeout=20)
        assert saved.read_text() == "state"

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_second_signal_gives_no_more_time(self, workshop: Workshop, number: signal.Signals) -> None:
        ready = {name: workshop.folder / f"{name}-ready" for name in ("a", "b")}
        deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
        steps = [workshop.step(name, f"{deaf}; open({str(path)!r}, 'w')", seconds=60) for name, path in ready.items()]
        with under_way(workshop, *steps, jobs=2) as pipeline:
            assert eventually(lambda: all(path.exists() for path in ready.values()))
            pids = [workshop.records.read(step).pid for step in steps]  # type: ignore[union-attr]
            pipeline.send_signal(number)
            time.sleep(SAME_REQUEST + 0.3)
            began = time.monotonic()
            pipeline.send_signal(number)
            pipeline.wait(timeout=20)
        assert time.monotonic() - began < 15
        assert all(born(pid) is None for pid in pids)

    def test_two_pipelines_that_start_a_step_at_once_do_it_once(self, workshop: Workshop) -> None:
        step = workshop.step("a", seconds=1)
        processes = [StepProcess(step, workshop.records) for _ in range(4)]

        def attempt(process: StepProcess) -> str:
            try:
                process.start()
            except DuomodError as error:
                return str(error)
            return process.wait().state

        with ThreadPoolExecutor(4) as pool:
            said = sorted(pool.map(attempt, processes))
        assert said[0] == "done"
        assert all(text.startswith("is being run by process") for text in said[1:])
        assert len(workshop.times("a")) == 1

    def test_the_next_run_goes_on(self, workshop: Workshop) -> None:
        first, second = workshop.step("first"), workshop.step("second", seconds=3)
        with under_way(workshop, first, second) as pipeline:
            assert eventually(lambda: workshop.records.path(second).is_file())
            pipeline.terminate()
            pipeline.wait(timeout=20)
        workshop.run(first, second)
        assert len(workshop.times("first")) == len(workshop.times("second")) == 1


class under_way:  # noqa: N801  (used as a function)
    """Run steps in another process while the block is done."""

    def __init__(self, workshop: Workshop, *steps: Step, jobs: int = 1) -> None:
        self.workshop, self.steps = workshop, steps
        code = f"""
import sys
from pathlib import *
from duomod.experiments.executors.local import *
from duomod.experiments.schedule import *
from duomod.experiments.steps import *
from duomod.termination import *
records = Records(Path({str(workshop.records.folder)!r}))
plan = Plan(tuple({[(s.name, str(s.kind), s.argv, tuple(map(str, s.done))) for s in steps]!r}))
"""
        code = code.replace(
            "plan = Plan(tuple(", "plan = Plan(tuple(Step(n, Kind(k), a, done=tuple(map(Path, d))) for n, k, a, d in "
        )
        code += f"""
try:
    with termination_raises():
        Schedule(plan, Local(LocalSettings(), records, {jobs}), records).run()
except PlanInterrupted:
    sys.exit(130)
"""
        self.process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)

    def __enter__(self) -> subprocess.Popen[bytes]:
        assert eventually(lambda: self.workshop.records.path(self.steps[0]).is_file())
        return self.process

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=30)
