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


class Tally(unittest.TestResult):
    """Which tests of a suite held: those that succeeded while the candidate was alive.

    `outside` is set by a failure that belongs to no test, such as one in `tearDownClass`.
    """

    def __init__(self, link: Link | None) -> None:
        super().__init__()
        self.link = link
        self.held: set[str] = set()
        self.outside = False

    def addSuccess(self, test: unittest.TestCase) -> None:
        """A test ended well."""
        if self.link is None or not self.link.dead:
            self.held.add(test.id())

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        """A test failed as it says it must."""
        super().addExpectedFailure(test, err)
        self.addSuccess(test)

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        """A test, or what surrounds the tests, raised."""
        super().addError(test, err)
        self.outside = self.outside or not isinstance(test, unittest.TestCase)


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
        """Each method of each `TestCase` class is a test; a skipped one is not passed.

        Run as one suite, so that `setUpModule`, `setUpClass` and their opposites are called.
        """
        load = unittest.defaultTestLoader.loadTestsFromTestCase
        cases: list[Any] = [
            case
            for item in list(self.space.values())
            if isinstance(item, type) and issubclass(item, unittest.TestCase)
            if item.__module__ == self.space.get("__name__")
            for case in load(item)
        ]
        tally = Tally(self.link)
        names = [case.id() for case in cases]
        self.run += len(names)
        try:
            unittest.TestSuite(cases).run(tally)
        except BaseException as error:  # noqa: BLE001 - what a test raises is its result
            tally.outside = True
            self._failed(next((name for name in names if name not in tally.held), ""), error)
        held = sum(name in tally.held for name in names)
        self.passed += min(held, len(names) - 1) if tally.outside and names else held
        if held == len(names) and not tally.outside:
            return
        self._failed(
            next((name for name in names if name not in tally.held), "tearDownClass"), None
        )
        notes = tally.failures + tally.errors + tally.skipped
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
    try:
        report = judge(job, link, writing)
    except Exception as error:  # noqa: BLE001 - no reply may make the harness itself stumble
        report = {"dead": True, "broken": f"{type(error).__name__}: {error}"[:300]}
    if report is not None:
        write_all(writing, pack(report))


def judge(job: dict[str, Any], link: Link, writing: int) -> dict[str, Any] | None:
    """The report on the candidate; None where it was said already that the tests do not compile."""
    if job["trace"]:
        link.on_trace = lambda message: write_all(writing, pack(message))
    try:
        loaded = link.receive()
        while job["trace"] and type(loaded) is dict and "trace" in loaded:
            write_all(writing, pack(loaded))
            loaded = link.receive()
    except (PeerClosed, FrameError) as error:
        return {"dead": True, "broken": str(error) if type(error) is FrameError else ""}
    if type(loaded) is not dict or "v" not in loaded:
        return (
            loaded if type(loaded) is dict and {"syntax", "load"} & set(loaded) else {"dead": True}
        )
    parsed = parse(job, writing)
    if parsed is None:
        return None
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
    report.update(dead=link.dead, memory=link.memory, broken=link.broken)
    return report


def parse(job: dict[str, Any], writing: int) -> suite.Suite | None:
    """The job's tests; None after having said that they do not compile."""
    try:
        return suite.parse(job["tests"], job["setup"], job["entry_point"], job["mode"])
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        write_all(writing, pack({"unusable": f"{type(error).__name__}: {error}"[:300]}))
        return None


def bind(link: Link, space: dict[str, Any], parsed: suite.Suite) -> None:
    """Put what the candidate defined under the names the tests use."""
    space.update(suite.own_names(parsed))
    reply = link.request({"op": "names", "names": parsed.names})
    found = reply.get("v")
    for name, data in found.items() if type(found) is dict else ():
        if name not in parsed.names:
            continue
        handle = data.get("handle") if type(data) is dict else None
        if type(handle) is list and len(handle) == 4 and handle[1] == "exception":
            base = RETYPED.get(str(handle[3]), Exception)
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
