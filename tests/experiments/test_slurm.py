"""The executor ``slurm``: for real on submitit's stand-in for a cluster, and the scripts it gives to ``sbatch``."""

from __future__ import annotations

import re
import signal
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from workshop import Workshop, eventually

from duomod.errors import InputError
from duomod.experiments.executor import executor_settings
from duomod.experiments.executors.slurm import Slurm, SlurmSettings
from duomod.experiments.schedule import StepsFailed
from duomod.experiments.steps import Kind

pytestmark = pytest.mark.skipif(find_spec("submitit") is None, reason="submitit is not installed (extra 'slurm')")


def slurm(workshop: Workshop, **settings: Any) -> Slurm:
    return Slurm(SlurmSettings(**settings), workshop.records, jobs=1)


class TestOnTheStandIn:
    def test_steps_run_in_order_and_a_failed_one_is_told_in_its_own_words(self, workshop: Workshop) -> None:
        with pytest.raises(StepsFailed) as caught:
            workshop.run(
                workshop.step("a"),
                workshop.step("b", "sys.exit('error: no data')"),
                workshop.step("c", needs=("a",)),
                workshop.step("d", needs=("b",)),
                executor=slurm(workshop, cluster="local"),
            )
        assert str(caught.value).splitlines()[1:] == ["b: no data", "d: skipped because b failed"]
        assert workshop.times("c")[0][0] > workshop.times("a")[0][1]

    def test_a_preempted_job_is_queued_again_after_its_step_has_saved(
        self, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "TERM")  # as the sbatch script says
        saved, ready = workshop.folder / "saved", workshop.folder / "ready"
        code = f"""
import signal
if not os.path.exists({str(saved)!r}):
    def save(*_):
        time.sleep(0.5)
        open({str(saved)!r}, 'w').write('half')
        os._exit(130)
    signal.signal(signal.SIGTERM, save)
    open({str(ready)!r}, 'w')
    time.sleep(60)
"""
        executor = slurm(workshop, cluster="local")
        step = workshop.step("train", code)

        def preempt() -> None:
            assert eventually(ready.exists)
            executor.jobs_of["train"]._process.send_signal(signal.SIGTERM)

        thread = threading.Thread(target=preempt)
        thread.start()
        workshop.run(step, executor=executor)
        thread.join()
        assert saved.read_text() == "half"
        assert len(workshop.times("train")) == 1
        record = workshop.records.read(step)
        assert record is not None
        assert (record.state, record.attempt) == ("done", 2)
        said = capsys.readouterr().err
        assert said.count("── train") == 2
        assert "$ " not in said

    def test_stopping_ends_the_jobs(self, workshop: Workshop) -> None:
        # The stand-in is ended by SIGINT, which a shell makes its background jobs ignore.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        executor = slurm(workshop, cluster="local")
        step = workshop.step("a", seconds=60)
        executor.submit([step])
        assert eventually(lambda: workshop.records.path(step).exists())
        executor.stop()
        assert eventually(lambda: workshop.records.read(step).state == "interrupted")  # type: ignore[union-attr]
        assert executor.results() == []


@pytest.fixture
def scripts(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where an ``sbatch`` that runs nothing keeps what it was given, as ``<job number>``."""
    folder = tmp_path_factory.mktemp("sbatch")
    for name in ("srun", "scancel"):
        program = folder / name
        program.write_text(f'#!/bin/bash\necho {name} "$@" >> {folder}/calls\n')
        program.chmod(0o755)
    sbatch = folder / "sbatch"
    sbatch.write_text(f'#!/bin/bash\nn=$((100 + $(ls {folder} | wc -l)))\ncp "$1" {folder}/$n\necho batch job $n\n')
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def options(script: Path) -> dict[str, str]:
    return dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script.read_text(), flags=re.MULTILINE))


class TestTheScripts:
    def steps(self, workshop: Workshop) -> list[Any]:
        train = [workshop.step(f"train{i}", gpus=1, needs=("preprocess",)) for i in range(3)]
        predict = [workshop.step(f"predict{i}", kind=Kind.PREDICT, gpus=1, needs=(f"train{i}",)) for i in range(3)]
        average = workshop.step("average", kind=Kind.AGGREGATE, after=tuple(f"predict{i}" for i in range(3)))
        report = workshop.step("report", kind=Kind.REPORT, needs=("average",))
        return [workshop.step("preprocess", kind=Kind.PREPROCESS), *train, *predict, average, report]

    def submitted(self, workshop: Workshop, folder: Path, **settings: Any) -> list[Path]:
        executor = slurm(workshop, **settings)
        assert executor.queues
        executor.submit(self.steps(workshop))
        return sorted(path for path in folder.iterdir() if path.name.isdecimal())

    def test_steps_of_a_kind_are_one_array_and_wait_for_what_they_need(self, workshop: Workshop, scripts: Path) -> None:
        preprocess, train, predict, average, report = self.submitted(workshop, scripts)
        assert "array" not in options(preprocess)
        assert "dependency" not in options(preprocess)
        assert options(train)["array"] == "0-2%3"
        assert options(train)["dependency"] == f"afterok:{preprocess.name}"
        assert options(predict)["array"] == "0-2%3"
        assert options(predict)["dependency"] == f"aftercorr:{train.name}"
        assert options(average)["dependency"] == "afterany:" + ":".join(f"{predict.name}_{i}" for i in range(3))
        assert options(report)["dependency"] == f"afterok:{average.name}"

    def test_settings_and_further_options_are_in_them(self, workshop: Workshop, scripts: Path) -> None:
        given = {"partition": "gpu", "time": 90, "memory_gb": 12.5, "cores": 6, "gpus": 2, "at_once": 2}
        found = self.submitted(
            workshop, scripts, **given, extra={"account": "lab", "exclusive": True}, setup=("module load cuda",)
        )
        train = options(found[1])
        assert train["partition"] == "gpu"
        assert train["time"] == "90"
        assert train["mem"] == "12800M"
        assert train["cpus-per-task"] == "6"
        assert train["gpus-per-node"] == "2"
        assert train["array"] == "0-2%2"
        assert train["account"] == "lab"
        assert "exclusive" in train
        assert "gpus-per-node" not in options(found[0])
        assert "\nmodule load cuda\n" in found[1].read_text()

    def test_a_job_that_has_to_go_is_told_in_time_and_may_be_queued_again(
        self, workshop: Workshop, scripts: Path
    ) -> None:
        script = self.submitted(workshop, scripts)[1]
        assert options(script)["signal"] == "TERM@120"
        assert "requeue" in options(script)
        assert options(script)["kill-on-invalid-dep"] == "yes"
        lines = script.read_text().splitlines()
        command = next(i for i, line in enumerate(lines) if line.startswith("srun "))
        assert "export SUBMITIT_PREEMPT_SIGNAL=TERM" in lines[:command]
        assert lines[command].rstrip().endswith(f"-u -m submitit.core._submit {workshop.records.folder / 'slurm'}")

    def test_what_is_left_is_cancelled(self, workshop: Workshop, scripts: Path) -> None:
        executor = slurm(workshop)
        executor.submit([workshop.step("a")])
        executor.stop()
        assert eventually(lambda: (scripts / "calls").exists() and "scancel" in (scripts / "calls").read_text())


def test_a_machine_without_slurm_is_told_so(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="srun"):
        slurm(workshop).submit([workshop.step("a")])


def test_an_unknown_executor_or_setting_is_named() -> None:
    with pytest.raises(InputError, match="Did you mean 'slurm'"):
        executor_settings({"name": "slrum"})
    with pytest.raises(InputError, match="executor: tim"):
        executor_settings({"name": "slurm", "tim": 3})
