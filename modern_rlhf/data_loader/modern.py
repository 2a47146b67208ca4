"""`ModernDataLoader`: the data section of a configuration, as lists of `DataSample`.

A thin view for notebooks on the loaders of this room: it chooses the path, keeps the reports, holds
out an evaluation part where there is no evaluation file, and takes out of the training rows what
would give the evaluation away. Everything else is the loaders' work.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from modern_rlhf.data_loader.demonstrations import load_demonstrations
from modern_rlhf.data_loader.evaluation_set import EvaluationSet
from modern_rlhf.data_loader.prompts import load_prompts
from modern_rlhf.data_loader.sources import CONALA, named_path
from modern_rlhf.data_loader.splits import OverlapRemoval, hold_out, remove_overlap
from modern_rlhf.errors import DataError
from modern_rlhf.feedback.store import load_feedback
from modern_rlhf.records import DataSample, Demonstration, Prompt, Rating
from modern_rlhf.utils.load_report import LoadReport


class ModernDataLoader:
    """Loads what `config.data` names.

    Args:
        config_or_data_section: a whole configuration (its seed decides what is held out), or its
            `data` section alone (seed 0).

    Attributes:
        reports: what each load read, kept and skipped, by `train`, `eval`, `prompts`, `feedback`.
        leaks: what the leak check of the latest `load_training_data` found, or None.
    """

    def __init__(self, config_or_data_section: Any) -> None:
        self._data = getattr(config_or_data_section, "data", config_or_data_section)
        training = getattr(config_or_data_section, "training", None)
        self._seed = 0 if training is None else int(training.seed)
        evaluation = getattr(config_or_data_section, "evaluation", None)
        self._eval_samples = None if evaluation is None else evaluation.eval_samples
        self.reports: dict[str, LoadReport] = {}
        self.leaks: OverlapRemoval[Demonstration] | None = None

    def load_training_data(self) -> list[DataSample]:
        """The demonstrations to train on; `response` and `reference` are the answer."""
        training, evaluation = self._split()
        self.leaks = None
        if self._data.remove_overlap and evaluation:
            threshold = self._data.overlap_threshold
            self.leaks = remove_overlap(training, evaluation, threshold=threshold)
            training = self.leaks.kept
            if not training:
                raise DataError(
                    f"{self._data.train_data_path}: every training row overlaps with the evaluation "
                    "data; give other data or set data.remove_overlap=false"
                )
        return [sample_of_demonstration(item) for item in training]

    load_train_data = load_training_data

    def load_eval_data(self) -> list[DataSample]:
        """The items a run evaluates on: of `data.eval_data_path`, else those held out from training.

        (A run leaves out tasks that cannot be judged, too.)
        """
        _, held = self._split()
        if not held:
            raise DataError(
                "no evaluation data: set data.eval_data_path, or raise data.evaluation_fraction "
                f"(now {self._data.evaluation_fraction:g})"
            )
        found = EvaluationSet(held, "")
        if self._eval_samples is not None:
            found = found.subset(self._eval_samples, seed=self._seed)
        return [
            dataclasses.replace(sample_of_prompt(item), response=item.reference or "")
            for item in found.items
        ]

    def load_prompts(self) -> list[DataSample]:
        """The prompts to sample from: `data.prompts_path`, else the training data's."""
        return [sample_of_prompt(item) for item in self._prompts()]

    def load_human_feedback(self) -> list[DataSample]:
        """Every rated answer of `data.human_feedback_path`, its rating on the 1-5 scale."""
        if not self._data.human_feedback_path:
            raise DataError("no human feedback: set data.human_feedback_path to a file or folder")
        feedback = load_feedback(
            self._data.human_feedback_path, rater_weights=self._data.rater_weights
        )
        self.reports["feedback"] = feedback.report
        return [sample_of_rating(item) for item in feedback.ratings]

    def _split(self) -> tuple[list[Demonstration], list[Prompt]]:
        """Training and evaluation records as a run has them, before the leak check."""
        data = self._data
        train = load_demonstrations(
            self._named(self._train_path()),
            max_rows=data.max_train_samples,
            min_prob=data.min_prob,
        )
        self.reports["train"] = train.report
        if data.eval_data_path:
            evaluation = load_prompts(self._named(data.eval_data_path))
            self.reports["eval"] = evaluation.report
            return train.items, evaluation.items
        shown, _, held = hold_out(
            train.items, self._prompts(), fraction=data.evaluation_fraction, seed=self._seed
        )
        return shown, held

    def _prompts(self) -> list[Prompt]:
        data = self._data
        loaded = load_prompts(
            self._named(data.prompts_path or self._train_path()),
            max_rows=data.max_prompts,
            min_prob=data.min_prob,
        )
        self.reports["prompts"] = loaded.report
        return loaded.items

    def _train_path(self) -> str:
        return self._data.train_data_path or CONALA

    def _named(self, path: str) -> str:
        return named_path(path, self._data.conala_local_path)


def sample_of_demonstration(item: Demonstration) -> DataSample:
    """A demonstration as a `DataSample`."""
    metadata: Mapping[str, Any] = {
        **item.metadata,
        "group_id": item.group_id,
        "source": item.source,
    }
    if item.messages:
        metadata = {**metadata, "messages": item.messages}
    return DataSample(item.prompt, item.response, reference=item.response, metadata=metadata)


def sample_of_prompt(item: Prompt) -> DataSample:
    """A prompt as a `DataSample` without a response; its task stands in the metadata."""
    metadata = {"group_id": item.group_id, "task": item.task}
    return DataSample(item.prompt, reference=item.reference, metadata=metadata)


def sample_of_rating(item: Rating) -> DataSample:
    """A rating as a `DataSample`: its overall score, moved from -2..2 to 1-5."""
    metadata = {
        "scores": dict(item.scores),
        "rater": item.rater,
        "group_id": item.group_id,
        "source": item.source,
        "synthetic": item.synthetic,
    }
    return DataSample(item.prompt, item.response, rating=item.overall + 3.0, metadata=metadata)
