"""Dates and clock times: shifting, formatting, parts, differences, filtering."""

from __future__ import annotations

from .core import Family, Kind, piece
from .inputs import CLOCK, CLOCKS, DATE, DATES, int_value
from .vocabulary import ORDER

MINUTES = Kind(int_value(0, 1439), ("minutes", "n", "total_minutes", "num"))
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
FORMATS = tuple(
    piece(repr(text), words)
    for text, words in (
        ("%d.%m.%Y", "day.month.year"),
        ("%d/%m/%Y", "day/month/year"),
        ("%m/%d/%Y", "month/day/year"),
        ("%Y/%m/%d", "year/month/day"),
        ("%Y%m%d", "yearmonthday"),
        ("%d-%m-%Y", "day-month-year"),
        ("%m-%d", "month-day"),
        ("%d.%m.", "day.month."),
        ("%Y-%m", "year-month"),
        ("%m/%Y", "month/year"),
    )
)
PARTS = (
    piece("[:4]", "year"),
    piece("[5:7]", "month"),
    piece("[8:]", "day"),
)
DATE_TEST = tuple(
    [piece(f"w[:4] == '{y}'", f"in the year {y}") for y in range(2001, 2032)]
    + [piece(f"w[:4] != '{y}'", f"not in the year {y}") for y in range(2001, 2032)]
    + [piece(f"w < '{y}-01-01'", f"before the year {y}") for y in range(2005, 2030)]
    + [piece(f"w[5:7] == '{i + 1:02d}'", f"in {m}") for i, m in enumerate(MONTHS)]
    + [piece(f"w[5:7] != '{i + 1:02d}'", f"not in {m}") for i, m in enumerate(MONTHS)]
    + [piece(f"w > '{y}-06-30'", f"after June 30 of {y}") for y in range(2005, 2030)]
)

FAMILIES = (
    Family(
        name="date_shift",
        level="medium",
        args=(DATE,),
        options={
            "k": tuple(range(1, 31)),
            "u": (piece("days", "days"), piece("weeks", "weeks")),
            "o": (piece("+", "after"), piece("-", "before")),
        },
        names=("shift_date", "move_date", "add_days", "other_date", "change_date"),
        does=(
            "gives the date {k} {u} {o} the ISO date {a}, as an ISO string",
            "takes the ISO date {a} and gives the one {k} {u} {o} it as a string",
            "computes which ISO date lies {k} {u} {o} {a}",
            "finds the ISO date {k} {u} {o} the ISO date {a}",
        ),
        gives=(
            "the date {k} {u} {o} the ISO date {a}, as an ISO string",
            "the ISO date string of the day {k} {u} {o} the ISO date {a}",
            "as an ISO string the date that is {k} {u} {o} {a}",
            "the ISO date {k} {u} {o} {a}, as a string",
        ),
        body=(
            "from datetime import date, timedelta\n"
            "return str(date.fromisoformat({a}) {o} timedelta({u}={k}))"
        ),
    ),
    Family(
        name="date_format",
        level="medium",
        args=(DATE,),
        options={"t": FORMATS, "p": ("", "on ", "at ", "due ", "from ", "until ", "day ", "date ")},
        names=("format_date", "show_date", "date_text", "write_date", "print_date"),
        does=(
            "writes the ISO date {a} as {t}, with {p} in front",
            "puts {p} before the ISO date {a} written as {t}",
            "formats the ISO date {a} as {t} after the text {p}",
            "formats the ISO date {a} as {t} with {p} in front",
        ),
        gives=(
            "the ISO date {a} written as {t}, with {p} in front",
            "the string {p} followed by the ISO date {a} as {t}",
            "{p} and then the ISO date {a} in the form {t}",
            "{p} plus the ISO date {a} written as {t}",
        ),
        body=("from datetime import date\nreturn {p} + date.fromisoformat({a}).strftime({t})"),
    ),
    Family(
        name="date_part",
        level="easy",
        args=(DATE,),
        options={
            "p": PARTS,
            "o": (
                piece("+", "plus"),
                piece("-", "minus"),
                piece("*", "times"),
                piece("%", "modulo"),
            ),
            "k": tuple(range(2, 21)),
        },
        names=("date_part", "part_of_date", "read_date", "get_part", "from_date"),
        does=(
            "takes the {p} of the ISO date {a} as an integer, {o} {k}",
            "reads the {p} in the ISO date {a} and gives that number {o} {k}",
            "cuts the {p} out of the ISO date {a} and computes it {o} {k}",
            "gives the {p} of the ISO date {a} as a number, {o} {k}",
        ),
        gives=(
            "the {p} of the ISO date {a} as an integer, {o} {k}",
            "the number of the {p} in the ISO date {a}, {o} {k}",
            "as an integer the {p} from the ISO date {a} {o} {k}",
            "the {p} in the ISO date {a} {o} {k}",
        ),
        body="return int({a}{p}) {o} {k}",
    ),
    Family(
        name="date_filter",
        level="medium",
        args=(DATES,),
        options={"c": DATE_TEST},
        names=("filter_dates", "keep_dates", "select_dates", "pick_dates", "dates_where"),
        does=(
            "keeps the ISO dates in {a} that are {c}",
            "filters the ISO dates {a}, keeping those {c}",
            "drops all of the ISO dates {a} except those {c}",
            "selects the ISO dates of {a} that are {c}",
        ),
        gives=(
            "the ISO dates in {a} that are {c}",
            "a list of the ISO dates of {a} {c}",
            "those of the ISO dates {a} which are {c}",
            "all ISO dates in {a} that are {c}",
        ),
        body="return [w for w in {a} if {c}]",
    ),
    Family(
        name="date_weekday",
        level="medium",
        args=(DATE,),
        options={
            "k": tuple(piece(str(i), day) for i, day in enumerate(DAYS)),
            "p": ("yes", "free", "busy", "open", "run", "on", "go"),
            "q": ("no", "work", "rest", "closed", "stop", "off", "wait"),
        },
        names=("weekday_label", "day_label", "plan", "is_it", "opening"),
        does=(
            "gives {p} if the ISO date {a} is a {k}, else {q}",
            "checks if the ISO date {a} falls on a {k}: {p} if so, {q} if not",
            "labels the ISO date {a}: {p} on a {k}, {q} on other days",
            "gives {p} when the ISO date {a} falls on a {k}, else {q}",
        ),
        gives=(
            "{p} if the ISO date {a} is a {k}, else {q}",
            "{p} when the ISO date {a} falls on a {k} and {q} otherwise",
            "{q}, unless the ISO date {a} is a {k}: then {p}",
            "{p} if the ISO date {a} falls on a {k} and {q} otherwise",
        ),
        body=(
            "from datetime import date\n"
            "return {p} if date.fromisoformat({a}).weekday() == {k} else {q}"
        ),
    ),
    Family(
        name="time_to_minutes",
        level="easy",
        args=(CLOCK,),
        options={
            "o": (piece("+", "plus"), piece("-", "minus")),
            "k": tuple(range(5, 65, 5)),
            "m": (
                piece("{h} * 60 + {i}", "minutes since midnight"),
                piece("{h} + {i}", "hours plus minutes"),
                piece("{h} * {i}", "hours times minutes"),
                piece("{i} - {h}", "minutes minus hours"),
            ),
            "h": (piece("int({a}[:2])", "hours"),),
            "i": (piece("int({a}[3:])", "minutes"),),
        },
        names=("to_minutes", "clock_value", "read_clock", "time_value", "clock_number"),
        does=(
            "computes the {m} of the clock time {a} (HH:MM), {o} {k}",
            "reads {a} in the form HH:MM and gives the {m}, {o} {k}",
            "turns the time {a}, written HH:MM, into the {m} {o} {k}",
            "gives the {m} of the time {a} in the form HH:MM, {o} {k}",
        ),
        gives=(
            "the {m} of the clock time {a} (HH:MM), {o} {k}",
            "for {a} in the form HH:MM the {m}, {o} {k}",
            "the {m} at the time {a}, written HH:MM, {o} {k}",
            "the {m} of {a}, a time in the form HH:MM, {o} {k}",
        ),
        body="return {m} {o} {k}",
    ),
    Family(
        name="time_filter",
        level="medium",
        args=(CLOCKS,),
        options={
            "r": (piece(">", "after"), piece("<", "before"), piece(">=", "not before")),
            "t": tuple(
                piece(repr(f"{h:02d}:{m:02d}"), f"{h:02d}:{m:02d}")
                for h in range(6, 21)
                for m in (0, 15, 30)
            ),
            "o": ORDER,
        },
        names=("filter_times", "times_where", "select_times", "keep_times", "pick_times"),
        does=(
            "keeps the clock times in {a} that are {r} {t}, sorted {o}",
            "filters the HH:MM strings in {a}, keeping those {r} {t}, sorted {o}",
            "sorts in {o} order only the times of {a} that are {r} {t}",
        ),
        gives=(
            "the clock times in {a} that are {r} {t}, sorted {o}",
            "a list of the HH:MM strings of {a} {r} {t}, in {o} order",
            "those times of {a} which are {r} {t}, {o}",
        ),
        body="return sorted([w for w in {a} if w {r} {t}]{o})",
        unseen=True,
    ),
    Family(
        name="date_sort",
        level="medium",
        args=(DATES,),
        options={
            "k": (
                piece("w[8:]", "day of the month"),
                piece("w[5:]", "month and day"),
                piece("w[5:7]", "month"),
                piece("w[:4]", "year"),
            ),
            "o": ORDER,
            "m": (piece("w", "dates"), *(piece(f"w{p.code}", f"{p.words[0]}s") for p in PARTS)),
        },
        names=("sort_dates", "order_dates", "dates_by", "arrange_dates", "rank_dates"),
        does=(
            "sorts the ISO dates in {a} by {k}, {o}, and lists the {m} as strings",
            "puts the ISO dates of {a} in {o} order of {k} and lists the {m}",
            "lists the {m}, as strings, of the ISO dates {a} ordered by {k}, {o}",
        ),
        gives=(
            "the {m} of the ISO dates in {a} sorted by {k}, {o}, as strings",
            "a list of the {m} from the ISO dates {a} in {o} order of {k}",
            "the {m} in the ISO dates {a}, as strings, ordered by {k}, {o}",
        ),
        body="return [{m} for w in sorted({a}, key=lambda w: {k}{o})]",
        unseen=True,
    ),
)
