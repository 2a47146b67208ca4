"""What all stages of one run share: configuration, device, logs, data, executor, reward.

Made once by the pipeline and handed to every stage; stages keep nothing in it but their artifacts.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from modern_rlhf.checkpoint.store import CheckpointStore
from modern_rlhf.config.sections import ModernRLHFConfig
from modern_rlhf.errors import DataError
from modern_rlhf.evaluation.evaluator import Evaluator
from modern_rlhf.models.loading import Backbone, load_backbone
from modern_rlhf.pipeline.artifacts import Artifacts
from modern_rlhf.pipeline.data import RunData
from modern_rlhf.reward_model.model import CustomRewardModel
from modern_rlhf.rewards.base import Reward
from modern_rlhf.rewards.composite import CompositeReward
from modern_rlhf.rewards.execution import ExecutionReward, make_executor
from modern_rlhf.rewards.learned import LearnedReward
from modern_rlhf.rewards.semantic import SemanticReward
from modern_rlhf.rewards.syntax import SyntaxReward
from modern_rlhf.sandbox.executor import SandboxExecutor
from modern_rlhf.sandbox.remembered import check_prompts
from modern_rlhf.tracking import RunTracker
from modern_rlhf.trainer.processes import Processes
from modern_rlhf.trainer.runtime import NeverStop, Runtime, StopSignal
from modern_rlhf.utils.device import DeviceChoice
from modern_rlhf.utils.paths import at_home

LOGGER = logging.getLogger("modern_rlhf")


@dataclass
class Workspace:
    """See the module docstring. `close` frees the executor's processes."""

    config: ModernRLHFConfig
    device: DeviceChoice
    artifacts: Artifacts
    data: RunData
    tracker: RunTracker | None
    resume: bool = False
    stop: StopSignal = field(default_factory=NeverStop)
    progress: bool = True
    _executor: SandboxExecutor | None = None
    _encoder: Backbone | None = None

    def say(self, text: str) -> None:
        """One line for the person at the terminal and for training.log."""
        if self.progress:
            tqdm.write(text)
        LOGGER.info("%s", text)

    def begin_logs(self, stage: str, folder: str) -> None:
        """Cut off what an abandoned attempt at a stage has logged, unless its checkpoint says from where."""
        tracker, artifacts = self.tracker, self.artifacts
        if tracker is None:
            return
        known = artifacts.offsets() if self.resume else {}
        if not known:
            artifacts.set_offsets(tracker.offsets())
        elif not list(artifacts.stage(folder).glob("checkpoint-*")):
            tracker.truncate_to(known)
            tracker.forget(stage)
            artifacts.set_offsets(tracker.offsets())

    @property
    def processes(self) -> Processes:
        """All processes of this run; only the main one writes files."""
        return self.runtime().processes

    @property
    def executor(self) -> SandboxExecutor:
        """The executor of generated code, started at first use.

        Raises:
            SandboxError: this machine offers less isolation than `reward.execution_min_layer`.
        """
        if self._executor is None:
            self._executor = make_executor(
                self.config.reward, workers=self.config.hardware.sandbox_workers
            )
        return self._executor

    def check_tasks(self) -> None:
        """Leave out the tasks that cannot be judged: their reference fails, or a stub passes.

        Raises:
            DataError: nothing is left of a list. SandboxError: the executor cannot do its work.
        """
        data, reward = self.data, self.config.reward
        for name, items in (
            ("prompts", data.prompts),
            ("validation", data.validation.items),
            ("evaluation", data.evaluation.items),
        ):
            if all(prompt.task is None for prompt in items):
                continue
            checked = check_prompts(
                items,
                self.executor,
                timeout=reward.execution_timeout,
                memory_mb=reward.execution_memory_mb,
            )
            data.lines.append(f"{name}: {checked.line()}")
            if not checked.prompts:
                raise DataError(
                    f"none of the {len(items)} tasks of {name} can be judged: {checked.line()}; look at "
                    "the tests and references"
                )
            items[:] = checked.prompts

    def runtime(self, stage: str | None = None) -> Runtime:
        """A runtime for one stage, with its checkpoints; without a stage, for measuring only."""
        store = None
        if stage is not None:
            store = CheckpointStore(
                self.artifacts.stage(stage),
                keep_last=self.config.training.keep_checkpoints,
            )
        return Runtime(
            device=self.device.device,
            dtype=self.device.dtype,
            tracker=self.tracker if stage is not None else None,
            store=store,
            stop=self.stop,
            resume=self.resume,
            progress=self.progress,
        )

    def evaluator(self, *, reward: Reward | None = None) -> Evaluator:
        """The evaluation with this run's settings."""
        config = self.config
        return Evaluator(
            runtime=self.runtime(),
            executor=self.executor,
            max_prompt_tokens=config.training.max_prompt_tokens,
            max_response_tokens=config.training.max_response_tokens,
            bertscore_model=config.evaluation.bertscore_model or config.model.reward_model_name,
            bootstrap_samples=config.evaluation.bootstrap_samples,
            seed=config.training.seed,
            prompt_style=config.model.prompt_style,
            system_prompt=config.model.system_prompt,
            tokens_per_micro_batch=config.training.tokens_per_micro_batch,
            reward=reward,
            stop_strings=config.training.stop_strings,
        )

    def reward(self, model: CustomRewardModel | None) -> CompositeReward:
        """The composite reward of the configuration, with the learned part where there is one."""
        section = self.config.reward
        parts: list[tuple[Any, float]] = [
            (
                SyntaxReward(partial_credit=section.syntax_partial_credit),
                section.syntax_reward_weight,
            ),
            (
                ExecutionReward(
                    self.executor,
                    kind=section.execution_kind,
                    trace_credit=section.execution_trace_credit,
                ),
                section.execution_reward_weight,
            ),  # type: ignore[arg-type]
            (self._semantic(), section.semantic_reward_weight),
        ]
        if model is not None:
            learned = LearnedReward(model, uncertainty_penalty=section.reward_uncertainty_penalty)
            parts.append((learned, section.human_preference_weight))
        return CompositeReward(parts)

    def _semantic(self) -> SemanticReward:
        kind, name = self.config.reward.semantic_kind, embedding_model(self.config)
        if kind == "embedding" and self._encoder is None:
            self._encoder = load_backbone(name, device=self.device.device)
        return SemanticReward(kind, backbone=self._encoder)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def bar(self, text: str, total: int) -> Iterator[Any]:
        """A progress bar over `total` answers; yields the function that advances it."""
        with tqdm(total=total, desc=text, unit="answer", disable=not self.progress) as bar:
            yield bar.update

    def close(self) -> None:
        if self._executor is not None:
            self._executor.close()
            self._executor = None


def embedding_model(config: ModernRLHFConfig) -> str:
    """The encoder of `semantic_kind=embedding`."""
    return config.reward.semantic_model_name or config.model.reward_model_name


def folder_of(output: str) -> Path:
    """The output folder, absolute."""
    # Not Path.resolve(), which raises a RuntimeError for a loop of links.
    return Path(os.path.realpath(at_home(output)))
