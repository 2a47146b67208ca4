"""`modern-rlhf evaluate`: models answer the same items, are measured, and compared in pairs.

Thin: the evaluation is `evaluation.Evaluator`, tables and plots are the report's. What is finished is
read from the output folder instead of made again: a model's evaluation as a whole, and within one the
answers that were generated before a kill. File names are made of everything that decides the content
(weights, items, settings), so a retrained model or an edited data file is never mistaken for the old.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from modern_rlhf.config.reward import RewardConfig
from modern_rlhf.config.sections import HardwareConfig
from modern_rlhf.data_loader.evaluation_set import EvaluationSet, load_evaluation_set
from modern_rlhf.errors import DataError
from modern_rlhf.evaluation.evaluator import Evaluator
from modern_rlhf.evaluation.results import PolicyEvaluation, compare, read_evaluation
from modern_rlhf.metrics.stats import holm
from modern_rlhf.models.loading import context_length, fingerprint, load_causal_lm, load_tokenizer
from modern_rlhf.report.comparison import comparison_csv, comparison_markdown, items_csv
from modern_rlhf.report.comparison_plots import differences_plot, models_plot
from modern_rlhf.report.labels import LOWER_IS_BETTER, metric_label
from modern_rlhf.rewards.execution import make_executor
from modern_rlhf.sandbox.executor import SandboxExecutor
from modern_rlhf.sandbox.remembered import check_prompts
from modern_rlhf.trainer.runtime import Runtime
from modern_rlhf.utils.atomic import output_error, write_bytes, write_json, write_text
from modern_rlhf.utils.device import resolve_device

SCHEMA = 1


@dataclass(frozen=True)
class EvaluationSettings:
    """What is measured, and how: `samples` answers an item are drawn for the sampled pass rates."""

    metrics: tuple[str, ...]
    samples: int
    max_new_tokens: int
    bertscore_model: str | None
    bootstrap_samples: int
    seed: int


def evaluate_command(
    *,
    models: Sequence[str],
    data: str,
    output_dir: str,
    max_items: int | None,
    device: str,
    settings: EvaluationSettings,
) -> str:
    """Evaluate models on the same items and compare each with the first; the text to print.

    It leaves `evaluation-<key>.json` for each model, `comparison.json`, `.csv` and `.md`, `items.csv`
    and `plots/` in `output_dir`.

    Raises:
        DataError, ModelError, MetricError: unusable data, models or metrics, in one line.
        OutputError, SandboxError: the folder cannot be written, or the executor cannot start.
    """
    items = load_evaluation_set(data, max_items=max_items, seed=settings.seed)
    folder = Path(output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(error, folder) from error
    choice = resolve_device(HardwareConfig(device=device, require_cuda=False), explicit=True)
    runtime = Runtime(device=choice.device, dtype=choice.dtype)
    found: dict[str, PolicyEvaluation] = {}
    reward = RewardConfig()
    with make_executor(reward) as executor:
        checked = check_prompts(
            items.items,
            executor,
            timeout=reward.execution_timeout,
            memory_mb=reward.execution_memory_mb,
        )
        if not checked.prompts:
            raise DataError(f"none of the tasks of {data} can be judged: {checked.line()}")
        items.items[:] = checked.prompts
        for index, name in enumerate(models):
            label = name if name not in found else f"{name} ({index + 1})"
            found[label] = _evaluation(label, name, items, folder, runtime, executor, settings)
    comparison = _comparison(found, items, settings)
    if checked.dropped or any(task is not None for task in items.tasks):
        comparison["notes"].append(checked.line())
    text = comparison_markdown(comparison)
    write_json(folder / "comparison.json", comparison, SCHEMA)
    write_text(folder / "comparison.md", text + "\n")
    write_text(folder / "comparison.csv", comparison_csv(comparison))
    write_text(folder / "items.csv", items_csv(_item_columns(found, items)))
    for file, png in (
        ("metrics.png", models_plot(comparison["models"])),
        ("differences.png", differences_plot(comparison["differences"])),
    ):
        if png is not None:
            write_bytes(folder / "plots" / file, png)
    return f"{text}\n\nwritten to {folder}"


def _evaluation(
    label: str,
    name: str,
    items: EvaluationSet,
    folder: Path,
    runtime: Runtime,
    executor: SandboxExecutor,
    settings: EvaluationSettings,
) -> PolicyEvaluation:
    """One model's evaluation, read where it was finished before."""
    lm, tokenizer = load_causal_lm(name, device=runtime.device), load_tokenizer(name)
    room = context_length(lm, tokenizer) - settings.max_new_tokens
    key = _key(fingerprint(lm), tokenizer, items, settings, str(runtime.compute_dtype))
    path, answers = folder / f"evaluation-{key}.json", folder / f"answers-{key}.jsonl"
    if path.is_file():
        return read_evaluation(path)
    evaluator = Evaluator(
        runtime=runtime,
        executor=executor,
        max_prompt_tokens=max(1, room),
        max_response_tokens=settings.max_new_tokens,
        bertscore_model=settings.bertscore_model,
        bootstrap_samples=settings.bootstrap_samples,
        seed=settings.seed,
        metrics=settings.metrics,
    )
    total = (1 + settings.samples) * len(items)
    with tqdm(total=total, desc=label, unit="answer", disable=None) as bar:

        def advance(finished: int) -> None:
            bar.update(finished)

        found = evaluator.evaluate_policy(
            lm,
            tokenizer,
            items,
            sampled=settings.samples,
            keep=answers,
            progress=advance,
        )
    write_json(path, found.to_dict(), SCHEMA)
    answers.unlink(missing_ok=True)
    return found


def _key(
    weights: str, tokenizer: Any, items: EvaluationSet, settings: EvaluationSettings, dtype: str
) -> str:
    """Ten digits that differ whenever the evaluation may."""
    decides = [
        weights,
        dtype,
        len(tokenizer),
        tokenizer.chat_template,
        [repr(item) for item in items.items],
        vars(settings),
    ]
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:10]


def _comparison(
    found: Mapping[str, PolicyEvaluation], items: EvaluationSet, settings: EvaluationSettings
) -> dict[str, Any]:
    """What `report.comparison` shows and comparison.json holds."""
    first = next(iter(found))
    differences = _with_holm(
        {
            f"{label} - {first}": compare(
                found[first],
                one,
                splits=items.splits,
                samples=settings.bootstrap_samples,
                seed=settings.seed,
            )
            for label, one in found.items()
            if label != first
        }
    )
    notes = [
        "In brackets: 95% intervals. Differences are paired by item; p is two-sided, of the "
        "paired randomisation test, and p (Holm) allows for the number of all differences tested here.",
        f"Less is better: {', '.join(map(metric_label, LOWER_IS_BETTER))}.",
    ]
    bleu = found[first].report.results.get("bleu")
    floor = None if bleu is None else bleu.details.get("echo_of_prompt")
    if floor is not None:
        notes.append(f"BLEU of echoing the prompt: {floor:.4f}; below that BLEU means nothing.")
    return {
        "data": items.source,
        "items": len(items),
        "settings": {**vars(settings), "metrics": list(settings.metrics)},
        "models": {label: one.summary() for label, one in found.items()},
        "by_split": {label: one.by_split for label, one in found.items()},
        "hack_watch": {label: one.hack_watch for label, one in found.items()},
        "extraction": {label: one.report.extraction for label, one in found.items()},
        "differences": differences,
        "notes": notes,
    }


def _with_holm(
    pairs: Mapping[str, Mapping[str, dict[str, Any]]],
) -> dict[str, dict[str, dict[str, Any]]]:
    """The differences by pair and metric, with p-values adjusted for how many they all are."""
    tested = [
        (pair, name, row["p_value"])
        for pair, rows in pairs.items()
        for name, row in rows.items()
        if row["p_value"] is not None
    ]
    adjusted = holm([p_value for *_, p_value in tested])
    found = {(pair, name): p for (pair, name, _), p in zip(tested, adjusted, strict=True)}
    return {
        pair: {name: {**row, "p_value_holm": found.get((pair, name))} for name, row in rows.items()}
        for pair, rows in pairs.items()
    }


def _item_columns(
    found: Mapping[str, PolicyEvaluation], items: EvaluationSet
) -> dict[str, Sequence[Any]]:
    """Prompt, reference, and of every model the answer and its scores, aligned by item."""
    columns: dict[str, Sequence[Any]] = {"prompt": items.prompts, "reference": items.references}
    for label, one in found.items():
        columns[f"{label}: answer"] = one.answers
        for name, result in one.report.items():
            columns[f"{label}: {name}"] = result.per_item
        for name, values in one.extra_items.items():
            columns[f"{label}: {name}"] = values
    return columns
