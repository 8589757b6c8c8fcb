"""An experiment's file can say whatever the commands can do, and what it says reaches them."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from duomod.errors import InputError
from duomod.evaluation.settings import AggregateSettings, CompareSettings, EvaluateSettings
from duomod.experiments.settings import PipelineConfig, load_pipeline
from duomod.flags import to_argv
from duomod.inference.settings import PredictSettings
from duomod.preprocessing.settings import PreprocessSettings
from duomod.report.settings import ReportSettings
from duomod.settings import models_in
from duomod.training.settings import TrainSettings

GOOD = """
gt_path: truth
methods:
  - {name: cps, log_root: logs/cps, npy_path: data/imagesVa, nii_path: raw/imagesVa, task: amos}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    return path


#: Command settings and the fields that the experiment fills itself: which method, seed, case and folder.
FILLED = {
    "preprocessing": (PreprocessSettings, {"num_classes"}),
    "training": (
        TrainSettings,
        {"model", "output_dir", "seed", "gpu", "num_classes", "method_settings", "plugin", "resume"},
    ),
    "inference": (
        PredictSettings,
        {"model_path", "output_path", "input_path", "npy_path", "original_nii_path"}
        | {"gpu", "method", "dataset", "num_classes", "plugin", "split"},
    ),
    "evaluation": (EvaluateSettings, {"pred_path", "gt_path", "output_csv", "num_classes", "dataset"}),
    "aggregation": (
        AggregateSettings,
        {"method_base_dir", "results_filename", "aggregated_csv_output", "summary_output"},
    ),
    "comparison": (CompareSettings, {"tables"}),
    "report": (ReportSettings, {"runs"}),
}


@pytest.mark.parametrize("section", FILLED)
def test_a_section_says_all_that_its_command_can_do_but_what_the_experiment_knows(section: str) -> None:
    command, filled = FILLED[section]
    [options] = models_in(PipelineConfig.model_fields[section].annotation)
    assert set(options.model_fields) == set(command.model_fields) - filled


WHOLE = """
gt_path: truth
seeds: [4]
num_classes: 3
gpu: ""
split: test
stages: {preprocessing: true, training: true, comparison: true, report: true}
preprocessing: {data_path: raw, output_path: data, workers: 3, seed: 5, spacing: [1, 1, 2]}
training:
  {data_path: data, preset: compact, labeled_count: 2, split_seed: 7, overwrite: true,
   settings: {optim: {base_lr: 0.1}}}
inference: {blending: uniform, batch_size: 4, precision: bf16, overlap: 0.25}
evaluation: {metrics: [dice, nsd], asd: one_way, empty_policy: reference, tolerance: 1, allow_missing: true, workers: 1}
aggregation: {min_seeds: 1, ddof: 0, group_table: groups.csv, table: [means.md]}
comparison: {baseline: cps, resamples: 200}
report: {worst: 1, viewer: false}
methods:
  - name: cps
    log_root: logs/cps
    npy_path: data/imagesTs
    nii_path: raw/imagesTs
    task: amos
    settings: {rampup: 3}
    train_settings: {optim: {momentum: 0.5}}
    plugin: my.py
"""


def test_what_the_file_says_reaches_every_command(tmp_path: Path) -> None:
    config = load_pipeline(written(tmp_path, WHOLE))
    [entry] = config.methods
    line = {
        "preprocess": "--data_path raw --output_path data --workers 3 --seed 5 --spacing 1.0,1.0,2.0 --dataset amos"
        " --num_classes 3",
        "train": "--data_path data --model cps --output_dir logs/cps/seed_4 --preset compact --labeled_count 2"
        " --split_seed 7 --set optim.base_lr=0.1 --set optim.momentum=0.5 --overwrite --seed 4 --gpu '' --num_classes 3"
        " --method_set rampup=3 --plugin my.py --resume",
        "predict": "--model_path logs/cps/seed_4/ckpts/best_model.pth --output_path logs/cps/seed_4/predictions"
        " --overlap 0.25 --blending uniform --batch_size 4 --precision bf16 --npy_path data/imagesTs"
        " --original_nii_path raw/imagesTs --gpu '' --exp cps --dataset amos --num_classes 3 --plugin my.py"
        " --split test",
        "evaluate": "--pred_path logs/cps/seed_4/predictions --gt_path truth --metrics dice,nsd --asd one_way"
        " --empty_policy reference --tolerance 1.0 --workers 1 --allow_missing --cases data/splits/test.txt"
        " --output_csv logs/cps/seed_4/result.csv --num_classes 3 --dataset amos",
        "aggregate": "--method_base_dir logs/cps --min_seeds 1 --dataset amos --ddof 0 --group_table groups.csv"
        " --table logs/cps/means.md --aggregated_csv_output logs/cps/cps_aggregated_metrics.csv"
        " --summary_output logs/cps/cps_summary_results.txt",
        "compare": "--baseline cps --resamples 200 logs/cps/cps_aggregated_metrics.csv",
        "report": "--worst 1 --no_viewer logs/cps",
    }
    made = (
        config.preprocess_settings(),
        config.train_settings(entry, 4),
        config.predict_settings(entry, 4),
        config.evaluate_settings(entry, 4),
        config.aggregate_settings(entry),
        config.compare_settings(),
        config.report_settings(),
    )
    for settings in made:
        typed, wanted = to_argv(settings), ["duomod", settings.command, *shlex.split(line[settings.command])]
        assert sorted(typed) == sorted(wanted)


def test_the_names_of_earlier_files_still_reach_their_sections(tmp_path: Path) -> None:
    old = "overlap: 0.25\nworkers: 3\nmetrics: [dice]\nmin_seeds: 1\n"
    config = load_pipeline(written(tmp_path, GOOD + old))
    assert config.inference.overlap == 0.25
    assert config.evaluation.workers == 3
    assert config.evaluation.metrics == ("dice",)
    assert config.aggregation.min_seeds == 1
    config = load_pipeline(written(tmp_path, GOOD + old + "inference: {overlap: 0.75}\n"))
    assert config.inference.overlap == 0.75


def test_what_is_not_said_is_as_in_the_command(tmp_path: Path) -> None:
    config = load_pipeline(written(tmp_path, GOOD))
    [entry] = config.methods
    predicted = config.predict_settings(entry, 0)
    typed = PredictSettings(model_path=Path("m"), output_path=Path("o"), npy_path=Path("n"))
    assert (predicted.overlap, predicted.blending) == (typed.overlap, typed.blending)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("inference: {overlapp: 1}\n", "inference.overlapp: no such setting. Did you mean 'inference.overlap'?"),
        ("trainig: {}\n", "trainig: no such setting. Did you mean 'training'? The list: duomod settings pipeline"),
        ("training: {data_path: d, settings: {optim: {base_rl: 1}}}\n", "Did you mean 'optim.base_lr'?"),
        ("stages: {comparison: true}\n", "section 'comparison' is missing"),
        ("evaluation: {protocol: dch}\n", "Did you mean 'dhc'?"),
    ],
)
def test_mistakes_suggest_what_was_meant(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        load_pipeline(written(tmp_path, GOOD + text))
    assert said in str(caught.value)
