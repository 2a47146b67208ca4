"""The package's own CodeBLEU, for comparison with papers: `codebleu.calc_codebleu` pair by pair.

Runs in one process of its own with `PYTHONHASHSEED=0`, because the package's data-flow part depends
on the hash seed, and because what breaks in it must not take the caller down. Nothing is corrected:
an empty answer may score 0.25 and a perfect one below 1; `codebleu` is the value to trust. Pairs too
long, or with loops nested too deep, for the package's quadratic and exponential steps are None and
counted.

Run as a file, it is the worker: JSON [[references, prediction], ...] in, scores out.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modern_rlhf.metrics.results import ItemScores

CHARACTER_LIMIT = 4_000
LOOP_LIMIT = 8
TIMEOUT_SECONDS = 600

_LOOP = re.compile(r"\b(?:for|while)\b")
# The worker's own folder must not lead its module path: files here would shadow other modules.
_START = "import runpy, sys; sys.path.pop(0); runpy.run_path(sys.argv[1], run_name='__main__')"


def package_scores(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> ItemScores:
    """`calc_codebleu` of N items, each alone; None without references or beyond the limits.

    `details["corpus"]` is the package's value of all scored items in one call, as papers report it.
    """
    from modern_rlhf.metrics.results import ItemScores

    fits = [
        bool(texts) and all(_within_limits(text) for text in (prediction, *texts))
        for prediction, texts in zip(predictions, references, strict=True)
    ]
    pairs = [
        [list(texts), prediction]
        for prediction, texts, fit in zip(predictions, references, fits, strict=True)
        if fit
    ]
    details: dict[str, Any] = {
        "variant": "package codebleu 0.7.0, uncorrected, PYTHONHASHSEED=0",
        "references": "the package's: n-grams clipped at the maximum, trees and flow summed",
        "too_large": sum(bool(texts) for texts in references) - len(pairs),
    }
    if not pairs:
        return ItemScores([None] * len(fits), details)
    try:
        finished = subprocess.run(
            [sys.executable, "-c", _START, str(Path(__file__).resolve())],
            input=json.dumps(pairs).encode("ascii"),
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        reason = f"the package did not finish in {TIMEOUT_SECONDS} s"
        return ItemScores([None] * len(fits), details, reason)
    if finished.returncode != 0:
        said = finished.stderr.decode("utf-8", errors="replace").strip().splitlines()
        reason = f"the package codebleu failed: {said[-1] if said else finished.returncode}"
        return ItemScores([None] * len(fits), details, reason)
    answer = json.loads(finished.stdout)
    details["corpus"] = answer["corpus"]
    scores = iter(answer["scores"])
    return ItemScores([next(scores) if fit else None for fit in fits], details)


def _within_limits(text: str) -> bool:
    return len(text) <= CHARACTER_LIMIT and len(_LOOP.findall(text)) <= LOOP_LIMIT


def _work() -> None:
    import logging

    from codebleu import calc_codebleu

    logging.disable(logging.WARNING)  # one warning for every reference without data flow
    pairs = json.load(sys.stdin)
    scores = [calc_codebleu([texts], [text], "python")["codebleu"] for texts, text in pairs]
    corpus = calc_codebleu([texts for texts, _ in pairs], [text for _, text in pairs], "python")
    json.dump({"scores": scores, "corpus": corpus["codebleu"]}, sys.stdout)


if __name__ == "__main__":
    _work()
