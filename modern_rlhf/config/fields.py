"""Declaring a configuration field with its bounds, and checking a section against its declarations.

Knows dataclasses and plain values only. A field's metadata holds `low`, `high` (inclusive), `choices`
and `help`; `check_section` verifies type and bounds of every field and names section, field, value and
what was expected. Integers are accepted where a float is declared; nothing else is converted.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modern_rlhf.errors import ConfigError


def option(
    default: Any,
    help: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] | None = None,
) -> Any:
    """A dataclass field with a default, a one-line help and bounds."""
    metadata = {"help": help, "low": low, "high": high, "choices": choices}
    if isinstance(default, list | dict):
        copy = default
        return dataclasses.field(default_factory=lambda: type(copy)(copy), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known name, or the list of known ones."""
    names = {each.casefold(): each for each in sorted(known)}
    close = difflib.get_close_matches(name.casefold(), names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {names[close[0]]!r}?"
    return f"; known: {', '.join(names.values())}"


def _matches(value: Any, annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_matches(value, part) for part in typing.get_args(annotation))
    if annotation is type(None):
        return value is None
    if annotation is Any:
        return True
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is list:
        (inner,) = typing.get_args(annotation)
        return isinstance(value, list) and all(_matches(item, inner) for item in value)
    if origin is dict:
        key_type, value_type = typing.get_args(annotation)
        return isinstance(value, dict) and all(
            _matches(k, key_type) and _matches(v, value_type) for k, v in value.items()
        )
    return isinstance(value, annotation)


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False


def describe(annotation: Any) -> str:
    """A type as a reader would write it: `int`, `float or null`, `list of str`."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(part) for part in typing.get_args(annotation))
    if annotation is type(None):
        return "null"
    if annotation is bool:
        return "true or false"
    if origin is list:
        return f"list of {describe(typing.get_args(annotation)[0])}"
    if origin is dict:
        key, value = typing.get_args(annotation)
        return f"mapping of {describe(key)} to {describe(value)}"
    return str(getattr(annotation, "__name__", annotation))


def field_types(section: type) -> dict[str, Any]:
    """Resolved annotation of every field of a section class."""
    return typing.get_type_hints(section)


def check_section(name: str, section: Any) -> None:
    """Verify types and bounds of all fields.

    Raises:
        ConfigError: naming `section.field`, the value and what was expected.
    """
    hints = field_types(type(section))
    for field in dataclasses.fields(section):
        value, where = getattr(section, field.name), f"{name}.{field.name}"
        if not _matches(value, hints[field.name]):
            raise ConfigError(
                f"{where} = {value!r} has the wrong type: expected {describe(hints[field.name])}"
            )
        choices = field.metadata.get("choices")
        if choices and value is not None and value not in choices:
            raise ConfigError(
                f"{where} = {value!r} is not one of {', '.join(map(str, choices))}"
                + (nearest(value, choices).partition("; known")[0])
            )
        if isinstance(value, int | float) and not isinstance(value, bool):
            low, high = field.metadata.get("low"), field.metadata.get("high")
            if (
                not _finite(value)
                or (low is not None and value < low)
                or (high is not None and value > high)
            ):
                raise ConfigError(
                    f"{where} = {value!r} is out of range: expected "
                    f"{'-inf' if low is None else low} to {'inf' if high is None else high}"
                )


def check_filled(name: str, section: Any, *, besides: Sequence[str] = ()) -> None:
    """Refuse empty text in a section of names and paths, where it would mean the current folder.

    Raises:
        ConfigError: naming `section.field`.
    """
    for field, value in vars(section).items():
        if value == "" and field not in besides:
            raise ConfigError(
                f"{name}.{field} is empty: expected a name or path (null where the field may be left out)"
            )


def section_from_mapping(name: str, section: type, values: Any) -> Any:
    """Build a section from a mapping; unknown keys fail and name the nearest one.

    Raises:
        ConfigError: not a mapping, or an unknown key.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"section {name!r} must be a mapping of fields, not {type(values).__name__}"
        )
    known = {field.name for field in dataclasses.fields(section)}
    for key in values:
        if key not in known:
            raise ConfigError(f"unknown key {name}.{key}{nearest(str(key), known)}")
    return section(**values)
