"""All commands of ``duomod`` as data: settings, the function that runs it, an example, and what it prints."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from duomod.datasets.phantom.settings import PhantomSettings
from duomod.evaluation.settings import AggregateSettings, CompareSettings, EvaluateSettings
from duomod.experiments.settings import DemoSettings, PipelineSettings, StatusSettings
from duomod.flags import Flag
from duomod.inference.settings import PredictSettings
from duomod.methods.settings import CheckMethodSettings, MethodsSettings
from duomod.networks.settings import CheckNetworkSettings
from duomod.preprocessing.settings import PreprocessSettings
from duomod.report.settings import ReportSettings
from duomod.report.viewer.settings import ViewSettings
from duomod.settings import Settings
from duomod.training.settings import TrainSettings


class PageSettings(Settings):
    """Print every setting with its default, range and meaning: of all commands, or of what is named."""

    command: ClassVar[str] = "settings"

    name: Annotated[str | None, Flag(positional=True)] = Field(
        None, description="A command, a method, a transform, or transforms for all of these."
    )
    markdown: bool = Field(False, description="As docs/settings.md is written.")


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        settings: Its options; the first paragraph of the model's docstring is the command's help.
        run: ``module:function`` from settings to a result, imported when the command runs. A path is printed last.
        example: Ends the help.
        output: ``module:name`` of an :class:`duomod.outputs.Output`, for commands that print a table.
    """

    settings: type[Settings]
    run: str
    example: str
    output: str | None = None

    @property
    def name(self) -> str:
        """What is typed after ``duomod``."""
        return self.settings.command

    @property
    def help(self) -> str:
        """What it does, in a sentence or two."""
        return " ".join((self.settings.__doc__ or "").partition("\n\n")[0].split())


COMMANDS: tuple[Command, ...] = (
    Command(
        PreprocessSettings,
        "duomod.preprocessing.preprocess:run_preprocess",
        "duomod preprocess --data_path Dataset/AMOS22 --output_path Dataset/AMOS22_preprocessed",
    ),
    Command(
        TrainSettings,
        "duomod.training.setup:run_train",
        "duomod train --model duomodnet --data_path Dataset/AMOS22_preprocessed --output_dir logs/amos/duomodnet/seed_0"
        " --labeled_ratio 5 --seed 0",
    ),
    Command(
        PredictSettings,
        "duomod.inference.predict:run_predict",
        "duomod predict --input scans/ --model logs/amos/duomodnet/seed_0/ckpts/best_model.pth --output predictions/",
    ),
    Command(
        EvaluateSettings,
        "duomod.evaluation.evaluate:run_evaluate",
        "duomod evaluate --pred_path predictions/ --gt_path labelsTs/ --output_csv result.csv",
        output="duomod.outputs:EVALUATE",
    ),
    Command(
        AggregateSettings,
        "duomod.evaluation.summary_files:run_aggregate",
        "duomod aggregate --method_base_dir logs/amos/duomodnet",
        output="duomod.outputs:WRITTEN",
    ),
    Command(
        CompareSettings,
        "duomod.evaluation.compare:run_compare",
        "duomod compare cps_aggregated_metrics.csv duomodnet_aggregated_metrics.csv --baseline cps",
        output="duomod.outputs:WRITTEN",
    ),
    Command(
        ReportSettings,
        "duomod.report.page:run_report",
        "duomod report runs/supervised runs/duomodnet -o report",
    ),
    Command(
        ViewSettings,
        "duomod.report.viewer.serve:run_view",
        "duomod view scan.nii.gz --pred prediction.nii.gz --gt truth.nii.gz",
    ),
    Command(
        MethodsSettings,
        "duomod.methods.catalog.listing:run_methods",
        "duomod methods duomodnet",
        output="duomod.outputs:METHODS",
    ),
    Command(
        CheckMethodSettings,
        "duomod.methods.conformance:run_check_method",
        "duomod check-method duomodnet",
        output="duomod.outputs:CHECKED",
    ),
    Command(
        CheckNetworkSettings,
        "duomod.networks.conformance:run_check_network",
        "duomod check-network unet",
        output="duomod.outputs:CHECKED",
    ),
    Command(
        PageSettings,
        "duomod.settings_page:run_settings",
        "duomod settings train",
        output="duomod.outputs:SETTINGS",
    ),
    Command(
        PhantomSettings,
        "duomod.datasets.phantom:write_phantom",
        "duomod phantom phantom_raw --cases 12 --seed 0 --preset tiny",
    ),
    Command(
        PipelineSettings,
        "duomod.experiments.pipeline:run_pipeline",
        "duomod pipeline experiment.yaml",
    ),
    Command(
        StatusSettings,
        "duomod.experiments.status:run_status",
        "duomod status experiment.yaml",
        output="duomod.outputs:STATUS",
    ),
    Command(
        DemoSettings,
        "duomod.experiments.demo:run_demo",
        "duomod demo --output demo",
        output="duomod.outputs:DEMO",
    ),
)


def load(path: str) -> Any:
    """Import ``module:name``."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def runner(command: Command) -> Callable[[Settings], object]:
    """The function that runs a command; its stage is imported now."""
    function: Callable[[Settings], object] = load(command.run)
    return function
