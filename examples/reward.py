"""Train a reward model on preference pairs: python -m examples.reward [BACKBONE [FOLDER]]"""

from __future__ import annotations

import sys

from modern_rlhf import CustomRewardModel, RewardTrainer
from modern_rlhf.config import RewardConfig

PAIRS = [
    {
        "prompt": f"Write a function that adds {n} to x.",
        "chosen": f"def f(x):\n    return x + {n}",
        "rejected": f"return x {n}",
    }
    for n in range(32)
]


def main(
    model: str = "builtin:tiny-code-lm", folder: str = "outputs_reward", epochs: int = 20
) -> float:
    config = RewardConfig(reward_epochs=epochs, reward_batch_size=8)
    trainer = RewardTrainer(model, pairs=PAIRS, config=config)
    trainer.train()
    accuracy = trainer.evaluate()["accuracy"]
    trainer.save_model(folder)
    loaded = CustomRewardModel.from_pretrained(folder)
    scores = loaded.score(["Add 1 to x."] * 2, ["def f(x):\n    return x + 1", "no idea"])
    print(f"accuracy on held-out questions {accuracy}; scores {scores}")
    return scores[0] - scores[1]


if __name__ == "__main__":
    main(*sys.argv[1:])
