"""The tests' side of the boundary: proxies for what the candidate defined.

A value that crossed is data of exact types. What has no data form is an `Opaque` handle. Its
operators run in the candidate only against other handles, never against the tests' plain data: an
object whose `__eq__` says True to everything is still not equal to 5, and no expected value is ever
shown to it. Objects that the tests themselves construct and use as objects may do more (`Used`);
`Loose` handles forward everything, where calibration on the reference found no other way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from modern_rlhf.sandbox.runtime.link import Link


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


class Used(Opaque):
    """An object the tests construct and use as one: truth, membership and arithmetic with plain
    data run in the candidate as well; comparison with plain data still does not."""

    __hash__ = Opaque.__hash__
    __eq__ = Opaque.__eq__

    def __bool__(self) -> bool:
        return object.__getattribute__(self, "_link").do("bool", self) is True

    def __contains__(self, item: object) -> bool:
        return object.__getattribute__(self, "_link").do("contains", self, item) is True

    def __reversed_operation(self, what: str, other: Any) -> Any:
        return object.__getattribute__(self, "_link").do(what, other, self)

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


class Loose(Used):
    """A handle whose every operator runs in the candidate: a candidate can make it equal to
    anything, so verdicts that rest on it are weak."""

    __hash__ = Opaque.__hash__
    __lt__, __le__, __gt__, __ge__ = (_forward(n) for n in ("lt", "le", "gt", "ge"))

    def __eq__(self, other: object) -> Any:
        return object.__getattribute__(self, "_link").do("eq", self, other) is True

    def __ne__(self, other: object) -> Any:
        return object.__getattribute__(self, "_link").do("ne", self, other) is True


class ClassProxy(Opaque):
    """A class of the candidate; what the tests construct with it is `Used` if they use it so."""

    __hash__ = Opaque.__hash__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        link = object.__getattribute__(self, "_link")
        number = object.__getattribute__(self, "_number")
        made = link.call({"handle": number}, args, kwargs, copy=False)
        name = object.__getattribute__(self, "_name")
        inner = handle_number(made)
        if inner is None or link.loose or name not in link.constructed:
            return made
        return Used(link, inner, name)

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


def wrap(link: Link, number: int, form: str, name: str) -> Any:
    """The proxy for a handle."""
    if form == "class":
        return ClassProxy(link, number, name)
    return (Loose if link.loose else Opaque)(link, number, name)


def connect(link: Link) -> Link:
    """Let the link make proxies for handles and recognise them as arguments."""
    link.wrap, link.number_of = wrap, handle_number
    return link
