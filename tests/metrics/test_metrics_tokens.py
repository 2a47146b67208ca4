"""The code tokeniser and the cleaning of texts."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modern_rlhf.errors import MetricError
from modern_rlhf.metrics.texts import CHARACTER_LIMIT, clean_text, code_tokens, reference_lists


def naive_tokens(text: str) -> list[str]:
    """The five published steps, one after another."""
    text = re.sub(r"([^A-Za-z0-9_])", r" \1 ", text)
    text = re.sub(r"([a-z])([A-Z])", r"\1 \2", text)
    text = re.sub(r"\s+", " ", text)
    text = text.replace('"', "`").replace("'", "`")
    return [token for token in text.split(" ") if token]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("df.groupby('colA').sum()", "df . groupby ( ` col A ` ) . sum ( )"),
        ("getHTTPResponse(a_b)", "get HTTPResponse ( a_b )"),
        ('x = "a"', "x = ` a `"),
        ("", ""),
        (" \t\n ", ""),
    ],
)
def test_published_examples(text: str, expected: str) -> None:
    assert " ".join(code_tokens(text)) == expected


@given(st.text() | st.text(alphabet="aAbB0_.' \"\t\n\x00\u00a0\u00e9", max_size=40))
def test_equals_the_five_published_steps(text: str) -> None:
    assert code_tokens(text) == naive_tokens(text)


def test_cleaning_makes_any_text_encodable_and_bounded() -> None:
    dirty = "a\ud800b\r\nc\rd" + "x" * (2 * CHARACTER_LIMIT)
    cleaned = clean_text(dirty)
    assert cleaned.startswith("a\ufffdb\nc\nd")
    cleaned.encode("utf-8")
    # The cut comes first, so line ends that shrink can only shorten the text.
    assert len(cleaned) <= CHARACTER_LIMIT


def test_reference_lists_accepts_text_list_and_none() -> None:
    assert reference_lists(["a", ["b", "c"], None, "", ["", "d"]]) == [
        ["a"],
        ["b", "c"],
        [],
        [],
        ["d"],
    ]


def test_reference_of_wrong_type_is_named() -> None:
    with pytest.raises(MetricError, match=r"references\[1\]"):
        reference_lists(["a", [3]])  # type: ignore[list-item]
