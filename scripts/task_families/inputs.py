"""Argument kinds: values drawn near the constants of the reference, and names for the argument.

The local names used in reference bodies (`x w k v i c p q r y row total counts groups out`) are not
argument names.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

from .core import Hints, Kind

_WORDS = """
apple banana cherry date elder fig grape river stone cloud tiger lemon paper green blue red
yellow house table chair window garden music dance silver copper winter summer spring autumn
monkey zebra eagle otter panda bread butter salt pepper sugar water fire earth wind moon
star planet rocket engine wheel pencil book letter number circle square north south east
west ant bee cat dog elk fox goat hen ink jar kite lamp map nest oak pen quilt rope sun tea
urn van wolf yak alpha beta gamma delta level noon civic stats area anna onion error mirror
"""
WORDS = _WORDS.split()


def _int_near(rng: random.Random, hints: Hints, low: int, high: int) -> int:
    if hints.ints and rng.random() < 0.45:
        k = rng.choice(hints.ints)
        near = rng.choice((k - 1, k, k, k + 1, 2 * k, 3 * k, -k))
        if low <= near <= high:
            return near
    return rng.randint(low, high)


def int_list(
    low: int = -15, high: int = 60, shortest: int = 3, longest: int = 7
) -> Callable[..., list[int]]:
    def draw(rng: random.Random, hints: Hints) -> list[int]:
        size = rng.randint(shortest, longest)
        if shortest and rng.random() < 0.12:
            size = rng.randint(1, 2)
        values = [_int_near(rng, hints, low, high) for _ in range(size)]
        if size > 3 and rng.random() < 0.4:
            values[rng.randrange(size)] = values[rng.randrange(size)]
        return values

    return draw


def int_value(low: int, high: int) -> Callable[..., int]:
    def draw(rng: random.Random, hints: Hints) -> int:
        return _int_near(rng, hints, low, high)

    return draw


def word(rng: random.Random, hints: Hints) -> str:
    """A lower-case word, often with a text constant of the reference at its start, end or inside."""
    text = rng.choice(WORDS)
    short = [t for t in hints.texts if len(t) <= 4]
    if short and rng.random() < 0.5:
        hint = rng.choice(short)
        where = rng.randrange(3)
        text = (hint + text, text + hint, text[:2] + hint + text[2:])[where]
    elif hints.ints and rng.random() < 0.4:
        size = max(1, rng.choice(hints.ints) + rng.choice((-1, 0, 1)))
        if size <= 14:
            text = (text * 14)[:size]
    return text


def cased_word(rng: random.Random, hints: Hints) -> str:
    text = word(rng, hints)
    return rng.choice((text, text, text.capitalize(), text.upper(), text[:1] + text[1:].title()))


def word_list(rng: random.Random, hints: Hints) -> list[str]:
    return [word(rng, hints) for _ in range(rng.randint(3, 6))]


def cased_word_list(rng: random.Random, hints: Hints) -> list[str]:
    return [cased_word(rng, hints) for _ in range(rng.randint(3, 6))]


def sentence(rng: random.Random, hints: Hints) -> str:
    return " ".join(word(rng, hints) for _ in range(rng.randint(2, 6)))


def cased_sentence(rng: random.Random, hints: Hints) -> str:
    return " ".join(cased_word(rng, hints) for _ in range(rng.randint(2, 5)))


def mixed(rng: random.Random, hints: Hints) -> str:
    """Letters of both cases, digits and a few signs."""
    alphabet = string.ascii_lowercase + string.ascii_uppercase + string.digits * 3 + " -_.!"
    alphabet += "".join(hints.texts)[:6] * 4
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(5, 14))).strip() or "a1"


def counts(rng: random.Random, hints: Hints) -> dict[str, int]:
    """Words to integers; the short text constants of the reference are likely keys."""
    keys = rng.sample(WORDS, rng.randint(2, 4))
    for hint in hints.texts:
        if len(hint) > 1 and rng.random() < 0.6:
            keys.append(hint)
    rng.shuffle(keys)
    return {key: _int_near(rng, hints, -5, 60) for key in dict.fromkeys(keys)}


def distinct_counts(rng: random.Random, hints: Hints) -> dict[str, int]:
    keys = rng.sample(WORDS, rng.randint(3, 6))
    return dict(zip(keys, rng.sample(range(1, 60), len(keys)), strict=True))


def matrix(width_low: int = 2, width_high: int = 4) -> Callable[..., list[list[int]]]:
    def draw(rng: random.Random, hints: Hints) -> list[list[int]]:
        width = rng.randint(width_low, width_high)
        return [
            [_int_near(rng, hints, -9, 40) for _ in range(width)] for _ in range(rng.randint(2, 3))
        ]

    return draw


def pair_list(rng: random.Random, hints: Hints) -> list[tuple[str, int]]:
    size = rng.randint(3, 4)
    numbers = rng.sample(range(1, 40), size)
    return [(word(rng, Hints()), number) for number in numbers]


def record_list(rng: random.Random, hints: Hints) -> list[dict[str, Any]]:
    """Rows with the fields name, age and score."""
    size = rng.randint(2, 3)
    ages = rng.sample(range(5, 70), size)
    rows = []
    for age in ages:
        near = _int_near(rng, hints, 5, 70)
        rows.append(
            {
                "name": rng.choice(WORDS),
                "age": age if rng.random() < 0.5 else near,
                "score": _int_near(rng, hints, 0, 60),
            }
        )
    return rows


def iso_date(rng: random.Random, hints: Hints) -> str:
    return str(date(2000, 1, 1) + timedelta(days=rng.randrange(12_000)))


def iso_dates(rng: random.Random, hints: Hints) -> list[str]:
    """ISO dates; years, months and days found among the constants are likely."""
    days = []
    for _ in range(rng.randint(3, 5)):
        day = iso_date(rng, hints)
        for text in hints.texts:
            if rng.random() < 0.4:
                if len(text) == 10:
                    day = str(date.fromisoformat(text) + timedelta(days=rng.randint(-2, 2)))
                elif len(text) == 4 and text.isdigit():
                    day = text + day[4:]
                elif len(text) == 2 and text.isdigit() and text <= "12":
                    day = day[:5] + text + "-" + rng.choice(("01", "09", "17", "28"))
        days.append(day)
    return days


def clock(rng: random.Random, hints: Hints) -> str:
    return f"{rng.randrange(24):02d}:{rng.randrange(60):02d}"


def clock_list(rng: random.Random, hints: Hints) -> list[str]:
    return [clock(rng, hints) for _ in range(rng.randint(3, 4))]


LIST_NAMES = ("numbers", "nums", "values", "items", "data", "xs")
INT_NAMES = ("n", "num", "number", "value")
TEXT_NAMES = ("text", "s", "line", "phrase")
WORD_LIST_NAMES = ("words", "names", "items", "strings", "tokens")
DICT_NAMES = ("d", "scores", "table", "data", "prices")

INTS = Kind(int_list(), LIST_NAMES)
POSITIVE_INTS = Kind(int_list(1, 40), LIST_NAMES)
LONG_INTS = Kind(int_list(-15, 60, 6, 10), LIST_NAMES)
SMALL_INTS = Kind(int_list(-6, 12, 3, 6), LIST_NAMES)
TWO_INTS = Kind(int_list(-9, 25, 3, 5), ("first", "left", "xs", "one"))
TWO_INTS_B = Kind(int_list(-9, 25, 3, 5), ("second", "right", "ys", "two"))
INT = Kind(int_value(-30, 90), INT_NAMES)
POSITIVE = Kind(int_value(1, 200), INT_NAMES)
SMALL = Kind(int_value(2, 25), INT_NAMES)
INT_B = Kind(int_value(-30, 60), ("m", "other", "second", "step"))
WORD = Kind(word, TEXT_NAMES)
CASED_WORD = Kind(cased_word, TEXT_NAMES)
MIXED = Kind(mixed, TEXT_NAMES)
SENTENCE = Kind(sentence, TEXT_NAMES)
CASED_SENTENCE = Kind(cased_sentence, TEXT_NAMES)
WORD_LIST = Kind(word_list, WORD_LIST_NAMES)
CASED_WORD_LIST = Kind(cased_word_list, WORD_LIST_NAMES)
DICT = Kind(counts, DICT_NAMES)
DISTINCT_DICT = Kind(distinct_counts, DICT_NAMES)
MATRIX = Kind(matrix(), ("rows", "matrix", "grid", "table"))
WIDE_MATRIX = Kind(matrix(4, 4), ("rows", "matrix", "grid", "table"))
PAIRS = Kind(pair_list, ("pairs", "items", "entries", "data"))
RECORDS = Kind(record_list, ("rows", "records", "people", "users"))
DATE = Kind(iso_date, ("day", "text", "s", "when"))
DATE_B = Kind(iso_date, ("end", "other", "later", "until"))
DATES = Kind(iso_dates, ("dates", "days", "items", "entries"))
CLOCK = Kind(clock, ("time", "clock", "text", "s"))
CLOCKS = Kind(clock_list, ("times", "clocks", "items", "entries"))
