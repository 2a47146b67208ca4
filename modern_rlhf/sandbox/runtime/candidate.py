"""The child that runs generated code: loads the program, answers calls, never sees a test.

Whatever the program does to this interpreter, only its own answers change: values leave as data of
exact types, an exception leaves as its name and text, and the process that judges believes nothing
else. Requests:

    {"calls": [[name, args, kwargs], ...]}         known in advance: one reply a call, in order
    {"op": "names", "names": [...]}                what the program defined under these names
    {"op": "call", "on": target, "args", "kwargs", "copy"}
    {"op": "do", "what": operation, "args": [...]}   an operation on a handle: get, set, next, len
    ...

A target is `{"name": n}` or a handle. Replies: `{"v": value}`, `{"e": exception}`; a call with
`copy` adds `"m": {position: mutated argument}`; a callback into the tests is `{"cb": id, "args":
...}`.
"""

from __future__ import annotations

import builtins
import operator
import os
import sys
import types
from typing import Any

from modern_rlhf.sandbox.runtime.frames import MAX_REPLY, PeerClosed, pack, read_frame, write_all
from modern_rlhf.sandbox.runtime.values import Decoder, Encoder, ValueRefused

FILENAME = "<candidate>"
MAX_TEXT = 2000
_ITERATORS = (
    "generator", "map", "filter", "zip", "enumerate", "reversed", "list_iterator", "tuple_iterator",
    "range_iterator", "str_iterator", "set_iterator", "dict_keyiterator", "dict_valueiterator",
    "dict_itemiterator", "list_reverseiterator", "callable_iterator", "str_ascii_iterator",
    "longrange_iterator", "bytes_iterator", "dict_reversekeyiterator",
)  # fmt: skip

_OPERATIONS: dict[str, Any] = {
    "get": getattr, "set": setattr, "delete": delattr, "len": len, "str": str, "repr": repr,
    "format": format, "bool": bool, "iter": iter, "next": next, "hash": hash, "abs": abs,
    "int": int, "float": float, "round": round, "getitem": operator.getitem,
    "setitem": operator.setitem, "delitem": operator.delitem, "contains": operator.contains,
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le,
    "gt": operator.gt, "ge": operator.ge, "add": operator.add, "sub": operator.sub,
    "mul": operator.mul, "truediv": operator.truediv, "floordiv": operator.floordiv,
    "mod": operator.mod, "pow": operator.pow, "matmul": operator.matmul, "and": operator.and_,
    "or": operator.or_, "xor": operator.xor, "lshift": operator.lshift,
    "rshift": operator.rshift, "neg": operator.neg, "pos": operator.pos,
    "invert": operator.invert, "isinstance": isinstance, "issubclass": issubclass,
    "enter": lambda item: type(item).__enter__(item),
    "exit": lambda item: type(item).__exit__(item, None, None, None),
}  # fmt: skip


def nearest_builtin(kind: type) -> str:
    """Name of the closest built-in class an exception class derives from."""
    return next((c.__name__ for c in kind.__mro__ if c.__module__ == "builtins"), "Exception")


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as data: class name, nearest built-in class, text, plain arguments, line."""
    kind = type(error)
    try:
        text = str(error)[:MAX_TEXT]
    except BaseException:  # noqa: BLE001 - what a program raises is data
        text = ""
    try:
        args = Encoder()(list(error.args)) if len(text) < MAX_TEXT else None
        args = args if len(pack(args)) < 4 * MAX_TEXT else None
    except BaseException:  # noqa: BLE001 - what a program raises is data
        args = None
    return {
        "type": str(kind.__name__)[:200],
        "base": nearest_builtin(kind),
        "text": text,
        "args": args,
        "names": [c.__name__ for c in kind.__mro__ if c.__module__ != "builtins"][:10],
        "line": failing_line(error),
    }


def failing_line(error: BaseException) -> int | None:
    """The innermost line of the program an exception came through."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == FILENAME:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


class Candidate:
    """One loaded program and what crosses its boundary."""

    def __init__(self, reading: int, writing: int) -> None:
        self.reading, self.writing = reading, writing
        self.space: dict[str, Any] = {}
        self.handles: dict[int, Any] = {}
        self.numbers: dict[int, int] = {}
        self.encode = Encoder(self._hold)
        self.decode = Decoder(self._resolve)

    # -- values ------------------------------------------------------------------------------

    def _hold(self, value: Any) -> Any:
        """A handle for what has no data form."""
        number = self.numbers.get(id(value))
        if number is None:
            number = len(self.handles)
            self.handles[number] = value
            self.numbers[id(value)] = number
        kind = type(value)
        form = "object"
        if (
            kind.__name__ in _ITERATORS
            and kind.__module__ == "builtins"
            or kind.__module__ == "itertools"
        ):
            form = "iterator"
        elif isinstance(value, type):
            form = "exception" if issubclass(value, BaseException) else "class"
        elif callable(value):
            form = "function"
        name, base = str(getattr(value, "__name__", kind.__name__))[:200], ""
        if form == "exception":
            base = nearest_builtin(value)
        return {"handle": [number, form, name, base]}

    def _resolve(self, tag: str, payload: Any) -> Any:
        if tag == "handle":
            return self.handles[payload[0] if type(payload) is list else payload]
        if tag == "builtin":
            return getattr(builtins, payload)
        if tag == "callback":
            return self._callback(payload)
        raise ValueRefused(f"unknown tag {tag}")

    def _callback(self, number: int) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._send(
                {"cb": number, "args": self.encode(list(args)), "kwargs": self.encode(kwargs)}
            )
            answer = self.serve_until_answer()
            if "e" in answer:
                name = answer["e"].get("base", "Exception")
                kind = getattr(builtins, name, Exception)
                raise kind(answer["e"].get("text", ""))
            return self.decode(answer["v"])

        return call

    def _send(self, message: Any) -> None:
        data = pack(message)
        if len(data) > MAX_REPLY:
            data = pack(
                {"e": {"type": "ValueRefused", "base": "", "text": "the value is too large"}}
            )
        write_all(self.writing, data)

    # -- the program -------------------------------------------------------------------------

    def load(self, code: str, name: str) -> dict[str, Any] | None:
        """Execute the module body; None when it ran to its end, else a reply that says why not."""
        try:
            compiled = compile(code, FILENAME, "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
            kind = type(error).__name__
            line = getattr(error, "lineno", None)
            return {"syntax": f"{kind}: {str(error)[:300]}", "type": kind, "line": line}
        module = types.ModuleType(name)
        sys.modules[name] = module
        self.space = module.__dict__
        try:
            exec(compiled, self.space)
        except BaseException as error:  # noqa: BLE001 - what a program raises is data
            self._flush()
            return {"load": describe(error)}
        self._flush()
        return None

    def _flush(self) -> None:
        for name in ("stdout", "stderr"):
            try:
                getattr(sys, name).flush()
            except BaseException:  # noqa: BLE001 - what a program raises is data
                continue

    def call(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run one call; the reply frame."""
        try:
            target = self._target(request["on"])
            given = request["args"]
            args = [self.decode(item) for item in given]
            kwargs = {key: self.decode(item) for key, item in request.get("kwargs", {}).items()}
        except ValueRefused as error:
            return {"e": {"type": "ValueRefused", "base": "", "text": str(error)}}
        except LookupError:
            name = str(request["on"].get("name"))
            return {
                "e": {
                    "type": "NameError",
                    "base": "NameError",
                    "text": f"name '{name}' is not defined",
                }
            }
        try:
            reply: dict[str, Any] = {"v": self.encode(target(*args, **kwargs))}
        except ValueRefused as error:
            return {"e": {"type": "ValueRefused", "base": "", "text": str(error)}}
        except BaseException as error:  # noqa: BLE001 - what a program raises is data
            reply = {"e": describe(error)}
        finally:
            self._flush()
        if request.get("copy"):
            reply["m"] = self._mutated(args, given)
        return reply

    def _mutated(self, args: list[Any], given: list[Any]) -> dict[str, Any]:
        """The arguments whose contents are not what was sent."""
        changed = {}
        for index, (now, before) in enumerate(zip(args, given, strict=True)):
            if type(now) in (list, dict, set, bytearray) or type(now).__name__ == "deque":
                try:
                    after = self.encode(now)
                except ValueRefused:
                    continue
                if after != before:
                    changed[str(index)] = after
        return changed

    def _target(self, on: dict[str, Any]) -> Any:
        if "name" in on:
            return self.space[on["name"]]
        return self.handles[on["handle"]]

    def do(self, request: dict[str, Any]) -> dict[str, Any]:
        """An operation on handles."""
        try:
            args = [self.decode(item) for item in request["args"]]
            return {"v": self.encode(_OPERATIONS[request["what"]](*args))}
        except ValueRefused as error:
            return {"e": {"type": "ValueRefused", "base": "", "text": str(error)}}
        except BaseException as error:  # noqa: BLE001 - what a program raises is data
            return {"e": describe(error)}
        finally:
            self._flush()

    def names(self, names: list[str]) -> dict[str, Any]:
        """The values under these names; functions and classes as handles, missing ones left out."""
        found = {}
        for name in names:
            if name in self.space:
                try:
                    found[name] = self.encode(self.space[name])
                except ValueRefused:
                    continue
        return {"v": found}

    # -- serving -----------------------------------------------------------------------------

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to one request."""
        what = request["op"]
        if what == "call":
            return self.call(request)
        if what == "names":
            return self.names(request["names"])
        return self.do(request)

    def serve_until_answer(self) -> dict[str, Any]:
        """Answer nested requests until the reply to a callback arrives."""
        while True:
            request: dict[str, Any] = read_frame(self.reading)
            if "op" not in request:
                return request
            self._send(self.answer(request))

    def serve(self) -> None:
        """Answer requests until the tester hangs up."""
        while True:
            try:
                request = read_frame(self.reading)
            except PeerClosed:
                return
            self._send(self.answer(request))


def run(job: dict[str, Any], reading: int, writing: int) -> None:
    """Load the job's program and do what the job asks; returns when all is answered."""
    candidate = Candidate(reading, writing)
    if job.get("trace"):
        from modern_rlhf.sandbox.runtime import tracing

        tracing.start(job["code"], lambda message: write_all(writing, pack(message)))
    trouble = candidate.load(job["code"], job.get("name", "solution"))
    if trouble is not None:
        candidate._send(trouble)
        return
    if "calls" not in job:
        candidate._send({"v": True})
        candidate.serve()
        return
    for name, args, kwargs in job["calls"]:
        request = {"on": {"name": name}, "args": args, "kwargs": kwargs}
        candidate._send(candidate.call(request))


def leave() -> None:
    """End the process at once: no exit handlers, no destructors."""
    os._exit(0)
