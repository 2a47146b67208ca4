"""The families of the embedded task set, by topic. `FAMILIES` maps each name to its family."""

from __future__ import annotations

from dataclasses import replace

from . import (
    comprehensions,
    dates,
    dicts,
    lists,
    numbers,
    parsing,
    recursion,
    sets,
    sorting,
    strings,
)
from .core import Family

_TOPICS = {
    "comprehensions": comprehensions.FAMILIES,
    "dates": dates.FAMILIES,
    "dicts": dicts.FAMILIES,
    "lists": lists.FAMILIES,
    "numbers": numbers.FAMILIES,
    "parsing": parsing.FAMILIES,
    "recursion": recursion.FAMILIES,
    "sets": sets.FAMILIES,
    "sorting": sorting.FAMILIES,
    "strings": strings.FAMILIES,
}

FAMILIES: dict[str, Family] = {
    family.name: replace(family, topic=topic)
    for topic, families in _TOPICS.items()
    for family in families
}
