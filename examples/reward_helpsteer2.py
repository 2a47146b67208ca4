"""HelpSteer2_binarized's recipe: python -m examples.reward_helpsteer2 PAIRS [BACKBONE [FOLDER]]

PAIRS is a file, folder or hub id of {prompt, chosen, rejected} rows (texts or message lists). One
linear head at the last token, everything trained on 80% of the prompts, 256 tokens at most.
"""

from __future__ import annotations

import sys

from modern_rlhf import RewardTrainer
from modern_rlhf.config import HardwareConfig, RewardConfig, TrainingConfig
from modern_rlhf.data_loader.preferences import load_preferences
from modern_rlhf.trainer.runtime import Runtime
from modern_rlhf.utils.device import resolve_device

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"  # smollm2-135m where the hub is out of reach
CONFIG = RewardConfig(
    custom_reward_heads=1, custom_reward_head_names=["preference"], custom_reward_head_kind="linear",
    custom_reward_freeze_backbone=False, reward_max_length=256, reward_batch_size=16,
)  # fmt: skip
TRAINING = TrainingConfig(reward_modeling_epochs=1, reward_backbone_learning_rate=1e-5)


def main(pairs: str, model: str = SMOLLM2, folder: str = "outputs_helpsteer2") -> RewardTrainer:
    found = load_preferences(pairs)
    print(found.report.line())
    place = resolve_device(HardwareConfig(device="auto", require_cuda=False))
    trainer = RewardTrainer(
        model, pairs=found.items, config=CONFIG, training=TRAINING, validation_fraction=0.2,
        runtime=Runtime(device=place.device, dtype=place.dtype, progress=True),
    )  # fmt: skip
    trainer.train()
    print(f"accuracy on held-out prompts: {trainer.evaluate()['accuracy']}")
    trainer.save_model(folder)
    return trainer


if __name__ == "__main__":
    main(*sys.argv[1:])
