"""Check that the numeric tests can fail: apply deliberate faults, one at a time, and run the tests.

Each row of a table (`tests/mutants/mutants.json`) names a source file, a text that occurs in it exactly once,
what to put in its place, and the tests that must then fail. The package and the tests are copied to
a temporary folder; the checkout is never touched. A mutant survives when its tests still pass, and
is broken when its text no longer occurs once, or the tests do not even start: both end in exit
status 1. The tests are first run unchanged, since a test that always fails would kill every mutant.
Needs a POSIX system (it forks).

    python scripts/run_mutants.py [--only TEXT] [--table FILE] [--write tests/mutants/losses.md]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "tests" / "mutants" / "mutants.json"
TRL_MODULES = tuple(
    f"trl.{name}"
    for name in (
        "trainer.dpo_trainer",
        "trainer.kto_trainer",
        "trainer.reward_trainer",
        "trainer.rloo_trainer",
        "trainer.grpo_trainer",
        "experimental.cpo.cpo_trainer",
        "experimental.orpo.orpo_trainer",
    )
)
PASSED, FAILED = 0, 1  # exit statuses of pytest; others mean that it could not run


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--only", default="", help="run mutants whose file, note or tests hold this"
    )
    parser.add_argument("--table", type=Path, default=TABLE, help="the table of mutants")
    parser.add_argument("--write", type=Path, help="also write the outcome as a list to this file")
    options = parser.parse_args()
    sys.dont_write_bytecode = True  # a mutant's bytecode could be taken for the original's
    preload()
    table = json.loads(options.table.read_text("utf-8"))
    rows = [row for row in table if options.only in json.dumps(row)]
    if not rows:
        print(f"no mutant holds {options.only!r}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        copy = Path(name)
        skip = shutil.ignore_patterns("__pycache__", "assets", "data")
        for part in ("modern_rlhf", "tests"):
            shutil.copytree(ROOT / part, copy / part, ignore=skip)
        shutil.copy(ROOT / "pyproject.toml", copy)
        status, output = run_tests(copy, sorted({test for row in rows for test in row["tests"]}))
        if status != PASSED:
            print(output[-4000:])
            print(f"the tests do not pass unchanged (pytest exit status {status})")
            return 1
        outcomes = [(row, outcome(copy, row)) for row in rows]
    for row, result in outcomes:
        if result != "killed":
            print(f"{result}: {row['file']}: {row['note']}")
    killed = sum(result == "killed" for _, result in outcomes)
    print(f"{killed} of {len(outcomes)} mutants killed")
    if options.write and killed == len(outcomes):
        options.write.write_text(as_markdown(rows), "utf-8")
    return 0 if killed == len(outcomes) else 1


def preload() -> None:
    """Import what every forked test run needs and no mutant touches."""
    for name in ("torch", "hypothesis", "transformers", *TRL_MODULES):
        with suppress(ImportError):  # then the tests that need it skip, and their mutants survive
            importlib.import_module(name)


def outcome(copy: Path, row: dict[str, Any]) -> str:
    """`killed`, `survived` or `broken (...)` for one mutant; the copy is restored after it."""
    source = copy / row["file"]
    text = source.read_text("utf-8")
    if text.count(row["find"]) != 1:
        return f"broken (text occurs {text.count(row['find'])} times)"
    source.write_text(text.replace(row["find"], row["replace"]), "utf-8")
    try:
        status, output = run_tests(copy, row["tests"])
    finally:
        source.write_text(text, "utf-8")
    if status not in (PASSED, FAILED):
        print(output[-2000:], file=sys.stderr)
        return f"broken (pytest exit status {status})"
    failed = [line.split()[1] for line in output.splitlines() if line.startswith("FAILED ")]
    alive = [test for test in row["tests"] if not any(f.startswith(test) for f in failed)]
    result = f"survived ({', '.join(alive)})" if alive else "killed"
    print(f"{result}: {row['note']}", flush=True)
    return result


def run_tests(copy: Path, tests: list[str]) -> tuple[int, str]:
    """pytest's exit status and output for these tests of the copy, in a forked process.

    A fork, because importing torch and trl takes longer than most of the tests; the package under
    test is not imported before it.
    """
    with tempfile.TemporaryFile() as log:
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            status = 70  # when not even pytest comes to an end
            try:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
                os.chdir(copy)
                sys.path[:0] = [str(copy)]
                command = ["-q", "--tb=no", "-rf", "-p", "no:cacheprovider", *tests]
                status = int(pytest.main(command))
            finally:
                sys.stdout.flush()
                os._exit(status)
        _, waited = os.waitpid(pid, 0)
        log.seek(0)
        return os.waitstatus_to_exitcode(waited), log.read().decode("utf-8", "replace")


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """The list `file:test -- mutant -> failed as it should`, one line a test."""
    lines = [
        f"{test} -- {row['file']}: {row['note']} -> failed as it should"
        for row in rows
        for test in row["tests"]
    ]
    head = "Written by `scripts/run_mutants.py --write`; the mutants are in `mutants.json`.\n\n"
    return head + "\n".join(sorted(lines)) + "\n"


if __name__ == "__main__":
    sys.exit(main())
