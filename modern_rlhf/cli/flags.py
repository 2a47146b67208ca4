"""Flags and checks that several commands share."""

from __future__ import annotations

import argparse

from modern_rlhf.errors import ConfigError


def device_and_seed(parser: argparse.ArgumentParser) -> None:
    """The flags `--device` and `--seed`."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--seed", type=int, default=0, help="of sampling and resampling")


def at_least(low: float, args: argparse.Namespace, *names: str) -> None:
    """Check numbers by the name of their flag; None is a flag not given.

    Raises:
        ConfigError: one is below `low`.
    """
    for name in names:
        value = getattr(args, name)
        if value is not None and not value >= low:
            raise ConfigError(f"--{name.replace('_', '-')} {value}: expected at least {low:g}")
