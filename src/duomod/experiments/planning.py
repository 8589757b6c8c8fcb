"""From an experiment's file to its plan: which commands, in which order, and what each needs and leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from duomod.evaluation.settings import RESULT_TABLE, AggregateSettings
from duomod.experiments.settings import CHECKPOINT, MethodEntry, PipelineConfig
from duomod.experiments.steps import Kind, Plan, Step
from duomod.flags import to_argv
from duomod.settings import Settings
from duomod.workspace import PREDICTED, TRAINED


def plan_of(config: PipelineConfig) -> Plan:
    """The steps of the stages that are switched on."""
    return Plan(tuple(_Planner(config).steps()))


def _step(name: str, kind: Kind, settings: Settings, **rest: object) -> Step:
    return Step(name, kind, tuple(to_argv(settings)), **rest)  # type: ignore[arg-type]


class _Planner:
    def __init__(self, config: PipelineConfig) -> None:
        self.config = config
        self.stages = config.stages
        self.runs = [(entry, seed) for entry in config.methods for seed in config.seeds]
        self.gpus = int(bool(config.gpu.strip()))

    def steps(self) -> Iterator[Step]:
        """All steps, each after those that it waits for."""
        stages = self.stages
        if stages.preprocessing:
            yield self._preprocess()
        if stages.training:
            yield from (self._train(*run) for run in self.runs)
        for run in self.runs:
            if stages.inference:
                yield self._predict(*run)
            if stages.evaluation:
                yield self._evaluate(*run)
        if stages.aggregation:
            yield from (self._aggregate(entry) for entry in self.config.methods)
        if stages.comparison:
            yield self._compare()
        if stages.report:
            yield self._report()

    @staticmethod
    def _name(entry: MethodEntry, seed: int, what: str) -> str:
        return f"{entry.title}, seed {seed}: {what}"

    def _preprocessed(self) -> tuple[str, ...]:
        return ("preprocess",) if self.stages.preprocessing else ()

    def _preprocess(self) -> Step:
        settings = self.config.preprocess_settings()
        return _step(
            "preprocess",
            Kind.PREPROCESS,
            settings,
            reads=(settings.data_path,),
            done=(settings.output_path / "dataset.json",),
        )

    def _train(self, entry: MethodEntry, seed: int) -> Step:
        settings = self.config.train_settings(entry, seed)
        run = entry.run(seed)
        return _step(
            self._name(entry, seed, "train"),
            Kind.TRAIN,
            settings,
            needs=self._preprocessed(),
            reads=(settings.data_path / "dataset.json",),
            done=(run / TRAINED, run / CHECKPOINT),
            gpus=self.gpus,
            run=run,
        )

    def _predict(self, entry: MethodEntry, seed: int) -> Step:
        settings = self.config.predict_settings(entry, seed)
        trained = (self._name(entry, seed, "train"),) if self.stages.training else self._preprocessed()
        inputs = (settings.npy_path, settings.original_nii_path, settings.input_path, settings.cases)
        return _step(
            self._name(entry, seed, "predict"),
            Kind.PREDICT,
            settings,
            needs=trained,
            requires=(settings.model_path,),
            reads=tuple(path for path in inputs if path is not None),
            done=(settings.output_path / PREDICTED, settings.output_path),
            gpus=self.gpus,
            run=entry.run(seed),
        )

    def _evaluate(self, entry: MethodEntry, seed: int) -> Step:
        settings = self.config.evaluate_settings(entry, seed)
        run = entry.run(seed)
        table = run / RESULT_TABLE
        return _step(
            self._name(entry, seed, "evaluate"),
            Kind.EVALUATE,
            settings,
            needs=(self._name(entry, seed, "predict"),) if self.stages.inference else (),
            requires=(settings.pred_path,),
            reads=(settings.gt_path, *([settings.cases] if settings.cases else [])),
            done=(table, table.with_suffix(".json")),
            run=run,
        )

    def _evaluations(self, entry: MethodEntry) -> tuple[str, ...]:
        seeds = self.config.seeds if self.stages.evaluation else ()
        return tuple(self._name(entry, seed, "evaluate") for seed in seeds)

    def _aggregate(self, entry: MethodEntry) -> Step:
        settings = self.config.aggregate_settings(entry)
        return _step(
            f"{entry.title}: aggregate",
            Kind.AGGREGATE,
            settings,
            after=self._evaluations(entry),
            reads=self._results(settings, entry),
            done=(entry.aggregated, entry.summary),
        )

    def _results(self, settings: AggregateSettings, entry: MethodEntry) -> tuple[Path, ...]:
        """The tables of the experiment's seeds and of others that are there."""
        table = f"{settings.seed_pattern}/{settings.results_filename}"
        found = {path for suffix in (".csv", ".xlsx") for path in entry.log_root.glob(table + suffix)}
        return tuple(sorted(found | {entry.run(seed) / RESULT_TABLE for seed in self.config.seeds}))

    def _all_methods(self) -> dict[str, tuple[str, ...]]:
        """What a step over all methods waits for."""
        if self.stages.aggregation:
            return {"needs": tuple(f"{entry.title}: aggregate" for entry in self.config.methods)}
        return {"after": tuple(name for entry in self.config.methods for name in self._evaluations(entry))}

    def _compare(self) -> Step:
        settings = self.config.compare_settings()
        return _step(
            "compare",
            Kind.COMPARE,
            settings,
            **self._all_methods(),
            reads=settings.tables,
            done=(settings.output / "comparison.txt",),
        )

    def _report(self) -> Step:
        settings = self.config.report_settings()
        tables = [entry.run(seed) / RESULT_TABLE for entry, seed in self.runs]
        return _step(
            "report",
            Kind.REPORT,
            settings,
            **self._all_methods(),
            reads=tuple(tables),
            done=(settings.output / "index.html",),
        )
