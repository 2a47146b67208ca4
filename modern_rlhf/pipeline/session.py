"""A run's session: everything it takes and must give back, in the right order.

Bad input is found first, then the output folder is claimed and locked, then logs are opened; on the way
out the status says how it ended, and executor, logs and lock are released, whatever happened.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from modern_rlhf.config.sections import ModernRLHFConfig
from modern_rlhf.errors import ModernRLHFError, StopRequested
from modern_rlhf.pipeline.artifacts import SCHEMA, Artifacts, refuse_occupied, remove_run
from modern_rlhf.pipeline.data import RunData
from modern_rlhf.pipeline.preflight import preflight
from modern_rlhf.pipeline.workspace import LOGGER, Workspace
from modern_rlhf.tracking import RunTracker, training_log_handler
from modern_rlhf.trainer.runtime import Runtime, StopSignal, deterministic_kernels
from modern_rlhf.utils.atomic import write_json
from modern_rlhf.utils.device import DeviceChoice
from modern_rlhf.utils.hardware import hardware_facts
from modern_rlhf.utils.lock import RunLock


class Session:
    """Owns what a run must give back: the folder's lock, the log files, the executor.

    Args:
        resume: go on in a folder that is not empty.
        stage: the stage asked for, or `all`; decides what must agree with what lies in the folder.
        runs: the training stages that may be run, which can be more than the one asked for.
        algorithm: the folder of the RLHF stage.
    """

    def __init__(
        self,
        *,
        config: ModernRLHFConfig,
        device: DeviceChoice,
        artifacts: Artifacts,
        resume: bool,
        overwrite: bool,
        stage: str,
        runs: Sequence[str],
        algorithm: str,
        stop: StopSignal,
        progress: bool,
    ) -> None:
        self.config = config
        self.device = device
        self.artifacts = artifacts
        self.resume = resume
        self.overwrite = overwrite
        self.stage = stage
        self.runs = runs
        self.algorithm = algorithm
        self.stop = stop
        self.progress = progress
        self.workspace: Workspace | None = None
        self.lock: RunLock | None = None
        self.handler: logging.Handler | None = None

    def __enter__(self) -> Workspace:
        root = self.artifacts.root
        if self.config.training.deterministic:
            deterministic_kernels()
        processes = Runtime(device=self.device.device, dtype=self.device.dtype).processes
        # 1. Everything that bad input can break, before the folder is touched.
        processes.on_main(lambda: refuse_occupied(root, self.resume or self.overwrite))
        checked = preflight(
            self.config,
            self.artifacts,
            stage=self.stage,
            runs=self.runs,
            algorithm=self.algorithm,
            overwrite=self.overwrite,
        )
        config = checked.config
        if config.hardware.threads is not None:
            torch.set_num_threads(config.hardware.threads)
        self.workspace = Workspace(
            config=config,
            device=self.device,
            artifacts=self.artifacts,
            data=checked.data,
            tracker=None,
            resume=self.resume,
            stop=self.stop,
            progress=self.progress and processes.is_main,
        )
        try:
            self.workspace.data = processes.on_main(self._checked_data)
            # 2. The folder: refused, or ours and locked; of several processes the main one does it.
            self.lock = RunLock(root)
            processes.on_main(self._claim)
            if processes.is_main:
                self._describe(config)
            self.workspace.tracker = RunTracker(
                root, trackers=config.trackers, enabled=processes.is_main
            )
            self.workspace.tracker.status(state="starting", message="loading")
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self.workspace

    def _claim(self) -> None:
        """Lock the folder; only then is anything in it removed."""
        assert self.lock is not None
        refuse_occupied(self.artifacts.root, self.resume or self.overwrite)
        self.lock.acquire()
        if self.overwrite:
            remove_run(self.artifacts.root)

    def _describe(self, config: ModernRLHFConfig) -> None:
        """config.json, and the log file of this run."""
        root = self.artifacts.root
        write_json(
            root / "config.json",
            {
                "config": self.config.to_dict(),
                "versions": hardware_facts(),
                "seed": config.training.seed,
                "device": self.device.line(),
            },
            SCHEMA,
        )
        self.handler = training_log_handler(root)
        LOGGER.addHandler(self.handler)
        LOGGER.setLevel(logging.INFO)

    def _checked_data(self) -> RunData:
        assert self.workspace is not None
        self.workspace.check_tasks()
        return self.workspace.data

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        tracker = None if self.workspace is None else self.workspace.tracker
        try:
            if tracker is not None and error is None:
                tracker.status(state="done", message="finished")
            elif tracker is not None:
                stopped = isinstance(error, StopRequested | KeyboardInterrupt)
                message = str(error) if isinstance(error, ModernRLHFError) else repr(error)
                LOGGER.error("%s", message)
                tracker.status(state="interrupted" if stopped else "failed", message=message)
        finally:
            self._release()

    def _release(self) -> None:
        if self.workspace is not None:
            self.workspace.close()
            if self.workspace.tracker is not None:
                self.workspace.tracker.close()
        if self.handler is not None:
            LOGGER.removeHandler(self.handler)
            self.handler.close()
        if self.lock is not None:
            self.lock.release()


def seed_global_generators(seed: int) -> None:
    """Every stage starts from the same global state, whether or not stages ran before it."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
