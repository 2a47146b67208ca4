"""Which attention is faster in training on this machine: the fused kernel or plain products?

    python -m benchmarks.attention [--model NAME] [--tokens N] [--lengths 90 256 512]

Forward and backward of the policy (response log-probs, half of each row is prompt) on random tokens,
about `--tokens` a batch, both kinds in turn, three rounds; prints the medians in tokens a second.
`trainer/inputs.py` chooses by what this found (docs/benchmarks.md).
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from modern_rlhf.models.forward import Policy, make_sequences
from modern_rlhf.models.loading import BUILTIN, load_causal_lm
from modern_rlhf.trainer.runtime import Runtime

KINDS = ("sdpa", "eager")


def tokens_per_second(policy: Policy, runtime: Runtime, *, length: int, tokens: int) -> float:
    """One warm-up step, then the mean of two."""
    draw = torch.Generator().manual_seed(0)
    rows = max(1, tokens // length)
    vocabulary = int(policy.lm.config.vocab_size)
    ids = torch.randint(0, vocabulary, (rows, length), generator=draw).tolist()
    half = length // 2
    sequences = make_sequences([r[:half] for r in ids], [r[half:] for r in ids], pad_id=0)
    began = 0.0
    for step in range(3):
        if step == 1:
            began = time.perf_counter()
        with runtime.autocast():
            out = policy(sequences)
        out.log_probs.sum().backward()
        policy.zero_grad()
    return 2 * rows * length / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=BUILTIN)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 128, 256, 512, 1024])
    parser.add_argument("--dtype", default="bf16", choices=["bf16", "no"])
    args = parser.parse_args()
    runtime = Runtime(dtype=args.dtype)
    policies = {}
    for kind in KINDS:
        lm = load_causal_lm(args.model)
        lm.set_attn_implementation(kind)
        policies[kind] = Policy(lm)
    print("| length | fused, tokens/s | plain, tokens/s | plain / fused |\n|---|---|---|---|")
    for length in args.lengths:
        found: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for _ in range(3):
            for kind in KINDS:
                found[kind].append(
                    tokens_per_second(policies[kind], runtime, length=length, tokens=args.tokens)
                )
        fused, plain = (statistics.median(found[kind]) for kind in KINDS)
        print(f"| {length} | {fused:.0f} | {plain:.0f} | {plain / fused:.2f} |", flush=True)


if __name__ == "__main__":
    main()
