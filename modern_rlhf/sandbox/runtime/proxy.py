"""The tests' side of the boundary: proxies for what the candidate defined, exceptions re-typed.

A value that crossed is data of exact types. What has no data form is an `Opaque` handle. Its
operators run in the candidate only against other handles, never against the tests' plain data: an
object whose `__eq__` says True to everything is still not equal to 5, and no expected value is ever
shown to it. `Loose` handles forward everything; they exist for objects that the tests themselves
construct and use as objects, and where calibration on the reference found that they are needed.

An exception of the candidate becomes a new exception of a built-in `Exception` class or a
`CandidateError`; those that steer interpreters and test runners (`StopIteration`, `SystemExit`,
`SkipTest`, ...) are always the latter.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from typing import Any

from modern_rlhf.sandbox.runtime.frames import (
    MAX_REPLY,
    FrameError,
    PeerClosed,
    read_frame,
    write_frame,
)
from modern_rlhf.sandbox.runtime.values import Decoder, Encoder, ValueRefused

class CandidateError(Exception):
    """The candidate raised something that must not reach a test as it is."""


class CandidateDied(BaseException):
    """No answer will come any more; no `except Exception` of a test swallows this."""


_STEERING = {"StopIteration", "StopAsyncIteration"}
RETYPED: dict[str, type[Exception]] = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, Exception) and name not in _STEERING
}


class Link:
    """The connection to one candidate."""

    def __init__(self, reading: int, writing: int, *, copy: bool, loose: bool) -> None:
        self.reading, self.writing = reading, writing
        self.copy, self.loose = copy, loose
        self.dead = False
        self.memory = False
        self.broken = ""
        self.calls = 0
        self.constructed: set[str] = set()
        self.exceptions: dict[str, type[Exception]] = {}
        self.callbacks: list[Callable[..., Any]] = []
        self.last_error: dict[str, Any] = {}
        self.on_trace: Callable[[dict[str, Any]], None] | None = None
        self.encode = Encoder(self._lower)
        self.decode = Decoder(self._lift)

    # -- requests ----------------------------------------------------------------------------

    def request(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send one request and serve callbacks until its reply is there.

        Raises:
            CandidateDied: the candidate is gone or breaks the protocol.
        """
        if self.dead:
            raise CandidateDied
        try:
            write_frame(self.writing, message)
            while True:
                reply = read_frame(self.reading, MAX_REPLY)
                if type(reply) is not dict:
                    raise FrameError("a reply must be an object")
                if "trace" in reply and self.on_trace is not None:
                    self.on_trace(reply)
                    continue
                if "cb" not in reply:
                    return reply
                write_frame(self.writing, self._serve_callback(reply))
        except (PeerClosed, FrameError) as error:
            self.dead = True
            self.broken = str(error) if type(error) is FrameError else ""
            raise CandidateDied from None

    def value(self, message: dict[str, Any]) -> Any:
        """The value a request yields.

        Raises:
            CandidateDied, Exception: as `request`; what the candidate raised, re-typed.
        """
        return self.open(self.request(message))

    def open(self, reply: dict[str, Any]) -> Any:
        """The value in a reply, or its exception raised."""
        if "e" in reply:
            raise self.exception(reply["e"])
        try:
            return self.decode(reply["v"])
        except (ValueRefused, KeyError) as error:
            raise CandidateError(f"the value cannot be used: {error}") from None

    def _serve_callback(self, reply: dict[str, Any]) -> dict[str, Any]:
        try:
            function = self.callbacks[reply["cb"]]
            args, kwargs = self.decode(reply["args"]), self.decode(reply["kwargs"])
            return {"v": self.encode(function(*args, **kwargs))}
        except Exception as error:
            return {"e": {"base": type(error).__name__, "text": str(error)[:2000]}}

    def exception(self, described: Any) -> Exception:
        """The exception a test may see for what the candidate raised."""
        if type(described) is not dict:
            return CandidateError("malformed exception")
        self.last_error = described
        base, text = described.get("base"), str(described.get("text", ""))[:2000]
        name = str(described.get("type", ""))[:200]
        if name == "MemoryError":
            self.memory = True
        kind: type[Exception] | None = None
        for own in described.get("names") or ():
            kind = kind or self.exceptions.get(own)
        if kind is None and base in RETYPED:
            kind = RETYPED[base]
        if kind is None or name == "ValueRefused":
            return CandidateError(f"{name}: {text}")
        try:
            args = described.get("args")
            return kind(*Decoder()(args)) if type(args) is list else kind(text)
        except Exception:
            return CandidateError(f"{name}: {text}")

    # -- values ------------------------------------------------------------------------------

    def _lower(self, value: Any) -> Any:
        """What of the tests' objects may cross to the candidate."""
        number = handle_number(value)
        if number is not None:
            return {"handle": number}
        if isinstance(value, type) or type(value).__name__ == "builtin_function_or_method":
            name = getattr(value, "__name__", "")
            if getattr(builtins, name, None) is value:
                return {"builtin": name}
        if callable(value):
            self.callbacks.append(value)
            return {"callback": len(self.callbacks) - 1}
        raise ValueRefused(f"an argument of type {type(value).__name__} cannot cross")

    def _lift(self, tag: str, payload: Any) -> Any:
        if tag != "handle":
            raise ValueRefused(f"unknown tag {tag}")
        number, form, name, _ = payload
        if type(number) is not int or type(name) is not str:
            raise ValueRefused("malformed handle")
        if form == "iterator":
            return self.stream(number)
        if form == "class":
            return ClassProxy(self, number, name)
        return (Loose if self.loose else Opaque)(self, number, name)

    def stream(self, number: int) -> Iterator[Any]:
        """A generator over the candidate's iterator, item by item."""
        message = {"op": "do", "what": "next", "args": [{"handle": number}]}
        while True:
            reply = self.request(message)
            error = reply.get("e")
            if type(error) is dict and error.get("type") == "StopIteration":
                return
            yield self.open(reply)

    def call(self, on: dict[str, Any], args: Any, kwargs: Any, *, copy: bool) -> Any:
        """Call a function of the candidate; with `copy`, mutated arguments are written back."""
        self.calls += 1
        copy = copy or self.copy
        message = {
            "op": "call",
            "on": on,
            "args": [self.encode(item) for item in args],
            "kwargs": {key: self.encode(item) for key, item in kwargs.items()},
            "copy": copy,
        }
        reply = self.request(message)
        if copy and type(reply.get("m")) is dict:
            for position, now in reply["m"].items():
                if position.isdigit() and int(position) < len(args):
                    restore(args[int(position)], self.decode(now))
        return self.open(reply)

    def do(self, what: str, *args: Any) -> Any:
        """One operation in the candidate."""
        return self.value({"op": "do", "what": what, "args": [self.encode(item) for item in args]})


def restore(old: Any, new: Any) -> None:
    """Write the contents of `new` into `old`, keeping the identity of matching inner containers."""
    if type(old) is not type(new):
        return
    if type(old) is list or type(old).__name__ == "deque":
        merged = [_merge(a, b) for a, b in zip(old, new, strict=False)] + list(new)[len(old) :]
        old.clear()
        old.extend(merged)
    elif type(old) is dict:
        merged_items = {k: _merge(old[k], v) if k in old else v for k, v in new.items()}
        old.clear()
        old.update(merged_items)
    elif type(old) is set:
        old.clear()
        old.update(new)
    elif type(old) is bytearray:
        old[:] = new


def _merge(old: Any, new: Any) -> Any:
    if type(old) in (list, dict, set) and type(old) is type(new):
        restore(old, new)
        return old
    return new


def handle_number(value: Any) -> int | None:
    """The number of a proxy's object in the candidate, None for anything that is no proxy."""
    if isinstance(value, Opaque):
        number: int = object.__getattribute__(value, "_number")
        return number
    return None


def _handles_only(what: str) -> Callable[..., Any]:
    def method(self: Any, other: Any) -> Any:
        if handle_number(other) is None:
            return NotImplemented
        return object.__getattribute__(self, "_link").do(what, self, other)

    return method


def _forward(what: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any) -> Any:
        return object.__getattribute__(self, "_link").do(what, self, *args)

    return method


class Opaque:
    """An object of the candidate that is not data; see the module's docstring."""

    def __init__(self, link: Link, number: int, name: str) -> None:
        object.__setattr__(self, "_link", link)
        object.__setattr__(self, "_number", number)
        object.__setattr__(self, "_name", name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        link = object.__getattribute__(self, "_link")
        number = object.__getattribute__(self, "_number")
        return link.call({"handle": number}, args, kwargs, copy=False)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return object.__getattribute__(self, "_link").do("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__getattribute__(self, "_link").do("set", self, name, value)

    def __iter__(self) -> Iterator[Any]:
        link = object.__getattribute__(self, "_link")
        made = link.do("iter", self)
        number = handle_number(made)
        return iter(made) if number is None else link.stream(number)

    def __next__(self) -> Any:
        raise TypeError("the object is not an iterator")

    def __hash__(self) -> int:
        return hash(object.__getattribute__(self, "_number"))

    def __contains__(self, item: object) -> bool:
        raise TypeError("membership in an object of the candidate is not asked of it")

    def __len__(self) -> int:
        size = object.__getattribute__(self, "_link").do("len", self)
        if type(size) is not int:
            raise TypeError("a length must be an integer")
        return size

    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        text = object.__getattribute__(self, "_link").do("str", self)
        return text if type(text) is str else ""

    def __repr__(self) -> str:
        text = object.__getattribute__(self, "_link").do("repr", self)
        return text if type(text) is str else ""

    def __eq__(self, other: object) -> Any:
        number = handle_number(other)
        if number is None:
            return NotImplemented
        if number == object.__getattribute__(self, "_number"):
            return True
        return object.__getattribute__(self, "_link").do("eq", self, other) is True

    def __enter__(self) -> Any:
        return object.__getattribute__(self, "_link").do("enter", self)

    def __exit__(self, *_: object) -> None:
        object.__getattribute__(self, "_link").do("exit", self)

    __getitem__ = _forward("getitem")
    __setitem__ = _forward("setitem")
    __delitem__ = _forward("delitem")
    __neg__ = _forward("neg")
    __pos__ = _forward("pos")
    __abs__ = _forward("abs")
    __invert__ = _forward("invert")
    __lt__, __le__ = _handles_only("lt"), _handles_only("le")
    __gt__, __ge__ = _handles_only("gt"), _handles_only("ge")
    __add__, __sub__ = _handles_only("add"), _handles_only("sub")
    __mul__, __matmul__ = _handles_only("mul"), _handles_only("matmul")
    __truediv__, __floordiv__ = _handles_only("truediv"), _handles_only("floordiv")
    __mod__, __pow__ = _handles_only("mod"), _handles_only("pow")
    __and__, __or__, __xor__ = _handles_only("and"), _handles_only("or"), _handles_only("xor")


class Loose(Opaque):
    """A handle whose every operator runs in the candidate, also against plain data."""

    __hash__ = Opaque.__hash__

    def __eq__(self, other: object) -> Any:
        return object.__getattribute__(self, "_link").do("eq", self, other) is True

    def __ne__(self, other: object) -> Any:
        return object.__getattribute__(self, "_link").do("ne", self, other) is True

    def __bool__(self) -> bool:
        return object.__getattribute__(self, "_link").do("bool", self) is True

    def __contains__(self, item: object) -> bool:
        return object.__getattribute__(self, "_link").do("contains", self, item) is True

    def __reversed_operation(self, what: str, other: Any) -> Any:
        return object.__getattribute__(self, "_link").do(what, other, self)

    __lt__, __le__, __gt__, __ge__ = (_forward(n) for n in ("lt", "le", "gt", "ge"))
    __add__, __sub__, __mul__ = (_forward(n) for n in ("add", "sub", "mul"))
    __matmul__, __truediv__ = _forward("matmul"), _forward("truediv")
    __floordiv__, __mod__, __pow__ = (_forward(n) for n in ("floordiv", "mod", "pow"))
    __and__, __or__, __xor__ = (_forward(n) for n in ("and", "or", "xor"))
    __int__, __float__, __round__ = (_forward(n) for n in ("int", "float", "round"))

    def __radd__(self, other: Any) -> Any:
        return self.__reversed_operation("add", other)

    def __rsub__(self, other: Any) -> Any:
        return self.__reversed_operation("sub", other)

    def __rmul__(self, other: Any) -> Any:
        return self.__reversed_operation("mul", other)

    def __rtruediv__(self, other: Any) -> Any:
        return self.__reversed_operation("truediv", other)


class ClassProxy(Opaque):
    """A class of the candidate; what the tests construct with it is loose if they use it so."""

    __hash__ = Opaque.__hash__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        link = object.__getattribute__(self, "_link")
        number = object.__getattribute__(self, "_number")
        made = link.call({"handle": number}, args, kwargs, copy=False)
        name = object.__getattribute__(self, "_name")
        inner = handle_number(made)
        if inner is None or name not in link.constructed:
            return made
        return Loose(link, inner, name)

    def __instancecheck__(self, item: Any) -> bool:
        if handle_number(item) is None:
            return False
        return object.__getattribute__(self, "_link").do("isinstance", item, self) is True

    def __subclasscheck__(self, item: Any) -> bool:
        if handle_number(item) is None:
            return False
        return object.__getattribute__(self, "_link").do("issubclass", item, self) is True


class Copying:
    """A callable of the candidate for a call whose result the test drops: arguments come back."""

    def __init__(self, target: Opaque) -> None:
        self._target = target

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        link = object.__getattribute__(self._target, "_link")
        number = object.__getattribute__(self._target, "_number")
        return link.call({"handle": number}, args, kwargs, copy=True)


def in_place(function: Any) -> Any:
    """`f` for a statement `f(x)`: mutations of x are what such a test looks at."""
    return Copying(function) if isinstance(function, Opaque) else function
