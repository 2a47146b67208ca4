"""All records of a run, loaded, checked for leaks and split, before any model is touched."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from modern_rlhf.config.sections import ModernRLHFConfig
from modern_rlhf.data_loader.columns import group_of_prompt
from modern_rlhf.data_loader.demonstrations import load_demonstrations
from modern_rlhf.data_loader.evaluation_set import (
    EvaluationSet,
    is_conala_path,
    load_evaluation_set,
)
from modern_rlhf.data_loader.prompts import load_prompts
from modern_rlhf.data_loader.sources import named_path
from modern_rlhf.data_loader.splits import (
    OverlapRemoval,
    group_key_of,
    hold_out,
    remove_overlap,
    split_by_group,
)
from modern_rlhf.errors import DataError
from modern_rlhf.pipeline.judgements import load_judgements
from modern_rlhf.pipeline.settings import digest
from modern_rlhf.records import Demonstration, LabelledAnswer, PreferencePair, Prompt, Rating
from modern_rlhf.utils.paths import resolve_path


@dataclass
class RunData:
    """What a run learns from and is measured on.

    `validation` is held out of training for the periodic evaluation; `evaluation` is looked at only
    by the final one. `lines` says where everything came from, `leaks` what the leak check found.
    """

    demonstrations: list[Demonstration]
    prompts: list[Prompt]
    validation: EvaluationSet
    evaluation: EvaluationSet
    pairs: list[PreferencePair]
    ratings: list[Rating]
    labels: list[LabelledAnswer] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    leaks: dict[str, Any] = field(default_factory=dict)


def rows_line(run: RunData, config: ModernRLHFConfig, stage: str) -> str:
    """The rows that `stage` (`sft`, `reward` or `rlhf`) learns from: how many, and a hash of them.

    What a stage is made of is its rows and not their path: a file may be edited, a folder of ratings
    grow. Where the rows came from, their tasks' marks and free columns are no part of it.
    """
    algorithm = config.training.rlhf_algorithm
    used: dict[str, Sequence[Any]] = {"prompts": run.prompts}
    if stage == "sft":
        used = {"demonstrations": run.demonstrations}
    elif stage == "reward":
        used = {"pairs": run.pairs, "ratings": run.ratings}
    elif algorithm == "kto":
        used = {"labels": run.labels}
    elif algorithm == "dpo" and not config.training.dpo_online:
        used = {"pairs": run.pairs}
    counts = ", ".join(f"{len(items)} {name}" for name, items in used.items())
    return f"{counts} ({digest([_plain(item) for items in used.values() for item in items])})"


def _plain(item: Any) -> Any:
    if isinstance(item, Prompt):
        return [item.prompt, item.reference, item.task.tests if item.task is not None else None]
    return {k: v for k, v in vars(item).items() if k not in ("metadata", "source")}


def resolved(config: ModernRLHFConfig) -> ModernRLHFConfig:
    """A copy whose data paths are real ones: `builtin:` names and `conala` are replaced."""
    copied = copy.deepcopy(config)
    data = copied.data
    conala = resolve_path(data.conala_local_path)
    for name in (
        "train_data_path",
        "prompts_path",
        "eval_data_path",
        "preferences_path",
        "human_feedback_path",
    ):
        value = getattr(data, name)
        if value is not None:
            setattr(data, name, resolve_path(named_path(value, conala)))
    return copied


def load_run_data(config: ModernRLHFConfig) -> RunData:
    """Load, remove overlap with the evaluation set, split validation off by prompt.

    Raises:
        DataError: anything missing, broken or empty, in one line.
    """
    data, training = config.data, config.training
    lines: list[str] = []
    demonstrations: list[Demonstration] = []
    if training.use_multi_stage:
        loaded = load_demonstrations(
            data.train_data_path, max_rows=data.max_train_samples, min_prob=data.min_prob
        )
        demonstrations = loaded.items
        lines.append(f"demonstrations: {loaded.report.line()}")
    prompts_path = data.prompts_path or data.train_data_path
    found = load_prompts(prompts_path, max_rows=data.max_prompts, min_prob=data.min_prob)
    prompts = found.items
    lines.append(f"prompts: {found.report.line()}")
    judged = load_judgements(config)
    lines += judged.lines
    if config.reward.use_custom_reward and not config.has_learned_reward:
        lines.append(f"reward: no learned part: {config.why_no_learned_reward}")
    if data.eval_data_path is not None:
        evaluation = load_evaluation_set(
            data.eval_data_path, max_items=config.evaluation.eval_samples, seed=training.seed
        )
        lines.append(f"evaluation: {len(evaluation)} items from {data.eval_data_path}")
    else:
        evaluation = _hold_out_evaluation(demonstrations, prompts, config, lines)
    leaks: dict[str, Any] = {}
    texts: dict[str, list[Any]] = {
        "demonstrations": demonstrations,
        "prompts": prompts,
        "pairs": judged.pairs,
        "ratings": judged.ratings,
        "labels": judged.labels,
    }
    for name, items in texts.items():
        if not items:
            continue
        checked: OverlapRemoval[Any] = remove_overlap(
            items, evaluation.items, threshold=data.overlap_threshold, remove=data.remove_overlap
        )
        leaks[name] = {
            "counts": dict(checked.counts),
            "training_rows_concerned": checked.concerned,
            "evaluation_rows_concerned": checked.eval_concerned,
            "removed": len(items) - len(checked.kept),
        }
        lines.append(f"{name}: {checked.line()}")
        if not checked.kept and name in ("demonstrations", "prompts"):
            raise DataError(
                f"all {len(items)} {name} overlap the evaluation set {evaluation.source}, so "
                "nothing is left to train on; evaluate on other data, set data.eval_data_path=null "
                "to hold an evaluation set out, or data.remove_overlap=false"
            )
        items[:] = checked.kept
    if data.skip_demonstrated_prompts and demonstrations:
        shown = {group_of_prompt(item.prompt) for item in demonstrations}
        fresh = [item for item in prompts if group_of_prompt(item.prompt) not in shown]
        lines.append(
            f"prompts: {len(prompts) - len(fresh)} whose answer SFT has seen are left out of RLHF, "
            f"{len(fresh)} remain"
        )
        if not fresh:
            raise DataError(
                f"every prompt of {prompts_path} has a demonstration, so none is left for RLHF; set "
                "data.skip_demonstrated_prompts=false"
            )
        prompts = fresh
    return _split_validation(
        RunData(
            demonstrations,
            prompts,
            evaluation,
            evaluation,
            judged.pairs,
            judged.ratings,
            judged.labels,
            lines,
            leaks,
        ),
        config,
    )


def _hold_out_evaluation(
    demonstrations: list[Demonstration],
    prompts: list[Prompt],
    config: ModernRLHFConfig,
    lines: list[str],
) -> EvaluationSet:
    """Take a share of the groups out of both training lists, in place, to be evaluated on."""
    fraction, seed = config.data.evaluation_fraction, config.training.seed
    kept, prompts[:], held = hold_out(demonstrations, prompts, fraction=fraction, seed=seed)
    demonstrations[:] = kept
    source = config.data.prompts_path or config.data.train_data_path
    if not held or not prompts:
        raise DataError(
            f"{source} has too few questions to hold {fraction:.0%} out; give data.eval_data_path"
        )
    lines.append(f"evaluation: {len(held)} items held out of {source} by question")
    found = EvaluationSet(held, f"held out of {source}", is_conala_path(source))
    cap = config.evaluation.eval_samples
    return found if cap is None else found.subset(cap, seed=seed)


def _split_validation(run: RunData, config: ModernRLHFConfig) -> RunData:
    fraction = config.data.validation_fraction
    if fraction <= 0:
        run.lines.append(
            "validation: none held out (data.validation_fraction = 0), so no periodic evaluation"
        )
        run.validation = EvaluationSet([], "none")
        return run
    shares = {"train": 1.0 - fraction, "validation": fraction}
    seed = config.training.seed + 1  # another hash than the evaluation split's
    group = group_key_of(run.demonstrations, run.prompts)
    prompts = split_by_group(run.prompts, fractions=shares, seed=seed, group=group)
    demonstrations = split_by_group(run.demonstrations, fractions=shares, seed=seed, group=group)
    if not prompts["train"] or not prompts["validation"]:
        run.lines.append(f"validation: too few prompts ({len(run.prompts)}) to hold any out")
        run.validation = EvaluationSet([], "none")
        return run
    source = config.data.prompts_path or config.data.train_data_path
    run.prompts = prompts["train"]
    run.demonstrations = demonstrations["train"] or run.demonstrations
    run.validation = EvaluationSet(
        prompts["validation"], f"held out of {source}", is_conala_path(source)
    ).subset(config.evaluation.periodic_eval_samples, seed=seed)
    run.lines.append(
        f"validation: {len(run.validation)} of {len(prompts['validation'])} prompts held out of "
        f"training; {len(run.demonstrations)} demonstrations and {len(run.prompts)} prompts remain"
    )
    return run
