"""Fine-tune on demonstrations: python -m examples.sft [MODEL [FOLDER]]"""

from __future__ import annotations

import sys

from modern_rlhf import SFTTrainer, TrainingConfig

ROWS = [
    {
        "prompt": f"Write a function that adds {n} to x.",
        "response": f"def f(x):\n    return x + {n}",
    }
    for n in range(32)
]


def main(
    model: str = "builtin:tiny-code-lm", folder: str = "outputs_sft", epochs: float = 10
) -> float:
    config = TrainingConfig(sft_epochs=epochs, sft_learning_rate=1e-3, batch_size=8)
    trainer = SFTTrainer(model, train_data=ROWS, config=config)
    result = trainer.train()
    saved = trainer.save_model(folder)  # a Hugging Face directory
    print(f"{result.steps} steps, last loss {result.metrics['loss']:.3f}, model in {saved}")
    return result.metrics["loss"]


if __name__ == "__main__":
    main(*sys.argv[1:])
