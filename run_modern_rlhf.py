"""Quick start: `python run_modern_rlhf.py [--config cpu-test]`, with all flags of `modern-rlhf`."""

from __future__ import annotations

import sys

from modern_rlhf.main import main

if __name__ == "__main__":
    sys.exit(main())
