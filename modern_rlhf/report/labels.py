"""How metrics, stages and models are called in tables and plots, and their units.

Words only: nothing here reads a file or draws.
"""

from __future__ import annotations

from typing import Any

METRICS: dict[str, str] = {
    "pass_at_1": "pass@1",
    "bleu": "BLEU",
    "sentence_bleu": "sentence BLEU",
    "chrf": "chrF",
    "rouge": "ROUGE-L",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "codebleu": "CodeBLEU",
    "codebleu_package": "CodeBLEU (package)",
    "ruby": "RUBY",
    "bertscore": "BERTScore",
    "embedding_similarity": "embedding similarity",
    "exact_match": "exact match",
    "syntax_valid": "valid syntax",
    "perplexity": "reference perplexity",
    "complexity": "cyclomatic complexity",
    "style": "style violations a line",
    "safety": "flagged as unsafe",
    "reward": "reward",
    "kl": "KL to SFT (nats)",
}
"""Reading names in reading order; a metric that is not here is shown under its own key."""

CLOSING_METRICS = ("pass_at_1", "bleu", "codebleu", "rouge", "ruby", "bertscore", "reward", "kl")
LOWER_IS_BETTER = ("perplexity", "complexity", "style", "safety")
NEITHER_IS_BETTER = ("kl",)
"""A distance from the policy RLHF began with: what it buys decides whether it was worth it."""

UNBOUNDED = (
    *("reward", "score", "kl", "loss", "perplexity", "log_perplexity"),
    *("complexity", "style"),
)
"""Keys that do not live on the 0-1 scale; so does anything that starts with one of them and `_`."""

MODELS: dict[str, str] = {"base": "base", "sft": "SFT", "rlhf": "RLHF"}

STAGES: dict[str, str] = {
    "sft": "SFT",
    "reward": "reward model",
    "reward_model": "reward model",
    "ppo": "PPO",
    "reinforce": "REINFORCE",
    "rloo": "RLOO",
    "grpo": "GRPO",
    "dpo": "DPO",
    "kto": "KTO",
}
REWARD_STAGES = ("reward", "reward_model")

UNITS: dict[str, str] = {
    "reward": "reward per answer",
    "score": "reward per answer, as optimised",
    "kl": "nats per answer",
    "kl_k3_per_token": "nats per token",
    "approx_kl": "nats per token",
    "entropy": "nats per token",
    "log_perplexity": "nats per token",
    "log_prob_mean": "nats per token",
    "loss": "nats per token",
    "response_length": "tokens",
    "learning_rate": "per optimiser step",
    "gradient_norm": "L2 norm before clipping",
}


def better(key: str, difference: float) -> bool | None:
    """Whether a metric is better by `difference`, None where more is neither better nor worse.

    A split's name may follow the metric's (`pass_at_1/eval_seen`).
    """
    name = key.partition("/")[0]
    if not difference or name in NEITHER_IS_BETTER:
        return None
    return (difference < 0) == (name in LOWER_IS_BETTER)


def metric_label(key: str) -> str:
    """`pass_at_5` -> `pass@5`, `bleu/a_split` -> `BLEU, a split`; blanks for underscores."""
    name, _, split = key.partition("/")
    label = METRICS.get(name, name.replace("pass_at_", "pass@").replace("_", " "))
    return f"{label}, {split.replace('_', ' ')}" if split else label


def stage_label(key: str) -> str:
    return STAGES.get(key, key)


def unit(key: str) -> str:
    """The unit of a logged key for an axis label; the key in words where none is known."""
    return UNITS.get(key, key.replace("_", " "))


def on_unit_scale(key: str) -> bool:
    """Whether a metric lives between 0 and 1."""
    return not any(key == name or key.startswith(f"{name}_") for name in UNBOUNDED)


def number(value: Any, digits: int = 3) -> str:
    """A number for a person: `0.421`, `12.3`, `1.2e-05`; `n/a` for None."""
    if value is None or isinstance(value, bool) or not isinstance(value, (int, float)):
        return "n/a"
    if value and (abs(value) < 10**-digits or abs(value) >= 1e6):
        return f"{value:.2e}"
    return f"{value:.{digits}f}" if abs(value) < 100 else f"{value:,.1f}"


def duration(seconds: float) -> str:
    """`42 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`."""
    whole = max(0, round(seconds))
    for size, name, smaller, below in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {name}" + (f" {rest} {below}" if rest else "")
    return f"{whole} s"
