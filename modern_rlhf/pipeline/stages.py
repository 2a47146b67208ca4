"""The stages: what each reads, does and leaves. One function each, no order (that is `pipeline`).

    sft      demonstrations -> sft/final_model
    reward   pairs, ratings, SFT samples -> reward_model/final_model, evaluation.json, synthetic ratings
    rlhf     prompts, SFT model, reward -> <algorithm>/final_model
    evaluate base, SFT and RLHF models -> evaluations/<name>.json

Every stage reads earlier ones from disk only, so any of them can be run or resumed alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from modern_rlhf.data_loader.encoding import encode_prompts
from modern_rlhf.data_loader.evaluation_set import EvaluationSet
from modern_rlhf.errors import DataError, StopRequested
from modern_rlhf.evaluation.evaluator import PERIODIC_METRICS
from modern_rlhf.evaluation.results import PolicyEvaluation, known_evaluation
from modern_rlhf.models.loading import load_causal_lm, load_tokenizer
from modern_rlhf.pipeline.settings import evaluated, reward_model_folder, sft_or_base
from modern_rlhf.pipeline.synthetic import synthetic_feedback
from modern_rlhf.pipeline.workspace import Workspace
from modern_rlhf.records import PreferencePair, Rating
from modern_rlhf.reward_model.build import saved_reward_model
from modern_rlhf.reward_model.evaluator import RewardModelEvaluator, report_line
from modern_rlhf.reward_model.model import CustomRewardModel
from modern_rlhf.rollout.collect import decode_response
from modern_rlhf.rollout.sampling import sampling_engine
from modern_rlhf.trainer.loop import TrainResult
from modern_rlhf.trainer.policy_gradient import PolicyGradientTrainer
from modern_rlhf.trainer.ppo import PPOTrainer
from modern_rlhf.trainer.reward import RewardTrainer
from modern_rlhf.trainer.runtime import Evaluate
from modern_rlhf.trainer.sft import SFTTrainer
from modern_rlhf.utils.atomic import write_json
from modern_rlhf.utils.hardware import peak_gpu_memory_mb, peak_memory_mb, reset_peak_memory

CALIBRATION_PROMPTS = 128
"""Prompts answered by the SFT policy to calibrate the reward model on (D5)."""

TEMPERATURE_PAIRS = 10
"""Held-out pairs from which on a temperature of pairwise probabilities is stored."""


def stage_record(result: TrainResult, seconds: float) -> dict[str, Any]:
    """What a finished training stage says about itself."""
    return {
        "seconds": round(seconds, 2),
        "steps": result.steps,
        "tokens": result.tokens,
        "tokens_per_second": round(result.tokens_per_second, 1),
        "peak_memory_mb": peak_memory_mb(),
        "peak_gpu_memory_mb": peak_gpu_memory_mb(),
        "stopped_early": result.stopped_early,
        "model_step": result.model_step,
        # A value may have none (the explained variance of equal returns), and JSON has no NaN.
        "last_metrics": {
            name: value if math.isfinite(value) else None for name, value in result.metrics.items()
        },
    }


def periodic(workspace: Workspace, lm: Any, tokenizer: Any) -> Evaluate | None:
    """The in-training evaluation on held-out training prompts; None when nothing was held out.

    `score` is the pass rate where the items have tests, else corpus BLEU.
    """
    items = workspace.data.validation
    if not len(items):
        return None
    evaluator = workspace.evaluator()

    def evaluate(step: int, epoch: float) -> Mapping[str, float | None]:
        found = evaluator.evaluate_policy(lm, tokenizer, items, metrics=PERIODIC_METRICS)
        return metric_columns(found)

    return evaluate


def metric_columns(found: PolicyEvaluation) -> dict[str, float | None]:
    """An evaluation as flat columns for metrics.jsonl, with `score` for ranking."""
    columns: dict[str, float | None] = {}
    for name, result in found.summary().items():
        columns[name] = result["value"]
        columns[f"{name}_low"], columns[f"{name}_high"] = result["low"], result["high"]
    rate = columns.get("pass_at_1")
    columns["score"] = rate if rate is not None else columns.get("bleu")
    return columns


def run_sft(workspace: Workspace) -> dict[str, Any]:
    """Fine-tune the base model on the demonstrations."""
    config, began = workspace.config, time.monotonic()
    reset_peak_memory()
    name = config.model.base_model_name
    lm, tokenizer = load_causal_lm(name, device=workspace.device.device), load_tokenizer(name)
    trainer = SFTTrainer(
        lm,
        tokenizer,
        train_data=workspace.data.demonstrations,
        config=config.training,
        runtime=workspace.runtime("sft"),
        model_config=config.model,
        evaluate=periodic(workspace, lm, tokenizer),
    )
    workspace.say(f"sft: {trainer.encoded.line()}")
    result = trainer.train()
    trainer.save_model(workspace.artifacts.final_model("sft"))
    return stage_record(result, time.monotonic() - began)


def run_reward(workspace: Workspace) -> dict[str, Any]:
    """Train the reward model on human feedback and calibrate it on samples of the SFT policy."""
    config, began = workspace.config, time.monotonic()
    reset_peak_memory()
    data, folder = workspace.data, workspace.artifacts.stage("reward_model")
    name = config.reward_model_source
    report: dict[str, Any] = {}
    ratings = list(data.ratings)
    if config.data.use_model_for_synth_feedback:
        count = config.data.synth_feedback_samples
        synthetic = synthetic_feedback(
            workspace, lambda: _sampled_prompts(workspace, count, seed=config.training.seed + 1)
        )
        ratings += synthetic.ratings
        report["synthetic_rater"] = synthetic.report
    if config.reward.custom_reward_pretrain:
        model, result, held_out = _trained_reward_model(workspace, name, ratings)
    else:
        model = CustomRewardModel.from_pretrained(
            Path(saved_reward_model(name)).expanduser(), device=workspace.device.device
        )
        workspace.say(f"reward: {name} is used as it is; all feedback measures it")
        result = TrainResult(steps=0, metrics={}, seconds=0.0, tokens=0)
        held_out = (
            [pair for pair in data.pairs if not pair.synthetic],
            [rating for rating in data.ratings if not rating.synthetic],
        )
    prompts, answers = _sampled_prompts(workspace, CALIBRATION_PROMPTS, seed=config.training.seed)
    report["calibration_samples"] = model.calibrate(prompts, answers)
    if any(held_out):
        report |= RewardModelEvaluator(model).evaluate(*held_out)
        workspace.say(f"reward: {report_line(report)}")
        if len(held_out[0]) >= TEMPERATURE_PAIRS and 0.0 < report["accuracy"]["value"] < 1.0:
            model.heads.set_temperature(report["temperature"])

    def keep() -> None:
        write_json(folder / "evaluation.json", report, 1)
        model.save_pretrained(folder / "final_model")

    workspace.processes.on_main(keep)
    record = stage_record(result, time.monotonic() - began)
    record["accuracy"] = report.get("accuracy")
    return record


def _trained_reward_model(
    workspace: Workspace, name: str, ratings: list[Rating]
) -> tuple[CustomRewardModel, TrainResult, tuple[list[PreferencePair], list[Rating]]]:
    """The reward model trained on this run's feedback, and what was held out of it."""
    config = workspace.config
    trainer = RewardTrainer(
        name,
        pairs=workspace.data.pairs,
        ratings=ratings,
        config=config.reward,
        training=config.training,
        runtime=workspace.runtime("reward_model"),
        model_config=None if config.reward.custom_reward_freeze_backbone else config.model,
        cache_folder=workspace.artifacts.stage("reward_model") / "features",
    )
    pairs, rated = trainer.validation_pairs, trainer.validation_ratings
    simulated = " (of a simulated rater)" if any(one.synthetic for one in (*pairs, *rated)) else ""
    workspace.say(
        f"reward: {len(trainer.train_pairs)} pairs and {len(trainer.train_ratings)} ratings to train "
        f"on, {len(pairs)} pairs and {len(rated)} ratings{simulated} held out by question"
    )
    if config.reward.use_human_logits and not ratings:
        workspace.say("reward: no ratings, so no head for their five levels")
    if config.model.use_lora and config.reward.custom_reward_freeze_backbone:
        workspace.say("reward: the backbone is frozen, so LoRA adapters are the policy's alone")
    if trainer.rating_targets is not None and trainer.rating_targets.unused:
        names = ", ".join(trainer.rating_targets.unused)
        workspace.say(f"reward: aspects without a head of their own: {names}")
    result = trainer.train()
    return trainer.model, result, (trainer.validation_pairs, trainer.validation_ratings)


def _sampled_prompts(workspace: Workspace, count: int, *, seed: int) -> tuple[list[str], list[str]]:
    """Answers of the SFT policy to the first `count` prompts of the run."""
    prompts = [prompt.prompt for prompt in workspace.data.prompts[:count]]
    policy = sft_or_base(workspace.artifacts, workspace.config)
    return sample_answers(workspace, policy, prompts, seed=seed)


def sample_answers(
    workspace: Workspace, model: str, prompts: list[str], *, seed: int
) -> tuple[list[str], list[str]]:
    """One sampled answer at the training temperature for each prompt that fits."""
    training, settings = workspace.config.training, workspace.config.model
    lm, tokenizer = load_causal_lm(model, device=workspace.device.device), load_tokenizer(model)
    encoded = encode_prompts(
        tokenizer,
        prompts,
        max_length=training.max_prompt_tokens,
        style=settings.prompt_style,  # type: ignore[arg-type]
        system=settings.system_prompt,
    )
    if len(encoded.input_ids) < 2:
        raise DataError(
            f"only {len(encoded.input_ids)} of {len(prompts)} prompts fit training.max_prompt_tokens "
            f"= {training.max_prompt_tokens}, too few to calibrate the reward model on"
        )
    engine = sampling_engine(
        lm,
        tokenizer,
        dtype=workspace.runtime().compute_dtype,
        stop_strings=training.stop_strings,
    )
    drawn = engine.generate(
        encoded.input_ids,
        samples_per_prompt=1,
        max_new_tokens=training.max_response_tokens,
        temperature=training.temperature,
        generator=torch.Generator().manual_seed(seed),
    )
    texts = [decode_response(tokenizer, one, training.stop_strings) for one in drawn]
    return [prompts[i] for i in encoded.indices], texts


def load_reward_model(workspace: Workspace) -> CustomRewardModel | None:
    """The trained reward model, or None when the configuration has no learned part."""
    folder = reward_model_folder(workspace.artifacts, workspace.config)
    if folder is None:
        return None
    model: CustomRewardModel = CustomRewardModel.from_pretrained(
        str(folder), device=workspace.device.device
    )
    model.scoring_dtype = workspace.runtime().compute_dtype
    return model


def run_rlhf(workspace: Workspace) -> dict[str, Any]:
    """Train the policy against the composite reward with the configured online algorithm."""
    config, began = workspace.config, time.monotonic()
    reset_peak_memory()
    name = sft_or_base(workspace.artifacts, config)
    lm, tokenizer = load_causal_lm(name, device=workspace.device.device), load_tokenizer(name)
    algorithm = config.training.rlhf_algorithm
    reward_model = load_reward_model(workspace)
    options: dict[str, Any] = {
        "prompts": workspace.data.prompts,
        "reward": workspace.reward(reward_model),
        "config": config.training,
        "runtime": workspace.runtime(algorithm),
        "model_config": config.model,
        "sft_data": workspace.data.demonstrations,
        "evaluate": periodic(workspace, lm, tokenizer),
    }
    trainer: PPOTrainer | PolicyGradientTrainer
    if algorithm == "ppo":
        trainer = PPOTrainer(lm, tokenizer, reward_value=reward_model, **options)
    else:
        trainer = PolicyGradientTrainer(lm, tokenizer, algorithm=algorithm, **options)
    workspace.say(
        f"{algorithm}: {len(trainer.parts.prompts)} prompts, {trainer.loop.total_rollouts} rollouts of "
        f"{config.training.rollout_batch_size} episodes, up to {trainer.loop.updates_per_rollout} "
        "updates each"
    )
    result = trainer.train()
    trainer.save_model(workspace.artifacts.final_model(algorithm))
    return stage_record(result, time.monotonic() - began)


def run_evaluation(
    workspace: Workspace, *, name: str, model: str, kl_to: str | None, items: EvaluationSet
) -> PolicyEvaluation:
    """Evaluate one model on the evaluation set.

    An evaluation that lies there already is read instead if it is of the same model, items and settings.

    Raises:
        StopRequested: a stop was asked for; evaluations already written are kept.
    """
    path = workspace.artifacts.evaluation(name)
    of = evaluated(
        workspace.artifacts, workspace.config, model=model, kl_to=kl_to, items=items.items
    )
    known = workspace.processes.on_main(lambda: known_evaluation(path, of))
    if known is not None:
        return known
    device = workspace.device.device
    lm, tokenizer = load_causal_lm(model, device=device), load_tokenizer(model)
    reference = load_causal_lm(kl_to, device=device) if kl_to is not None else None
    evaluator = workspace.evaluator(reward=workspace.reward(load_reward_model(workspace)))
    with workspace.bar(f"evaluate {name}", 2 * len(items)) as advance:

        def step(count: int) -> None:
            advance(count)
            # Several processes stop together, between models.
            if workspace.processes.count == 1 and workspace.stop.requested:
                raise StopRequested("stopped by request during evaluation; --resume goes on")

        found = evaluator.evaluate_policy(
            lm, tokenizer, items, sampled=True, kl_to=reference, progress=step
        )

    def keep() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"of": of, **found.to_dict()}, 1)

    workspace.processes.on_main(keep)
    return found
