"""The one error tree of the package.

Every message says what was wrong, where, what was expected and the remedy, in one line. The CLI prints
that line and exits with `exit_code`: 2 for usage (a wrong flag, key or value), 1 for failures at work.
This file knows nothing of the rest of the package.
"""

from __future__ import annotations


class ModernRLHFError(Exception):
    """Root of all errors raised on purpose by this package."""

    exit_code = 1


class ConfigError(ModernRLHFError):
    """A configuration field, preset, flag or file holds a value that cannot be used."""

    exit_code = 2


class DataError(ModernRLHFError):
    """An input file is missing, empty, wrongly encoded, broken, or has no usable row."""


class ModelError(ModernRLHFError):
    """A model or tokenizer cannot be found, loaded or used as asked."""


class DeviceError(ModernRLHFError, RuntimeError):
    """The requested device is not available. Also a `RuntimeError`, as torch users expect."""

    exit_code = 2


class SandboxError(ModernRLHFError):
    """Generated code cannot be executed safely here, or the executor itself failed."""


class MetricError(ModernRLHFError):
    """A metric was called with inputs that do not belong together."""


class CheckpointError(ModernRLHFError):
    """A checkpoint is damaged, belongs to another model, or cannot be written."""


class OutputError(ModernRLHFError):
    """The output folder cannot be used: not empty, locked by another run, not writable, or full."""


class TrainingError(ModernRLHFError):
    """Training cannot go on: a NaN loss, a collapsed policy, or too many unscorable samples."""


class StopRequested(ModernRLHFError):
    """The user or the system asked the run to stop; a checkpoint has been written."""

    exit_code = 130
