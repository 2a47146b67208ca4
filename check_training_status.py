"""Say where a training run is: `python check_training_status.py [OUTPUT_DIR]`.

Exit code 0 when there is a run to speak of, 1 when there is none. Reads files only; a run is not
disturbed. `modern-rlhf status` says the same.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from modern_rlhf.report.status import read_status, status_text


def main(arguments: list[str] | None = None) -> int:
    """Print the status; the exit code."""
    parser = argparse.ArgumentParser(description="Say where a training run is.")
    parser.add_argument(
        "output_dir", nargs="?", default="modern_outputs", help="default: %(default)s"
    )
    parser.add_argument("--output-dir", dest="output_dir_option", help="the same, as a flag")
    chosen = parser.parse_args(arguments)
    folder = Path(chosen.output_dir_option or chosen.output_dir)
    print(status_text(folder))
    return 0 if read_status(folder) is not None else 1


if __name__ == "__main__":
    sys.exit(main())
