"""What a run says of itself: the only writer of metrics, timings, rollouts and the live status.

    metrics.jsonl    a line a logged step; only values that are the same in every run of one seed,
    so that
                     a resumed run's file equals an uninterrupted one's byte for byte
    timings.jsonl    seconds, tokens a second, memory: everything the clock and the machine decide
    rollouts.jsonl   a line an episode
    status.json      where the run is now, replaced whole at every change
    training.log     the messages of `logging`, for people
    logs/            what TensorBoard and other trackers of `accelerate` make of the same numbers

Each line goes to the kernel in one write when it is logged: a killed process loses none. A
checkpoint stores `offsets()`, and a resumed run calls `truncate_to` with them, so that no step
appears twice. Floats are written by `repr`, which reads back to the same bits; JSON has no NaN:
such a value is null and `<key>_nonfinite` beside it says which it was.

Only the main process of a run logs; the others make the tracker with `enabled=False`. Nothing here
knows tensors, trainers or plots.
"""

from __future__ import annotations

import logging
import math
import numbers
import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from modern_rlhf.errors import ConfigError
from modern_rlhf.utils.atomic import output_error, write_json
from modern_rlhf.utils.jsonl import JsonLines, iterate_lines

LOGGER = logging.getLogger(__name__)

SCHEMA = 1
METRICS, TIMINGS, ROLLOUTS, STATUS = (
    "metrics.jsonl",
    "timings.jsonl",
    "rollouts.jsonl",
    "status.json",
)
STATES = ("starting", "running", "done", "failed", "interrupted")
NONFINITE = "_nonfinite"
_RESERVED = ("schema", "stage", "kind", "step", "epoch")


class RunTracker:
    """The log files of one output folder; one tracker a run, shared by its stages.

    Args:
        output_dir: made if need be.
        trackers: names that `accelerate` knows (`tensorboard`, `trackio`, `wandb`, ...); nothing of
            them is imported when empty.
        enabled: False on all processes but the main one: every method is then without effect.

    Raises:
        OutputError: a file cannot be written.
        ConfigError: a tracker is unknown or its package is not installed.
    """

    def __init__(
        self, output_dir: Path, *, trackers: Sequence[str] = (), enabled: bool = True
    ) -> None:
        self.output_dir = Path(output_dir)
        self.enabled = enabled
        self._files = {
            name: JsonLines(self.output_dir / name) for name in (METRICS, TIMINGS, ROLLOUTS)
        }
        self._status: dict[str, Any] = {}
        self._stage_began: tuple[float, int] | None = None
        self._external: list[Any] = []
        if enabled:
            try:
                self.output_dir.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise output_error(error, self.output_dir) from error
            self._external = [
                _start_tracker(name, self.output_dir) for name in dict.fromkeys(trackers)
            ]

    def log(
        self,
        stage: str,
        step: int,
        values: Mapping[str, float | int | None],
        *,
        epoch: float | None = None,
        kind: str = "train",
    ) -> None:
        """Append one line to metrics.jsonl.

        Args:
            stage: `sft`, `reward`, `ppo`, ...
            step: steps taken in this stage: optimiser steps, and rollouts where samples are drawn
                (one has several optimiser steps).
            values: numbers, or None for "could not be computed"; nothing that depends on the clock.
            epoch: passes over the data so far, a fraction inside one.
            kind: `train` or `eval`; an `eval` line may hold `<metric>_low` and `<metric>_high`.

        Raises:
            ValueError: a key that is reserved. TypeError: a value that is no number.
        """
        if not self.enabled:
            return
        clean = _numbers(values)
        head = {"schema": SCHEMA, "stage": stage, "kind": kind, "step": int(step), "epoch": epoch}
        self._files[METRICS].append([{**head, **clean}])
        self._status["metrics"] = {"stage": stage, "kind": kind, "step": int(step), **clean}
        self._send({f"{stage}/{kind}/{key}": value for key, value in clean.items()}, step)

    def log_timing(self, stage: str, step: int, values: Mapping[str, float | int | None]) -> None:
        """Append one line to timings.jsonl: seconds, tokens_per_second, memory in MB and so on."""
        if not self.enabled:
            return
        clean = _numbers(values)
        head = {"schema": SCHEMA, "stage": stage, "step": int(step), "time": _now()}
        self._files[TIMINGS].append([{**head, **clean}])
        self._send({f"{stage}/timing/{key}": value for key, value in clean.items()}, step)

    def log_rollouts(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append one line an episode to rollouts.jsonl, all in one write; keys keep their order."""
        if self.enabled:
            self._files[ROLLOUTS].append(
                [{"schema": SCHEMA, **_plain_mapping(row)} for row in rows]
            )

    def status(self, **fields: Any) -> None:
        """Merge `fields` into status.json.

        The usual ones: state (starting, running, done, failed, interrupted), stage, step,
        total_steps, epoch, message. Process id, host, times, the last logged metrics and, from step
        and total_steps, `eta_seconds` of the stage are added here.
        """
        if not self.enabled:
            return
        before = (self._status.get("state", "starting"), self._status.get("stage"))
        state = fields.get("state", before[0])
        stage = fields.get("stage", before[1])
        if state not in STATES:
            raise ValueError(f"state is {state!r}, expected one of {', '.join(STATES)}")
        if stage != before[1]:
            self._stage_began = None
            for key in ("step", "total_steps", "epoch", "eta_seconds"):
                self._status.pop(key, None)
        now = _now()
        origin = {"pid": os.getpid(), "host": socket.gethostname(), "started": now}
        kept = {key: value for key, value in self._status.items() if key != "metrics"}
        self._status = {
            **origin,
            **kept,
            **_plain_mapping(fields),
            "state": state,
            "updated": now,
            "metrics": self._status.get("metrics"),
        }
        if "eta_seconds" not in fields:
            self._status["eta_seconds"] = self._eta()
        # Progress needs no fsync at every step: after a power cut it is stale anyway.
        write_json(self.output_dir / STATUS, self._status, SCHEMA, durable=(state, stage) != before)

    def offsets(self) -> dict[str, int]:
        """Bytes of each log, after making them durable: what a checkpoint stores."""
        if not self.enabled:
            return {}
        return {name: file.sync() for name, file in self._files.items()}

    def truncate_to(self, offsets: Mapping[str, int]) -> None:
        """Cut the logs back to `offsets`: lines written after the checkpoint will be written again.

        A log that is shorter than its offset was changed by somebody: a warning, and training goes
        on.
        """
        if self.enabled:
            for name, file in self._files.items():
                if name in offsets:
                    file.cut(offsets[name])

    def forget(self, stage: str) -> None:
        """Take out every line of a stage that starts from nothing again."""
        if self.enabled:
            for file in self._files.values():
                file.drop("stage", stage)

    def close(self) -> None:
        """Flush and close everything; safe to call twice. The status is left as it was last set."""
        for file in self._files.values():
            file.close()
        for tracker in self._external:
            tracker.finish()
        self._external = []

    def __enter__(self) -> RunTracker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, values: Mapping[str, float | int | str | None], step: int) -> None:
        for tracker in self._external:
            tracker.log(
                {key: value for key, value in values.items() if isinstance(value, (int, float))},
                step=int(step),
            )

    def _eta(self) -> float | None:
        step, total = self._status.get("step"), self._status.get("total_steps")
        if self._status["state"] != "running" or step is None or not total:
            return None
        if self._stage_began is None:
            self._stage_began = (time.monotonic(), step)
        began, first = self._stage_began
        if step <= first:
            return None
        seconds_a_step = (time.monotonic() - began) / (step - first)
        return round(float(seconds_a_step * max(total - step, 0)), 1)


def training_log_handler(output_dir: Path) -> logging.Handler:
    """A `logging` handler that appends to training.log; the caller attaches it, and closes it."""
    handler = logging.FileHandler(
        Path(output_dir) / "training.log", encoding="utf-8", errors="backslashreplace"
    )
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    return handler


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl (or timings.jsonl) in order; empty when there is no such file.

    A torn or broken line is passed over with a warning that names it; see
    `utils.jsonl.iterate_lines`.
    """
    return list(iterate_lines(path))


def read_rollouts(path: Path) -> list[dict[str, Any]]:
    """The episodes of rollouts.jsonl, read likewise; `iterate_lines` needs less memory."""
    return list(iterate_lines(path))


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that cannot be used, before anything is written.

    Raises:
        ConfigError: one is unknown, or its package is not installed.
    """
    if not names:
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
            raise ConfigError(f"tracker {name!r} is unknown; expected one of {known}")
        if name not in [str(available) for available in get_available_trackers()]:
            raise ConfigError(
                f"tracker {name!r} needs a package that is not installed: pip install {name}, or "
                "leave the tracker out"
            )


def _start_tracker(name: str, output_dir: Path) -> Any:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    check_trackers([name])
    kind = LOGGER_TYPE_TO_CLASS[name]
    run_name = output_dir.resolve().name
    if kind.requires_logging_directory:
        tracker = kind(run_name, logging_dir=str(output_dir / "logs"))
    else:
        tracker = kind(run_name)
    tracker.start()
    return tracker


def _numbers(values: Mapping[str, float | int | None]) -> dict[str, Any]:
    for key, value in values.items():
        if key in _RESERVED or key.endswith(NONFINITE):
            raise ValueError(f"`{key}` is a reserved key of a log line: choose another name")
        if value is not None and not isinstance(value, numbers.Real):
            raise TypeError(f"`{key}` is a {type(value).__name__}, expected a number or None")
    return dict(sorted(_plain_mapping(values).items()))


def _plain_mapping(values: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for key, value in values.items():
        plain[str(key)], found = _plain(value)
        if found is not None:
            plain[f"{key}{NONFINITE}"] = found
    return plain


def _plain(value: Any) -> tuple[Any, str | None]:
    """`value` as JSON values, and the name of a non-finite number that became null, if any did."""
    if value is None or isinstance(value, (bool, str)):
        return value, None
    if isinstance(value, numbers.Integral):
        return int(value), None
    if isinstance(value, numbers.Real):
        number = float(value)
        return (number, None) if math.isfinite(number) else (None, repr(number))
    if isinstance(value, Mapping):
        return _plain_mapping(value), None
    if isinstance(value, (list, tuple)):
        pairs = [_plain(item) for item in value]
        return [item for item, _ in pairs], next((name for _, name in pairs if name), None)
    if isinstance(value, os.PathLike):
        return os.fspath(value), None
    raise TypeError(
        f"a {type(value).__name__} is no JSON value: turn it into numbers, text or lists"
    )


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
