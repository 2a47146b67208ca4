"""Values as data: the only way anything crosses between candidate and tests.

Only *exact* types cross by value. An instance of a subclass of a built-in crosses as the data of
its base class, read with the base class's own methods, so an overridden `__eq__`, `items` or
`__iter__` stays behind. Anything else is given to the `other` hook of the encoder (a handle, a
callback) or is refused. A value is JSON with one convention: a JSON object is always `{tag:
payload}`.

Bounds: depth 60, about 4 MiB, integers of 16 Mbit (64 Kbit in a fraction); integers above 2**53 cross
as hex. What would cost the receiver more than linear time is refused: keys of a set or dict that share
their hash too often, fractions of long integers, named tuples of a thousand different shapes. A peer
need not use `Encoder`, so the decoder takes nothing for granted.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any

MAX_DEPTH = 60
MAX_BYTES = 4 << 20
MAX_INT_BITS = 16 << 20
MAX_FRACTION_BITS = 1 << 16
"""Of a fraction's parts: reducing it costs quadratic time."""
MAX_PAIRS = 1 << 20
"""Of keys with the same hash in one value: each may have to be compared with each."""
MAX_SHAPES = 1000
"""Different named tuples in one value: each needs a class."""
_SAFE = 1 << 53


class ValueRefused(Exception):
    """The value cannot cross: too deep, too large, or of a type that has no data form."""


Other = Callable[[Any], Any]


def refuse(value: Any) -> Any:
    """The `other` hook that lets nothing but data cross."""
    raise ValueRefused(f"a value of type {type(value).__name__} cannot cross as data")


def _number(value: Any) -> Any:
    return value if -_SAFE <= value <= _SAFE else {"int": hex(value)}


class Encoder:
    """Values to JSON-able data. `other(value)` returns the payload for types without a data
    form."""

    def __init__(self, other: Other = refuse) -> None:
        self._other = other
        self._room = 0

    def __call__(self, value: Any) -> Any:
        """Encode one value.

        Raises:
            ValueRefused: see the class.
        """
        self._room = MAX_BYTES
        return self._encode(value, 0)

    def _spend(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            raise ValueRefused(f"the value is larger than {MAX_BYTES} bytes")

    def _items(self, values: Iterable[Any], depth: int) -> list[Any]:
        return [self._encode(value, depth) for value in values]

    def _pairs(self, pairs: Iterable[tuple[Any, Any]], depth: int) -> list[Any]:
        return [[self._encode(key, depth), self._encode(value, depth)] for key, value in pairs]

    def _encode(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is str:
            self._spend(len(value) + 2)
            return value
        self._spend(4)
        if value is None or kind is bool or kind is float:
            return value
        if kind is int:
            if -_SAFE <= value <= _SAFE:
                return value
            bits = value.bit_length()
            self._spend(bits >> 2)
            if bits > MAX_INT_BITS:
                raise ValueRefused(f"an integer of {bits} bits is too large to cross")
            return {"int": hex(value)}
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueRefused(f"the value is nested deeper than {MAX_DEPTH}")
        if kind is list:
            return self._items(value, depth)
        if kind is tuple:
            return {"tuple": self._items(value, depth)}
        if kind is dict:
            return {"dict": self._pairs(value.items(), depth)}
        if kind is set:
            return {"set": self._items(value, depth)}
        rare = self._rare(value, kind, depth)
        if rare is not None:
            return rare
        return self._based(value, kind, depth)

    def _rare(self, value: Any, kind: type, depth: int) -> Any:
        """Exact types of the standard library that tests compare by value."""
        if kind is frozenset:
            return {"frozenset": self._items(value, depth)}
        if kind is bytes or kind is bytearray:
            self._spend(2 * len(value))
            return {kind.__name__: value.hex()}
        if kind is complex:
            return {"complex": [value.real, value.imag]}
        if kind is range:
            return {"range": [_number(value.start), _number(value.stop), _number(value.step)]}
        if kind is type(Ellipsis):
            return {"ellipsis": 0}
        if kind is collections.Counter or kind is collections.OrderedDict:
            return {kind.__name__: self._pairs(dict.items(value), depth)}
        if kind is collections.defaultdict:
            return {"defaultdict": self._pairs(dict.items(value), depth)}
        if kind is collections.deque:
            return {"deque": [self._items(value, depth), value.maxlen]}
        if kind is type({}.keys()):
            return {"dict_keys": self._items(value, depth)}
        if kind is type({}.values()):
            return {"dict_values": self._items(value, depth)}
        if kind is type({}.items()):
            return {"dict_items": self._pairs(value, depth)}
        return self._library(value, kind)

    def _library(self, value: Any, kind: type) -> Any:
        """Numbers and dates, known by name: importing them costs every process memory."""
        name = (kind.__module__, kind.__qualname__)
        if name == ("decimal", "Decimal"):
            return {"Decimal": str(value)}
        if name == ("fractions", "Fraction"):
            parts = [value.numerator, value.denominator]
            if max(part.bit_length() for part in parts) > MAX_FRACTION_BITS:
                raise ValueRefused("a fraction of integers so long cannot cross")
            self._spend(sum(part.bit_length() >> 2 for part in parts))
            return {"Fraction": [_number(part) for part in parts]}
        if name == ("datetime", "timedelta"):
            return {"timedelta": [value.days, value.seconds, value.microseconds]}
        if name == ("datetime", "date"):
            return {"date": value.isoformat()}
        if name not in (("datetime", "datetime"), ("datetime", "time")):
            return None
        plain = value.tzinfo is None or type(value.tzinfo).__name__ == "timezone"
        return {kind.__name__: value.isoformat()} if plain else None

    def _based(self, value: Any, kind: type, depth: int) -> Any:
        """Instances of subclasses as the data of their base; the rest goes to the hook."""
        bases = type.mro(kind) if type(kind) is type else list(getattr(kind, "__mro__", ()))
        if kind.__module__ == "numpy" and "generic" in [base.__name__ for base in bases]:
            return self._encode(value.item(), depth)
        if int in bases:
            return self._encode(int.__int__(value), depth)
        if float in bases:
            return float.__float__(value)
        if str in bases:
            return self._encode(str.__getitem__(value, slice(None)), depth)
        if bytes in bases:
            return self._encode(bytes.__getitem__(value, slice(None)), depth)
        if tuple in bases:
            items = self._items(tuple.__iter__(value), depth)
            fields = getattr(kind, "_fields", None)
            if type(fields) is tuple and len(fields) == len(items) <= 255:
                names = [name for name in fields if type(name) is str and len(name) < 100]
                if len(names) == len(items):
                    return {"namedtuple": [kind.__name__[:100], names, items]}
            return {"tuple": items}
        if list in bases:
            return self._items(list.__iter__(value), depth)
        if dict in bases:
            return {"dict": self._pairs(dict.items(value), depth)}
        if set in bases:
            return {"set": self._items(set.__iter__(value), depth)}
        if frozenset in bases:
            return {"frozenset": self._items(frozenset.__iter__(value), depth)}
        return self._other(value)


class NamedFields(tuple[Any, ...]):
    """What a named tuple is on the receiving side: a tuple whose fields have names."""

    _fields: tuple[str, ...] = ()

    def __repr__(self) -> str:
        body = ", ".join(f"{n}={v!r}" for n, v in zip(self._fields, self, strict=False))
        return f"{type(self).__name__}({body})"


def _shape(name: str, fields: tuple[str, ...]) -> type[NamedFields]:
    """A class for named tuples of one shape."""
    if not all(type(field) is str and field.isidentifier() for field in fields):
        raise ValueRefused("malformed named tuple")
    space: dict[str, Any] = {field: property(itemgetter(i)) for i, field in enumerate(fields)}
    space = {field: item for field, item in space.items() if not field.startswith("_")}
    return type(name, (NamedFields,), {**space, "_fields": fields})


def _library(tag: str, payload: Any) -> Any:
    if tag == "Decimal":
        import decimal

        return decimal.Decimal(payload)
    if tag == "Fraction":
        import fractions

        above, below = (Decoder()(part) for part in payload)
        if type(above) is not int or type(below) is not int:
            raise ValueRefused("a fraction is made of two integers")  # "1e999999999" would be too
        if max(above.bit_length(), below.bit_length()) > MAX_FRACTION_BITS:
            raise ValueRefused("a fraction of integers so long cannot cross")
        return fractions.Fraction(above, below)
    import datetime

    if tag == "timedelta":
        return datetime.timedelta(*payload)
    kind: Any = getattr(datetime, tag)
    return kind.fromisoformat(payload)


class Decoder:
    """JSON-able data to values. `handle(tag, payload)` makes what is not data."""

    def __init__(self, handle: Callable[[str, Any], Any] | None = None) -> None:
        self._handle = handle
        self._pairs = 0
        self._shapes: dict[tuple[str, tuple[str, ...]], type[NamedFields]] = {}

    def __call__(self, data: Any) -> Any:
        """Decode one value.

        Raises:
            ValueRefused: malformed data, too deep, or a tag that is not known.
        """
        self._shapes, self._pairs = {}, 0
        try:
            return self._decode(data, 0)
        except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
            raise ValueRefused(f"malformed value: {error}") from None

    def _decode(self, data: Any, depth: int) -> Any:
        kind = type(data)
        if kind is list:
            if depth >= MAX_DEPTH:
                raise ValueRefused(f"the value is nested deeper than {MAX_DEPTH}")
            depth += 1
            return [self._decode(item, depth) for item in data]
        if kind is not dict:
            return data
        if depth >= MAX_DEPTH:
            raise ValueRefused(f"the value is nested deeper than {MAX_DEPTH}")
        ((tag, payload),) = data.items()
        return self._tagged(tag, payload, depth + 1)

    def _list(self, payload: Any, depth: int) -> list[Any]:
        if type(payload) is not list:
            raise ValueRefused("malformed value: a list was expected")
        return [self._decode(item, depth) for item in payload]

    def _keys(self, keys: list[Any]) -> list[Any]:
        """The keys of a set or dict, unless comparing those that share a hash would take long. Some do
        in honest data: (-1, 7) and (-2, 7)."""
        hashes = [hash(key) for key in keys]
        if len(set(hashes)) < len(hashes):
            groups = collections.Counter(hashes).values()
            self._pairs += sum(size * (size - 1) // 2 for size in groups)
            if self._pairs > MAX_PAIRS:
                raise ValueRefused("keys of a set or dict collide")
        return keys

    def _dict(self, payload: Any, depth: int) -> dict[Any, Any]:
        pairs = [(self._decode(k, depth), self._decode(v, depth)) for k, v in payload]
        self._keys([key for key, _ in pairs])
        return dict(pairs)

    def _named(self, name: Any, fields: Any, items: list[Any]) -> Any:
        if type(name) is not str or type(fields) is not list or len(fields) != len(items):
            raise ValueRefused("malformed named tuple")
        shape = (name, tuple(fields))
        if shape not in self._shapes:
            if len(self._shapes) >= MAX_SHAPES:
                raise ValueRefused("too many different named tuples")
            self._shapes[shape] = _shape(*shape)
        return self._shapes[shape](items)

    def _tagged(self, tag: str, payload: Any, depth: int) -> Any:
        if tag == "tuple":
            return tuple(self._list(payload, depth))
        if tag == "dict":
            return self._dict(payload, depth)
        if tag == "set":
            return set(self._keys(self._list(payload, depth)))
        if tag == "int":
            if type(payload) is not str or len(payload) > MAX_INT_BITS // 4 + 8:
                raise ValueRefused("malformed integer")
            return int(payload, 16)
        if tag == "frozenset":
            return frozenset(self._keys(self._list(payload, depth)))
        if tag in ("bytes", "bytearray"):
            raw = bytes.fromhex(payload)
            return raw if tag == "bytes" else bytearray(raw)
        if tag == "complex":
            return complex(float(payload[0]), float(payload[1]))
        if tag == "range":
            return range(*self._list(payload, depth))
        if tag == "ellipsis":
            return ...
        if tag == "Counter":
            return collections.Counter(self._dict(payload, depth))
        if tag == "OrderedDict":
            return collections.OrderedDict(self._dict(payload, depth))
        if tag == "defaultdict":
            return collections.defaultdict(None, self._dict(payload, depth))
        if tag == "deque":
            return collections.deque(self._list(payload[0], depth), payload[1])
        if tag == "dict_keys":
            keys = self._keys(self._list(payload, depth))
            return dict.fromkeys(keys).keys()
        if tag == "dict_values":
            return dict(enumerate(self._list(payload, depth))).values()
        if tag == "dict_items":
            return self._dict(payload, depth).items()
        if tag == "namedtuple":
            return self._named(payload[0], payload[1], self._list(payload[2], depth))
        if tag in ("Decimal", "Fraction", "timedelta", "date", "time", "datetime"):
            return _library(tag, payload)
        if self._handle is None:
            raise ValueRefused(f"a {tag} cannot be read as data here")
        return self._handle(tag, payload)
