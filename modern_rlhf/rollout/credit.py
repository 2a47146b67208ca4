"""Which tokens of an answer a traced run of its program vouches for.

The execution reward can run each program once more under a line tracer and report, in its details, the
code it ran and the lines that never did (`ExecutionReward(trace_credit=True)`). What was never executed
had no part in the reward, so its tokens are taken out of the policy loss; the value loss and the KL see
all tokens. The candidate could lie about its own lines: nothing but its own tokens hangs on them.
Deviation from line-level credit as published (RLTF 2307.04349, StepCoder 2402.01391): lines the tracer
does not report (blank ones, comments, `else:`) keep their part.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

import torch
from torch import Tensor

from modern_rlhf.rollout.types import RolloutBatch


def executed_tokens(batch: RolloutBatch, tokenizer: Any) -> Tensor | None:
    """(B, R) bool, False on tokens of lines that never ran; None where no reward traced anything."""
    traces = next(
        (rows for name, rows in batch.scores.details.items() if name.split("/")[-1] == "trace"),
        None,
    )
    if traces is None:
        return None
    credited = torch.ones_like(batch.mask)
    known: dict[tuple[int, ...], list[bool]] = {}
    for row, trace in enumerate(traces):
        if not trace or not trace["unexecuted_lines"]:
            continue
        ids = tuple(batch.response_ids[row])
        if ids not in known:
            known[ids] = token_credit(tokenizer, ids, trace["code"], trace["unexecuted_lines"])
        credited[row, : len(ids)] = torch.tensor(known[ids])
    return credited


def token_credit(
    tokenizer: Any, ids: Sequence[int], code: str, unexecuted: Sequence[int]
) -> list[bool]:
    """For each token whether it has a part in the loss: False when all its text is in dead lines."""
    ends = [
        len(tokenizer.decode(list(ids[:count]), skip_special_tokens=True))
        for count in range(len(ids) + 1)
    ]
    text = tokenizer.decode(list(ids), skip_special_tokens=True)
    dead = dead_characters(text, code, unexecuted)
    credit = []
    for start, end in zip(ends, ends[1:], strict=False):
        span = range(start, min(end, len(text)))
        visible = [place for place in span if not text[place].isspace()] or list(span)
        credit.append(not visible or not all(dead[place] for place in visible))
    return credit


def dead_characters(text: str, code: str, unexecuted: Sequence[int]) -> list[bool]:
    """For each character of the answer whether it stands in a line of the program that never ran.

    The program was taken out of the answer (a fence, an indent, a signature put before it), so its
    lines are found again by their text, in order.
    """
    lines = code.split("\n")
    numbers = set(whole_statements(code, unexecuted))
    theirs = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if "\r" in text:  # offsets would not agree; such answers are rare and keep all their credit
        return [False] * len(text)
    starts = [0]
    for line in theirs:
        starts.append(starts[-1] + len(line) + 1)
    dead = [False] * len(text)
    matcher = SequenceMatcher(
        None, [line.strip() for line in lines], [line.strip() for line in theirs], autojunk=False
    )
    for block in matcher.get_matching_blocks():
        for offset in range(block.size):
            if block.a + offset + 1 in numbers:
                line = block.b + offset
                for place in range(starts[line], min(starts[line + 1], len(text))):
                    dead[place] = True
    return dead


def whole_statements(code: str, unexecuted: Sequence[int]) -> list[int]:
    """The 1-based lines of the statements that begin on the given lines; of a compound one its head."""
    never = set(unexecuted)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return sorted(never)
    found = set(never)
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and node.lineno in never:
            body = getattr(node, "body", None)
            last = body[0].lineno - 1 if body else node.end_lineno or node.lineno
            found.update(range(node.lineno, last + 1))
    return sorted(found)
