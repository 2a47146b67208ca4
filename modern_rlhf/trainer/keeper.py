"""`Keeper`: what every training loop survives with, and what it says of itself while it runs.

Checkpoints, resume, periodic evaluation, early stopping, the answer to a stop request, the lock on the
checkpoint folder, the progress bar and the log lines. Knows no algorithm, no loss and no data.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from modern_rlhf.checkpoint.state import random_state, restore_random_state
from modern_rlhf.checkpoint.store import LoadedCheckpoint
from modern_rlhf.config.training import TrainingConfig
from modern_rlhf.errors import StopRequested
from modern_rlhf.trainer.loop import TrainResult
from modern_rlhf.trainer.runtime import Evaluate, Runtime, deterministic_kernels
from modern_rlhf.utils.atomic import write_json
from modern_rlhf.utils.lock import RunLock

LOGGER = logging.getLogger(__name__)

BEGINNING = "beginning.json"


@dataclass
class Keeper:
    """Checkpoints, resume, periodic evaluation, early stopping, stop requests: one for each loop.

    `state` returns everything the loop must survive with, `restore` takes it back; the loop runs
    inside `run`, calls `begin` once and `after_step` after every step. Several processes keep in
    step: all call everything here, the main one writes, and its word decides.
    """

    stage: str
    training: TrainingConfig
    runtime: Runtime
    total_steps: int
    state: Callable[[], dict[str, Any]]
    restore: Callable[[Mapping[str, Any]], None]
    evaluate: Evaluate | None = None
    best: float | None = None
    bad_evaluations: int = 0
    tokens: int = 0
    last_metrics: dict[str, float] = field(default_factory=dict)
    _bar: Any = None
    _began: float = 0.0
    _earlier_tokens: int = 0
    _step_began: float = 0.0
    _saved_step: int = -1
    _score: float | None = None

    def run(self, loop: Callable[[], TrainResult]) -> TrainResult:
        """`loop()` with the checkpoint folder to itself.

        Raises:
            OutputError: another run holds the folder.
        """
        store, processes = self.runtime.store, self.runtime.processes
        if self.training.deterministic:
            deterministic_kernels()
        if store is None:
            return loop()
        lock = RunLock(store.folder)
        processes.on_main(lambda: lock.acquire() is lock)
        try:
            return loop()
        finally:
            lock.release()

    def begin(self) -> tuple[int, bool]:
        """Restore the newest checkpoint when resuming.

        Returns:
            The step to continue from, and whether to: a run that had stopped early is over.
        """
        step = 0
        runtime = self.runtime
        if runtime.resume and runtime.store is not None:
            loaded = self._load(runtime.store.load_latest)
            if loaded is not None:
                self.restore(loaded.state)
                keeper = loaded.state["keeper"]
                self.best, self.bad_evaluations = keeper["best"], keeper["bad_evaluations"]
                self.tokens = self._earlier_tokens = keeper["tokens"]
                if runtime.tracker is not None:
                    runtime.tracker.truncate_to(keeper["offsets"])
                self._restore_random(loaded.state["random"])
                step = self._saved_step = loaded.step
        if step == 0:
            self._mark_beginning()
        self._began = self._step_began = time.monotonic()
        self._bar = tqdm(
            total=self.total_steps,
            initial=step,
            desc=self.stage,
            unit="step",
            disable=not runtime.progress,
            dynamic_ncols=True,
        )
        if runtime.tracker is not None:
            runtime.tracker.status(
                state="running", stage=self.stage, step=step, total_steps=self.total_steps
            )
        if step == 0 and self.evaluate is not None:
            self._evaluate(0, 0.0)
        return step, self._patient

    def _mark_beginning(self) -> None:
        """Remember where the logs were before the first step, or cut them back to there.

        A run that was killed before its first checkpoint begins again, and must not log a step twice.
        """
        store, tracker = self.runtime.store, self.runtime.tracker
        if store is None or tracker is None:
            return
        path = store.folder / BEGINNING
        if self.runtime.resume and path.is_file():
            tracker.truncate_to(json.loads(path.read_text(encoding="utf-8"))["offsets"])
        else:
            write_json(path, {"offsets": tracker.offsets()}, 1)

    def _load(self, find: Callable[..., LoadedCheckpoint | None]) -> LoadedCheckpoint | None:
        """A good checkpoint: the main process chooses by `find`, the others read the same one."""
        store, processes = self.runtime.store, self.runtime.processes
        assert store is not None
        model = self.state()["model"]
        found: list[LoadedCheckpoint | None] = []

        def choose() -> int | None:
            found.append(find({"model": model}))
            return None if found[0] is None else found[0].step

        step = processes.on_main(choose)
        if processes.is_main or step is None:
            return found[0] if found else None
        return store.load(step)

    def _take_best(self, step: int) -> int:
        """Put the checkpoint with the best evaluation in place of the end state; the step it is of."""
        store = self.runtime.store
        best = None if store is None else self._load(store.best)
        if best is None or best.step == step:
            return step
        self.restore(best.state)
        LOGGER.info(
            "%s: the model of step %d is taken, whose evaluation was best (%.4g)",
            self.stage,
            best.step,
            best.metric,
        )
        return best.step

    def _restore_random(self, states: list[dict[str, Any]]) -> None:
        """This process's own state; a process that the saved run did not have takes the main one's."""
        processes = self.runtime.processes
        if len(states) != processes.count:
            LOGGER.warning(
                "the checkpoint is of %d processes, this run has %d: training goes on, equal up to "
                "the order in which numbers are added",
                len(states),
                processes.count,
            )
        restore_random_state(states[processes.rank if processes.rank < len(states) else 0])

    def after_step(
        self,
        step: int,
        metrics: Mapping[str, float],
        *,
        epoch: float,
        tokens: int,
        shown: Mapping[str, str],
    ) -> bool:
        """Log, evaluate, save, and say whether to go on. `step` counts finished steps.

        Raises:
            StopRequested: somebody asked to stop; a checkpoint has been written.
        """
        runtime, training = self.runtime, self.training
        self.tokens += tokens
        self.last_metrics = dict(metrics)
        seconds = time.monotonic() - self._step_began
        if runtime.tracker is not None:
            runtime.tracker.log(self.stage, step, metrics, epoch=epoch)
            runtime.tracker.log_timing(
                self.stage,
                step,
                {"seconds": seconds, "tokens_per_second": tokens / max(seconds, 1e-9)},
            )
            runtime.tracker.status(
                state="running",
                stage=self.stage,
                step=step,
                total_steps=self.total_steps,
                epoch=epoch,
            )
        self._bar.update(1)
        self._bar.set_postfix(shown, refresh=False)
        go_on = True
        last = step >= self.total_steps
        self._score = None
        if self.evaluate is not None and (last or _due(step, training.eval_steps)):
            go_on = self._evaluate(step, epoch)
        if runtime.processes.any(runtime.stop.requested):
            self.save(step)
            self._bar.close()
            if runtime.tracker is not None:
                runtime.tracker.status(
                    state="interrupted", message="stopped by request; use --resume"
                )
            raise StopRequested(
                f"stopped by request in stage {self.stage} after step {step}; "
                "run the same command with --resume to go on from there"
            )
        if _due(step, training.save_steps) and not last:
            self.save(step)
        self._step_began = time.monotonic()
        return go_on

    def _evaluate(self, step: int, epoch: float) -> bool:
        assert self.evaluate is not None
        with self.runtime.whole_weights():
            found = dict(self.evaluate(step, epoch))
        values = self.runtime.processes.gather(found)[0]
        score = values.pop("score", None)
        if self.runtime.tracker is not None:
            self.runtime.tracker.log(self.stage, step, values, epoch=epoch, kind="eval")
        self._score = score
        if score is None:
            return True
        if self.best is None or score > self.best:
            self.best, self.bad_evaluations = score, 0
        else:
            self.bad_evaluations += 1
        return self._patient

    @property
    def _patient(self) -> bool:
        """Whether the last evaluations without gain are still few enough to go on."""
        patience = self.training.early_stopping_patience
        return not (patience and self.bad_evaluations >= patience)

    def save(self, step: int) -> None:
        """Write a checkpoint of everything: all processes contribute, the main one writes."""
        store, tracker, processes = self.runtime.store, self.runtime.tracker, self.runtime.processes
        if store is None or step == self._saved_step:
            return
        state = self.state()
        state["random"] = processes.gather(random_state())
        state["keeper"] = {
            "best": self.best,
            "bad_evaluations": self.bad_evaluations,
            "tokens": self.tokens,
            "offsets": tracker.offsets() if tracker is not None else {},
        }
        processes.on_main(lambda: str(store.save(step, state, metric=self._score)))
        self._saved_step = step

    def finish(self, step: int, *, stopped_early: bool) -> TrainResult:
        """Save the end state and close the bar; the best model instead of it where that is asked for."""
        self.save(step)
        best = self.training.load_best_model_at_end
        model_step = self._take_best(step) if best else step
        self._bar.close()
        return TrainResult(
            steps=step,
            metrics=self.last_metrics,
            seconds=time.monotonic() - self._began,
            tokens=self.tokens,
            stopped_early=stopped_early,
            model_step=model_step,
            earlier_tokens=self._earlier_tokens,
        )


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
