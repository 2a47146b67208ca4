"""The script the sandbox's processes are started with: `python -I -S boot.py ROLE ARGUMENTS`.

The interpreter is clean (no site, no user paths, no environment). The package is made reachable
through two empty parent modules, so that no `__init__` of it runs and `sys.path` never holds the
folder it lies in: generated code cannot import it, nor what is installed beside it.
"""

from __future__ import annotations

import os
import sys
import types


def main() -> None:
    """Import `modern_rlhf.sandbox.runtime.ROLE` and call its `main(arguments)`."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if entry and os.path.abspath(entry) != here]
    sandbox = os.path.dirname(here)
    for name, folder in (
        ("modern_rlhf", os.path.dirname(sandbox)),
        ("modern_rlhf.sandbox", sandbox),
    ):
        module = types.ModuleType(name)
        module.__path__ = [folder]
        sys.modules[name] = module
    from importlib import import_module

    role, arguments = sys.argv[1], sys.argv[2:]
    del sys.argv[1:], sys.orig_argv[1:]  # generated code need not know how it is run
    import_module(f"modern_rlhf.sandbox.runtime.{role}").main(arguments)


if __name__ == "__main__":
    main()
