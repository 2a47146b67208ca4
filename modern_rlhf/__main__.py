"""`python -m modern_rlhf`: the same as `python -m modern_rlhf.main`."""

from __future__ import annotations

import sys

from modern_rlhf.main import main

if __name__ == "__main__":
    sys.exit(main())
