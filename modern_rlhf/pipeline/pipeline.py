"""The main job: SFT -> reward model -> RLHF -> evaluation -> report, from one configuration.

Only the order of the stages and what a run leaves are decided here; the stages themselves are in
`stages`. A finished stage is never run again in the same folder; `resume` continues an unfinished one
from its last checkpoint. Everything that can fail on bad input (devices, files, columns, models)
is checked before the output folder is touched.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from modern_rlhf.config.sections import STAGES, ModernRLHFConfig
from modern_rlhf.config.training import OFFLINE_ALGORITHMS
from modern_rlhf.data_loader.evaluation_set import EvaluationSet
from modern_rlhf.data_loader.rows import prompts_from_rows
from modern_rlhf.errors import ConfigError, OutputError, StopRequested
from modern_rlhf.evaluation.results import PolicyEvaluation
from modern_rlhf.pipeline import plan, stages
from modern_rlhf.pipeline.artifacts import Artifacts, refuse_occupied
from modern_rlhf.pipeline.data import RunData, load_run_data, resolved, rows_line
from modern_rlhf.pipeline.results import PipelineResults, write_results
from modern_rlhf.pipeline.session import Session, seed_global_generators
from modern_rlhf.pipeline.settings import (
    FOLDERS,
    ROWS,
    check_earlier,
    check_stage,
    check_stage_choice,
    digest_of_prompts,
    made_with,
    remember_settings,
    stage_settings,
)
from modern_rlhf.pipeline.workspace import Workspace, folder_of
from modern_rlhf.report.build import build_report
from modern_rlhf.trainer.runtime import NeverStop, StopSignal
from modern_rlhf.utils.device import DeviceChoice, resolve_device


class ModernRLHFPipeline:
    """Runs the main job.

    Args:
        config: the configuration; validated here and never written to.
        resume: go on in a folder that holds an unfinished run.
        overwrite: remove what an earlier run wrote and start again.
        stage: `all`, or one of `sft`, `reward`, `rlhf`, `evaluate`, which reuse what earlier stages
            left in the folder.
        stop: a stop signal that loops poll between steps.
        progress: bars and lines on the terminal.

    Raises:
        ConfigError, DeviceError: unusable configuration, at construction.
    """

    def __init__(
        self,
        config: ModernRLHFConfig,
        *,
        resume: bool = False,
        overwrite: bool = False,
        stage: str = "all",
        stop: StopSignal | None = None,
        progress: bool = True,
    ) -> None:
        if stage not in STAGES:
            raise ConfigError(f"stage = {stage!r} is not one of {', '.join(STAGES)}")
        self.config = config.validate()
        self.algorithm = config.training.rlhf_algorithm
        check_stage_choice(config, stage, resume=resume, overwrite=overwrite)
        self.resume = resume
        self.overwrite = overwrite
        self.stage = stage
        self.stop = stop or NeverStop()
        self.progress = progress
        self.claimed = False
        self.device: DeviceChoice = resolve_device(
            config.hardware, mixed_precision=config.training.mixed_precision
        )
        self.artifacts = Artifacts(folder_of(config.data.output_path))

    # --- the run ----------------------------------------------------------------------------------

    def run_full_pipeline(self) -> PipelineResults:
        """Run the stages asked for and write everything a run leaves.

        Raises:
            ModernRLHFError: whatever went wrong, in one line; earlier results stay untouched.
            StopRequested: a stop was asked for; a checkpoint has been written.
        """
        check_earlier(self.artifacts, self.config, algorithm=self.algorithm, stage=self.stage)
        with self._session() as workspace:
            self._say_start(workspace)
            records: dict[str, Any] = {}
            for name, folder, run in self._training_stages():
                if self.stage not in ("all", name):
                    continue
                records[name] = self._run_stage(workspace, name, folder, run)
            results: dict[str, Any] = {}
            if self.stage in ("all", "evaluate"):
                results = self._evaluate(workspace, records)
            if workspace.tracker is not None:
                workspace.tracker.status(state="done", message="finished", stage="report")
            return self._results(records, results)

    run_multi_stage_pipeline = run_full_pipeline

    def dry_run(self) -> str:
        """The plan, after every check and one tiny step; an occupied folder is said, no error.

        Raises:
            ModernRLHFError: whatever else would stop the run. Nothing is written.
        """
        check_earlier(self.artifacts, self.config, algorithm=self.algorithm, stage=self.stage)
        lines = plan.dry_run(
            self.config,
            self.device,
            self.artifacts,
            stage=self.stage,
            runs=self._runs(self.stage),
            overwrite=self.overwrite,
        )
        try:
            refuse_occupied(
                self.artifacts.root, self.resume or self.overwrite or self.stage != "all"
            )
        except OutputError as error:
            return f"{lines}\nbut a run would stop: {error}"
        return lines

    def load_data(self) -> RunData:
        """All records of the run, checked and split."""
        return load_run_data(resolved(self.config))

    # --- single pieces, for notebooks ---------------------------------------------------------------
    # They go on in the folder of the run; `overwrite` counts for the first call only.

    def prepare_reward_model(self) -> Any:
        """Train the reward model, after SFT where that is missing, and return it (or the finished one)."""
        with self._session("reward", up_to="reward") as workspace:
            self._run_up_to(workspace, "reward")
            return stages.load_reward_model(workspace)

    def train_rlhf(self, train: Any = None, eval: Any = None) -> dict[str, Any]:
        """Run the RLHF stage, after the earlier ones where they are missing; its record.

        Args:
            train: prompts in place of the configured ones: texts, dicts, `Prompt`s or `Task`s.
            eval: items of the in-training evaluation, likewise.

        Raises:
            ConfigError: RLHF was trained in this folder already, on other prompts.
        """
        with self._session("rlhf", up_to="rlhf") as workspace:
            if train is not None:
                workspace.data.prompts = prompts_from_rows(train)
            if eval is not None:
                items = prompts_from_rows(eval)
                workspace.data.validation = EvaluationSet(items, "given in memory")
            if train is not None or eval is not None:
                workspace.check_tasks()
            given = None if train is None else digest_of_prompts(workspace.data.prompts)
            return self._run_up_to(workspace, "rlhf", {"prompts given to train_rlhf": given})

    def evaluate_model(self, model: str | None = None) -> PolicyEvaluation:
        """Evaluate a model (default: the newest of this run) on the evaluation set; removes nothing."""
        with self._session("evaluate", reads=True) as workspace:
            names = self._models()
            source = model or list(names.values())[-1]
            evaluator = workspace.evaluator()
            lm = stages.load_causal_lm(source, device=self.device.device)
            return evaluator.evaluate_policy(
                lm, stages.load_tokenizer(source), workspace.data.evaluation
            )

    def visualize_results(self) -> list[Path]:
        """Draw the plots and the HTML page again from the files of the output folder."""
        return list(build_report(self.artifacts.root))

    # --- how it is done -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _session(
        self, stage: str | None = None, *, up_to: str = "", reads: bool = False
    ) -> Iterator[Workspace]:
        """A session on this run's folder; single stages go on in a folder that is not empty.

        `up_to` says that the earlier stages will be run as well where they are missing.

        `overwrite` counts once, and not for what only `reads`: what this very object has written is
        gone on with, never removed.
        """
        stage = stage or self.stage
        overwrite = self.overwrite and not (self.claimed or reads)
        session = Session(
            config=self.config,
            device=self.device,
            artifacts=self.artifacts,
            resume=not overwrite and (self.resume or self.claimed or stage != "all"),
            overwrite=overwrite,
            stage=stage,
            runs=self._runs("all" if up_to else stage, up_to or "rlhf"),
            algorithm=self.algorithm,
            stop=self.stop,
            progress=self.progress,
        )
        with session as workspace:
            self.claimed |= overwrite == self.overwrite
            yield workspace

    def _runs(self, stage: str, last: str = "rlhf") -> list[str]:
        """The training stages of `--stage stage`; of all, those up to `last`."""
        names = [name for name, _, _ in self._training_stages()]
        return names[: names.index(last) + 1] if stage == "all" else [stage]

    def _run_up_to(
        self, workspace: Workspace, last: str, given: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run the stages up to `last` that are not finished; the last one's record."""
        record: dict[str, Any] = {}
        for name, folder, run in self._training_stages():
            record = self._run_stage(workspace, name, folder, run, given if name == last else None)
            if name == last:
                break
        return record

    def _training_stages(self) -> list[tuple[str, str, Callable[[Workspace], dict[str, Any]]]]:
        """(stage, folder, function) in order, as far as the configuration wants them."""
        training, reward = self.config.training, self.config.reward
        found: list[tuple[str, str, Callable[[Workspace], dict[str, Any]]]] = []
        if training.use_multi_stage:
            found.append(("sft", "sft", stages.run_sft))
            if reward.use_custom_reward:
                found.append(("reward", "reward_model", stages.run_reward))
        if self.algorithm in OFFLINE_ALGORITHMS and not training.dpo_online:
            from modern_rlhf.pipeline.offline import run_offline

            found.append(("rlhf", self.algorithm, run_offline))
        else:
            found.append(("rlhf", self.algorithm, stages.run_rlhf))
        return found

    def _run_stage(
        self,
        workspace: Workspace,
        name: str,
        folder: str,
        run: Callable[[Workspace], dict[str, Any]],
        given: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Run a stage unless it is finished; logs of an abandoned attempt are cut off first."""
        artifacts, tracker, processes = self.artifacts, workspace.tracker, workspace.processes
        rows = {ROWS: rows_line(workspace.data, self.config, name)}
        settings = {**stage_settings(self.config, name), **rows, **(given or {})}
        processes.on_main(lambda: check_stage(artifacts, folder, settings))
        done = processes.on_main(lambda: artifacts.done(folder))
        if done is not None:
            made = made_with(artifacts, folder).get(ROWS, rows[ROWS])
            of = "" if made == rows[ROWS] else f", made of {made}; now there are {rows[ROWS]}"
            workspace.say(f"{name}: already finished in {artifacts.stage(folder)}, kept{of}")
            return done
        if tracker is not None and processes.is_main:
            workspace.begin_logs(name if name in FOLDERS else folder, folder)
            remember_settings(artifacts, folder, settings)
            tracker.status(state="running", stage=name, message=f"stage {name}")
        seed_global_generators(self.config.training.seed)
        found = run(workspace)

        def finish() -> dict[str, Any]:
            artifacts.finish(folder, found)
            if tracker is not None:
                artifacts.set_offsets(tracker.offsets())
            return found

        record = processes.on_main(finish)
        workspace.say(
            f"{name}: {record['steps']} steps in {record['seconds']:.0f} s, "
            f"{record['tokens_per_second']:.0f} tokens/s, peak {record['peak_memory_mb'] or 0:.0f} MB"
        )
        return record

    def _models(self) -> dict[str, str]:
        """base, sft and rlhf as far as this run has them."""
        models = {"base": self.config.model.base_model_name}
        for name, folder in (("sft", "sft"), ("rlhf", self.algorithm)):
            path = self.artifacts.final_model(folder)
            if (path / "config.json").is_file():
                models[name] = str(path)
        return models

    def _evaluate(self, workspace: Workspace, records: dict[str, Any]) -> dict[str, Any]:
        """Evaluate every model, each process its share of the items, and write what follows."""
        began = time.monotonic()
        if workspace.tracker is not None:
            workspace.tracker.status(state="running", stage="evaluate", message="evaluation")
        models = self._models()
        start = models.get("sft", models["base"])
        found: dict[str, PolicyEvaluation] = {}
        for name, model in models.items():
            found[name] = stages.run_evaluation(
                workspace,
                name=name,
                model=model,
                kl_to=start if name == "rlhf" else None,
                items=workspace.data.evaluation,
            )
            if workspace.processes.any(self.stop.requested):
                raise StopRequested("stopped by request during evaluation; --resume goes on")
        seconds = round(time.monotonic() - began, 2)
        folders = {**FOLDERS, "rlhf": self.algorithm}

        def conclude() -> dict[str, Any]:
            for stage_name, folder in folders.items():
                kept = self.artifacts.done(folder)
                if kept is not None:
                    records.setdefault(stage_name, kept)
            records["evaluate"] = {"seconds": seconds}
            return write_results(workspace, self.algorithm, found, records=records, models=models)

        return workspace.processes.on_main(conclude)

    def _results(self, records: Mapping[str, Any], results: Mapping[str, Any]) -> PipelineResults:
        models: Mapping[str, Any] = results.get("models", {})
        last = list(models)[-1] if models else None
        metrics = {k: v["value"] for k, v in models[last].items()} if last else {}
        return PipelineResults(
            success=True,
            evaluation_metrics=metrics,
            targets_met=dict(results.get("targets_met", {})),
            stages=dict(records),
            output_dir=self.artifacts.root,
            results=dict(results),
        )

    def _say_start(self, workspace: Workspace) -> None:
        workspace.say(self.device.line())
        if self.resume and not self.artifacts.offsets():
            workspace.say(f"nothing to resume in {self.artifacts.root}: from the beginning")
        for line in workspace.data.lines:
            workspace.say(line)


def run_multi_stage_pipeline(config: ModernRLHFConfig, **options: Any) -> PipelineResults:
    """`ModernRLHFPipeline(config, **options).run_full_pipeline()`."""
    return ModernRLHFPipeline(config, **options).run_full_pipeline()
