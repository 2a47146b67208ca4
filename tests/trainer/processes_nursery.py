"""Forks runs of `resume_worker.py` in one process or several, from one interpreter that has all imports.

Reads lines `COUNT KIND FOLDER [flags]`; forks COUNT processes that find each other as `accelerate launch`
would have them do, prints their ids, and when all have ended their exit codes. What they write goes to
FOLDER/output-<rank>.
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parent))

import resume_worker
import torch.distributed.fsdp  # noqa: F401
import torch.distributed.tensor  # noqa: F401
import transformers.models.llama.modeling_llama  # noqa: F401

import modern_rlhf.rollout.engine  # noqa: F401


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def child(rank: int, count: int, port: int, arguments: list[str]) -> NoReturn:
    folder = Path(arguments[1])
    folder.mkdir(parents=True, exist_ok=True)
    output = os.open(folder / f"output-{rank}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if count > 1:
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(count),
            LOCAL_WORLD_SIZE=str(count),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
            ACCELERATE_USE_CPU="true",
        )
    if "--fsdp" in arguments:
        os.environ.update(ACCELERATE_USE_FSDP="true", FSDP_VERSION="2")
    if "--zero" in arguments:
        os.environ.update(ACCELERATE_USE_DEEPSPEED="true", ACCELERATE_DEEPSPEED_ZERO_STAGE="2")
    try:
        resume_worker.train(arguments)
        os._exit(0)
    finally:  # whatever it was: the parent's loop must not go on in here
        traceback.print_exc()
        os._exit(1)


def main() -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        count, *arguments = line.split()
        port, children = free_port(), []
        for rank in range(int(count)):
            pid = os.fork()
            if pid == 0:
                child(rank, int(count), port, arguments)
            children.append(pid)
        print(*children, flush=True)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        print(*codes, flush=True)


if __name__ == "__main__":
    main()
