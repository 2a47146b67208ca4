"""Training the reward model: pairs by Bradley-Terry, ratings by regression and ordinal loss.

The losses are `reward_model.fit`'s; this loop adds what every trainer has: resume, logs, early stop.
A frozen backbone is run once over all texts and its pooled features are kept (`FeatureCache` on
disk, or memory when nothing is kept); further epochs then cost only the heads. Validation pairs are
split off by question (`group_id`), never by row.

Several processes share the work of the backbone alone: its features are gathered, and the small heads
are trained on the whole batch in every process alike, dropout included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modern_rlhf.config.reward import RewardConfig, check_reward
from modern_rlhf.config.sections import ModelConfig
from modern_rlhf.config.training import TrainingConfig, check_training
from modern_rlhf.data_loader.rows import judgements_from_rows
from modern_rlhf.errors import ConfigError, DataError
from modern_rlhf.reward_model.build import build_reward_model, loss_settings
from modern_rlhf.reward_model.cache import FeatureCache
from modern_rlhf.reward_model.evaluator import RewardModelEvaluator
from modern_rlhf.reward_model.fit import (
    hold_out,
    loss_plan,
    pair_loss,
    pair_targets,
    rating_loss,
    rating_targets,
)
from modern_rlhf.reward_model.model import CustomRewardModel
from modern_rlhf.reward_model.settings import choose_head_rate
from modern_rlhf.reward_model.text_features import text_features
from modern_rlhf.trainer.inputs import adapt_backbone, recompute_activations
from modern_rlhf.trainer.keeper import Keeper
from modern_rlhf.trainer.loop import (
    EpochSampler,
    MetricSums,
    TrainResult,
    check_finite,
    linear_schedule,
    make_optimizer,
    micro_batches,
    set_learning_rate,
)
from modern_rlhf.trainer.runtime import Evaluate, Runtime


class RewardTrainer:
    """Trains a `CustomRewardModel` on preference pairs and ratings.

    Args:
        model: the reward model, or the name of a backbone to build one on or of a saved one.
        tokenizer: None; a reward model reads with its backbone's own.
        train_data: rows as the other trainers take them: pairs, or ratings (with a `rating` of 1 to 5).
        pairs: `PreferencePair`s, dicts with prompt/chosen/rejected, or a `datasets.Dataset`.
        ratings: `Rating`s, or dicts with prompt/response/rating. Not all of these may be empty.
        config: the reward section (epochs over cached features, batch size, heads), or a
            `TrainingConfig` in place of `training`.
        training: seed, learning rates of heads and backbone, epochs when the backbone trains.
        model_config: LoRA: adapters train in place of the backbone's weights.
        cache_folder: where features of a frozen backbone are kept; None keeps them in memory.
        validation_fraction: share of the questions held out for the report, with people's judgements.

    Raises:
        DataError: nothing to train on. ConfigError: LoRA for a frozen backbone, a tokenizer, or a field
            that holds what it cannot.
    """

    def __init__(
        self,
        model: CustomRewardModel | str,
        tokenizer: None = None,
        *,
        train_data: Any = (),
        pairs: Any = (),
        ratings: Any = (),
        config: RewardConfig | TrainingConfig | None = None,
        training: TrainingConfig | None = None,
        runtime: Runtime | None = None,
        model_config: ModelConfig | None = None,
        cache_folder: Path | None = None,
        validation_fraction: float = 0.2,
        evaluate: Evaluate | None = None,
    ) -> None:
        if tokenizer is not None:
            raise ConfigError("a reward model reads with its backbone's own tokenizer: give none")
        if isinstance(config, TrainingConfig):
            config, training = None, training or config
        self.config = check_reward(config or RewardConfig())
        self.training = training = check_training(training or TrainingConfig())
        pairs, ratings = judgements_from_rows(train_data, pairs, ratings)
        self.runtime = runtime = runtime or Runtime()
        generator = torch.Generator().manual_seed(training.seed)
        if isinstance(model, str):
            model = build_reward_model(
                model,
                self.config,
                human_logits=bool(ratings),
                device=runtime.device,
                generator=generator,
            )
        adapt_backbone(model, model_config or ModelConfig(), seed=training.seed)
        if not model.frozen:
            recompute_activations(model.backbone, training)
        self.model = model.to(runtime.device)
        if not pairs and not ratings:
            raise DataError(
                "the reward model has nothing to learn from: no preference pair and no rating; set "
                "data.human_feedback_path or data.preferences_path, or "
                "reward.human_preference_weight=0 with reward.use_custom_reward=false"
            )
        parts = hold_out(pairs, ratings, fraction=validation_fraction, seed=training.seed)
        self.validation_pairs, self.validation_ratings = parts.pairs, parts.ratings
        self.plan = loss_plan(
            model.heads,
            pairs=len(parts.train_pairs),
            ratings=len(parts.train_ratings),
            settings=loss_settings(self.config),
        )
        # Judgements that no loss uses are only measured on.
        self.train_pairs = parts.train_pairs if self.plan.pairwise else []
        self.train_ratings = parts.train_ratings if self.plan.pointwise or self.plan.ordinal else []
        self.pair_targets = pair_targets(self.train_pairs)
        self.rating_targets = (
            rating_targets(self.train_ratings, model.settings.heads) if self.train_ratings else None
        )
        self.features: dict[str, Tensor] = {}
        self.cache_folder = cache_folder
        largest = max(len(self.train_pairs), len(self.train_ratings))
        self.steps_per_epoch = max(1, math.ceil(largest / self.config.reward_batch_size))
        epochs = self.config.reward_epochs if model.frozen else training.reward_modeling_epochs
        self.total_steps = max(1, epochs * self.steps_per_epoch)
        self.pairs_per_step = math.ceil(len(self.train_pairs) / self.steps_per_epoch)
        self.ratings_per_step = math.ceil(len(self.train_ratings) / self.steps_per_epoch)
        self.pair_sampler = EpochSampler(max(1, len(self.train_pairs)), seed=training.seed)
        self.rating_sampler = EpochSampler(max(1, len(self.train_ratings)), seed=training.seed + 1)
        self.trainable = [p for p in model.parameters() if p.requires_grad]
        self.backbone_parts = [p for p in model.backbone.parameters() if p.requires_grad]
        noisy = model.frozen and model.heads.kind == "mlp"
        decay = self.config.reward_weight_decay if noisy else training.weight_decay
        head_rate = choose_head_rate(
            training.reward_learning_rate,
            judgements=len(self.train_pairs) + len(self.train_ratings),
            frozen=model.frozen,
        )
        groups = model.heads.learning_groups(head_rate, weight_decay=decay)
        if self.backbone_parts:
            rate = training.reward_backbone_learning_rate
            groups.append((self.backbone_parts, rate, training.weight_decay))
        self.optimizer = make_optimizer([(own, rate) for own, rate, _ in groups], training)
        for group, (_, _, decay) in zip(self.optimizer.param_groups, groups, strict=True):
            group["weight_decay"] = decay
        self.keeper = Keeper(
            stage="reward",
            training=training,
            runtime=runtime,
            total_steps=self.total_steps,
            state=self.state,
            restore=self.restore,
            evaluate=evaluate,
        )

    def state(self) -> dict[str, Any]:
        """Trainable weights and buffers, optimiser, the dropout's generator is the global one."""
        return {
            "model": self._own_state(),
            "optimizer": self.optimizer.state_dict(),
            "trainer": {},
        }

    def _own_state(self) -> dict[str, Tensor]:
        full = self.model.state_dict()
        if not self.model.frozen:
            return full
        return {name: value for name, value in full.items() if not name.startswith("backbone.")}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"], strict=not self.model.frozen)
        self.optimizer.load_state_dict(state["optimizer"])

    def train(self) -> TrainResult:
        """Run to the last step, an early stop, or a stop request."""
        return self.keeper.run(self._loop)

    def _loop(self) -> TrainResult:
        if self.runtime.processes.is_main:
            self.model.encoder.warn_of_cut(self._training_texts().values())
        if self.model.frozen:
            self._compute_features()
        elif self.model.heads.text_features:
            self._compare_texts()
        torch.manual_seed(self.training.seed)  # dropout in the heads; resume restores its state
        step, go_on = self.keeper.begin()
        self.model.train()
        while go_on and step < self.total_steps:
            rate = set_learning_rate(
                self.optimizer, linear_schedule(step, total=self.total_steps, warmup=0)
            )
            sums = MetricSums()
            tokens = 0
            if self.train_pairs:
                rows = self.pair_sampler.take(step * self.pairs_per_step, self.pairs_per_step)
                tokens += self._pair_step(rows, sums)
            if self.rating_targets is not None:
                rows = self.rating_sampler.take(step * self.ratings_per_step, self.ratings_per_step)
                tokens += self._rating_step(rows, sums)
            metrics = sums.own()
            check_finite(
                metrics["loss"],
                what="the reward loss",
                step=step + 1,
                remedy="lower training.reward_learning_rate",
            )
            norm = self.runtime.step(
                self.optimizer,
                self.trainable,
                self.training.max_grad_norm,
                parts=self.backbone_parts,
            )
            step += 1
            go_on = self.keeper.after_step(
                step,
                {**metrics, "gradient_norm": norm, "learning_rate": rate},
                epoch=step / self.steps_per_epoch,
                tokens=tokens,
                shown={"loss": f"{metrics['loss']:.3f}", "lr": f"{rate:.1e}"},
            )
        self.model.eval()
        return self.keeper.finish(step, stopped_early=not go_on)

    def _training_texts(self) -> dict[str, tuple[list[str], list[str]]]:
        """(prompts, responses) of what is trained on, by part."""
        parts: dict[str, tuple[list[str], list[str]]] = {}
        if self.train_pairs:
            parts["chosen"] = (self.pair_targets.prompts, self.pair_targets.chosen)
            parts["rejected"] = (self.pair_targets.prompts, self.pair_targets.rejected)
        if self.rating_targets is not None:
            parts["rated"] = (self.rating_targets.prompts, self.rating_targets.responses)
        return parts

    def _compare_texts(self) -> None:
        """Set the input statistics of the text features alone: the backbone's move while it trains."""
        if self.model.heads.standardised:
            return
        found = [text_features(*texts) for texts in self._training_texts().values()]
        self.model.heads.set_feature_statistics(torch.cat(found).to(self.runtime.device))

    def _compute_features(self) -> None:
        """Run the frozen backbone once over every training text; set the input statistics of new heads
        (those of a saved model are what its weights were fitted to)."""
        cache = None if self.cache_folder is None else FeatureCache(self.cache_folder, self.model)
        processes = self.runtime.processes
        for name, (prompts, responses) in self._training_texts().items():
            mine = processes.share(len(prompts))
            part = prompts[mine.start : mine.stop], responses[mine.start : mine.stop]
            found = torch.empty(0, self.model.heads.feature_size)
            if len(mine):
                found = cache.get(*part) if cache is not None else self.model.pooled(*part).cpu()
            self.features[name] = torch.cat(processes.gather(found)).to(self.runtime.device)
        if not self.model.heads.standardised:
            self.model.heads.set_feature_statistics(torch.cat(list(self.features.values())))

    def _features(
        self, parts: Mapping[str, tuple[list[str], list[str]]], rows: Sequence[int]
    ) -> tuple[list[Tensor], int]:
        """Features (B, F) of the given rows of each part, and how many tokens the backbone read.

        A trained backbone reads all parts together, in batches of similar length: the heads, and so the
        loss, see the whole optimiser batch whatever that split.
        """
        device = self.runtime.device
        if self.model.frozen:
            return [self.features[name][list(rows)].to(device) for name in parts], 0
        mine = self.runtime.shared_rows(rows)
        encoded = self.model.encoder.rows(
            [prompts[i] for prompts, _ in parts.values() for i in mine],
            [texts[i] for _, texts in parts.values() for i in mine],
        )
        lengths = [len(row.ids) for row in encoded]
        groups = micro_batches(
            range(len(encoded)), lengths, max_tokens=self.training.tokens_per_micro_batch
        )
        found = [torch.zeros(0, self.model.heads.feature_size, device=device)]
        for group in groups:
            batch = self.model.encoder.collate([encoded[i] for i in group]).to(self.model.device)
            with self.runtime.autocast():
                found.append(self.model.features(batch))
        back = torch.tensor([i for group in groups for i in group], dtype=torch.long).argsort()
        own = torch.cat(found)[back].unflatten(0, (len(parts), len(mine)))
        # The others' rows come without gradient: each process has that of its own, and they add up.
        processes = self.runtime.processes
        gathered = [part.to(device) for part in processes.gather(own.detach().cpu())]
        gathered[processes.rank] = own
        return list(torch.cat(gathered, dim=1)), int(processes.sum(torch.tensor(sum(lengths))))

    def _pair_step(self, rows: Sequence[int], sums: MetricSums) -> int:
        targets = self.pair_targets
        sides = {
            "chosen": (targets.prompts, targets.chosen),
            "rejected": (targets.prompts, targets.rejected),
        }
        (chosen, rejected), read = self._features(sides, rows)
        index = torch.tensor(rows)
        loss, metrics = pair_loss(
            self.model.heads(chosen),
            self.model.heads(rejected),
            margins=targets.margins[index].to(self.runtime.device),
            weights=targets.weights[index].to(self.runtime.device),
            settings=self.plan,
        )
        self.runtime.backward(loss)
        sums.add({"loss": loss, **metrics})
        return read

    def _rating_step(self, rows: Sequence[int], sums: MetricSums) -> int:
        targets, device = self.rating_targets, self.runtime.device
        assert targets is not None
        (rated,), read = self._features({"rated": (targets.prompts, targets.responses)}, rows)
        index = torch.tensor(rows)
        loss, metrics = rating_loss(
            self.model.heads(rated),
            values=targets.values[index].to(device),
            weights=targets.weights[index].to(device),
            overall=targets.overall[index].to(device),
            overall_weights=targets.overall_weights[index].to(device),
            head_weights=self.model.heads.weights,
            settings=self.plan,
        )
        self.runtime.backward(loss)
        sums.add({"loss": loss, **metrics})
        return read

    def evaluate(self) -> dict[str, Any]:
        """The report on the held-out questions (`RewardModelEvaluator`)."""
        report: dict[str, Any] = RewardModelEvaluator(self.model).evaluate(
            self.validation_pairs, self.validation_ratings
        )
        return report

    def save_model(self, folder: Any) -> None:
        """Write the reward model's own folder (the main process does)."""
        self.runtime.processes.on_main(lambda: self.model.save_pretrained(folder))
