"""People's judgements in a run: pairs, ratings and labelled answers, from both places they may lie in.

Each source is read once, with the raters' weights. Knows loaders and the configuration, no model.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from modern_rlhf.config.sections import ModernRLHFConfig
from modern_rlhf.data_loader.preferences import load_labelled, load_preferences
from modern_rlhf.errors import DataError
from modern_rlhf.feedback.store import load_feedback
from modern_rlhf.records import LabelledAnswer, PreferencePair, Rating


@dataclass
class Judgements:
    """`pairs` and `ratings` teach the reward model, `pairs` DPO too, `labels` KTO alone."""

    pairs: list[PreferencePair] = field(default_factory=list)
    ratings: list[Rating] = field(default_factory=list)
    labels: list[LabelledAnswer] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


def load_judgements(config: ModernRLHFConfig) -> Judgements:
    """What the run's stages learn from, of `human_feedback_path` and `preferences_path` together.

    Raises:
        DataError: a source cannot be read or holds nothing of what is wanted.
    """
    data, training = config.data, config.training
    algorithm, found = training.rlhf_algorithm, Judgements()
    labels = algorithm == "kto"
    pairs = config.trains_reward_model or (algorithm == "dpo" and not training.dpo_online)
    if not (pairs or labels):
        return found
    weights = data.rater_weights
    if data.human_feedback_path is not None:
        feedback = load_feedback(data.human_feedback_path, rater_weights=weights)
        found.lines.append(f"human feedback: {feedback.report.line()}")
        if pairs:
            found.pairs += feedback.pairs
            found.ratings += feedback.ratings
        if labels:
            found.labels += feedback.labelled
    path = data.preferences_path
    if path is not None and labels:
        labelled = load_labelled(path, rater_weights=weights)
        found.labels += labelled.items
        found.lines.append(f"labelled answers: {labelled.report.line()}")
    if path is not None and pairs:
        try:
            loaded = load_preferences(path, rater_weights=weights)
        except DataError:
            if not labels:
                raise
            # A table of labelled answers, which have just been read: it has no pairs to give.
        else:
            found.pairs += loaded.items
            found.lines.append(f"preferences: {loaded.report.line()}")
    if labels:
        found.lines.append(f"kto: {len(found.labels)} labelled answers")
    return found
