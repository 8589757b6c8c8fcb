"""The ``duomod`` command. Each command parses, calls one function and prints the path of its result last.

Nothing heavy is imported before a command runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from duomod.errors import DuomodError, InputError, explain_disk_error
from duomod.option_values import assignments, nested, numbers

if TYPE_CHECKING:
    from duomod.conformance import Result

#: ``--data-path`` and ``--data_path`` are the same option; the second is what the original scripts used.
_SETTINGS = {"token_normalize_func": lambda name: name.replace("-", "_") if len(name) > 1 else name}

app = typer.Typer(
    name="duomod",
    help="Class-imbalanced, semi-supervised segmentation of 3D medical images: preprocess, train, predict, evaluate,"
    " aggregate, compare, report, view.\n\nExample: duomod demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=_SETTINGS,
)

Gpu = Annotated[str, typer.Option("--gpu", help='GPU number; "" for the CPU.')]
Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset", "--task", help="Data set description: a built-in name or a YAML file. Default: recognised."
    ),
]
NumClasses = Annotated[int | None, typer.Option("--num_classes", help="Classes, background included; checked.")]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Cases handled at the same time.")]


def command(name: str, example: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command whose help ends with an example."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        app.command(name, epilog=f"Example: {example}", context_settings=_SETTINGS)(function)
        return function

    return register


def finish(result: Path) -> None:
    """Print a command's result last, alone on its line."""
    print(result)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        from duomod import __version__

        print(f"duomod {__version__}")
        raise typer.Exit


@command("preprocess", "duomod preprocess --data_path Dataset/AMOS22 --output_path Dataset/AMOS22_preprocessed")
def preprocess(
    data_path: Annotated[
        Path, typer.Option("--data_path", help="Raw data set (imagesTr, labelsTr, ... dataset.json).")
    ],
    output_path: Annotated[Path, typer.Option("--output_path", help="Where the preprocessed data set goes.")],
    num_classes: NumClasses = None,
    dataset: Dataset = None,
    workers: Workers = 2,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the splits.")] = 0,
    spacing: Annotated[
        str | None, typer.Option("--spacing", help="Voxel size in mm as x,y,z instead of the description's.")
    ] = None,
) -> None:
    """Check a raw data set, bring every scan to one orientation and spacing, and make the splits. Can be run again."""
    from duomod.preprocessing.preprocess import run_preprocess

    finish(
        run_preprocess(
            data_path,
            output_path,
            dataset=dataset,
            num_classes=num_classes,
            workers=workers,
            seed=seed,
            spacing=numbers(spacing, 3, "--spacing", float),
        )
    )


@command(
    "train",
    "duomod train --model duomodnet --data_path Dataset/AMOS22_preprocessed --output_dir logs/amos/duomodnet/seed_0"
    " --labeled_ratio 5 --seed 0",
)
def train(
    model: Annotated[str, typer.Option("--model", help="Method: duomodnet, cps, supervised ... (duomod methods).")],
    data_path: Annotated[Path, typer.Option("--data_path", help="Preprocessed data set.")],
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Run folder.")],
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    gpu: Gpu = "0",
    num_classes: NumClasses = None,
    preset: Annotated[
        str,
        typer.Option(
            "--preset", help="default; reference (the published code, quirks included); compact (small, for CPUs)."
        ),
    ] = "default",
    labeled_ratio: Annotated[
        float | None,
        typer.Option("--labeled_ratio", help="Per cent of training cases that are labelled: 2, 5, 10, 20 ..."),
    ] = None,
    labeled_count: Annotated[int | None, typer.Option("--labeled_count", help="Number of labelled cases.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="Split by name, e.g. labeled_5p.")] = None,
    split_seed: Annotated[int, typer.Option("--split_seed", help="Seed of a split that has to be made.")] = 0,
    max_epochs: Annotated[int | None, typer.Option("--max_epochs", min=1)] = None,
    steps_per_epoch: Annotated[
        int | None, typer.Option("--steps_per_epoch", min=1, help="Default: one pass over the unlabelled cases.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch_size", min=1, help="Labelled patches per step, and as many unlabelled.")
    ] = None,
    patch: Annotated[str | None, typer.Option("--patch", help="Patch in voxels as z,y,x.")] = None,
    lr: Annotated[float | None, typer.Option("--base_lr", help="Largest learning rate.")] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="auto, fp32, bf16 or fp16.")] = None,
    network: Annotated[str | None, typer.Option("--network", help="Network; the default is the paper's V-Net.")] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="A training setting, e.g. --set optim.weight_decay=1e-4.")
    ] = None,
    method_change: Annotated[
        list[str] | None, typer.Option("--method_set", help="A setting of the method, e.g. --method_set rlm_floor=0.1.")
    ] = None,
    class_weights: Annotated[
        str | None, typer.Option("--class_weights", help="Class weights for any method: none, rlm or dhc.")
    ] = None,
    sampling: Annotated[
        str | None, typer.Option("--sampling", help="Labelled crops: balanced, foreground or uniform.")
    ] = None,
    plugin: Annotated[Path | None, typer.Option("--plugin", help="Python file with a method of your own.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start anew in a folder that holds a run.")] = False,
) -> None:
    """Train one model with one seed. Prints the path of the best checkpoint; ckpts/last.pth is the last."""
    from duomod.config import merged
    from duomod.training.setup import run_train

    flags = {
        "max_epochs": max_epochs,
        "steps_per_epoch": steps_per_epoch,
        "patch": numbers(patch, 3, "--patch", int),
        "precision": precision,
        "optim.base_lr": lr,
        "network.name": network,
        "sampling.batch": batch_size,
        "sampling.labelled": sampling,
    }
    settings: dict[str, Any] = {}
    for key, value in flags.items():
        if value is not None:
            settings = merged(settings, nested(key, value))
    settings = merged(settings, assignments(change or [], "--set"))
    method_settings = assignments(method_change or [], "--method_set")
    if class_weights is not None:
        method_settings["class_weights"] = class_weights
    finish(
        run_train(
            model=model,
            data_path=data_path,
            output_dir=output_dir,
            seed=seed,
            gpu=gpu,
            num_classes=num_classes,
            preset=preset,
            settings=settings,
            method_settings=method_settings,
            labeled_ratio=labeled_ratio,
            labeled_count=labeled_count,
            split_name=split,
            split_seed=split_seed,
            plugin=plugin,
            resume=resume,
            overwrite=overwrite,
        )
    )


@command(
    "predict",
    "duomod predict --input scans/ --model logs/amos/duomodnet/seed_0/ckpts/best_model.pth --output predictions/",
)
def predict(
    model_path: Annotated[Path, typer.Option("--model_path", "--model", help="Checkpoint.")],
    output_path: Annotated[Path, typer.Option("--output_path", "--output", help="Folder of the label maps.")],
    input_path: Annotated[
        Path | None, typer.Option("--input", help="A NIfTI file, a folder of them, or a DICOM series.")
    ] = None,
    npy_path: Annotated[Path | None, typer.Option("--npy_path", help="Preprocessed cases instead of --input.")] = None,
    original_nii_path: Annotated[
        Path | None, typer.Option("--original_nii_path", help="With --npy_path: the scans, whose grid is returned to.")
    ] = None,
    gpu: Gpu = "0",
    exp: Annotated[str | None, typer.Option("--exp", help="Method of the checkpoint; checked.")] = None,
    dataset: Dataset = None,
    num_classes: NumClasses = None,
    split: Annotated[
        str | None, typer.Option("--split", help="With --npy_path: only the cases of this list, e.g. test or eval.")
    ] = None,
    overlap: Annotated[
        float, typer.Option("--overlap", min=0.0, max=0.99, help="Overlap of neighbouring windows.")
    ] = 0.5,
    blending: Annotated[str, typer.Option("--blending", help="Window weights: gaussian or uniform.")] = "gaussian",
    batch_size: Annotated[int, typer.Option("--batch_size", min=1, help="Windows per forward pass.")] = 1,
    precision: Annotated[str, typer.Option("--precision", help="auto, fp32, bf16 or fp16.")] = "auto",
) -> None:
    """Predict label maps on exactly the grid of the input scans."""
    from duomod.inference.predict import run_predict
    from duomod.training.precision import choose_device

    finish(
        run_predict(
            model_path=model_path,
            output_path=output_path,
            input_path=input_path,
            npy_path=npy_path,
            original_nii_path=original_nii_path,
            device=str(choose_device(gpu)),
            method=exp,
            dataset=dataset,
            num_classes=num_classes,
            split=split,
            overlap=overlap,
            blending=blending,
            batch_size=batch_size,
            precision=precision,
        )
    )


@command("evaluate", "duomod evaluate --pred_path predictions/ --gt_path labelsTs/ --output_csv result.csv")
def evaluate(
    folders: Annotated[list[Path] | None, typer.Argument(help="PREDICTIONS TRUTH, instead of the two options.")] = None,
    pred_path: Annotated[Path | None, typer.Option("--pred_path", help="Predicted label maps.")] = None,
    gt_path: Annotated[Path | None, typer.Option("--gt_path", help="True label maps with the same names.")] = None,
    output_csv: Annotated[
        Path | None, typer.Option("--output_csv", help="Result table, .csv or .xlsx. Default: beside the predictions.")
    ] = None,
    num_classes: NumClasses = None,
    dataset: Dataset = None,
    metrics: Annotated[
        str, typer.Option("--metrics", help="Separated by commas: dice, iou, asd, hd95, hd, nsd, ...")
    ] = "dice,asd",
    asd: Annotated[
        str,
        typer.Option(
            "--asd", help="Variant of ASD: assd (symmetric, mm), ... itk_average_hausdorff (the reference's)."
        ),
    ] = "assd",
    protocol: Annotated[
        str, typer.Option("--protocol", help="default, or dhc (voxels of a 72x144x144 grid).")
    ] = "default",
    empty_policy: Annotated[
        str, typer.Option("--empty_policy", help="What an organ absent from truth, prediction or both counts.")
    ] = "default",
    tolerance: Annotated[float, typer.Option("--tolerance", min=0.0, help="Tolerance of NSD in mm.")] = 2.0,
    workers: Workers = 2,
    allow_missing: Annotated[
        bool, typer.Option("--allow_missing", help="Score a case without prediction as all-missed.")
    ] = False,
    cases: Annotated[
        Path | None, typer.Option("--cases", help="List of the cases to score, one id a line, e.g. splits/test.txt.")
    ] = None,
) -> None:
    """Score label maps against the truth: Dice and average symmetric surface distance in mm, and more."""
    from duomod.evaluation.evaluate import run_evaluate

    given = list(folders or [])
    if len(given) == 2 and pred_path is None and gt_path is None:
        pred_path, gt_path = given
    elif given:
        raise InputError("give both folders, PREDICTIONS and TRUTH, or the options --pred_path and --gt_path")
    if pred_path is None or gt_path is None:
        raise InputError("give the predictions (--pred_path) and the truth (--gt_path)")
    finish(
        run_evaluate(
            pred_path,
            gt_path,
            output_csv=output_csv,
            num_classes=num_classes,
            dataset=dataset,
            metrics=metrics.split(","),
            asd=asd,
            protocol=protocol,
            empty_policy=empty_policy,
            tolerance_mm=tolerance,
            workers=workers,
            allow_missing=allow_missing,
            cases=_case_list(cases),
        )
    )


@command("aggregate", "duomod aggregate --method_base_dir logs/amos/duomodnet")
def aggregate(
    method_base_dir: Annotated[Path, typer.Option("--method_base_dir", help="Folder with a folder per seed.")],
    seed_pattern: Annotated[str, typer.Option("--seed_pattern", help="Which of its folders are seeds.")] = "seed_*",
    results_filename: Annotated[str, typer.Option("--results_filename", help="Result table in each.")] = "result",
    aggregated_csv_output: Annotated[
        Path | None, typer.Option("--aggregated_csv_output", help="Per-case metrics averaged over seeds.")
    ] = None,
    summary_output: Annotated[Path | None, typer.Option("--summary_output", help="The summary as text.")] = None,
    min_seeds: Annotated[int, typer.Option("--min_seeds", min=1)] = 2,
    dataset: Dataset = None,
    ddof: Annotated[int, typer.Option("--ddof", min=0, max=1, help="1: sample standard deviation; 0: population.")] = 1,
    group_table: Annotated[
        Path | None, typer.Option("--group_table", help="Table of cases (scanner, modality, ...) to group by.")
    ] = None,
    table: Annotated[
        list[Path] | None, typer.Option("--table", help="Also write the means as .md, .tex, .csv or .xlsx; repeatable.")
    ] = None,
) -> None:
    """Average a method's results over its seeds: mean ± std per class, over the foreground and over the tail."""
    from duomod.evaluation.aggregate import run_aggregate
    from duomod.report.tables import summaries_of, write_tables

    summary = run_aggregate(
        method_base_dir,
        seed_pattern=seed_pattern,
        results_filename=results_filename,
        aggregated_csv_output=aggregated_csv_output,
        summary_output=summary_output,
        min_seeds=min_seeds,
        dataset=dataset,
        ddof=ddof,
        group_table=group_table,
    )
    if table:
        summaries = summaries_of(
            [method_base_dir],
            dataset=dataset,
            min_seeds=min_seeds,
            ddof=ddof,
            seed_pattern=seed_pattern,
            results_filename=results_filename,
        )
        write_tables(summaries, table)
    finish(summary)


@command("compare", "duomod compare cps_aggregated_metrics.csv duomodnet_aggregated_metrics.csv --baseline cps")
def compare(
    tables: Annotated[list[Path], typer.Argument(help="Aggregated tables of two or more methods.")],
    baseline: Annotated[str, typer.Option("--baseline", help="The method the others are compared with.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the comparison.")] = Path("comparison"),
    metrics: Annotated[
        str | None, typer.Option("--metrics", help="Columns, separated by commas: Dice,ASD. Default: all.")
    ] = None,
    dataset: Dataset = None,
    alpha: Annotated[float, typer.Option("--alpha", help="Level of significance, between 0 and 1.")] = 0.05,
    resamples: Annotated[int, typer.Option("--resamples", help="Bootstrap samples, at least 100.")] = 10_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of bootstrap and permutations.")] = 0,
) -> None:
    """Compare methods case by case: paired tests, Holm correction, bootstrap intervals, a sentence per comparison."""
    from duomod.evaluation.compare import run_compare

    finish(
        run_compare(
            tables,
            baseline=baseline,
            output=output,
            metrics=[name.strip() for name in metrics.split(",")] if metrics else None,
            dataset=dataset,
            alpha=alpha,
            resamples=resamples,
            seed=seed,
        )
    )


@command("report", "duomod report runs/supervised runs/duomodnet -o report")
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of methods (with seed_*), or evaluated folders.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the report.")] = Path("report"),
    images: Annotated[
        Path | None, typer.Option("--images", help="Scans; default: those that the predictions were made from.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option("--truth", help="True label maps; default: those of the evaluation.")
    ] = None,
    dataset: Dataset = None,
    baseline: Annotated[
        str | None, typer.Option("--baseline", help="Compare with this method; default: supervised, else the first.")
    ] = None,
    worst: Annotated[int, typer.Option("--worst", min=0, help="Worst cases pictured per method.")] = 5,
    viewer: Annotated[bool, typer.Option("--viewer/--no_viewer", help="A 2D/3D viewer of every case.")] = True,
    all_seeds: Annotated[
        bool, typer.Option("--all_seeds", help="The viewer shows all seeds, not only the first of each method.")
    ] = False,
    title: Annotated[str | None, typer.Option("--title", help="Of the page.")] = None,
) -> None:
    """Write a report that opens offline: tables, charts, tests, worst cases, settings, and a viewer of every case."""
    from duomod.report.page import run_report

    finish(
        run_report(
            runs,
            output,
            images=images,
            truth=truth,
            dataset=dataset,
            baseline=baseline,
            worst=worst,
            viewer=viewer,
            all_seeds=all_seeds,
            title=title,
        )
    )


@command("view", "duomod view scan.nii.gz --pred prediction.nii.gz --gt truth.nii.gz")
def view(
    case: Annotated[Path, typer.Argument(help="The scan: a NIfTI file or a DICOM folder.")],
    pred: Annotated[list[Path] | None, typer.Option("--pred", help="Predicted label map; several times.")] = None,
    gt: Annotated[Path | None, typer.Option("--gt", help="True label map.")] = None,
    dataset: Dataset = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Of the server; 0: a free one.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no_browser", help="Open the page.")] = True,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the page into this folder instead of serving it.")
    ] = None,
) -> None:
    """Look at a scan with truth, predictions and errors, in three planes and in 3D, in the browser."""
    from duomod.report.viewer.serve import run_view

    page = run_view(case, pred=pred or [], gt=gt, dataset=dataset, port=port, open_browser=browser, output=output)
    if page is not None:
        finish(page)


@command("methods", "duomod methods")
def methods() -> None:
    """List all methods: paper, year, network, parameters, memory and time of a step relative to supervised."""
    from duomod.console import out
    from duomod.methods.catalog import listing

    out.print(listing(), markup=False)


@command("check-method", "duomod check-method duomodnet")
def check_method(
    name: Annotated[str, typer.Argument(help="Name of a method, or path of a Python file with one.")],
) -> None:
    """Run the conformance suite over a method: gradients, saving, shapes, determinism, learning, leaks."""
    from duomod.methods.conformance import check_method as run_checks
    from duomod.methods.registry import load_method, load_plugin

    _report_rules(name, run_checks(load_plugin(Path(name)) if name.endswith(".py") else load_method(name)))


@command("check-network", "duomod check-network unet")
def check_network(
    name: Annotated[str, typer.Argument(help="Name of a network, or path of a Python file with one.")],
) -> None:
    """Run the conformance suite over a network: sizes, channels, encoder and decoder, gradients, saving."""
    from duomod.networks.conformance import check_network as run_checks
    from duomod.networks.registry import load_network, only_network

    kind = only_network(Path(name)) if name.endswith(".py") else load_network(name)
    _report_rules(name, run_checks(kind, Path(name).stem))


def _report_rules(name: str, results: Sequence[Result]) -> None:
    from duomod.console import out

    for result in results:
        out.print(f"{'passed' if result.passed else 'FAILED'}  {result.rule}  {result.message}".rstrip(), markup=False)
    failed = [result.rule for result in results if not result.passed]
    if failed:
        raise DuomodError(f"{name}: {len(failed)} of {len(results)} rules failed: {', '.join(failed)}")


@command("phantom", "duomod phantom phantom_raw --cases 12 --seed 0 --preset tiny")
def phantom(
    out: Annotated[Path, typer.Argument(help="Where the data set goes (AMOS layout).")],
    cases: Annotated[int, typer.Option("--cases", min=1)] = 12,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    preset: Annotated[str, typer.Option("--preset", help="amos (15 organs) or tiny.")] = "amos",
    unlabeled: Annotated[int, typer.Option("--unlabeled", min=0, help="Further training scans without labels.")] = 0,
    workers: Workers = 1,
) -> None:
    """Write the built-in phantom: abdominal CT-like scans with AMOS's organs."""
    from duomod.datasets.phantom import write_phantom

    if preset not in ("amos", "tiny"):
        raise InputError(f"--preset '{preset}': amos or tiny")
    finish(
        write_phantom(
            out,
            cases=cases,
            seed=seed,
            preset=preset,  # type: ignore[arg-type]
            unlabeled=unlabeled,
            workers=workers,
        )
    )


@command("pipeline", "duomod pipeline experiment.yaml")
def pipeline(
    config: Annotated[Path, typer.Argument(help="YAML file; see docs/pipeline.md.")],
    dry_run: Annotated[bool, typer.Option("--dry_run", help="Only print the commands.")] = False,
) -> None:
    """Run stages for several methods and seeds. A missing seed is reported and the rest goes on."""
    from duomod.experiments.pipeline import load_pipeline, run_pipeline

    finish(run_pipeline(load_pipeline(config), dry_run=dry_run))


@command("demo", "duomod demo --output demo")
def demo(
    output: Annotated[Path, typer.Option("--output", help="Where everything goes.")] = Path("demo"),
    gpu: Gpu = "",
    epochs: Annotated[int | None, typer.Option("--max_epochs", min=1, help="Shorter or longer training.")] = None,
) -> None:
    """Run the whole chain on the built-in phantom: three methods, two seeds each, three labelled scans."""
    from duomod.experiments.demo import run_demo

    finish(run_demo(output, gpu=gpu, max_epochs=epochs))


def _case_list(path: Path | None) -> tuple[str, ...] | None:
    if path is None:
        return None
    from duomod.datasets.splits import read_list

    return read_list(path)


#: Exit code after Ctrl-C, as shells have it.
INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> None:
    """Entry point: run a command, turn a user's mistakes into one message and the exit code 2."""
    try:
        app(arguments)
    except DuomodError as error:
        if error.exit_code == INTERRUPTED:
            print(error, file=sys.stderr)
        else:
            _complain(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _complain("interrupted")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        explanation = explain_disk_error(error)
        if explanation is None:
            raise
        _complain(explanation)
        sys.exit(2)


def _complain(message: str) -> None:
    lines = message.splitlines() or [""]
    print(f"error: {lines[0]}", file=sys.stderr)
    for line in lines[1:]:
        print(f"       {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
