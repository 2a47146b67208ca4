"""The update of every online algorithm: passes over one rollout, an optimiser step a mini-batch.

`ppo_epochs` passes in fresh permutations of the prompts (algorithms that do not reuse a rollout take
one), each cut into mini-batches; the samples of a prompt stay together. Gradients are accumulated over
micro-batches of a token budget under one global denominator, so the result does not depend on that
split (D34). A response that was sampled several times is computed once and counted as often as it
was sampled. Holds the optimiser, and nothing of sampling, rewards or logs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modern_rlhf.config.training import TrainingConfig
from modern_rlhf.data_loader.encoding import EncodedExample, pad_id_of
from modern_rlhf.losses.policy import entropy_bonus
from modern_rlhf.losses.value import clipped_value_loss
from modern_rlhf.models.forward import Policy, ValueModel
from modern_rlhf.ops.masking import batch_denominator
from modern_rlhf.records import Prompt
from modern_rlhf.rewards.base import Reward
from modern_rlhf.rollout.types import GenerationEngine, RolloutBatch
from modern_rlhf.trainer.algorithms import Advantages, Algorithm, PolicyLossInputs
from modern_rlhf.trainer.imitation import BestAnswers, accumulate_likelihood
from modern_rlhf.trainer.loop import (
    EpochSampler,
    MetricSums,
    check_finite,
    even_runs,
    make_optimizer,
    micro_batches,
)
from modern_rlhf.trainer.pairs import accumulate_pairs
from modern_rlhf.trainer.runtime import Runtime

REMEDY = "lower training.learning_rate or use --set training.mixed_precision=no"


@dataclass(frozen=True)
class OnlineParts:
    """Everything the loop moves: models, data, reward, sampler.

    Attributes:
        policy: the model that learns (with a value head on its trunk for a shared value model).
        reference: a frozen policy; None when nothing compares against one, or under LoRA, where
            the reference is the policy with its adapters off.
        value_model: a value network of its own, or None.
        prompts, prompt_ids: records and their rendered token ids, aligned.
        sft_rows: demonstrations for a mixed-in SFT loss, may be empty.
    """

    policy: Policy
    reference: Policy | None
    value_model: ValueModel | None
    tokenizer: Any
    prompts: Sequence[Prompt]
    prompt_ids: Sequence[list[int]]
    reward: Reward
    engine: GenerationEngine
    sft_rows: Sequence[EncodedExample] = ()


@dataclass(frozen=True)
class MicroBatch:
    """Episodes that one forward pass covers.

    Attributes:
        rows: n episodes of the rollout.
        distinct: m <= n of them, one of each text; the models read only these.
        place: (n,) index into `distinct` of each episode's text.
    """

    rows: list[int]
    distinct: list[int]
    place: Tensor


class Updater:
    """Optimiser, models and the steps on one rollout."""

    def __init__(
        self,
        parts: OnlineParts,
        *,
        algorithm: Algorithm,
        training: TrainingConfig,
        runtime: Runtime,
        generator: torch.Generator,
    ) -> None:
        self.parts = parts
        self.algorithm = algorithm
        self.training = training
        self.runtime = runtime
        self.generator = generator
        self.epochs = training.ppo_epochs if algorithm.reuses_rollout else 1
        self.steps_per_rollout = (
            self.epochs * training.ppo_mini_batches + training.self_imitation_steps
        )
        self.policy = runtime.prepare(parts.policy)
        self.value_model = None if parts.value_model is None else runtime.prepare(parts.value_model)
        self.policy_parameters, value_parameters = self._parameters()
        self.optimizer = make_optimizer(
            [
                (self.policy_parameters, training.learning_rate),
                (value_parameters, training.value_rate),
            ],
            training,
        )
        self.trainable = [p for g in self.optimizer.param_groups for p in g["params"]]
        self.sft_sampler = EpochSampler(max(1, len(parts.sft_rows)), seed=training.seed + 1)
        self.optimizer_steps = 0

    def _parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        policy, value = [], []
        for name, parameter in self.policy.named_parameters():
            (value if "value_head" in name else policy).append(parameter)
        if self.value_model is not None:
            value += list(self.value_model.parameters())
        return policy, value

    def update(
        self,
        batch: RolloutBatch,
        advantages: Advantages,
        *,
        step: int,
        kl_coefficient: float,
        sums: MetricSums,
    ) -> dict[str, float]:
        """All optimiser steps on one rollout; mean gradient norm and how many there were."""
        training = self.training
        norms: list[float] = []
        value_only = self._value_only(step)
        stop_inner = False
        for _ in range(self.epochs):
            for rows in self._mini_batches(len(batch)):
                if stop_inner or self._cap_reached():
                    break
                before = MetricSums()
                self.accumulate(batch, advantages, rows, before, kl_coefficient)
                if value_only:
                    # Neither through a shared trunk, nor by weight decay, nor by the SFT term.
                    for parameter in self.policy_parameters:
                        parameter.grad = None
                done = before.result(self.runtime)
                loss = done.get("policy_loss", 0.0)
                check_finite(loss, what="the policy loss", step=step + 1, remedy=REMEDY)
                norms.append(
                    self.runtime.step(self.optimizer, self.trainable, training.max_grad_norm)
                )
                self.optimizer_steps += 1
                sums.add({k: torch.tensor(v) for k, v in done.items()})
                limit = training.ppo_early_stop_kl
                stop_inner = limit is not None and done.get("approx_kl", 0.0) > limit
        count = max(1, len(norms))
        return {"gradient_norm": sum(norms) / count, "updates": float(len(norms))}

    def _mini_batches(self, episodes: int) -> list[list[int]]:
        """All episodes, prompts in random order, the samples of each together."""
        group = self.training.samples_per_prompt
        prompts = torch.randperm(episodes // group, generator=self.generator).tolist()
        return [
            [prompt * group + sample for prompt in part for sample in range(group)]
            for part in even_runs(prompts, self.training.ppo_mini_batches)
        ]

    def _value_only(self, step: int) -> bool:
        return self.algorithm.needs_value and step < self.training.ppo_value_warmup_rollouts

    def _cap_reached(self) -> bool:
        cap = self.training.total_steps
        return cap is not None and self.optimizer_steps >= cap

    def accumulate(
        self,
        batch: RolloutBatch,
        advantages: Advantages,
        rows: Sequence[int],
        sums: MetricSums,
        kl_coefficient: float,
    ) -> None:
        """Gradients of one optimiser batch, micro-batch by micro-batch, one global denominator.

        `batch` and `rows` are the same in every process; each takes its share of the rows.
        """
        training = self.training
        if self.algorithm.in_pairs:
            accumulate_pairs(
                batch,
                advantages.advantages[:, 0],
                rows,
                sums,
                policy=self.policy,
                pad_id=pad_id_of(self.parts.tokenizer),
                training=training,
                runtime=self.runtime,
            )
        else:
            self._accumulate_tokens(batch, advantages, rows, sums, kl_coefficient)
        if training.ppo_sft_coef > 0:
            self._accumulate_sft(len(rows), sums)

    def _accumulate_tokens(
        self,
        batch: RolloutBatch,
        advantages: Advantages,
        rows: Sequence[int],
        sums: MetricSums,
        kl_coefficient: float,
    ) -> None:
        training = self.training
        mask = batch.mask
        how, constant_length = self.algorithm.aggregation(training)
        credited = batch.policy_mask
        denominator = batch_denominator(credited[rows], how=how, constant_length=constant_length)  # type: ignore[arg-type]
        tokens = batch_denominator(mask[rows], how="token_mean")
        mine = self.runtime.shared_rows(rows)
        for micro, weight in self.runtime.in_step(self.micro(mine, batch)):
            sequences = self.sequences(batch, micro.distinct)
            place = micro.place.to(self.runtime.device)
            with self.runtime.autocast():
                out = self.policy(sequences, temperature=training.temperature, with_entropy=True)
                values = out.values if self.value_model is None else self.value_model(sequences)
            out = out.rows(place)
            values = None if values is None else values[place]
            width = out.log_probs.shape[1]

            def part(
                tensor: Tensor | None, rows: Sequence[int] = micro.rows, width: int = width
            ) -> Tensor:
                assert tensor is not None
                return tensor[rows, :width].to(self.runtime.device)

            policy_loss, metrics = self.algorithm.policy_loss(
                PolicyLossInputs(
                    log_probs=out.log_probs,
                    old_log_probs=part(batch.log_probs),
                    ref_log_probs=part(batch.ref_log_probs),
                    advantages=part(advantages.advantages),
                    mask=part(credited),
                    denominator=denominator,
                    how=how,
                    constant_length=constant_length,
                    kl_coefficient=kl_coefficient,
                    training=training,
                )
            )
            # An entropy that is only logged takes no part in the backward pass.
            assert out.entropy is not None
            entropy = out.entropy if training.ppo_entropy_coef > 0 else out.entropy.detach()
            entropy_loss, entropy_metrics = entropy_bonus(entropy, part(mask), denominator=tokens)
            loss = policy_loss + training.ppo_entropy_coef * entropy_loss
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
                sums.add({"value_loss": value_loss, **value_metrics}, scale=weight)
            self.runtime.backward(weight * loss)
            sums.add({"policy_loss": policy_loss, **metrics, **entropy_metrics}, scale=weight)

    def _accumulate_sft(self, count: int, sums: MetricSums) -> None:
        """Gradients of the mixed-in SFT loss (ptx) on as many demonstrations as episodes."""
        chosen = self.sft_sampler.take(self.optimizer_steps * count, count)
        rows = [(self.parts.sft_rows[i], 1.0) for i in chosen]
        self._accumulate_answers(rows, sums, "sft_loss", self.training.ppo_sft_coef)

    def imitate(self, memory: BestAnswers, *, step: int) -> dict[str, float]:
        """`self_imitation_steps` optimiser steps of `batch_size` answers; the mean loss, the memory.

        None while there are fewer answers than processes, or while only the value trains.
        """
        training, sums, done = self.training, MetricSums(), 0
        ready = len(memory) >= self.runtime.processes.count and not self._value_only(step)
        steps = training.self_imitation_steps if ready else 0
        while done < steps and not self._cap_reached():
            drawn = memory.draw(training.batch_size, seed=training.seed, step=self.optimizer_steps)
            ids = self.parts.prompt_ids
            rows = [(EncodedExample.of_answer(ids[p], a.response_ids), a.surplus) for p, a in drawn]
            self._accumulate_answers(rows, sums, "imitation_loss", 1.0)
            self.runtime.step(self.optimizer, self.trainable, training.max_grad_norm)
            self.optimizer_steps += 1
            done += 1
        means = {name: value / done for name, value in sums.result(self.runtime).items()}
        for name, value in means.items():
            check_finite(value, what=name, step=step + 1, remedy=REMEDY)
        return {**means, "imitation_answers": float(len(memory))}

    def _accumulate_answers(
        self,
        rows: Sequence[tuple[EncodedExample, float]],
        sums: MetricSums,
        name: str,
        coefficient: float,
    ) -> None:
        accumulate_likelihood(
            rows,
            sums,
            name=name,
            coefficient=coefficient,
            policy=self.policy,
            pad_id=pad_id_of(self.parts.tokenizer),
            max_tokens=self.training.tokens_per_micro_batch,
            runtime=self.runtime,
        )

    def micro(self, rows: Sequence[int], batch: RolloutBatch) -> list[MicroBatch]:
        """Episodes cut into forward passes of at most `tokens_per_micro_batch` padded tokens."""
        same: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = {}
        for row in rows:
            text = (tuple(batch.prompt_ids[row]), tuple(batch.response_ids[row]))
            same.setdefault(text, []).append(row)
        copies = {found[0]: found for found in same.values()}
        passes = micro_batches(
            list(copies), batch.lengths(), max_tokens=self.training.tokens_per_micro_batch
        )
        return [
            MicroBatch(
                rows=[row for first in distinct for row in copies[first]],
                distinct=distinct,
                place=torch.repeat_interleave(
                    torch.tensor([len(copies[first]) for first in distinct])
                ),
            )
            for distinct in passes
        ]

    def sequences(self, batch: RolloutBatch, rows: Sequence[int]) -> Any:
        pad_id = pad_id_of(self.parts.tokenizer)
        return batch.sequences(rows, pad_id=pad_id).to(self.runtime.device)
