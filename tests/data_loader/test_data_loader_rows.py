"""Rows in memory that a reward model learns from."""

from __future__ import annotations

from typing import Any

import pytest

from modern_rlhf.data_loader.rows import judgements_from_rows
from modern_rlhf.errors import DataError
from modern_rlhf.records import PreferencePair, Rating

PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}
RATED = {"question": "p", "answer": "r", "rating": 4, "rater": "ann"}


def test_rows_are_sorted_by_what_they_are() -> None:
    (pair,), none = judgements_from_rows([PAIR])
    assert (pair.chosen, pair.rejected, none) == ("a", "b", [])
    none_too, (rating,) = judgements_from_rows([RATED])
    assert none_too == []
    assert (rating.response, rating.scores, rating.rater) == ("r", {"overall": 1.0}, "ann")
    ready = PreferencePair("p", "a", "b"), Rating("p", "r", {"correct": 2.0})
    assert judgements_from_rows((), [ready[0]], [ready[1]]) == ([ready[0]], [ready[1]])
    assert judgements_from_rows(()) == ([], [])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([PAIR, RATED], "1 of 2 rows hold a rating"),
        ([{**RATED, "rating": 6}], "expected a number from 1 to 5"),
        ([{**RATED, "rating": float("nan")}], "expected a number from 1 to 5"),
        ([{"prompt": "p", "rating": 3}], "no column for the response"),
        ([3], "is a int"),
    ],
)
def test_rows_that_are_no_judgements(rows: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        judgements_from_rows(rows)


def test_the_reward_trainer_takes_what_the_others_take(tiny_model_folder: Any) -> None:
    """DESIGN section 1: SFTTrainer(model=, tokenizer=None, train_data=, config=), likewise this one."""
    from modern_rlhf import RewardTrainer
    from modern_rlhf.config import TrainingConfig
    from modern_rlhf.errors import ConfigError

    rows = [{**PAIR, "prompt": f"p{i}", "chosen": f"a{i}"} for i in range(12)]
    config = TrainingConfig(seed=3, save_steps=0)
    trainer = RewardTrainer(
        model=str(tiny_model_folder), tokenizer=None, train_data=rows, config=config
    )
    assert trainer.training.seed == 3 and trainer.train().steps > 0
    with pytest.raises(ConfigError, match="own tokenizer"):
        RewardTrainer(model=str(tiny_model_folder), tokenizer=object(), train_data=rows)
