"""The training section: how every stage trains.

Plain values; what they mean together is checked by `check_training`. No torch at import.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from modern_rlhf.config.fields import check_section, option
from modern_rlhf.errors import ConfigError

ONLINE_ALGORITHMS = ("ppo", "reinforce", "rloo", "grpo")
OFFLINE_ALGORITHMS = ("dpo", "kto")
ALGORITHMS = ONLINE_ALGORITHMS + OFFLINE_ALGORITHMS
DPO_LOSSES = ("sigmoid", "ipo", "hinge", "robust", "simpo", "orpo", "nca", "apo_zero")
SMOOTHED_LOSSES = ("sigmoid", "robust")
"""The preference losses that `dpo_label_smoothing` means something for."""


@dataclass
class TrainingConfig:
    """How every stage trains. Fields named `sft_*`, `ppo_*`, `dpo_*` ... concern that part only."""

    algorithm: str = option("ppo", "the RLHF algorithm", choices=ALGORITHMS)
    seed: int = option(42, "seed of every random generator", low=0, high=2**32 - 1)
    learning_rate: float = option(1e-5, "peak learning rate of the RLHF stage", low=0.0)
    batch_size: int = option(8, "sequences (SFT) or pairs an optimiser step", low=1)
    gradient_accumulation_steps: int = option(1, "multiplies batch_size", low=1)
    tokens_per_micro_batch: int = option(4096, "token budget of one forward/backward", low=16)
    total_steps: int | None = option(None, "cap on the RLHF stage's optimiser steps", low=1)
    save_steps: int = option(
        50, "a checkpoint every N steps (rollouts of online training); 0 only at the end", low=0
    )
    eval_steps: int = option(
        50, "an evaluation every N steps (rollouts of online training); 0 only at the end", low=0
    )
    keep_checkpoints: int = option(2, "newest checkpoints kept", low=2)
    load_best_model_at_end: bool = option(False, "end with the best evaluated checkpoint")
    early_stopping_patience: int = option(
        7, "evaluations without gain before stopping; 0 never", low=0
    )
    mixed_precision: str = option(
        "auto", "bf16 where the hardware has it", choices=("auto", "bf16", "fp16", "no")
    )
    gradient_checkpointing: bool = option(False, "recompute activations in the backward pass")
    deterministic: bool = option(False, "repeatable CUDA kernels where torch has them")
    max_grad_norm: float = option(1.0, "global gradient-norm clip", low=0.0)
    adam_epsilon: float = option(1e-5, "Adam epsilon (D21)", low=0.0)
    adam_beta2: float = option(0.999, "Adam beta2", low=0.0, high=0.999999)
    weight_decay: float = option(0.0, "AdamW weight decay", low=0.0)
    warmup_steps: int = option(0, "linear warm-up of the RLHF stage", low=0)
    max_prompt_tokens: int = option(256, "longer prompts are skipped and counted", low=1)
    max_response_tokens: int = option(128, "tokens sampled at most; longer answers are cut", low=1)

    use_multi_stage: bool = option(True, "run SFT and reward modelling before RLHF")
    sft_learning_rate: float = option(5e-5, "peak learning rate of SFT", low=0.0)
    sft_epochs: float = option(1, "passes over the demonstrations", low=1e-6)
    sft_batch_size: int | None = option(None, "sequences a step; null = batch_size", low=1)
    sft_warmup_steps: int = option(0, "linear warm-up of SFT", low=0)
    reward_modeling_epochs: int = option(2, "passes over pairs when the backbone trains", low=1)
    reward_learning_rate: float | None = option(
        None,
        "of the reward heads; null = 1e-3, on a frozen backbone 3e-3 from 2,000 judgements on",
        low=0.0,
    )
    reward_backbone_learning_rate: float = option(
        1e-5, "of the reward backbone, where it is trained too", low=0.0
    )
    rlhf_epochs: float = option(3, "passes over the prompts in RLHF", low=1e-6)

    rollout_batch_size: int = option(64, "episodes sampled before each update", low=1)
    samples_per_prompt: int = option(1, "G: samples of one prompt in a rollout", low=1)
    temperature: float = option(1.0, "sampling temperature; log-probs use it too (D10)", low=0.01)
    top_k: int = option(0, "must stay 0 during RL (D9)", low=0)
    top_p: float = option(1.0, "must stay 1 during RL (D9)", low=0.0, high=1.0)
    repetition_penalty: float = option(1.0, "must stay 1 during RL (D9)", low=0.0)
    stop_strings: list[str] = option([], "texts that end an answer too, and are cut off it")
    missing_eos_rule: str = option(
        "none", "score of an unfinished answer (D13)", choices=("none", "replace", "subtract")
    )
    missing_eos_value: float | None = option(None, "null: replace by -1, subtract 1")
    max_unscorable_share: float = option(0.25, "stop above this share", low=0.0, high=1.0)
    abort_kl: float | None = option(None, "stop when KL to the reference exceeds this", low=0.0)

    ppo_epochs: int = option(4, "inner epochs over one rollout", low=1)
    ppo_mini_batches: int = option(1, "optimiser steps an inner epoch", low=1)
    ppo_clip_ratio: float = option(0.2, "policy clip", low=0.0)
    ppo_clip_ratio_high: float | None = option(None, "upper clip; null = ppo_clip_ratio", low=0.0)
    ppo_value_clip: float = option(0.2, "value clip", low=0.0)
    ppo_value_loss_coef: float = option(0.1, "value loss weight", low=0.0)
    ppo_entropy_coef: float = option(0.01, "entropy bonus weight", low=0.0)
    ppo_kl_penalty: float = option(0.02, "KL coefficient", low=0.0)
    ppo_adaptive_kl: bool = option(False, "adapt the KL coefficient to ppo_target_kl (D20)")
    ppo_target_kl: float = option(
        6.0, "target of the adaptive controller, nats a sequence", low=1e-6
    )
    ppo_kl_horizon: int = option(10000, "horizon of the adaptive controller, episodes", low=1)
    ppo_gamma: float = option(1.0, "discount", low=0.0, high=1.0)
    ppo_lambda: float = option(0.95, "GAE lambda", low=0.0, high=1.0)
    ppo_whiten_rewards: bool = option(False, "whiten token rewards, without centring (D15)")
    ppo_whiten_advantages: bool = option(True, "whiten advantages, with centring (D15)")
    ppo_normalize_scores: bool = option(False, "divide scores by their running std (D26)")
    ppo_score_clip: float = option(10.0, "scores are clipped to +- this (D26)", low=1e-6)
    ppo_value_model: str = option(
        "separate",
        "value network of its own or a head on the policy",
        choices=("separate", "shared"),
    )
    ppo_value_init: str = option("zero", "how V starts (D4)", choices=("zero", "reward", "policy"))
    ppo_group_baseline: bool = option(
        False, "take the mean score of a prompt's other samples off each score (unbiased)"
    )
    ppo_value_warmup_rollouts: int = option(0, "first rollouts that train only the value", low=0)
    value_learning_rate: float | None = option(None, "null = learning_rate", low=0.0)
    ppo_early_stop_kl: float | None = option(None, "end inner epochs above this KL", low=0.0)
    ppo_sft_coef: float = option(0.0, "weight of a mixed-in SFT loss (ptx)", low=0.0)
    self_imitation_steps: int = option(
        0, "optimiser steps a rollout on the likelihood of the best answers so far; 0: none", low=0
    )
    loss_aggregation: str = option(
        "token_mean",
        "how token losses are averaged in PPO (D34); the others have their own way",
        choices=("token_mean", "sequence_mean", "constant_length"),
    )
    grpo_normalization: str = option(
        "grpo", "advantage and length normalisation", choices=("grpo", "dr_grpo", "dapo")
    )
    baseline_decay: float = option(
        0.95, "moving-average baseline of REINFORCE", low=0.0, high=0.999999
    )

    use_dpo: bool = option(False, "the same as algorithm = dpo")
    dpo_beta: float = option(0.1, "DPO temperature", low=1e-6)
    dpo_loss_type: str = option("sigmoid", "preference loss", choices=DPO_LOSSES)
    dpo_label_smoothing: float = option(
        0.0, "probability that a label is flipped", low=0.0, high=0.49
    )
    dpo_sft_coef: float = option(0.0, "weight of an SFT term on the chosen answer", low=0.0)
    dpo_simpo_gamma: float = option(0.5, "target margin of simpo", low=0.0)
    dpo_online: bool = option(
        False, "dpo on pairs of its own samples, ranked by the reward, instead of recorded pairs"
    )
    kto_beta: float = option(0.1, "KTO temperature", low=1e-6)

    @property
    def rlhf_algorithm(self) -> str:
        """What the RLHF stage runs: `use_dpo` overrules `algorithm`."""
        return "dpo" if self.use_dpo else self.algorithm

    @property
    def value_rate(self) -> float:
        """Peak learning rate of the value function."""
        rate = self.value_learning_rate
        return self.learning_rate if rate is None else rate

    @property
    def max_sequence_tokens(self) -> int:
        """The longest sequence of training: prompt and response together."""
        return self.max_prompt_tokens + self.max_response_tokens


def check_training(training: TrainingConfig) -> TrainingConfig:
    """Types, bounds and the rules between training fields; used by trainers standing alone too.

    Raises:
        ConfigError: naming the field and the remedy.
    """
    check_section("training", training)
    algorithm = training.rlhf_algorithm
    online = algorithm in ONLINE_ALGORITHMS or training.dpo_online
    for name, neutral in (("top_k", 0), ("top_p", 1.0), ("repetition_penalty", 1.0)):
        value = getattr(training, name)
        if online and value != neutral:
            raise ConfigError(
                f"training.{name} = {value!r} would sample from another distribution than the one "
                f"the loss differentiates (D9); set it to {neutral!r} for {algorithm}"
            )
    whitening = algorithm == "ppo" and training.ppo_whiten_advantages
    if whitening and training.rollout_batch_size < 8:
        raise ConfigError(
            f"training.rollout_batch_size = {training.rollout_batch_size} is too small to whiten "
            "advantages over (D17): use at least 8, or training.ppo_whiten_advantages=false"
        )
    if training.dpo_online and algorithm != "dpo":
        raise ConfigError(
            f"training.dpo_online belongs to algorithm = dpo, not to {algorithm!r}; set one"
        )
    if training.ppo_adaptive_kl and training.ppo_kl_penalty == 0:
        raise ConfigError(
            f"training.ppo_kl_penalty = {training.ppo_kl_penalty!r} stays 0 however much "
            "training.ppo_adaptive_kl multiplies it: start above 0"
        )
    if training.loss_aggregation != "token_mean" and algorithm != "ppo":
        raise ConfigError(
            f"training.loss_aggregation = {training.loss_aggregation!r} acts in ppo only, and "
            f"{algorithm} averages in its own way: leave it at token_mean"
        )
    if algorithm == "dpo":
        _check_preference_loss(training)
    if "" in training.stop_strings:
        raise ConfigError("training.stop_strings holds an empty text, which would end every answer")
    if training.load_best_model_at_end and training.eval_steps % (training.save_steps or math.inf):
        raise ConfigError(
            "training.load_best_model_at_end needs a checkpoint at every evaluation: make "
            f"training.eval_steps = {training.eval_steps} a multiple of save_steps, {training.save_steps} now"
        )
    compares = algorithm in ("rloo", "grpo") or training.dpo_online
    if (compares or training.ppo_group_baseline) and training.samples_per_prompt < 2:
        who = algorithm if compares else "training.ppo_group_baseline"
        raise ConfigError(
            f"training.samples_per_prompt = {training.samples_per_prompt}: {who} compares samples of one "
            "prompt, so it needs at least 2"
        )
    if training.rollout_batch_size % training.samples_per_prompt:
        raise ConfigError(
            f"training.rollout_batch_size = {training.rollout_batch_size} is not a multiple of "
            f"training.samples_per_prompt = {training.samples_per_prompt}"
        )
    return training


def _check_preference_loss(training: TrainingConfig) -> None:
    """What the chosen preference loss needs, and what means nothing for it."""
    kind, smoothing = training.dpo_loss_type, training.dpo_label_smoothing
    if smoothing and kind not in SMOOTHED_LOSSES:
        raise ConfigError(
            f"training.dpo_label_smoothing = {smoothing!r} has no meaning for training.dpo_loss_type = "
            f"{kind!r}: set it to 0, or choose {' or '.join(SMOOTHED_LOSSES)}"
        )
    sft = "ppo_sft_coef" if training.dpo_online else "dpo_sft_coef"
    if kind == "orpo" and getattr(training, sft) == 0:
        raise ConfigError(
            "training.dpo_loss_type = 'orpo' is an SFT loss with an odds-ratio term and nothing "
            f"without the SFT loss: set training.{sft}=1"
        )
