"""`modern-rlhf correlate`: how well metrics, or a reward model, agree with people's grades.

Two kinds of input. A JSONL file of graded answers, one object a line:
`{"prediction", "references": [...], "grade", "prompt"?, "item"?}`, where `item` says which answers
belong together. Or a folder of human feedback, which has grades and no references: there only a reward
model, and the metrics that need no reference, have something to say. Reads, calls `metrics.correlate`,
prints and, where asked, writes JSON, CSV and a plot; the arithmetic is there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modern_rlhf.errors import DataError
from modern_rlhf.feedback.store import load_feedback
from modern_rlhf.utils.atomic import write_bytes, write_json, write_text
from modern_rlhf.utils.load_report import decoded_lines

PREDICTION = ("prediction", "response", "answer", "output", "hyp")
REFERENCES = ("references", "reference", "refs", "snippet")
GRADE = ("grade", "rating", "human", "score")
PROMPT = ("prompt", "question", "intent", "instruction")
ITEM = ("item", "question_id", "task_id", "id")

METRICS = (
    "sentence_bleu",
    "chrf",
    "rouge",
    "rouge1",
    "rouge2",
    "codebleu",
    "codebleu_package",
    "ruby",
    "bertscore",
    "embedding_similarity",
    "exact_match",
    "syntax_valid",
    "complexity",
    "style",
    "safety",
)
"""Every metric of a single answer that needs no tests."""


@dataclass
class GradedAnswers:
    """N answers with a grade each; `references[i]` is empty where there is none.

    `extract` says that the answers are chat answers, whose code has to be found first. Answers from a
    JSONL file are scored as they were graded: there a backtick may stand for a quote.
    """

    extract: bool = False
    prompts: list[str] = field(default_factory=list)
    predictions: list[str] = field(default_factory=list)
    references: list[list[str]] = field(default_factory=list)
    grades: list[float] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)


def read_graded(path: str) -> GradedAnswers:
    """Graded answers from a JSONL file, or from a folder (or JSON file) of human feedback.

    Raises:
        DataError: unreadable, a broken line, or a field missing (named with its line).
    """
    if Path(path).is_dir() or Path(path).suffix == ".json":
        return _from_feedback(path)
    found = GradedAnswers()
    for number, line in enumerate(decoded_lines(Path(path)), start=1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: broken JSON ({str(error)[:100]})") from None
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected an object, not {type(row).__name__}")
        grade = _field(row, GRADE, where)
        if not _is_number(grade):
            raise DataError(f"{where}: the grade {str(grade)[:40]!r} is not a number")
        references = _field(row, REFERENCES, where, default=[])
        texts = [references] if isinstance(references, str) else references
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise DataError(f"{where}: the references are {references!r:.60}; expected texts")
        found.predictions.append(str(_field(row, PREDICTION, where)))
        found.references.append(texts)
        found.prompts.append(str(_field(row, PROMPT, where, default="")))
        found.grades.append(float(grade))
        found.groups.append(str(_field(row, ITEM, where, default=f"line {number}")))
    if not found.grades:
        raise DataError(f"{path}: holds no graded answer")
    return found


def _from_feedback(path: str) -> GradedAnswers:
    """Each rated answer, its grade the overall rating or the mean of the aspects it was rated on."""
    from modern_rlhf.data_loader.splits import group_id_of

    found = GradedAnswers(extract=True)
    for rating in load_feedback(path).ratings:
        found.prompts.append(rating.prompt)
        found.predictions.append(rating.response)
        found.references.append([])
        found.grades.append(rating.overall)
        found.groups.append(group_id_of(rating))
    return found


def _is_number(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False


def _field(row: Mapping[str, Any], names: Sequence[str], where: str, default: Any = None) -> Any:
    for name in names:
        if row.get(name) is not None:
            return row[name]
    if default is not None:
        return default
    raise DataError(f"{where}: no {names[0]!r} (or {', '.join(names[1:])})")


def correlate_command(
    path: str,
    *,
    metrics: Sequence[str],
    reward_model: str | None,
    bertscore_model: str | None,
    output_dir: str | None,
    samples: int,
    seed: int,
) -> str:
    """The table: a row a metric (and a reward model's score and heads), best agreement first.

    With `output_dir` it leaves `agreement.json`, `agreement.csv` and `agreement.png` there.

    Raises:
        DataError, MetricError, ModelError: unusable answers, an unknown metric, an unusable model.
        OutputError: the folder cannot be written.
    """
    from modern_rlhf.metrics.correlate import MEASURES, correlate
    from modern_rlhf.metrics.evaluator import ModernMetricsEvaluator

    graded = read_graded(path)
    evaluator = ModernMetricsEvaluator(
        metrics=metrics, bertscore_model=bertscore_model, bootstrap_samples=0, seed=seed
    )
    report = evaluator.evaluate(
        graded.predictions, graded.references, graded.prompts, extract=graded.extract
    )
    columns: dict[str, Sequence[float | None]] = {name: report[name].per_item for name in metrics}
    if reward_model is not None:
        from modern_rlhf.reward_model.model import CustomRewardModel

        model = CustomRewardModel.from_pretrained(reward_model)
        columns["reward"] = model.score(graded.prompts, graded.predictions)
        for head, values in model.score_heads(graded.prompts, graded.predictions).items():
            columns[f"reward.{head}"] = values
    found = correlate(columns, graded.grades, groups=graded.groups, samples=samples, seed=seed)
    order = sorted(found, key=lambda name: -_or(found[name].spearman.value, -2.0))
    title = (
        f"{len(graded.grades)} graded answers to {len(set(graded.groups))} items in {path}; "
        "95% intervals resample items"
    )
    width = max(map(len, order))
    lines = [title, f"{'':{width}}      n" + "".join(f"  {measure:>24}" for measure in MEASURES)]
    for name in order:
        agreement = found[name]
        reason = agreement.reason and (report_reason(report, name) or agreement.reason)
        cells = [interval_text(getattr(agreement, measure)) for measure in MEASURES]
        row = "".join(f"  {cell:>24}" for cell in cells) if not reason else f"  {reason}"
        lines.append(f"{name:{width}}  {agreement.n:5}{row}")
    if output_dir is not None:
        entries = {name: found[name].to_dict() for name in order}
        _write(Path(output_dir), entries, graded, path)
        lines.append(f"written to {output_dir}")
    return "\n".join(lines)


def _write(
    folder: Path, entries: Mapping[str, Mapping[str, Any]], graded: GradedAnswers, path: str
) -> None:
    """The agreement of every column as JSON, as CSV (a line a column and measure) and as a plot."""
    from modern_rlhf.metrics.correlate import MEASURES
    from modern_rlhf.report.comparison import items_csv
    from modern_rlhf.report.comparison_plots import agreement_plot

    items = len(set(graded.groups))
    content = {"data": path, "answers": len(graded.grades), "items": items, "columns": entries}
    write_json(folder / "agreement.json", content, 1)
    rows = [(name, measure) for name in entries for measure in MEASURES]
    table: dict[str, list[Any]] = {
        "column": [name for name, _ in rows],
        "measure": [measure for _, measure in rows],
    }
    for field_name in ("value", "low", "high", "n"):
        table[field_name] = [entries[name][measure][field_name] for name, measure in rows]
    write_text(folder / "agreement.csv", items_csv(table))
    subtitle = f"{len(graded.grades)} graded answers to {items} items."
    png = agreement_plot(entries, subtitle=subtitle)
    if png is not None:
        write_bytes(folder / "agreement.png", png)


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def report_reason(report: Any, name: str) -> str | None:
    """Why a metric has no value at all, when it has none."""
    return report[name].reason if name in report else None


def interval_text(interval: Any) -> str:
    """`0.512 [0.470, 0.551]`."""
    if interval.value is None:
        return "-"
    text = f"{interval.value:.3f}"
    if interval.low is None or interval.high is None:
        return text
    return f"{text} [{interval.low:.3f}, {interval.high:.3f}]"
