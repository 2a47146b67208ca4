"""Values cross as data of exact types, bounded, and nothing of a subclass's methods comes along."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import math
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modern_rlhf.sandbox.runtime.frames import FrameError, pack, unpack
from modern_rlhf.sandbox.runtime.values import MAX_DEPTH, Decoder, Encoder, ValueRefused

DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.binary() | st.complex_numbers(allow_nan=False),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple)
    | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)  # fmt: skip


def over(value: Any) -> Any:
    return Decoder()(unpack(pack(Encoder()(value))[4:]))


@settings(max_examples=150, deadline=None)
@given(DATA)
def test_round_trip_keeps_value_and_type(value: Any) -> None:
    back = over(value)
    assert back == value and repr(back) == repr(value)  # repr tells 1 from True and 1.0


@pytest.mark.parametrize(
    "value",
    [
        2**53, 2**53 + 1, -(2**60), 10**5000, {1, 2}, frozenset({(1, 2)}), range(1, 9, 2), ...,
        bytearray(b"\x00"), collections.Counter("aab"), collections.OrderedDict(a=1),
        collections.deque([1], 3), decimal.Decimal("1.50"), fractions.Fraction(1, 3),
        datetime.date(2020, 2, 29), datetime.datetime(2020, 1, 1, 1), datetime.timedelta(1, 2, 3),
        {1: None, (1, 2): True, "b": 1 + 2j}, "\ud800",
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_types_of_the_library_cross(value: Any) -> None:
    assert over(value) == value and type(over(value)) is type(value)


def test_floats_cross_exactly() -> None:
    assert math.isnan(over(float("nan"))) and over(float("-inf")) == -math.inf
    assert math.copysign(1, over(-0.0)) == -1 and over(0.1) == 0.1 and type(over(1.0)) is float


class Liar(list[Any]):
    def __eq__(self, other: object) -> bool:
        return True

    def __iter__(self) -> Any:
        return iter([5])

    __hash__ = None  # type: ignore[assignment]


def test_a_subclass_crosses_as_its_base_data() -> None:
    assert type(over(Liar([1]))) is list and over(Liar([1])) == [1]
    assert over(Liar([1])) != [5]
    point = collections.namedtuple("point", "x y")(1, 2)
    assert over(point) == (1, 2) and over(point).x == 1


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def shared(levels: int) -> list[Any]:
    value: list[Any] = [1]
    for _ in range(levels):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    "value",
    [object(), deep(MAX_DEPTH + 1), shared(50), "x" * (5 << 20), 1 << (17 << 20), len],
    ids=["object", "deep", "shared", "long", "int", "function"],
)
def test_refused(value: Any) -> None:
    with pytest.raises(ValueRefused):
        Encoder()(value)


@pytest.mark.parametrize(
    "data",
    [
        {}, {"tuple": 1}, {"int": 5}, {"int": "zz"}, {"dict": [[1]]}, {"dict": [[[], 1]]},
        {"set": [[]]}, {"bytes": "x"}, {"Fraction": [1, 0]}, {"namedtuple": ["a", ["x-y"], [1]]},
        {"handle": [0, "object", "x", ""]}, {"os.system": "x"}, {"a": 1, "b": 2}, {"deque": []},
    ],
)  # fmt: skip
def test_malformed_data_is_refused_not_raised(data: Any) -> None:
    with pytest.raises(ValueRefused):
        Decoder()(data)


def test_colliding_keys_are_refused_quickly() -> None:
    # hash(k * (2**61 - 1)) == 0: 40,000 of them would take minutes in a set
    data = {"set": [{"int": hex(k * (2**61 - 1))} for k in range(1, 40000)]}
    started = time.process_time()
    with pytest.raises(ValueRefused, match="collide"):
        Decoder()(data)
    # the check itself counts hashes, whose values are equal: it must not collide either
    assert time.process_time() - started < 5


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100000, b"9" * 100000])
def test_unreadable_frames(body: bytes) -> None:
    with pytest.raises(FrameError):
        unpack(body)
