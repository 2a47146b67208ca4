"""The one loop of every online algorithm: sample, score, compare, learn.

Each step of this loop is one rollout and the updates on it:
  1. draw prompts, sample G responses each, score the texts             (rollout.collect)
  2. log-probs of policy and reference, values, all without gradient     (fill_log_probs)
  3. scores: running normalisation, clip, missing-EOS rule               (shape_scores)
  4. advantages, as the algorithm's row says                             (algorithms.ALGORITHMS)
  5. `ppo_epochs` passes in fresh permutations, an optimiser step a mini-batch (update)
  6. KL controller, logs, evaluation, checkpoint                         (loop.Keeper)
What differs between PPO, REINFORCE, RLOO and GRPO is a row of the table, never a branch here. The
learning rate changes once a rollout (D22); `total_steps` counts optimiser steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modern_rlhf.advantages import missing_eos
from modern_rlhf.config.sections import TrainingConfig, check_training
from modern_rlhf.errors import TrainingError
from modern_rlhf.losses.policy import entropy_bonus
from modern_rlhf.losses.sft import sft_loss
from modern_rlhf.losses.value import clipped_value_loss, explained_variance
from modern_rlhf.models.forward import Policy, ValueModel, make_sequences
from modern_rlhf.ops.kl import AdaptiveKLController, FixedKLController, kl_estimate
from modern_rlhf.ops.masking import batch_denominator, masked_mean, masked_sum
from modern_rlhf.ops.moments import RunningMoments, clip
from modern_rlhf.records import Prompt
from modern_rlhf.rewards.base import Reward
from modern_rlhf.rollout.collect import collect
from modern_rlhf.rollout.types import GenerationEngine, RolloutBatch
from modern_rlhf.trainer.algorithms import (
    ALGORITHMS,
    AdvantageInputs,
    Advantages,
    PolicyLossInputs,
    sequence_kl,
)
from modern_rlhf.trainer.loop import (
    EpochSampler,
    Keeper,
    MetricSums,
    TrainResult,
    check_finite,
    linear_schedule,
    make_optimizer,
    micro_batches,
    set_learning_rate,
)
from modern_rlhf.trainer.rollout_log import rollout_metrics, rollout_rows
from modern_rlhf.trainer.runtime import Evaluate, Runtime


@dataclass(frozen=True)
class OnlineParts:
    """Everything the loop moves: models, data, reward, sampler.

    Attributes:
        policy: the model that learns (with a value head on its trunk for a shared value model).
        reference: a frozen policy; None when nothing compares against one, or under LoRA, where
            the reference is the policy with its adapters off.
        value_model: a value network of its own, or None.
        prompts, prompt_ids: records and their rendered token ids, aligned.
        sft_rows: (prompt ids, response ids) for a mixed-in SFT loss, may be empty.
    """

    policy: Policy
    reference: Policy | None
    value_model: ValueModel | None
    tokenizer: Any
    prompts: Sequence[Prompt]
    prompt_ids: Sequence[list[int]]
    reward: Reward
    engine: GenerationEngine
    sft_rows: Sequence[tuple[list[int], list[int]]] = ()


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
        self.prompts_per_rollout = training.rollout_batch_size // group // runtime.world_size
        self.sampler = EpochSampler(len(parts.prompts), seed=training.seed)
        self.sft_sampler = EpochSampler(max(1, len(parts.sft_rows)), seed=training.seed + 1)
        self.generator = torch.Generator().manual_seed(training.seed + 7919 * (runtime.rank + 1))
        self.updates_per_rollout = (
            training.ppo_epochs if self.algorithm.reuses_rollout else 1
        ) * training.ppo_mini_batches
        wanted = math.ceil(
            len(parts.prompts) * training.rlhf_epochs * group / training.rollout_batch_size
        )
        if training.total_steps is not None:
            wanted = min(wanted, math.ceil(training.total_steps / self.updates_per_rollout))
        self.total_rollouts = max(1, wanted)

        self.policy = runtime.prepare(parts.policy)
        self.value_model = None if parts.value_model is None else runtime.prepare(parts.value_model)
        if parts.reference is not None:
            parts.reference.to(runtime.device).eval().requires_grad_(False)
        value_rate = training.value_learning_rate or training.learning_rate
        policy_parameters, value_parameters = self._parameters()
        self.optimizer = make_optimizer(
            [(policy_parameters, training.learning_rate), (value_parameters, value_rate)], training
        )
        self.trainable = [p for g in self.optimizer.param_groups for p in g["params"]]
        self.kl_controller: FixedKLController | AdaptiveKLController = (
            AdaptiveKLController(
                training.ppo_kl_penalty,
                target=training.ppo_target_kl,
                horizon=training.ppo_kl_horizon,
            )
            if training.ppo_adaptive_kl
            else FixedKLController(training.ppo_kl_penalty)
        )
        self.moments = RunningMoments()
        self.baseline: float | None = None
        self.optimizer_steps = 0
        self.keeper = Keeper(
            stage=training.algorithm,
            training=training,
            runtime=runtime,
            total_steps=self.total_rollouts,
            state=self.state,
            restore=self.restore,
            evaluate=evaluate,
        )

    def _parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        policy, value = [], []
        for name, parameter in self.policy.named_parameters():
            (value if "value_head" in name else policy).append(parameter)
        if self.value_model is not None:
            value += list(self.value_model.parameters())
        return policy, value

    def state(self) -> dict[str, Any]:
        """All that has to survive a kill between two rollouts."""
        modules = {"policy": self.runtime.unwrap(self.policy).state_dict()}
        if self.value_model is not None:
            modules["value"] = self.runtime.unwrap(self.value_model).state_dict()
        return {
            "model": modules,
            "optimizer": self.optimizer.state_dict(),
            "trainer": {
                "generator": self.generator.get_state(),
                "kl_controller": self.kl_controller.state_dict(),
                "moments": self.moments.state_dict(),
                "baseline": self.baseline,
                "optimizer_steps": self.optimizer_steps,
                "scaler": self.runtime.scaler.state_dict(),
            },
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.runtime.unwrap(self.policy).load_state_dict(state["model"]["policy"])
        if self.value_model is not None:
            self.runtime.unwrap(self.value_model).load_state_dict(state["model"]["value"])
        self.optimizer.load_state_dict(state["optimizer"])
        trainer = state["trainer"]
        self.generator.set_state(trainer["generator"])
        self.kl_controller.load_state_dict(trainer["kl_controller"])
        self.moments.load_state_dict(trainer["moments"])
        self.baseline = trainer["baseline"]
        self.optimizer_steps = trainer["optimizer_steps"]
        self.runtime.scaler.load_state_dict(trainer["scaler"])

    def train(self) -> TrainResult:
        """Run to the last rollout, an early stop, or a stop request."""
        training = self.training
        step = self.keeper.begin()
        self.parts.engine.sync()
        go_on = True
        while go_on and step < self.total_rollouts:
            rate = set_learning_rate(
                self.optimizer,
                linear_schedule(step, total=self.total_rollouts, warmup=training.warmup_steps),
            )
            batch = self.rollout(step)
            self.fill_log_probs(batch)
            advantages, scores = self.advantages(batch)
            sums = MetricSums()
            updates = self.update(batch, advantages, step, sums)
            self.parts.engine.sync()
            metrics = self.metrics(batch, advantages, scores, sums, updates, rate)
            self.kl_controller.update(metrics["kl"], len(batch) * self.runtime.world_size)
            step += 1
            self._log_rollouts(batch, advantages, step)
            self._guard(metrics, step)
            epoch = (
                step * self.prompts_per_rollout * self.runtime.world_size / len(self.parts.prompts)
            )
            go_on = self.keeper.after_step(
                step,
                metrics,
                epoch=epoch,
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

    def rollout(self, step: int) -> RolloutBatch:
        """Sample and score this step's episodes; each process takes its own prompts."""
        parts, training = self.parts, self.training
        world = self.runtime.world_size
        cursor = (
            step * self.prompts_per_rollout * world + self.runtime.rank * self.prompts_per_rollout
        )
        chosen = self.sampler.take(cursor, self.prompts_per_rollout)
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
        )
        unscorable = 1.0 - float(batch.valid.float().mean())
        if unscorable > training.max_unscorable_share:
            raise TrainingError(
                f"{unscorable:.0%} of the samples of step {step + 1} could not be scored, more than "
                f"training.max_unscorable_share = {training.max_unscorable_share:.0%}; look at the "
                "verdicts in rollouts.jsonl (`modern-rlhf doctor` checks the executor)"
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
        for rows in self._micro(range(len(batch)), batch):
            sequences = self._sequences(batch, rows)
            with self.runtime.autocast():
                out = self.policy(sequences, temperature=self.training.temperature)
                reference = self._reference_log_probs(sequences)
                values = out.values if self.value_model is None else self.value_model(sequences)
            cut = out.log_probs.shape[1]
            batch.log_probs[rows, :cut] = out.log_probs.cpu()
            batch.ref_log_probs[rows, :cut] = (
                out.log_probs if reference is None else reference
            ).cpu()
            if batch.values is not None:
                assert values is not None
                batch.values[rows, :cut] = values.cpu()

    def _reference_log_probs(self, sequences: Any) -> Tensor | None:
        if self.parts.reference is not None:
            out = self.parts.reference(sequences, temperature=self.training.temperature)
            return out.log_probs  # type: ignore[no-any-return]
        lm = self.parts.policy.lm
        if hasattr(lm, "disable_adapter"):
            with lm.disable_adapter():
                out = self.parts.policy(sequences, temperature=self.training.temperature)
            return out.log_probs
        return None

    # 3, 4 -----------------------------------------------------------------------------------------

    def shape_scores(self, batch: RolloutBatch) -> Tensor:
        """(B,) scores after the EOS rule, running normalisation and the clip; 0 if unscorable."""
        training = self.training
        raw = torch.tensor([0.0 if s is None else float(s) for s in batch.scores.total])
        scores = missing_eos(
            raw,
            torch.tensor(batch.finished),
            rule=training.missing_eos_rule,  # type: ignore[arg-type]
            value=training.missing_eos_value,
        )
        if training.ppo_normalize_scores:
            self.moments.update(scores[batch.valid])
            scores = scores / max(float(self.moments.std), 1e-6)
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

    # 5 --------------------------------------------------------------------------------------------

    def update(
        self, batch: RolloutBatch, advantages: Advantages, step: int, sums: MetricSums
    ) -> dict[str, float]:
        """All optimiser steps on one rollout; mean gradient norm and how many there were."""
        training = self.training
        epochs = training.ppo_epochs if self.algorithm.reuses_rollout else 1
        norms: list[float] = []
        planned = epochs * training.ppo_mini_batches
        value_only = step < training.ppo_value_warmup_rollouts and self.algorithm.needs_value
        stop_inner = False
        for _ in range(epochs):
            order = torch.randperm(len(batch), generator=self.generator).tolist()
            for rows in _split(order, training.ppo_mini_batches):
                if stop_inner or self._cap_reached():
                    break
                before = MetricSums()
                self._accumulate(batch, advantages, rows, before, value_only)
                done = before.result(self.runtime)
                check_finite(
                    done.get("policy_loss", 0.0),
                    what="the policy loss",
                    step=step + 1,
                    remedy="lower training.learning_rate or use --set training.mixed_precision=no",
                )
                norms.append(
                    self.runtime.step(self.optimizer, self.trainable, training.max_grad_norm)
                )
                self.optimizer_steps += 1
                sums.add({k: torch.tensor(v) for k, v in done.items()})
                limit = training.ppo_early_stop_kl
                stop_inner = limit is not None and done.get("approx_kl", 0.0) > limit
        count = max(1, len(norms))
        return {
            "gradient_norm": sum(norms) / count,
            "updates": float(len(norms)),
            "planned": planned,
        }

    def _cap_reached(self) -> bool:
        cap = self.training.total_steps
        return cap is not None and self.optimizer_steps >= cap

    def _accumulate(
        self,
        batch: RolloutBatch,
        advantages: Advantages,
        rows: Sequence[int],
        sums: MetricSums,
        value_only: bool,
    ) -> None:
        """Gradients of one optimiser batch, micro-batch by micro-batch, one global denominator."""
        training = self.training
        mask = batch.mask
        how, constant_length = self.algorithm.aggregation(training)
        denominator = self.runtime.sum_over_processes(
            batch_denominator(mask[rows], how=how, constant_length=constant_length)  # type: ignore[arg-type]
        )
        tokens = self.runtime.sum_over_processes(batch_denominator(mask[rows], how="token_mean"))
        for micro in self._micro(rows, batch):
            sequences = self._sequences(batch, micro)
            with self.runtime.autocast():
                out = self.policy(sequences, temperature=training.temperature, with_entropy=True)
                values = out.values if self.value_model is None else self.value_model(sequences)
            width = out.log_probs.shape[1]

            def part(
                tensor: Tensor | None, rows: Sequence[int] = micro, width: int = width
            ) -> Tensor:
                assert tensor is not None
                return tensor[rows, :width].to(self.runtime.device)

            policy_loss, metrics = self.algorithm.policy_loss(
                PolicyLossInputs(
                    log_probs=out.log_probs,
                    old_log_probs=part(batch.log_probs),
                    ref_log_probs=part(batch.ref_log_probs),
                    advantages=part(advantages.advantages),
                    mask=part(mask),
                    denominator=denominator,
                    how=how,
                    constant_length=constant_length,
                    kl_coefficient=self.kl_controller.value,
                    training=training,
                )
            )
            entropy_loss, entropy_metrics = entropy_bonus(
                out.entropy, part(mask), denominator=tokens
            )
            loss = policy_loss + training.ppo_entropy_coef * entropy_loss
            if value_only:
                loss = 0.0 * loss
            if self.algorithm.needs_value:
                assert values is not None
                value_loss, value_metrics = clipped_value_loss(
                    values=values,
                    old_values=part(batch.values),
                    returns=part(advantages.returns),
                    mask=part(mask),
                    clip=training.ppo_value_clip,
                    denominator=tokens,
                )
                loss = loss + training.ppo_value_loss_coef * value_loss
                sums.add({"value_loss": value_loss, **value_metrics})
            self.runtime.backward(loss)
            sums.add({"policy_loss": policy_loss, **metrics, **entropy_metrics})
        if training.ppo_sft_coef > 0 and self.parts.sft_rows:
            self._accumulate_sft(len(rows), sums)

    def _accumulate_sft(self, count: int, sums: MetricSums) -> None:
        """Gradients of the mixed-in SFT loss (ptx) on as many demonstrations as episodes."""
        chosen = self.sft_sampler.take(self.optimizer_steps * count, count)
        rows = [self.parts.sft_rows[i] for i in chosen]
        lengths = [len(p) + len(r) for p, r in rows]
        tokens = self.runtime.sum_over_processes(torch.tensor(float(sum(len(r) for _, r in rows))))
        for micro in micro_batches(
            range(len(rows)), lengths, max_tokens=self.training.tokens_per_micro_batch
        ):
            sequences = make_sequences(
                [rows[i][0] for i in micro],
                [rows[i][1] for i in micro],
                pad_id=self.parts.tokenizer.pad_token_id,
            ).to(self.runtime.device)
            with self.runtime.autocast():
                out = self.policy(sequences)
            loss, _ = sft_loss(
                log_probs=out.log_probs, mask=sequences.response_mask, denominator=tokens
            )
            self.runtime.backward(self.training.ppo_sft_coef * loss)
            sums.add({"sft_loss": loss})

    def _micro(self, rows: Sequence[int], batch: RolloutBatch) -> list[list[int]]:
        return micro_batches(rows, batch.lengths(), max_tokens=self.training.tokens_per_micro_batch)

    def _sequences(self, batch: RolloutBatch, rows: Sequence[int]) -> Any:
        pad_id = self.parts.tokenizer.pad_token_id
        return batch.sequences(rows, pad_id=pad_id).to(self.runtime.device)

    # 6 --------------------------------------------------------------------------------------------

    def metrics(
        self,
        batch: RolloutBatch,
        advantages: Advantages,
        scores: Tensor,
        sums: MetricSums,
        updates: Mapping[str, float],
        rate: float,
    ) -> dict[str, float]:
        """Everything logged for one rollout; each key is explained in docs/metrics.md."""
        assert batch.log_probs is not None and batch.ref_log_probs is not None
        mask = batch.mask
        count = max(1.0, updates["updates"])
        logged = {name: value / count for name, value in sums.result(self.runtime).items()}
        kl = masked_sum(batch.log_probs - batch.ref_log_probs, mask, dim=-1)[batch.valid]
        k3 = kl_estimate(batch.log_probs, batch.ref_log_probs, kind="k3")
        local = {
            **rollout_metrics(batch, scores),
            "kl": float(kl.mean()) if len(kl) else 0.0,
            "kl_k3_per_token": float(masked_mean(k3, mask)),
            "log_perplexity": -float(masked_mean(batch.log_probs, mask)),
            "sampler_log_prob_gap": float(
                masked_mean((batch.log_probs - batch.sampling_log_probs).abs(), mask)
            ),
        }
        if advantages.returns is not None and batch.values is not None:
            local["explained_variance"] = float(
                explained_variance(values=batch.values, returns=advantages.returns, mask=mask)
            )
        averaged = {
            name: float(self.runtime.sum_over_processes(torch.tensor(value)))
            / self.runtime.world_size
            for name, value in local.items()
        }
        return {
            **logged,
            **averaged,
            "gradient_norm": updates["gradient_norm"],
            "kl_coefficient": self.kl_controller.value,
            "learning_rate": rate,
            "optimizer_steps": float(self.optimizer_steps),
        }

    def _log_rollouts(self, batch: RolloutBatch, advantages: Advantages, step: int) -> None:
        tracker = self.runtime.tracker
        if tracker is None:
            return
        assert batch.log_probs is not None and batch.ref_log_probs is not None
        kl = masked_sum(batch.log_probs - batch.ref_log_probs, batch.mask, dim=-1)
        mean_advantage = masked_mean(advantages.advantages, batch.mask, dim=-1)
        tracker.log_rollouts(
            rollout_rows(
                batch, stage=self.training.algorithm, step=step, kl=kl, advantage=mean_advantage
            )
        )

    def _guard(self, metrics: Mapping[str, float], step: int) -> None:
        limit = self.training.abort_kl
        if limit is not None and metrics["kl"] > limit:
            raise TrainingError(
                f"KL to the reference is {metrics['kl']:.1f} at step {step}, above "
                f"training.abort_kl = {limit}: the policy has run away; raise "
                "training.ppo_kl_penalty or lower training.learning_rate"
            )


def _split(order: list[int], parts: int) -> list[list[int]]:
    """`order` in `parts` runs whose sizes differ by at most one."""
    size, rest = divmod(len(order), parts)
    runs, start = [], 0
    for index in range(parts):
        end = start + size + (index < rest)
        if end > start:
            runs.append(order[start:end])
        start = end
    return runs


__all__ = ["OnlineLoop", "OnlineParts", "sequence_kl"]
