"""One judgement: which processes it takes, what they may use, and the verdict from the outside.

Nothing a candidate prints, exits with or sends is a verdict. It sends values; the checks are made
here (`lower.py`) or in a tester process that it cannot reach.
It is longer than 350 lines: the modes of judging share the deadlines and the reading of an end.
"""

from __future__ import annotations

import os
import time
from typing import Any

from modern_rlhf.sandbox.runtime import lower, suite
from modern_rlhf.sandbox.runtime.frames import DeadlinePassed, FrameError, PeerClosed
from modern_rlhf.sandbox.runtime.outcome import UNUSABLE, Outcome
from modern_rlhf.sandbox.runtime.processes import Child, End, Limits, Zygote, ZygoteLost, overrun
from modern_rlhf.sandbox.runtime.scripts import cases, same_text
from modern_rlhf.sandbox.runtime.spawning import SpawnZygote

FIRST_LOOK = 0.05
"""Seconds before a child's clock is looked at; most programs are done long before."""
MAX_REPLIES = 16 << 20
"""Bytes of replies one candidate may send."""
RECYCLE = 2000
"""Children after which a zygote is replaced."""


AnyZygote = Zygote | SpawnZygote
Tests = lower.Lowered | list[tuple[str, str]] | None
"""Tests as calls and checks, as input and output of scripts, or None: code to run."""
_STUMBLES = (
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    MemoryError,
)
"""What no reply of a program should be able to raise in the judge; all of it twice is the program's."""


class Judge:
    """Judges programs one after the other with its own zygotes."""

    def __init__(self, spec: dict[str, Any], boot: str) -> None:
        self.spec, self.boot = spec, boot
        self.spoilt = False
        """A judgement ended in the middle: this judge has to be replaced."""
        self.candidates = self._zygote("candidate")
        self.testers: AnyZygote | None = None
        self.plans: dict[tuple[Any, ...], lower.Lowered | None] = {}
        self.next: Child | None = self.candidates.fork()

    def _zygote(self, name: str) -> AnyZygote:
        spec = {**self.spec, "role": name}
        spec["scratch"] = os.path.join(spec["scratch"], name)
        os.makedirs(spec["scratch"], mode=0o700, exist_ok=True)
        kind = Zygote if spec["fork"] else SpawnZygote
        zygote: AnyZygote = kind(spec, self.boot)
        floor = self.candidates.level if hasattr(self, "candidates") else spec["min_layer"]
        if zygote.level < floor:
            zygote.close()
            raise ZygoteLost(f"isolation fell to layer {zygote.level} ({zygote.reasons})")
        return zygote

    @property
    def layer(self) -> int:
        """The layer programs run under."""
        return self.candidates.level

    def close(self) -> None:
        """End all children and zygotes."""
        self.candidates.close()
        if self.testers is not None:
            self.testers.close()

    # -- children ----------------------------------------------------------------------------

    def _take(self) -> Child:
        """The candidate child that waits, and nothing else alive beside it."""
        child = self.next or self.candidates.fork()
        self.next = None
        child.wait_ready()
        return child

    def _limits(self, job: dict[str, Any]) -> Limits:
        return Limits(
            cpu=job["timeout"],
            output=self.spec["output_limit"],
            scratch_bytes=self.spec["disk_mb"] << 20,
            scratch_entries=self.spec["inodes"],
        )

    def _order(
        self, job: dict[str, Any], role: str, tracing: bool = False, **more: Any
    ) -> dict[str, Any]:
        return {
            "role": role,
            "cpu": job["timeout"],
            "memory_mb": self.spec["memory_mb"],
            "paths": self.spec["extra"],
            "code": job["code"],
            "trace": tracing,
            **more,
        }

    def _next_reply(
        self, outcome: Outcome, limits: Limits, children: list[Child], reading: Child
    ) -> Any:
        """The next message of `reading`, or None when the judgement is over (verdict settled)."""
        look = time.monotonic() + FIRST_LOOK
        while True:
            try:
                message = reading.reader.next(look)
                if reading.reader.total > MAX_REPLIES:
                    outcome.settle("output", "the program sent too many values")
                    return None
                if type(message) is dict and outcome.note(message):
                    continue
                return message
            except DeadlinePassed:
                verdict, wait = overrun(children, limits)
                if verdict:
                    outcome.overran(verdict, limits)
                    return None
                look = time.monotonic() + wait
            except FrameError as error:
                outcome.settle("crash", f"the program broke the protocol: {error}")
                return None
            except PeerClosed:
                return None

    def _finish(
        self, child: Child, outcome: Outcome, limits: Limits, *, dying: bool = False
    ) -> End:
        """Reap the child (killed, or `dying` by itself), then what only its end can tell."""
        end = child.zygote.end(child, dying=dying)
        outcome.cpu += end.cpu
        room = limits.output - len(outcome.output)
        outcome.stdout = child.printed(limits.output)
        outcome.output += outcome.stdout + child.printed(max(0, room), child.err)
        outcome.output = outcome.output[: limits.output]
        if child.printed_size() > limits.output:
            outcome.verdict = ""
            outcome.settle("output", f"more than {limits.output} bytes printed")
        if end.entries > limits.scratch_entries or end.size > limits.scratch_bytes:
            outcome.verdict = ""
            outcome.settle("fail", "the program filled its scratch folder", "OSError")
        child.close()
        return end

    def _lost(self, child: Child, outcome: Outcome, limits: Limits) -> None:
        """The end of a child that stopped answering: on its own, or it was found to overrun."""
        outcome.died(self._finish(child, outcome, limits, dying=not outcome.verdict), limits)

    # -- modes -------------------------------------------------------------------------------

    def judge(self, job: dict[str, Any]) -> dict[str, Any]:
        """The result of one job.

        Raises:
            ZygoteLost: a helper process died; this judge must be replaced.
        """
        started = time.monotonic()
        outcome = Outcome(0)
        try:
            tests = self._read_tests(job)
        except (SyntaxError, *_STUMBLES) as error:
            outcome.settle("infra_error", f"{UNUSABLE}: {error}"[:500])
            return outcome.result(started, self.layer)
        try:
            self._run(job, outcome, tests)
        except _STUMBLES as error:  # nothing but what the program sent is new to the judge here
            outcome.verdict = ""
            outcome.doubtful(f"the judge stumbled: {type(error).__name__} {error}")
            self.spoilt = True
        outcome.settle("crash", "the program broke the protocol: a report that says nothing")
        if outcome.verdict == "infra_error":
            outcome.passed = 0
        if job.get("trace") and outcome.verdict not in ("syntax", "infra_error"):
            try:
                self._traced(job, outcome, tests)
            except (ZygoteLost, *_STUMBLES):  # the verdict stands, whatever the second run does
                self.spoilt = True
        return outcome.result(started, self.layer)

    def _read_tests(self, job: dict[str, Any]) -> Tests:
        """The tests as data: calls or scripts' cases; None where they have to run as code.

        Raises:
            SyntaxError and what else reading raises: they cannot be used.
        """
        mode, tests = job["mode"], job["tests"]
        if not (tests.strip() if isinstance(tests, str) else tests):
            raise ValueError("there are none")
        if mode == "stdio":
            return cases(tests)
        return self._plan(job)

    def _run(self, job: dict[str, Any], outcome: Outcome, tests: Tests) -> None:
        if isinstance(tests, list):
            self._stdio(job, outcome, tests)
        elif isinstance(tests, lower.Lowered):
            self._calls(job, outcome, tests)
        elif job["transport"] == "inprocess":
            self._in_process(job, outcome)
        else:
            self._tested(job, outcome)
        if self.candidates.forks > RECYCLE:
            self._recycle()
        elif self.next is None:
            self.next = self.candidates.fork()

    def _recycle(self) -> None:
        """A fresh zygote in place of one that has forked many children."""
        if self.next is not None:
            self.candidates.end(self.next)
            self.next.close()
        self.candidates.close()
        self.candidates = self._zygote("candidate")
        self.next = self.candidates.fork()

    def _plan(self, job: dict[str, Any]) -> lower.Lowered | None:
        tests = job["tests"]
        key = (
            tests if isinstance(tests, str) else tuple(tests),
            job["setup"], job["entry_point"], job["mode"], job["transport"],
        )  # fmt: skip
        if key not in self.plans:
            if len(self.plans) > 256:
                self.plans.clear()
            plan = None
            if job["mode"] == "call":
                listed = [tests] if isinstance(tests, str) else tests
                plan = lower.from_cases(listed, job["entry_point"])
            elif job["mode"] == "assert" and job["transport"] == "auto":
                plan = lower.lower(tests, job["setup"], job["entry_point"], "assert")
            self.plans[key] = plan
        return self.plans[key]

    def _calls(self, job: dict[str, Any], outcome: Outcome, plan: lower.Lowered) -> None:
        """Tests that are data: all calls in one frame, the checks made here."""
        limits = self._limits(job)
        child = self._take()
        child.send(self._order(job, "candidate", outcome.trace is not None, calls=plan.calls))
        self.next = self.candidates.fork()
        outcome.run = 1 if plan.together else len(plan.checks)
        held = 0
        for check in plan.checks:
            reply = self._next_reply(outcome, limits, [child], child)
            if type(reply) is not dict:
                outcome.first = outcome.first or check.source
                outcome.passed = 0 if plan.together else held
                self._lost(child, outcome, limits)
                return
            if "syntax" in reply or "load" in reply:
                outcome.first = check.source
                outcome.not_loaded(reply)
                break
            outcome.loaded = True
            held += outcome.check(check, reply)
            if (
                plan.together and outcome.first is not None
            ):  # it ends here; the calls are made anyway
                outcome.settle("fail", f"test failed: {outcome.first}")
        outcome.passed = int(held == len(plan.checks)) if plan.together else held
        if outcome.passed == outcome.run:
            outcome.settle("pass")
        else:
            outcome.settle("fail", f"test failed: {outcome.first}"[:500])
        self._finish(child, outcome, limits)

    def _testers(self) -> AnyZygote:
        if self.testers is not None and self.testers.forks > RECYCLE:
            self.testers.close()
            self.testers = None
        if self.testers is None:
            self.testers = self._zygote("tester")
        return self.testers

    def _tested(self, job: dict[str, Any], outcome: Outcome) -> None:
        """Tests that are code: a tester process calls the candidate through proxies."""
        limits = self._limits(job)
        testers = self._testers()
        outcome.weak = job["transport"] == "handles"
        child = self._take()
        child.send(self._order(job, "candidate", outcome.trace is not None))
        tester = testers.fork(() if testers.relays else (child.replies, child.job))
        if not testers.relays:
            # the worker keeps no end of the candidate's pipes: each side sees the other's death
            for fd in (child.replies, child.job):
                os.close(fd)
            child.replies = child.job = -1
        tester.wait_ready()
        tester.send(
            {
                "role": "tester",
                "cpu": limits.cpu + 2.0,
                "trace": outcome.trace is not None and not testers.relays,
                "relay": testers.relays,
                "memory_mb": self.spec["memory_mb"],
                "paths": self.spec["extra"],
                **{k: job[k] for k in ("tests", "setup", "entry_point", "mode", "transport")},
            }
        )
        if testers.relays:
            report = self._relay(outcome, limits, child, tester)
        else:
            report = self._next_reply(outcome, limits, [child, tester], tester)
        test_end = testers.end(tester)
        tester.close()
        outcome.run = 1
        if type(report) is not dict:
            if test_end.exit_code == 70:
                outcome.doubtful("the tests could not be run")
            elif test_end.exit_code == -9 and test_end.cpu < limits.cpu:
                outcome.doubtful("the tester was killed by SIGKILL")
            elif test_end.exit_code in (-24, -9):
                outcome.settle("timeout", "the tests did not end with these values")
            else:
                outcome.settle("fail", "the tests died with these values")
            self._finish(child, outcome, limits)
        elif "unusable" in report and self._usable(job):
            outcome.doubtful("the tests could not be read")
            self._finish(child, outcome, limits)
        elif outcome.reported(report):
            self._lost(child, outcome, limits)
        else:
            self._finish(child, outcome, limits)

    def _relay(self, outcome: Outcome, limits: Limits, child: Child, tester: Child) -> Any:
        """Carry frames between candidate and tester, where pipes cannot be handed over."""
        dead = False
        while True:
            reply = None if dead else self._next_reply(outcome, limits, [child, tester], child)
            dead = dead or reply is None
            if dead and outcome.verdict:
                return None
            tester.send({"relay": reply} if not dead else {"dead": True}, first=False)
            message = self._next_reply(outcome, limits, [child, tester], tester)
            if type(message) is not dict or "relay" not in message:
                return message
            child.send(message["relay"], first=False)

    def _in_process(self, job: dict[str, Any], outcome: Outcome) -> None:
        limits = self._limits(job)
        outcome.weak = True
        child = self._testers().fork()
        child.wait_ready()
        wanted = {k: job[k] for k in ("tests", "setup", "entry_point", "mode")}
        child.send(self._order(job, "inprocess", **wanted))
        report = self._next_reply(outcome, limits, [child], child)
        if type(report) is dict and self._usable(job):
            said = {"syntax", "load"} & set(report) or (
                report.get("run") and "unusable" not in report
            )
            if not said:  # the program's own work: it would take itself out of judgement
                outcome.settle("crash", "the program broke the protocol: the tests are usable")
        if type(report) is dict:
            outcome.reported(report)
            self._finish(child, outcome, limits)
        else:
            outcome.run = 1
            self._lost(child, outcome, limits)

    def _usable(self, job: dict[str, Any]) -> bool:
        try:
            suite.parse(job["tests"], job["setup"], job["entry_point"], job["mode"])
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
        return True

    def _stdio(self, job: dict[str, Any], outcome: Outcome, pairs: list[tuple[str, str]]) -> None:
        """Each case in a process of its own; the expected output never enters it."""
        outcome.run = len(pairs)
        outcome.loaded = True
        limits = self._limits(job)
        for index, (given, expected) in enumerate(pairs):
            one = Outcome(1)
            one.trace = outcome.trace
            child = self._take()
            child.send(self._order(job, "stdio", outcome.trace is not None, stdin=given))
            last: dict[str, Any] = {}
            while True:
                message = self._next_reply(one, limits, [child], child)
                if type(message) is not dict:
                    break
                last = message
            ended = not one.verdict
            end = self._finish(child, one, limits, dying=ended)
            if "syntax" in last:
                one.settle("syntax", str(last["syntax"]), str(last.get("type", "")))
            elif ended and end.exit_code < 0:
                one.died(end, limits)
            elif ended and end.exit_code:
                one.not_loaded(last) if "load" in last else None
                one.settle("crash", f"exit code {end.exit_code}")
            elif not same_text(one.stdout, expected):
                one.settle("fail", f"case {index + 1}: the output differs")
            one.settle("pass")
            outcome.cpu += one.cpu
            outcome.output = (outcome.output + one.output)[: limits.output]
            if one.verdict == "pass":
                outcome.passed += 1
                continue
            if outcome.first is None:
                outcome.first = given[:2000]
                outcome.line = one.line
            outcome.settle(one.verdict, one.message, one.error)
            outcome.again = one.again
            if one.verdict in ("syntax", "timeout", "output", "memory", "infra_error"):
                break
        outcome.settle("pass")

    def _traced(self, job: dict[str, Any], outcome: Outcome, tests: Tests) -> None:
        """Run the candidate once more under a tracer; nothing of it touches the verdict."""
        again = Outcome(0)
        again.trace = {"executable": [], "executed": [], "failing": outcome.line}
        self._run(job, again, tests)
        outcome.trace = again.trace
        outcome.cpu += again.cpu
