"""The first steps of a confined child: read the job, lower the limits, become what the job says.

Roles: `candidate` (calls, see `candidate.py`), `stdio` (the program as a script), `tester` (tests
of another process's candidate, see `tester.py`), `inprocess` (tests and program share this
interpreter) and `probe` (tries what must not work, see `probes.py`).
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import math
import os
import random
import sys
import types
from typing import Any

from modern_rlhf.sandbox.runtime import candidate, confine
from modern_rlhf.sandbox.runtime.frames import PeerClosed, pack, read_frame, write_all


def main(reading: int, writing: int, folder: str, libc: ctypes.CDLL | None) -> int:
    """Do the one job that arrives on `reading`; the exit code."""
    try:
        job = read_frame(reading)
    except PeerClosed:
        return 0
    os.chdir(folder)
    # the worker stops it at the exact CPU time; the kernel's whole seconds are the second fence
    seconds = math.ceil(job["cpu"]) + 1
    confine.limit("RLIMIT_CPU", seconds, seconds + 1)
    confine.limit("RLIMIT_AS", job["memory_mb"] << 20)
    for path in job.get("paths", ()):
        sys.path.append(path)
    random.seed(0)
    gc.enable()
    role = job["role"]
    if role == "candidate":
        candidate.run(job, reading, writing)
        return 0
    if role == "stdio":
        os.close(reading)
        return script(job, writing)
    if role in ("tester", "inprocess"):
        from modern_rlhf.sandbox.runtime import tester

        if role == "tester":
            tester.run(job, reading, writing)
        else:
            tester.run_in_process(job, writing)
        return 0
    from modern_rlhf.sandbox.runtime import probes

    write_all(writing, pack(probes.run_all(libc, job)))
    return 0


def script(job: dict[str, Any], writing: int) -> int:
    """Run the program as `__main__` on the given standard input; its exit code.

    `writing` stays open, silent: the worker sees the end of the process as its closing.
    """
    data = job["stdin"].encode("utf-8", "surrogatepass")
    if len(data) <= 1 << 15:
        reader, writer = os.pipe()
        write_all(writer, data)
        os.close(writer)
    else:
        name = "stdin.tmp"
        reader = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        write_all(reader, data)
        os.lseek(reader, 0, os.SEEK_SET)
        os.unlink(name)
    os.dup2(reader, 0)
    os.close(reader)
    try:
        compiled = compile(job["code"], candidate.FILENAME, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        kind = type(error).__name__
        write_all(writing, pack({"syntax": f"{kind}: {str(error)[:300]}", "type": kind}))
        return 0
    if job.get("trace"):
        from modern_rlhf.sandbox.runtime import tracing

        tracing.start(job["code"], lambda message: write_all(writing, pack(message)))
    sys.argv[:] = ["solution.py"]
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    code = 0
    try:
        exec(compiled, module.__dict__)
        if "threading" in sys.modules:  # wait for threads, as the interpreter does
            getattr(sys.modules["threading"], "_shutdown")()  # noqa: B009
    except SystemExit as stop:
        code = exit_code(stop.code)
    except BaseException as error:  # noqa: BLE001 - what a program raises is data
        code = 1
        report(error, writing)
    getattr(atexit, "_run_exitfuncs")()  # noqa: B009
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    return code


def report(error: BaseException, writing: int) -> None:
    """Tell the worker what ended the script and print it where a person looks."""
    described = candidate.describe(error)
    with contextlib.suppress(Exception):
        write_all(writing, pack({"load": described}))
    with contextlib.suppress(Exception):
        print(f"{described['type']}: {described['text']}", file=sys.stderr)


def exit_code(code: Any) -> int:
    """The process's exit code for `sys.exit(code)`."""
    if code is None:
        return 0
    return (code & 0xFF) if type(code) is int else 1
