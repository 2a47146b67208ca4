"""The training command's flags, and how they become one configuration.

A preset, then a configuration file over it, then flags, then `--set`, validated once at the end, so
that `--algorithm rloo --set training.samples_per_prompt=4` works although the first half alone would
not. Knows argparse and the configuration, not what a run does; no torch.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import NoReturn

from modern_rlhf.config.fields import nearest
from modern_rlhf.config.io import apply_overrides, load_config
from modern_rlhf.config.presets import PRESETS, get_preset
from modern_rlhf.config.sections import STAGES, ModernRLHFConfig
from modern_rlhf.config.training import ALGORITHMS
from modern_rlhf.errors import ConfigError

FLAG_FIELDS = {
    "epochs": "training.rlhf_epochs",
    "steps": "training.total_steps",
    "learning_rate": "training.learning_rate",
    "batch_size": "training.batch_size",
    "device": "hardware.device",
    "model_name": "model.base_model_name",
    "reward_model_name": "model.reward_model_name",
    "algorithm": "training.algorithm",
    "seed": "training.seed",
    "target_bertscore": "evaluation.target_bertscore",
    "target_codebleu": "evaluation.target_codebleu",
    "target_bleu": "evaluation.target_bleu",
    "target_rouge": "evaluation.target_rouge",
    "target_ruby": "evaluation.target_ruby",
    "output_dir": "data.output_path",
}
"""The configuration field each flag sets."""


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose mistakes become the package's one-line `ConfigError` (exit code 2)."""

    def error(self, message: str) -> NoReturn:
        unknown = re.search(r"unrecognized arguments: (--[\w-]+)", message)
        if unknown:
            flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
            message += nearest(unknown[1], flags).partition("; known")[0]
        raise ConfigError(f"{message} (see {self.prog} --help)")


def train_parser(prog: str, epilog: str = "") -> argparse.ArgumentParser:
    """The parser of the training command: every flag of DESIGN section 1."""
    parser = OneLineParser(
        prog=prog,
        description="SFT, reward model and RLHF of a code model, from one command.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--mode",
        "--config",
        default="fast",
        metavar="|".join(PRESETS),
        help="preset to start from (default: fast; cpu-test needs neither GPU nor network)",
    )
    add("--config-file", metavar="F.json|F.yaml", help="configuration over the preset")
    add(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="SECTION.FIELD=VALUE",
        help="set any configuration field; may be given many times, after all other flags",
    )
    add("--epochs", type=float, metavar="N", help="passes of RLHF over the prompts")
    add("--steps", type=int, metavar="N", help="cap on the optimiser steps of RLHF")
    add("--learning-rate", type=float, metavar="X", help="peak learning rate of RLHF")
    add("--batch-size", type=int, metavar="N", help="sequences an optimiser step")
    add("--device", metavar="auto|cpu|cuda|mps", help="always wins over the preset's device")
    add("--model-name", metavar="NAME", help="hub id, folder, or builtin:tiny-code-lm")
    add("--reward-model-name", metavar="NAME", help="backbone of the reward model")
    add("--algorithm", metavar="|".join(ALGORITHMS), help="the RLHF algorithm")
    add(
        "--stage",
        default="all",
        metavar="|".join(STAGES),
        help="run one stage, on what earlier ones left in the output folder (default: all)",
    )
    add("--seed", type=int, metavar="N", help="seed of every random generator")
    add("--deterministic", action="store_true", help="repeatable CUDA kernels where torch has them")
    for metric in ("bertscore", "codebleu", "bleu", "rouge", "ruby"):
        add(f"--target-{metric}", type=float, metavar="X", help=f"target of {metric}, 0 to 1")
    add("--output-dir", metavar="DIR", help="where the run writes (default: ./modern_outputs)")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="go on where a run stopped")
    existing.add_argument("--overwrite", action="store_true", help="replace an earlier run")
    add(
        "--dry-run",
        action="store_true",
        help="check everything, try one tiny step, write nothing; an occupied folder is said, no error",
    )
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


def build_config(args: argparse.Namespace) -> ModernRLHFConfig:
    """The validated configuration that the parsed flags describe.

    Raises:
        ConfigError: an unknown preset or stage, an unusable file, key or value.
    """
    if args.mode.endswith((".json", ".yaml", ".yml")):
        raise ConfigError(
            f"{args.mode!r} is a file, and --config takes a preset ({', '.join(PRESETS)}); "
            f"use --config-file {args.mode}"
        )
    if args.stage not in STAGES:
        raise ConfigError(f"unknown stage {args.stage!r}{nearest(args.stage, STAGES)}")
    config = get_preset(args.mode)
    if args.config_file is not None:
        config = load_config(args.config_file, base=config)
    return apply_overrides(config, [*flag_overrides(args), *args.overrides])


def flag_overrides(args: argparse.Namespace) -> Sequence[str]:
    """The given flags as `section.field=value` assignments."""
    overrides = [
        f"{field}={getattr(args, flag)}"
        for flag, field in FLAG_FIELDS.items()
        if getattr(args, flag) is not None
    ]
    if args.device is not None:
        overrides.append("hardware.require_cuda=false")  # an explicit --device always wins
    if args.deterministic:
        overrides.append("training.deterministic=true")
    if args.algorithm is not None:
        overrides.append(f"training.use_dpo={'true' if args.algorithm == 'dpo' else 'false'}")
    return overrides
