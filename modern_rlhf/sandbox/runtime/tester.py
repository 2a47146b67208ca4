"""The child that runs the tests; the candidate is another process, reached through proxies.

It runs in the same confinement as a candidate. It reports to the worker:
`{"passed", "run", "first", "error", "message", "dead", "memory", "loaded", "load", "syntax"}`.
"""

from __future__ import annotations

import ast
import contextlib
import io
import sys
import types
import unittest
from typing import Any

from modern_rlhf.sandbox.runtime import proxy, suite
from modern_rlhf.sandbox.runtime.candidate import FILENAME, describe
from modern_rlhf.sandbox.runtime.frames import FrameError, PeerClosed, pack, write_all
from modern_rlhf.sandbox.runtime.link import RETYPED, CandidateDied, Link
from modern_rlhf.sandbox.runtime.values import ValueRefused

CANDIDATE_READ, CANDIDATE_WRITE = 5, 6
"""Where a tester finds the candidate's replies and takes its requests."""


class Runner:
    """Runs units in one namespace and counts."""

    def __init__(self, space: dict[str, Any], link: Link | None) -> None:
        self.space, self.link = space, link
        self.passed = 0
        self.run = 0
        self.first: str | None = None
        self.error = ""
        self.message = ""
        self.aborted = False

    def units(self, units: list[suite.Unit]) -> None:
        """Run all units; after a preparing statement failed, the rest counts as not passed."""
        for unit in units:
            if unit.counted:
                self.run += 1
            if self.aborted:
                self._failed(unit.source, None)
                continue
            trouble = self._execute(unit.body)
            if trouble is None:
                self.passed += unit.counted
                continue
            self._failed(unit.source, trouble)
            if not unit.counted:
                self.aborted = True

    def _execute(self, body: list[ast.stmt]) -> BaseException | None:
        module = ast.fix_missing_locations(ast.Module(body=body, type_ignores=[]))
        try:
            exec(compile(module, "<tests>", "exec", dont_inherit=True), self.space)
        except BaseException as error:  # noqa: BLE001 - what a test raises is its result
            return error
        # a broad `except` in a test must not hide that the candidate is gone
        if self.link is not None and self.link.dead:
            return CandidateDied()
        return None

    def _failed(self, source: str, trouble: BaseException | None) -> None:
        if self.first is None:
            self.first = source[:2000]
            if trouble is not None:
                self.error = type(trouble).__name__
                self.message = f"{self.error}: {str(trouble)[:300]}"

    def functions(self) -> None:
        """`test_*` functions without arguments that the tests define and do not call."""
        for name, item in list(self.space.items()):
            plain = type(item) is types.FunctionType and item.__code__.co_argcount == 0
            if plain and name.startswith("test"):
                self._single(name, item)

    def _single(self, name: str, function: Any) -> None:
        self.run += 1
        try:
            function()
            if self.link is not None and self.link.dead:
                raise CandidateDied
        except BaseException as error:  # noqa: BLE001 - what a test raises is its result
            self._failed(name, error)
            return
        self.passed += 1

    def cases(self) -> None:
        """Each method of each `TestCase` class is a test; a skipped one is not passed."""
        for item in list(self.space.values()):
            if isinstance(item, type) and issubclass(item, unittest.TestCase):
                if item.__module__ != self.space.get("__name__"):
                    continue
                for case in unittest.defaultTestLoader.loadTestsFromTestCase(item):
                    self._case(case)

    def _case(self, case: Any) -> None:
        self.run += 1
        result = unittest.TestResult()
        try:
            case.run(result)
        except BaseException as error:  # noqa: BLE001 - what a test raises is its result
            self._failed(case.id(), error)
            return
        held = result.testsRun == 1 and result.wasSuccessful() and not result.skipped
        if held and not (self.link is not None and self.link.dead):
            self.passed += 1
            return
        notes = result.failures + result.errors + result.skipped
        self._failed(case.id(), None)
        if not self.message and notes:
            last = str(notes[0][1]).strip().splitlines() or [""]
            self.message = last[-1][:300]
            self.error = self.message.split(":", 1)[0] if ":" in self.message else ""

    def everything(self, parsed: suite.Suite, mode: str) -> None:
        """Units, then what they defined, as the mode says."""
        self.units(parsed.units)
        if self.aborted and not self.run:
            self.run = 1
        if not self.aborted and (mode == "unittest" or not self.run):
            self.cases()
            if not self.run:
                self.functions()

    def report(self) -> dict[str, Any]:
        """What the worker needs to know."""
        return {
            "passed": self.passed,
            "run": self.run,
            "first": self.first,
            "error": self.error,
            "message": self.message,
            "loaded": True,
        }


def run(job: dict[str, Any], reading: int, writing: int) -> None:
    """Judge the candidate behind descriptors 5 and 6, or behind the worker that relays."""
    link = Link(
        reading if job["relay"] else CANDIDATE_READ,
        writing if job["relay"] else CANDIDATE_WRITE,
        copy=job["transport"] in ("copy", "handles"),
        loose=job["transport"] == "handles",
        relayed=job["relay"],
    )
    proxy.connect(link)
    if job["trace"]:
        link.on_trace = lambda message: write_all(writing, pack(message))
    try:
        loaded = link.receive()
        while job["trace"] and type(loaded) is dict and "trace" in loaded:
            write_all(writing, pack(loaded))
            loaded = link.receive()
    except (PeerClosed, FrameError) as error:
        write_all(writing, pack({"dead": True, "loaded": False, "broken": str(error)}))
        return
    if type(loaded) is not dict or "v" not in loaded:
        write_all(writing, pack(loaded if type(loaded) is dict else {"dead": True}))
        return
    parsed = parse(job, writing)
    if parsed is None:
        return
    module = types.ModuleType("tests")
    sys.modules["tests"] = module
    space = module.__dict__
    space[suite.IN_PLACE] = proxy.in_place
    link.constructed = set(parsed.constructed)
    runner = Runner(space, link)
    try:
        bind(link, space, parsed)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            runner.everything(parsed, job["mode"])
    except CandidateDied:
        runner.run = max(1, runner.run)
    report = runner.report()
    if link.last_error and not runner.error.startswith("Assertion"):
        report["error"] = str(link.last_error.get("type", ""))
        report["line"] = link.last_error.get("line")
    report.update(dead=link.dead, memory=link.memory, broken=link.broken, calls=link.calls)
    write_all(writing, pack(report))


def parse(job: dict[str, Any], writing: int) -> suite.Suite | None:
    """The job's tests; None after having said that they do not compile."""
    try:
        return suite.parse(job["tests"], job["setup"], job["entry_point"], job["mode"])
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        write_all(writing, pack({"unusable": f"{type(error).__name__}: {error}"[:300]}))
        return None


def bind(link: Link, space: dict[str, Any], parsed: suite.Suite) -> None:
    """Put what the candidate defined under the names the tests use."""
    reply = link.request({"op": "names", "names": parsed.names})
    found = reply.get("v")
    for name, data in found.items() if type(found) is dict else ():
        if name not in parsed.names:
            continue
        if type(data) is dict and "handle" in data and data["handle"][1] == "exception":
            base = RETYPED.get(str(data["handle"][3]), Exception)
            space[name] = link.exceptions[name] = type(name, (base,), {})
            continue
        with contextlib.suppress(ValueRefused):
            space[name] = link.decode(data)
    for alias, name in parsed.aliases.items():
        if name in space:
            space[alias] = space[name]


def run_in_process(job: dict[str, Any], writing: int) -> None:
    """Program and tests in this interpreter: for tasks whose reference needs it; can be fooled."""
    try:
        compiled = compile(job["code"], FILENAME, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        kind = type(error).__name__
        write_all(writing, pack({"syntax": f"{kind}: {str(error)[:300]}", "type": kind}))
        return
    parsed = parse(job, writing)
    if parsed is None:
        return
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    space = module.__dict__
    try:
        exec(compiled, space)
    except BaseException as error:  # noqa: BLE001 - what a test raises is its result
        write_all(writing, pack({"load": describe(error)}))
        return
    space[suite.IN_PLACE] = lambda function: function
    runner = Runner(space, None)
    runner.everything(parsed, job["mode"])
    write_all(writing, pack({**runner.report(), "dead": False, "memory": False}))
