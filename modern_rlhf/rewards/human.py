"""What people said about exactly this answer: a reward read from collected ratings.

A response that nobody rated cannot be scored this way and gets None. Two texts count as the same
prompt when they agree after `overlap.normalise`; responses must agree line by line, because indentation
and case are part of a program: only white space at line ends and around the whole is forgiven.
"""

from __future__ import annotations

from collections import defaultdict

from modern_rlhf.data_loader.overlap import normalise
from modern_rlhf.feedback.store import FeedbackSet
from modern_rlhf.rewards.base import RewardBatch, RewardScores


class HumanRatingReward:
    """The weighted mean of the human ratings of an answer, from 0 (all -2) to 1 (all +2).

    A rating counts by its `overall`, which is the mean of its aspects where it has no other; a rater's
    weight counts as that many ratings.

    Args:
        feedback: the ratings to look up; synthetic ones count like any other.
    """

    name = "human"

    def __init__(self, feedback: FeedbackSet) -> None:
        sums: defaultdict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
        for rating in feedback.ratings:
            if not rating.scores or rating.weight <= 0:
                continue
            entry = sums[_key(rating.prompt, rating.response)]
            entry[0] += rating.weight * (rating.overall + 2.0) / 4.0
            entry[1] += rating.weight
            entry[2] += 1
        self._known = {key: (total / weight, int(n)) for key, (total, weight, n) in sums.items()}

    def score(self, batch: RewardBatch) -> RewardScores:
        """B numbers from 0 to 1, or None for an answer nobody rated; the details count ratings."""
        found = [
            self._known.get(_key(item.prompt, response), (None, 0))
            for item, response in zip(batch.prompts, batch.responses, strict=True)
        ]
        total = [value for value, _ in found]
        return RewardScores(
            total, components={self.name: total}, details={"human_ratings": [n for _, n in found]}
        )

    def close(self) -> None:
        """Nothing to free."""


def _key(prompt: str, response: str) -> tuple[str, str]:
    lines = (line.rstrip() for line in response.strip().splitlines())
    return normalise(prompt), "\n".join(lines)
