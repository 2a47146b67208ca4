"""The one loop of every online algorithm: sample, score, compare, learn.

Each step of this loop is one rollout and the updates on it:
  1. draw prompts, sample G responses each, score the texts             (rollout.collect)
  2. log-probs of policy and reference, values, all without gradient     (fill_log_probs)
     Each process does 1 and 2 for its share of the prompts, and knows the whole rollout after it.
  3. scores: running normalisation, clip, missing-EOS rule               (shape_scores)
  4. advantages, as the algorithm's row says                             (algorithms.ALGORITHMS)
  5. `ppo_epochs` passes in fresh permutations, an optimiser step a mini-batch (update.Updater);
     where asked for, steps on the best answers so far                   (imitation.BestAnswers)
  6. KL controller, logs, evaluation, checkpoint                         (loop.Keeper)
What differs between PPO, REINFORCE, RLOO and GRPO is a row of the table, never a branch here. The
learning rate changes once a rollout (D22); `total_steps` counts optimiser steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from modern_rlhf.advantages import missing_eos
from modern_rlhf.config.training import TrainingConfig, check_training
from modern_rlhf.errors import ConfigError, TrainingError
from modern_rlhf.losses.value import explained_variance
from modern_rlhf.ops.kl import kl_estimate
from modern_rlhf.ops.masking import masked_mean, masked_sum
from modern_rlhf.ops.moments import RunningMoments, clip
from modern_rlhf.rollout.collect import collect
from modern_rlhf.rollout.credit import executed_tokens
from modern_rlhf.rollout.types import RolloutBatch, Share
from modern_rlhf.trainer.algorithms import ALGORITHMS, AdvantageInputs, Advantages, kl_controller
from modern_rlhf.trainer.imitation import BestAnswers
from modern_rlhf.trainer.inputs import adapters_off
from modern_rlhf.trainer.keeper import Keeper
from modern_rlhf.trainer.loop import (
    EpochSampler,
    MetricSums,
    TrainResult,
    linear_schedule,
    set_learning_rate,
)
from modern_rlhf.trainer.rollout_log import (
    check_kl,
    rollout_metrics,
    rollout_rows,
    why_unscorable,
)
from modern_rlhf.trainer.runtime import Evaluate, Runtime
from modern_rlhf.trainer.update import OnlineParts, Updater

EOS_VALUES = {"none": 0.0, "replace": -1.0, "subtract": 1.0}  # where the value is null (D13)


class OnlineLoop:
    """Trains `parts.policy` against `parts.reward`.

    Raises:
        ConfigError: the training section contradicts itself or the algorithm.
        TrainingError: NaN, collapse, or too many unscorable samples.
        StopRequested: a stop was asked for; a checkpoint has been written.
    """

    def __init__(
        self,
        parts: OnlineParts,
        *,
        training: TrainingConfig,
        runtime: Runtime,
        evaluate: Evaluate | None = None,
    ) -> None:
        self.parts = parts
        self.training = check_training(training)
        self.runtime = runtime
        self.algorithm = ALGORITHMS[training.algorithm]
        group = training.samples_per_prompt
        self.prompts_per_rollout = training.rollout_batch_size // group
        if self.prompts_per_rollout < runtime.processes.count:
            raise ConfigError(
                f"a rollout of {self.prompts_per_rollout} prompts cannot be shared by "
                f"{runtime.processes.count} processes: raise training.rollout_batch_size"
            )
        self.sampler = EpochSampler(len(parts.prompts), seed=training.seed)
        # The same in every process: each uses its own rows of what is drawn (D24).
        self.generator = torch.Generator().manual_seed(training.seed + 7919)
        self.updater = Updater(
            parts,
            algorithm=self.algorithm,
            training=training,
            runtime=runtime,
            generator=self.generator,
        )
        self.memory = BestAnswers()
        self.updates_per_rollout = self.updater.steps_per_rollout
        wanted = math.ceil(
            len(parts.prompts) * training.rlhf_epochs * group / training.rollout_batch_size
        )
        if training.total_steps is not None:
            wanted = min(wanted, math.ceil(training.total_steps / self.updates_per_rollout))
        self.total_rollouts = max(1, wanted)

        if parts.reference is not None:
            parts.reference.to(runtime.device).eval().requires_grad_(False)
        self.kl_controller = kl_controller(training)
        self.moments = RunningMoments()
        self.baseline: float | None = None
        self.keeper = Keeper(
            stage=training.algorithm,
            training=training,
            runtime=runtime,
            total_steps=self.total_rollouts,
            state=self.state,
            restore=self.restore,
            evaluate=evaluate,
        )

    def state(self) -> dict[str, Any]:
        """All that has to survive a kill between two rollouts."""
        modules = {"policy": self.runtime.state_of(self.updater.policy)}
        if self.updater.value_model is not None:
            modules["value"] = self.runtime.state_of(self.updater.value_model)
        return {
            "model": modules,
            "optimizer": self.runtime.state_of(self.updater.optimizer),
            "trainer": {
                "generator": self.generator.get_state(),
                "kl_controller": self.kl_controller.state_dict(),
                "moments": self.moments.state_dict(),
                "baseline": self.baseline,
                "memory": self.memory.state_dict(),
                "optimizer_steps": self.updater.optimizer_steps,
                "scaler": self.runtime.scaler.state_dict(),
            },
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.runtime.load(self.updater.policy, state["model"]["policy"])
        if self.updater.value_model is not None:
            self.runtime.load(self.updater.value_model, state["model"]["value"])
        self.runtime.load(self.updater.optimizer, state["optimizer"])
        trainer = state["trainer"]
        self.generator.set_state(trainer["generator"])
        self.kl_controller.load_state_dict(trainer["kl_controller"])
        self.moments.load_state_dict(trainer["moments"])
        self.baseline = trainer["baseline"]
        self.memory.load_state_dict(trainer["memory"])
        self.updater.optimizer_steps = trainer["optimizer_steps"]
        self.runtime.scaler.load_state_dict(trainer["scaler"])

    def train(self) -> TrainResult:
        """Run to the last rollout, an early stop, or a stop request."""
        return self.keeper.run(self._loop)

    def _loop(self) -> TrainResult:
        training = self.training
        step, go_on = self.keeper.begin()
        while go_on and step < self.total_rollouts:
            rate = set_learning_rate(
                self.updater.optimizer,
                linear_schedule(step, total=self.total_rollouts, warmup=training.warmup_steps),
            )
            batch = self.rollout(step)
            self.fill_log_probs(batch)
            batch = RolloutBatch.joined(self.runtime.processes.gather(batch))
            batch.credited = executed_tokens(batch, self.parts.tokenizer)
            advantages, scores = self.advantages(batch)
            sums = MetricSums()
            beta = self.kl_controller.value
            updates = self.updater.update(
                batch, advantages, step=step, kl_coefficient=beta, sums=sums
            )
            if training.self_imitation_steps:
                self.memory.add_rollout(batch, scores, self._drawn(step))
                updates |= self.updater.imitate(self.memory, step=step)
            metrics = self.metrics(batch, advantages, scores, sums, updates, rate)
            self.kl_controller.update(metrics["kl"], int(batch.valid.sum()))
            step += 1
            if tracker := self.runtime.tracker:
                tracker.log_rollouts(
                    rollout_rows(batch, advantages.advantages, training.algorithm, step)
                )
            check_kl(metrics["kl"], training.abort_kl, step=step)
            go_on = self.keeper.after_step(
                step,
                metrics,
                epoch=step * self.prompts_per_rollout / len(self.parts.prompts),
                tokens=sum(batch.lengths()),
                shown={
                    "reward": f"{metrics['reward']:.3f}",
                    "kl": f"{metrics['kl']:.2f}",
                    "loss": f"{metrics['policy_loss']:.3f}",
                    "lr": f"{rate:.1e}",
                },
            )
        return self.keeper.finish(step, stopped_early=not go_on)

    # 1 --------------------------------------------------------------------------------------------

    def _drawn(self, step: int) -> list[int]:
        return self.sampler.take(step * self.prompts_per_rollout, self.prompts_per_rollout)

    def rollout(self, step: int) -> RolloutBatch:
        """Sample and score this process's share of the step's episodes."""
        parts, training, processes = self.parts, self.training, self.runtime.processes
        count = self.prompts_per_rollout
        mine = processes.share(count)
        chosen = self._drawn(step)[mine.start : mine.stop]
        with self.runtime.whole_weights():
            parts.engine.sync()
            batch = collect(
                [parts.prompts[i] for i in chosen],
                [parts.prompt_ids[i] for i in chosen],
                engine=parts.engine,
                tokenizer=parts.tokenizer,
                reward=parts.reward,
                samples_per_prompt=training.samples_per_prompt,
                max_new_tokens=training.max_response_tokens,
                temperature=training.temperature,
                generator=self.generator,
                share=Share(mine, count),
                stop_strings=training.stop_strings,
            )
        valid = float(processes.sum(batch.valid.float().sum()))
        unscorable = 1.0 - valid / (count * training.samples_per_prompt)
        if unscorable > training.max_unscorable_share:
            raise TrainingError(
                f"{unscorable:.0%} of the samples of step {step + 1} could not be scored, more than "
                f"training.max_unscorable_share = {training.max_unscorable_share:.0%}: "
                f"{why_unscorable(batch)} (`modern-rlhf doctor` checks the executor)"
            )
        return batch

    # 2 --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def fill_log_probs(self, batch: RolloutBatch) -> None:
        """Old log-probs and values by the training forward (D33), reference log-probs beside."""
        width = int(batch.response_lengths.max())
        shape = (len(batch), width)
        batch.log_probs, batch.ref_log_probs = torch.zeros(shape), torch.zeros(shape)
        batch.values = torch.zeros(shape) if self.algorithm.needs_value else None
        micros = self.updater.micro(range(len(batch)), batch)
        for micro, _ in self.runtime.in_step(micros):
            sequences = self.updater.sequences(batch, micro.distinct)
            with self.runtime.autocast():
                out = self.updater.policy(sequences, temperature=self.training.temperature)
                reference = self._reference_log_probs(sequences)
                values = (
                    out.values
                    if self.updater.value_model is None
                    else self.updater.value_model(sequences)
                )
            rows, place, cut = micro.rows, micro.place, out.log_probs.shape[1]
            batch.log_probs[rows, :cut] = out.log_probs.cpu()[place]
            batch.ref_log_probs[rows, :cut] = reference.cpu()[place]
            if batch.values is not None:
                assert values is not None
                batch.values[rows, :cut] = values.cpu()[place]

    def _reference_log_probs(self, sequences: Any) -> Tensor:
        """By the frozen reference, or under LoRA by the policy without its adapters."""
        temperature = self.training.temperature
        if self.parts.reference is not None:
            return self.parts.reference(sequences, temperature=temperature).log_probs  # type: ignore[no-any-return]
        with adapters_off(self.parts.policy.lm):
            return self.parts.policy(sequences, temperature=temperature).log_probs  # type: ignore[no-any-return]

    # 3, 4 -----------------------------------------------------------------------------------------

    def shape_scores(self, batch: RolloutBatch) -> Tensor:
        """(B,) scores after the EOS rule, running normalisation and the clip; 0 if unscorable."""
        training = self.training
        rule, value = training.missing_eos_rule, training.missing_eos_value
        raw = torch.tensor([0.0 if s is None else float(s) for s in batch.scores.total])
        scores = missing_eos(
            raw,
            torch.tensor(batch.finished),
            rule=rule,  # type: ignore[arg-type]
            value=EOS_VALUES[rule] if value is None else value,
        )
        if training.ppo_normalize_scores:
            self.moments.update(scores[batch.valid])
            scores = scores / max(self.moments.std, 1e-6)
        return clip(scores, training.ppo_score_clip) * batch.valid

    def advantages(self, batch: RolloutBatch) -> tuple[Advantages, Tensor]:
        assert batch.log_probs is not None and batch.ref_log_probs is not None
        scores = self.shape_scores(batch)
        found = self.algorithm.advantages(
            AdvantageInputs(
                scores=scores,
                valid=batch.valid,
                mask=batch.mask,
                log_probs=batch.log_probs,
                ref_log_probs=batch.ref_log_probs,
                values=batch.values,
                kl_coefficient=self.kl_controller.value,
                group_size=self.training.samples_per_prompt,
                baseline=self.baseline,
                training=self.training,
            )
        )
        self.baseline = found.baseline
        return found, scores

    # 6 --------------------------------------------------------------------------------------------

    def metrics(
        self,
        batch: RolloutBatch,
        advantages: Advantages,
        scores: Tensor,
        sums: MetricSums,
        updates: dict[str, float],
        rate: float,
    ) -> dict[str, float]:
        """Everything logged for one rollout; each key is explained in docs/metrics.md."""
        assert batch.log_probs is not None and batch.ref_log_probs is not None
        mask = batch.mask
        count = max(1.0, updates.pop("updates"))
        logged = {name: value / count for name, value in sums.own().items()}
        kl = masked_sum(batch.log_probs - batch.ref_log_probs, mask, dim=-1)[batch.valid]
        k3 = kl_estimate(batch.log_probs, batch.ref_log_probs, kind="k3")
        sampled = {
            **rollout_metrics(batch, scores),
            "kl": float(kl.mean()) if len(kl) else 0.0,
            "kl_k3_per_token": float(masked_mean(k3, mask)),
            "log_perplexity": -float(masked_mean(batch.log_probs, mask)),
            "sampler_log_prob_gap": float(
                masked_mean((batch.log_probs - batch.sampling_log_probs).abs(), mask)
            ),
        }
        if advantages.returns is not None and batch.values is not None:
            sampled["explained_variance"] = float(
                explained_variance(values=batch.values, returns=advantages.returns, mask=mask)
            )
        return {
            **logged,
            **sampled,
            **updates,
            "kl_coefficient": self.kl_controller.value,
            "learning_rate": rate,
            "optimizer_steps": float(self.updater.optimizer_steps),
        }
