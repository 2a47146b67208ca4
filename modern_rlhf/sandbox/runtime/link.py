"""The tests' end of the connection to a candidate: requests, values, exceptions re-typed.

An exception of the candidate becomes a new one: of the class that the tests name, where it is the
candidate's own, else of the nearest built-in class, so that `unittest.SkipTest` is a plain `Exception`.
`StopIteration`, `StopAsyncIteration`, what is no `Exception` (`SystemExit`, `KeyboardInterrupt`, ...)
and what cannot be made again become a `CandidateError`. When the candidate is gone, `CandidateDied` is
raised, which no `except Exception` of a test swallows.
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


def _no_proxies(link: Link, number: int, form: str, name: str) -> Any:
    raise ValueRefused("no proxies are known here")


def _no_number(value: Any) -> int | None:
    return None


class Link:
    """The connection to one candidate; `wrap` and `number_of` are filled in by `proxy.connect`."""

    def __init__(
        self, reading: int, writing: int, *, copy: bool, loose: bool, relayed: bool = False
    ) -> None:
        self.reading, self.writing, self.relayed = reading, writing, relayed
        self.copy, self.loose = copy, loose
        self.dead = False
        self.memory = False
        self.broken = ""
        self.constructed: set[str] = set()
        self.exceptions: dict[str, type[Exception]] = {}
        self.callbacks: list[Callable[..., Any]] = []
        self.wrap: Callable[[Link, int, str, str], Any] = _no_proxies
        self.number_of: Callable[[Any], int | None] = _no_number
        self.last_error: dict[str, Any] = {}
        self.on_trace: Callable[[dict[str, Any]], None] | None = None
        self.encode = Encoder(self._lower)
        self.decode = Decoder(self._lift)

    def send(self, message: Any) -> None:
        """One message to the candidate."""
        write_frame(self.writing, {"relay": message} if self.relayed else message)

    def receive(self) -> Any:
        """One message from the candidate.

        Raises:
            PeerClosed, FrameError: it is gone, or breaks the protocol.
        """
        reply = read_frame(self.reading, MAX_REPLY + 64)
        if not self.relayed:
            return reply
        if "relay" not in reply:
            raise PeerClosed("the candidate is gone")
        return reply["relay"]

    # -- requests ----------------------------------------------------------------------------

    def request(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send one request and serve callbacks until its reply is there.

        Raises:
            CandidateDied: the candidate is gone or breaks the protocol.
        """
        if self.dead:
            raise CandidateDied
        try:
            self.send(message)
            while True:
                reply = self.receive()
                if type(reply) is not dict:
                    raise FrameError("a reply must be an object")
                if "trace" in reply and self.on_trace is not None:
                    self.on_trace(reply)
                    continue
                if "cb" not in reply:
                    return reply
                self.send(self._serve_callback(reply))
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
        except Exception as error:  # noqa: BLE001 - what the tests' function raises is the answer
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
        except Exception:  # noqa: BLE001 - untrusted constructor arguments
            return CandidateError(f"{name}: {text}")

    # -- values ------------------------------------------------------------------------------

    def _lower(self, value: Any) -> Any:
        """What of the tests' objects may cross to the candidate."""
        number = self.number_of(value)
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
        return self.wrap(self, number, form, name)

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
                if position.isdecimal() and len(position) < 4 and int(position) < len(args):
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
