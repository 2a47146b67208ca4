"""Pretrain `builtin:tiny-code-lm` on the standard library of the running interpreter.

What it is: the one command behind the shipped model card. It collects every function of the standard
library, trains a byte-level BPE on it, and trains a Llama-shaped decoder of at most 6 M parameters
from scratch; half of the samples with a docstring are turned into `docstring -> function` pairs in the
plain prompt template of the package, so that the model has seen that shape before fine-tuning.
What it leaves out: any text but the standard library, and any task or answer of this project.

    python scripts/pretrain_tiny.py --out modern_rlhf/models/assets/tiny-code-lm --tokens 16e6

Optimiser: Muon (Keller Jordan, 2024; `torch.optim.Muon`) for the hidden matrices and AdamW for
embeddings and norms, warm-up, constant, then linear decay to zero over the last 40%.
"""

from __future__ import annotations

import argparse
import ast
import json
import platform
import random
import sys
import sysconfig
import textwrap
import time
import warnings
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

EOS, PAD = "<|endoftext|>", "<|pad|>"
LEFT_OUT = {"site-packages", "lib2to3", "__pycache__", "idlelib", "turtledemo", "ensurepip"}


def functions_of(path: Path) -> list[tuple[str, str | None]]:
    """Every function of one file as (source without its docstring, docstring or None)."""
    try:
        source = path.read_text(encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, UnicodeDecodeError, ValueError, RecursionError):
        return []  # the library ships deliberately broken files for its own tests
    lines = source.splitlines()
    found: list[tuple[str, str | None]] = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        start = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
        body = lines[start : node.end_lineno]
        docstring = ast.get_docstring(node)
        if docstring is not None and len(node.body) > 1:
            first = node.body[0]
            assert first.end_lineno is not None
            if first.lineno > node.lineno:  # on lines of its own
                del body[first.lineno - 1 - start : first.end_lineno - start]
            else:
                docstring = None
        elif docstring is not None:
            docstring = None
        text = textwrap.dedent("\n".join(body)).strip("\n")
        if 20 <= len(text) <= 4000 and "\t" not in text:
            found.append((text, docstring))
    return found


def collect() -> list[tuple[str, str | None]]:
    """All distinct functions of the standard library, tests of the library last."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(f for f in root.rglob("*.py") if not LEFT_OUT & set(f.relative_to(root).parts))
    files.sort(key=lambda f: bool({"test", "tests", "idle_test"} & set(f.parts)))
    seen: dict[str, str | None] = {}
    for file in files:
        for text, docstring in functions_of(file):
            seen.setdefault(text, docstring)
    return list(seen.items())


def first_paragraph(docstring: str) -> str:
    """The docstring's first paragraph on one line: what a prompt looks like."""
    return " ".join(docstring.strip().split("\n\n")[0].split())


def render(function: tuple[str, str | None], rng: random.Random) -> str:
    text, docstring = function
    if docstring is None or rng.random() < 0.25:
        return text
    return f'"""{first_paragraph(docstring)}"""\n{text}'


def train_tokenizer(texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE with single digits and `newline + indentation` as units of their own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(Regex(r"\n *"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def schedule(step: int, steps: int, warmup: int = 50, decay: float = 0.4) -> float:
    """Warm-up, constant, linear decay to zero over the last `decay` of the run."""
    return min(1.0, (step + 1) / warmup, (steps - step) / (decay * steps))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokens", type=float, default=16e6, help="tokens to train on")
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--intermediate", type=int, default=688)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--batch", type=int, default=16, help="sequences an optimiser step")
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--muon-lr", type=float, default=0.01)
    parser.add_argument("--adam-lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, default=None)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    corpus = collect()
    held_out = [f for i, f in enumerate(corpus) if i % 100 == 0]
    corpus = [f for i, f in enumerate(corpus) if i % 100 != 0]
    tokenizer = train_tokenizer([render(f, rng) for f in corpus], args.vocab_size)

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=args.hidden,
        intermediate_size=args.intermediate,
        num_hidden_layers=args.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters <= 6_000_000, parameters

    def stream(functions: list[tuple[str, str | None]]):
        """Endless rows of `length + 1` token ids: shuffled functions, each closed by EOS."""
        buffer: list[int] = []
        while True:  # a function with a docstring is seen three times as often
            order = functions + 2 * [f for f in functions if f[1] is not None]
            rng.shuffle(order)
            for start in range(0, len(order), 256):
                texts = [render(f, rng) for f in order[start : start + 256]]
                for ids in tokenizer(texts)["input_ids"]:
                    buffer += [*ids, tokenizer.eos_token_id]
                while len(buffer) > args.length:
                    yield buffer[: args.length + 1]
                    buffer = buffer[args.length + 1 :]

    rows = stream(corpus)
    hidden = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    other = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimisers = [
        torch.optim.Muon(hidden, lr=args.muon_lr, weight_decay=0.0, momentum=0.95),
        torch.optim.AdamW(other, lr=args.adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["peak"] = group["lr"]

    def loss_of(batch: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=batch[:, :-1], use_cache=False).logits
        return torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), batch[:, 1:].flatten()
        )

    steps = max(1, int(args.tokens / (args.batch * args.length)))
    began, smoothed = time.time(), 0.0
    bar = tqdm(range(steps), desc="pretrain", mininterval=10)
    for step in bar:
        scale = schedule(step, steps)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * scale
        total = 0.0
        for _ in range(args.batch // args.micro_batch):
            batch = torch.tensor([next(rows) for _ in range(args.micro_batch)])
            loss = loss_of(batch) * args.micro_batch / args.batch
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        smoothed = total if step == 0 else 0.95 * smoothed + 0.05 * total
        bar.set_postfix(loss=f"{smoothed:.3f}", lr=f"{scale:.2f}")
        if args.log and step % 10 == 0:
            with args.log.open("a") as handle:
                handle.write(
                    json.dumps({"step": step, "loss": total, "s": time.time() - began}) + "\n"
                )

    model.eval()
    held_out_rows = stream(held_out)
    with torch.no_grad():
        held_out_loss = (
            sum(
                loss_of(torch.tensor([next(held_out_rows) for _ in range(8)])).item()
                for _ in range(8)
            )
            / 8
        )
    seconds = time.time() - began
    args.out.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    facts = {
        "parameters": parameters,
        "corpus": f"{len(corpus)} functions of the standard library of Python "
        f"{platform.python_version()} (1% more held out)",
        "tokens": steps * args.batch * args.length,
        "steps": steps,
        "final_training_loss": round(smoothed, 4),
        "held_out_loss": round(held_out_loss, 4),
        "seconds": round(seconds),
        "seed": args.seed,
        "torch": torch.__version__,
        "command": "python " + " ".join(sys.argv),
    }
    (args.out / "pretraining.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
