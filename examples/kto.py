"""KTO on answers labelled good or bad: python -m examples.kto [MODEL [FOLDER]]"""

from __future__ import annotations

import sys

from datasets import Dataset

from modern_rlhf import KTOTrainer, TrainingConfig

ROWS = Dataset.from_list(
    [
        {
            "prompt": f"Write a function that adds {n} to x.",
            "completion": f"def f(x):\n    return x + {n}" if n % 2 else f"return x {n}",
            "label": bool(n % 2),
        }
        for n in range(32)
    ]
)


def main(
    model: str = "builtin:tiny-code-lm", folder: str = "outputs_kto", epochs: float = 5
) -> float:
    config = TrainingConfig(algorithm="kto", rlhf_epochs=epochs, learning_rate=1e-4, batch_size=8)
    trainer = KTOTrainer(model, train_data=ROWS, config=config)
    result = trainer.train()
    saved = trainer.save_model(folder)  # a Hugging Face directory
    print(f"{result.steps} steps, last loss {result.metrics['loss']:.3f}, model in {saved}")
    return result.metrics["loss"]


if __name__ == "__main__":
    main(*sys.argv[1:])
