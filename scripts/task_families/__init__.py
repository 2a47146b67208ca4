"""The families of the embedded task set, by topic. `FAMILIES` maps each name to its family."""

from __future__ import annotations

from dataclasses import replace

from . import (
    comprehensions,
    dates,
    dicts,
    list_queries,
    lists,
    numbers,
    parsing,
    recursion,
    sets,
    sorting,
    strings,
    words,
)
from .core import Family

_TOPICS = {
    "comprehensions": comprehensions.FAMILIES,
    "dates": dates.FAMILIES,
    "dicts": dicts.FAMILIES,
    "lists": lists.FAMILIES + list_queries.FAMILIES,
    "numbers": numbers.FAMILIES,
    "parsing": parsing.FAMILIES,
    "recursion": recursion.FAMILIES,
    "sets": sets.FAMILIES,
    "sorting": sorting.FAMILIES,
    "strings": strings.FAMILIES + words.FAMILIES,
}

FAMILIES: dict[str, Family] = {
    family.name: replace(family, topic=topic)
    for topic, families in _TOPICS.items()
    for family in families
}
