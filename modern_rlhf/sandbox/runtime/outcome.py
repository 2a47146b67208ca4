"""What became of one judgement, and how evidence becomes a verdict.

The first verdict that is settled stands; only a flood of output or files overrides it. Evidence is
what the worker sees from outside (values, the end of a process, clocks) or what a tester reports.
"""

from __future__ import annotations

import time
from typing import Any

from modern_rlhf.sandbox.runtime.lower import Check, decode
from modern_rlhf.sandbox.runtime.processes import End, Limits
from modern_rlhf.sandbox.runtime.values import ValueRefused

MAX_LINES = 20000
UNUSABLE = "the tests cannot be used"
"""How the message begins when the fault lies with the tests."""


def _readable(text: str, limit: int) -> str:
    """A candidate's text, cut, and without the lone surrogates that no log file could be written with."""
    return text[:limit].encode("utf-8", "replace").decode("utf-8")


class Outcome:
    """What became of one judgement; `result` is what crosses to the trainer."""

    def __init__(self, tests: int) -> None:
        self.verdict = ""
        self.passed, self.run = 0, tests
        self.first: str | None = None
        self.message, self.error = "", ""
        self.loaded = False
        self.weak = False
        self.cpu = 0.0
        self.output = b""
        self.stdout = b""
        self.line: int | None = None
        self.again = ""
        self.trace: dict[str, Any] | None = None

    def settle(self, verdict: str, message: str = "", error: str = "") -> None:
        """The first verdict stands."""
        if not self.verdict:
            self.verdict = verdict
            self.message, self.error = _readable(message, 500), _readable(error, 200)

    def doubtful(self, message: str) -> None:
        """Something broke that only this program or bad luck can have broken: no verdict the first time,
        a `crash` when it happens twice in a row (`coordinator.py`). So no program can withdraw itself."""
        if not self.verdict:
            self.again = "crash"
        self.settle("infra_error", message)

    def note(self, message: dict[str, Any]) -> bool:
        """Keep a line of a traced run; False for a message that is none."""
        if self.trace is None or "trace" not in message:
            return False
        lines = message.get("lines")
        if type(lines) is list and all(type(line) is int for line in lines):
            self.trace["executable"] = lines
        elif type(message.get("line")) is int and len(self.trace["executed"]) < MAX_LINES:
            self.trace["executed"].append(message["line"])
        return True

    def failing_line(self, error: dict[str, Any]) -> None:
        """Remember where in the program the first failure was raised."""
        line = error.get("line")
        if self.line is None and type(line) is int:
            self.line = line

    def result(self, started: float, layer: int) -> dict[str, Any]:
        """As a frame."""
        first = None if self.first is None else _readable(self.first, 2000)
        told = {
            "verdict": self.verdict,
            "tests_passed": self.passed,
            "tests_run": self.run,
            "first_failing": first,
            "cpu_seconds": round(self.cpu, 6),
            "wall_seconds": round(time.monotonic() - started, 6),
            "output": self.output.decode("utf-8", "replace"),
            "weak_verdict": self.weak,
            "layer": layer,
            "message": self.message,
            "error_type": self.error,
            "loaded": self.loaded,
            "trace": self.trace,
        }
        if self.again and self.verdict == "infra_error":
            told["again"] = self.again
        return told

    def overran(self, what: str, limits: Limits) -> None:
        """The verdict of a child that was stopped for using too much of `what`."""
        if what == "timeout":
            self.settle(what, f"more than {limits.cpu:g} s of CPU time, or stalled")
        elif what == "output":
            self.settle(what, f"more than {limits.output} bytes printed")
        elif what == "threads":
            self.settle("fail", "the program started too many threads", "RuntimeError")
        elif what == "starved":
            self.settle("infra_error", "the machine was too busy to run the program in time")
        else:
            self.settle("fail", "the program filled its scratch folder", "OSError")

    def not_loaded(self, reply: dict[str, Any]) -> None:
        """The verdict of a program whose body did not run to its end."""
        if "syntax" in reply:
            self.settle("syntax", str(reply["syntax"]), str(reply.get("type", "")))
            return
        error = reply["load"] if type(reply["load"]) is dict else {}
        name, text = str(error.get("type", "")), str(error.get("text", ""))
        self.failing_line(error)
        verdict = "memory" if name == "MemoryError" else "fail"
        self.settle(verdict, f"{name}: {text}"[:500], name)

    def check(self, check: Check, reply: dict[str, Any]) -> bool:
        """Whether the reply to one call passes its check; the first that does not is remembered."""
        held, described = False, reply.get("e")
        if "v" in reply:
            try:
                held = check.holds(decode(reply["v"]))
            except ValueRefused as error:
                described = {"type": "ValueRefused", "text": str(error)}
        if not held and type(described) is dict:
            name, text = str(described.get("type", "")), str(described.get("text", ""))
            if name == "MemoryError":
                self.settle("memory", "out of memory", name)
            self.failing_line(described)
            if self.first is None:
                self.settle("fail", f"{name}: {text}"[:500], name)
        if not held and self.first is None:
            self.first = check.source
        return held

    def died(self, end: End, limits: Limits) -> None:
        """The verdict of a child that ended before it had answered.

        SIGKILL comes from outside (a person, the kernel short of memory), or the program had it sent (by
        a limit on its own CPU time, say): once says nothing, a second time in a row says the latter
        (`doubtful`).
        """
        code = end.exit_code
        if code in (-24, -9) and end.cpu >= 0.9 * limits.cpu:
            self.settle("timeout", f"more than {limits.cpu:g} s of CPU time")
        elif end.killed:
            self.settle("crash", "the program closed its connection")
        elif code == -9:
            self.doubtful("the program was killed by SIGKILL")
        elif code < 0:
            self.settle("crash", f"the program died of signal {-code}")
        else:
            self.settle("crash", f"the program left with exit code {code} before the tests")

    def reported(self, report: dict[str, Any]) -> bool:
        """Take over a tester's report; whether the candidate died on it.

        The report of a shared interpreter may be the candidate's own work, hence the checks of types.
        """
        run, passed = report.get("run", 1), report.get("passed", 0)
        if type(run) is not int or type(passed) is not int:
            self.settle("crash", "the program broke the protocol: a report without numbers")
            return False
        self.run = max(1, run)
        if "syntax" in report or "load" in report:
            self.not_loaded(report)
            return False
        if "unusable" in report:
            self.settle("infra_error", f"{UNUSABLE}: {report['unusable']}"[:500])
            return False
        if not report.get("run") and not report.get("dead"):
            self.settle("infra_error", f"{UNUSABLE}: they contain nothing to check")
        self.loaded = bool(report.get("loaded"))
        self.passed = min(max(0, passed), self.run)
        self.first = report.get("first") if type(report.get("first")) is str else None
        if report.get("broken"):
            self.settle("crash", f"the program broke the protocol: {report['broken']}")
        if report.get("dead"):
            return True
        if self.passed == self.run and report.get("run"):
            self.settle("pass")
        message, error = str(report.get("message", "")), str(report.get("error", ""))
        self.failing_line(report)
        if report.get("memory"):
            self.settle("memory", message or "out of memory", "MemoryError")
        self.settle("fail", message or f"test failed: {self.first}"[:500], error)
        return False
