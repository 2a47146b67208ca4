"""REINFORCE with a moving-average baseline: python -m examples.reinforce [MODEL [FOLDER]]"""

from __future__ import annotations

import sys

from modern_rlhf import PolicyGradientTrainer, TrainingConfig

PROMPTS = [f"# a function that adds {n} to x\n" for n in range(16)]


def reward(prompts: list[str], responses: list[str]) -> list[float]:
    """Any function of texts; here: short answers that hold a return statement."""
    return [("return" in text) - len(text) / 200 for text in responses]


def main(
    model: str = "builtin:tiny-code-lm", folder: str = "outputs_reinforce", steps: int = 20
) -> float:
    config = TrainingConfig(
        total_steps=steps,
        rlhf_epochs=steps,
        learning_rate=1e-4,
        rollout_batch_size=32,
        samples_per_prompt=1,
        max_response_tokens=32,
    )
    trainer = PolicyGradientTrainer(
        model, prompts=PROMPTS, reward=reward, config=config, algorithm="reinforce"
    )
    result = trainer.train()
    saved = trainer.save_model(folder)  # a Hugging Face directory
    print(f"reward {result.metrics['reward']:.3f}, KL {result.metrics['kl']:.2f}, model in {saved}")
    return result.metrics["reward"]


if __name__ == "__main__":
    main(*sys.argv[1:])
