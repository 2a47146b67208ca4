"""The boundary where exceptions become one line on stderr and an exit code.

2 is a mistake in the command, 1 a failure at work, 130 a stop that was asked for. Only failures with a
meaning for the user are caught; anything else is a fault of this package and keeps its traceback.
"""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from modern_rlhf.errors import ModernRLHFError, StopRequested

INTERRUPTED = 130


def guarded(action: Callable[[], int], *, debug: bool, go_on: str | None = None) -> int:
    """Run `action`; turn its errors into a line and an exit code. With `debug` they pass unchanged.

    Args:
        go_on: the command that continues an interrupted run, when there is one.
    """
    try:
        return action()
    except BrokenPipeError:
        # The reader (`| head`) went away. Python would complain once more at exit without this.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except StopRequested as error:
        _say(f"stopped: {error}", go_on)
        return error.exit_code
    except KeyboardInterrupt:
        _say("interrupted", go_on)
        return INTERRUPTED
    except (ModernRLHFError, OSError, MemoryError) as error:
        if debug:
            raise
        _say(f"error: {one_line(error)}", None)
        return error.exit_code if isinstance(error, ModernRLHFError) else 1
    except RuntimeError as error:
        if debug or not _out_of_gpu_memory(error):
            raise
        _say(f"error: {_GPU_MEMORY}", None)
        return 1


_REMEDIES = {
    errno.ENOSPC: "; free some space there or choose another --output-dir",
    errno.EDQUOT: "; free some space there or choose another --output-dir",
    errno.EACCES: "; check its owner and mode, or choose another place",
    errno.EPERM: "; check its owner and mode, or choose another place",
    errno.EROFS: "; choose another --output-dir",
    errno.EADDRINUSE: "; choose another --port",
}

_GPU_MEMORY = (
    "the GPU's memory is full; lower training.tokens_per_micro_batch or training.rollout_batch_size "
    "with --set, or turn on training.gradient_checkpointing"
)


def one_line(error: BaseException) -> str:
    """The message as a single line; system errors name their file and what to do."""
    if isinstance(error, MemoryError):
        text = (
            "out of memory; lower training.rollout_batch_size or tokens_per_micro_batch with --set"
        )
    elif isinstance(error, OSError) and error.errno is not None:
        where = "" if error.filename is None else f": {os.fsdecode(error.filename)}"
        text = f"{error.strerror}{where}{_REMEDIES.get(error.errno, '')}"
    else:
        text = str(error)
    return " ".join(text.split())


def resume_command(arguments: Sequence[str], program: str) -> str:
    """The command line that goes on with the run that `arguments` started.

    >>> resume_command(["--mode", "cpu-test", "--overwrite"], "/x/run_modern_rlhf.py")
    'python run_modern_rlhf.py --mode cpu-test --resume'
    """
    name = Path(program).name
    if name in ("main.py", "__main__.py"):
        start = "python -m modern_rlhf.main"
    else:
        start = f"python {name}" if name.endswith(".py") else name
    kept = [word for word in arguments if word not in ("--overwrite", "--resume")]
    return shlex.join([*start.split(), *kept, "--resume"])


def _say(line: str, go_on: str | None) -> None:
    print(line, file=sys.stderr)
    if go_on:
        print(f"go on with: {go_on}", file=sys.stderr)


def _out_of_gpu_memory(error: RuntimeError) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)
