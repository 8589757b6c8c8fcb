"""Whole experiments: stages × methods × seeds, from one YAML file. What fails is reported; the rest goes on."""

from __future__ import annotations

from pathlib import Path

from duomod.console import out
from duomod.experiments.executor import executor_settings
from duomod.experiments.planning import plan_of
from duomod.experiments.records import Records
from duomod.experiments.schedule import PlanInterrupted, Schedule
from duomod.experiments.settings import PipelineConfig, PipelineSettings, load_pipeline
from duomod.flags import command_line
from duomod.locks import locked


def run_pipeline(settings: PipelineSettings) -> Path | None:
    """Run the experiment of a file; see :func:`run_experiment`. A dry run prints its commands instead.

    Returns:
        The path of the last result; None after a dry run.

    Raises:
        InputError: lists every wrong field of the file.
    """
    config = load_pipeline(settings.config)
    if settings.dry_run:
        cls, own = executor_settings(config.executor)
        executor = cls(own, Records(config.steps), config.jobs)
        out.print(plan_of(config).script(executor.environment), markup=False)
        return None
    return run_experiment(config, command_line(settings))


def run_experiment(config: PipelineConfig, command: str) -> Path:
    """Run the stages; what is done already is left alone.

    Args:
        config: The experiment.
        command: A command line: how to go on after an interruption.

    Returns:
        The path of the last result.

    Raises:
        StepsFailed: exit code 1; lists what failed, after everything else was done.
        PlanInterrupted: exit code 130; says how to go on.
        InputError: another pipeline is at work on the same steps.
    """
    cls, own = executor_settings(config.executor)
    records = Records(config.steps)
    try:
        with locked(config.steps, "a pipeline"):
            Schedule(plan_of(config), cls(own, records, config.jobs), records).run()
    except PlanInterrupted:
        raise PlanInterrupted(f"to go on, run: {command}") from None
    if config.stages.report:
        return config.report_settings().output
    if config.stages.comparison:
        return config.compare_settings().output
    return config.methods[-1].summary if config.stages.aggregation else config.methods[-1].log_root
