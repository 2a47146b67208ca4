"""Where the metrics of an evaluation run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from modern_rlhf.evaluation import evaluator as module


class Asked(Exception):
    """What the metrics were asked for."""


def test_the_encoder_of_bertscore_runs_where_the_policy_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def metrics(**settings: Any) -> None:
        raise Asked(settings["device"])

    monkeypatch.setattr(module, "ModernMetricsEvaluator", metrics)
    runtime: Any = SimpleNamespace(device=torch.device("cuda", 1))
    evaluator = module.Evaluator(runtime, None, max_prompt_tokens=8, max_response_tokens=8)
    items: Any = SimpleNamespace(prompts=[])
    with pytest.raises(Asked, match="cuda:1"):
        evaluator.evaluate_policy(None, None, items)
