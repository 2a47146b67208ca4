"""The RLHF stage on recorded preferences: DPO on pairs, KTO on labelled answers.

The records are those of the human feedback folder and of the preference file together, as
`judgements` loads them.
"""

from __future__ import annotations

import time
from typing import Any

from modern_rlhf.models.loading import load_causal_lm, load_tokenizer
from modern_rlhf.pipeline.settings import sft_or_base
from modern_rlhf.pipeline.stages import periodic, stage_record
from modern_rlhf.pipeline.workspace import Workspace
from modern_rlhf.trainer.dpo import DPOTrainer
from modern_rlhf.trainer.kto import KTOTrainer
from modern_rlhf.utils.hardware import reset_peak_memory


def run_offline(workspace: Workspace) -> dict[str, Any]:
    """Train the SFT policy with DPO or KTO, on judgements that `checks.check_judgements` has seen."""
    config, began = workspace.config, time.monotonic()
    reset_peak_memory()
    algorithm = config.training.rlhf_algorithm
    name = sft_or_base(workspace.artifacts, config)
    lm, tokenizer = load_causal_lm(name, device=workspace.device.device), load_tokenizer(name)
    options: dict[str, Any] = {
        "config": config.training,
        "runtime": workspace.runtime(algorithm),
        "model_config": config.model,
        "evaluate": periodic(workspace, lm, tokenizer),
    }
    trainer: DPOTrainer | KTOTrainer
    if algorithm == "dpo":
        trainer = DPOTrainer(lm, tokenizer, train_data=workspace.data.pairs, **options)
    else:
        trainer = KTOTrainer(lm, tokenizer, train_data=workspace.data.labels, **options)
    result = trainer.train()
    trainer.save_model(workspace.artifacts.final_model(algorithm))
    return stage_record(result, time.monotonic() - began)
