"""Write `modern_rlhf/sandbox/calibrated_tasks.txt`: the shipped tasks that calibration accepts by value.

    python scripts/calibrate_shipped_tasks.py [--workers N]

Run it after `make_tasks.py` has changed the task files. A run then starts on the shipped tasks without
executing each reference and stub again. Refuses to write when any shipped task is dropped or is judged
by a laxer transport than `auto`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from modern_rlhf.data_loader.prompts import load_prompts  # noqa: E402
from modern_rlhf.sandbox.calibrate import calibrate, fingerprint  # noqa: E402
from modern_rlhf.sandbox.executor import SandboxExecutor  # noqa: E402
from modern_rlhf.sandbox.remembered import SHIPPED  # noqa: E402
from modern_rlhf.utils.paths import data_root  # noqa: E402

FOLDERS = ("datasets_for_training", "datasets_for_eval")
HEAD = "# fingerprints of shipped tasks; written by scripts/calibrate_shipped_tasks.py\n"


def main() -> int:
    """Calibrate all shipped tasks; 1 when one of them is not accepted by value."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, default=None)
    options = parser.parse_args()
    tasks = []
    for folder in FOLDERS:
        loaded = load_prompts(str(data_root() / folder / "tasks.jsonl"))
        tasks += [prompt.task for prompt in loaded.items if prompt.task is not None]
    with SandboxExecutor(workers=options.workers, timeout=2.0) as executor:
        found = calibrate(tasks, executor)
    odd = [task.task_id for task in found.kept if task.metadata["transport"] != "auto"]
    print("\n".join([*found.lines(), *(f"task {name} is not judged by value" for name in odd)]))
    if found.dropped or found.unjudged or odd:
        return 1
    lines = sorted({fingerprint(task)[:16] for task in tasks})
    SHIPPED.write_text(HEAD + "\n".join(lines) + "\n", encoding="ascii")
    print(f"{len(lines)} fingerprints of {len(tasks)} tasks in {SHIPPED}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
