"""The process that judges one program after the other for the coordinator.

It reads job frames from standard input and writes one result frame each to standard output. A
helper that died under a judgement makes that judgement an `infra_error`; the zygotes are then
replaced. When standard input ends, or the coordinator dies, it leaves and takes its children along.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from typing import Any

from modern_rlhf.sandbox.runtime import confine
from modern_rlhf.sandbox.runtime.frames import PeerClosed, pack, read_frame, write_all
from modern_rlhf.sandbox.runtime.judge import Judge
from modern_rlhf.sandbox.runtime.processes import ZygoteLost


def infra_error(message: str) -> dict[str, Any]:
    """A result that says nothing about the program."""
    return {"verdict": "infra_error", "message": message[:500]}


def probe(judge: Judge) -> dict[str, Any]:
    """What a confined child could and could not do."""
    child = judge._take()
    job = {"timeout": 10.0, "code": ""}
    told = {key: judge.spec[key] for key in ("boot", "file_mb", "disk_mb", "inodes")}
    child.send(judge._order(job, "probe", parent=os.getpid(), **told))
    try:
        found: dict[str, Any] = child.reader.next(float("inf"))
    except Exception as error:  # noqa: BLE001 - any failure of the probes is a gap
        found = {"failed": f"the probes did not run: {type(error).__name__} {error}"}
    judge.candidates.end(child)
    child.close()
    judge.next = judge.candidates.fork()
    return found


def main(arguments: list[str]) -> None:
    """Entry point of `boot.py worker SPEC`."""
    spec = json.loads(arguments[0])
    libc = confine.load_libc()
    confine.die_with_parent(libc)
    confine.adopt_orphans(libc)
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    jobs, results = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    try:
        judge = Judge(spec, spec["boot"])
        found = probe(judge) if spec.get("probe") else {}
    except ZygoteLost as error:
        write_all(results, pack({"failed": str(error)}))
        return
    hello = {"layer": judge.layer, "reasons": judge.candidates.reasons, "probes": found}
    with contextlib.suppress(PeerClosed):
        write_all(results, pack(hello))
        while True:
            job = read_frame(jobs)
            try:
                result = judge.judge(job)
            except (ZygoteLost, OSError) as error:
                result = infra_error(f"a helper process was lost: {error}")
                judge.spoilt = True
            if judge.spoilt:
                judge.close()
                try:
                    judge = Judge(spec, spec["boot"])
                except (ZygoteLost, OSError):
                    write_all(results, pack(result))
                    os._exit(1)
            write_all(results, pack(result))
    judge.close()
    os._exit(0)
