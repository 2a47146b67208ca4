"""What every text metric sees: cleaned text, code tokens, normalised reference lists.

The code tokeniser is CoNaLa's official one (Yin et al., MSR 2018, published with the corpus): space
around every character outside `[A-Za-z0-9_]`, split at `[a-z][A-Z]`, white space collapsed, both
quote characters written as a backtick, split on the space. No lower-casing.

This file knows nothing of any metric.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from modern_rlhf.errors import MetricError

CHARACTER_LIMIT = 32_768
"""Texts are cut here before any metric sees them; how many were is told in the report."""

_CAMEL = re.compile(r"([a-z])([A-Z])")
_PIECE = re.compile(r"[A-Za-z0-9_]+|[^A-Za-z0-9_\s]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def clean_text(text: str) -> str:
    """Cut at `CHARACTER_LIMIT`, lone surrogates to U+FFFD, CRLF and CR to LF; nothing else changes.

    Lone surrogates cannot be encoded, which parsers and tokenizers of models need.
    """
    text = text[:CHARACTER_LIMIT]
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def code_tokens(text: str) -> list[str]:
    """The code tokens of `text`, by CoNaLa's rules; an empty list for blank text.

    The five published steps are done in two: splitting camel case first and then picking out word
    runs and single other characters gives the same list, at a third of the cost.
    """
    split = _CAMEL.sub(r"\1 \2", text)
    return _PIECE.findall(split.replace('"', "`").replace("'", "`"))


def reference_lists(references: Sequence[str | Sequence[str] | None]) -> list[list[str]]:
    """One list of cleaned, non-blank references an item; an empty list where there is none.

    Raises:
        MetricError: an item is neither a text, a sequence of texts, nor None.
    """
    lists: list[list[str]] = []
    for position, item in enumerate(references):
        texts = [item] if isinstance(item, str) else list(item or ())
        if not all(isinstance(text, str) for text in texts):
            raise MetricError(
                f"references[{position}] holds {item!r:.80}; expected a text or a list of texts"
            )
        lists.append([clean_text(text) for text in texts if text.strip()])
    return lists
